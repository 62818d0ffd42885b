"""Weights and reference drawings of the embedded model of asymflow."""
