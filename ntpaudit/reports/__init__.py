"""Reports: status, history and fleet, for people and for programs."""
