"""The folders that the system has for files of a program; they need not exist yet."""

import os
from pathlib import Path

import platformdirs


def cache() -> Path:
    """For what can be made or fetched again: downloads, features, plans of a user's models."""
    return platformdirs.user_cache_path("asymflow", appauthor=False, opinion=False)


def studio() -> Path:
    """For the studio's database, pictures and uploads.

    Version 0.1 used the folder of Linux on macOS and Windows too. Where that exists and the
    system's own does not, it stays in use, so that no pictures seem to be lost.
    """
    folder = platformdirs.user_data_path("asymflow", appauthor=False) / "studio"
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    earlier = Path(base) / "asymflow" / "studio"
    return earlier if earlier.exists() and not folder.exists() else folder


def settings() -> Path:
    """For what a user edits, such as styles."""
    return platformdirs.user_config_path("asymflow", appauthor=False)
