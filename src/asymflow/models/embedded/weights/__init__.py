"""Data files of the embedded model."""
