"""Baselines: other samplers, schedules and caches on the same network, prompts and seeds."""
