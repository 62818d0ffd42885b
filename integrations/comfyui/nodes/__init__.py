"""The nodes, and what they share."""
