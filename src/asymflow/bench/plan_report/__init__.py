"""Reports on a plan: cost of its steps, timeline, and poster."""
