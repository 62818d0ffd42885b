"""The mathematics of a trajectory, and running it: nothing here knows a model or a file."""
