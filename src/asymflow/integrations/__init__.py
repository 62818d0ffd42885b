"""asymflow inside of other programs."""
