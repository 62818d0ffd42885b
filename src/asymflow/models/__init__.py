"""Pixel-space models as adapters: one module or folder for each family."""
