"""Measuring what every step is worth, searching for plans, proving and keeping them."""
