"""The history told as a whole: lists for people and for programs, a plot for a terminal."""
