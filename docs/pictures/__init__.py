"""The README's pictures, made by `make pictures`."""
