"""Profiles of steps, the search for plans, their verification, and plan files."""
