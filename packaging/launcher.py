"""The program `ntpaudit` as it is installed; its first line, and where its packages are, come with the installation."""

import sys

sys.path.insert(0, "/opt/ntpaudit/lib")

from ntpaudit.__main__ import main

main()
