"""A simulated world over real UDP on loopback, to see ntpaudit work without a network."""
