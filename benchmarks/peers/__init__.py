"""One module for each entrant that is a Python program; each is run as a process of its own."""
