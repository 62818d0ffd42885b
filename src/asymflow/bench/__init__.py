"""Measure pictures and speed: features, distances with their uncertainty, the quality suite."""
