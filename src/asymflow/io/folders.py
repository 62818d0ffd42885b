"""The folders that the system gives a program for its files, made by nobody until they are used."""

from pathlib import Path

import platformdirs


def cache() -> Path:
    """What can be made or fetched anew: downloads, features, plans of a user's models."""
    return platformdirs.user_cache_path("asymflow", appauthor=False, opinion=False)


def studio() -> Path:
    """Pictures, uploads and the database of the studio.

    Version 0.1 used `~/.local/share` on macOS and Windows too. Where that folder exists and the
    system's own does not, it stays in use, so that nobody's pictures seem to be gone.
    """
    folder = platformdirs.user_data_path("asymflow", appauthor=False) / "studio"
    earlier = Path.home() / ".local" / "share" / "asymflow" / "studio"
    return earlier if earlier.exists() and not folder.exists() else folder
