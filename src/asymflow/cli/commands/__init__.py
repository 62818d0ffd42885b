"""Declarations of commands, by subject; implementations are imported when a command runs."""
