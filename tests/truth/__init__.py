"""`make truth`: how often ntpaudit's statements hold, measured in simulated worlds whose true time is known.

The worlds share no code with `ntpaudit/core` but its inputs: a world makes the readings of clocks, the replies of
servers and the state of the kernel, and the real agent judges them.
"""
