"""Adapters of pixel-space models: one module or folder for each family."""
