"""The command line: `asymflow --help`."""
