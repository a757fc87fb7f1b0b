"""What an evidence report contains about the clocks of hosts in a period (EV1); pure, as all of the core."""
