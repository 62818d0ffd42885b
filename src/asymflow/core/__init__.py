"""Sampling mathematics and the engine that runs plans; independent of models and files."""
