"""What outlives a run: the memory of servers and the history, in one SQLite file."""
