"""Tables, plots, figures, and text that is safe to print."""
