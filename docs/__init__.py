"""The documentation. What a rule knows of its finding is written into the pages from the rule: `make docs`."""
