"""Ask the outside world one question each; decide nothing."""
