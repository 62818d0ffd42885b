"""Bulk jobs: a manifest of rows becomes as many pictures, once each."""
