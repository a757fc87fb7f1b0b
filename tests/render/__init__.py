"""Tests of what renders tables, plots and figures."""
