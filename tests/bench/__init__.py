"""Measured claims: every figure of docs/benchmarks.md comes from one run of this."""
