"""Run the command line as `python -m ntpaudit`."""

from ntpaudit.cli import main

if __name__ == "__main__":
    main()
