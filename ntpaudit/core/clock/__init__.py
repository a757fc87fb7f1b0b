"""The host's clock: its readings, intervals of its offset, steps, drift, and the database's clock as a witness."""
