"""NTP itself: timestamps, packets, one exchange measured, how servers are written, how often each may be queried."""
