"""Pure conclusions: values in, values out; time arrives as an argument."""
