"""Files, pictures and JSON."""
