"""The program `ntpaudit` as it is installed; its first line, and where its packages are, come with the installation."""

import sys

sys.path.insert(0, "/opt/ntpaudit/lib")

from ntpaudit.__main__ import main

if __name__ == "__main__":  # `demo` spawns processes, each of which imports this file again
    main()
