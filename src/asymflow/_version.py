"""The version, for everybody below the package root."""

__version__ = "0.1.0"
