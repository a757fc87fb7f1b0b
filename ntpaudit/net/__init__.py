"""HTTP with limits and deadlines."""
