"""A plan as pictures: where its cost goes, its states over time, and both on one sheet."""
