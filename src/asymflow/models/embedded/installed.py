"""The large files of the embedded model, wherever they are installed.

A clone and what is installed from it have them beside the code. A wheel of the code alone has not:
there they are the distribution `asymflow-embedded`.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from asymflow.core.errors import InputError

WEIGHTS = "embedded.safetensors"
LIBRARY = "library.zip"
ANNOTATIONS = "annotations.zip"
DISTRIBUTION = "asymflow-embedded"
_HOMES = ("asymflow.models.embedded.weights", "asymflow_embedded")


def find(name: str) -> Path | None:
    """Where `WEIGHTS`, `LIBRARY` or `ANNOTATIONS` is; None if it is not installed."""
    for home in _HOMES:
        try:
            found = Path(str(resources.files(home).joinpath(name)))
        except ModuleNotFoundError:
            continue
        if found.is_file():
            return found
    return None


def path_of(name: str) -> Path:
    """Where `WEIGHTS`, `LIBRARY` or `ANNOTATIONS` is.

    Raises:
        InputError: it is not installed.
    """
    found = find(name)
    if found is None:
        raise InputError(
            f"The embedded model is not installed: there is no {name}. Install the wheel of "
            f"{DISTRIBUTION} that belongs to this version of asymflow, or name another model."
        )
    return found
