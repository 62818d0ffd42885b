"""Loads models by name: the one shipped with asymflow, and those of other packages.

A package offers a model as an entry point of the group "asymflow.adapters", a function that returns
an `asymflow.core.adapter.Adapter`:

    [project.entry-points."asymflow.adapters"]
    mine = "my_package:load"

and `asymflow.load("mine", device="cuda")` calls it.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, overload

import torch

from asymflow.core.adapter import Adapter
from asymflow.core.errors import AsymflowError, InputError
from asymflow.models.embedded import adapter as embedded

GROUP = "asymflow.adapters"


@overload
def load(
    model: Path | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> embedded.EmbeddedAdapter: ...


@overload
def load(model: str, **options: Any) -> Adapter: ...


def load(model: Path | str | None = None, **options: Any) -> Adapter:
    """Load a model for inference.

    Args:
        model: a model file of the embedded kind, by default the one shipped with asymflow; or
            the name of a model that an installed package offers. Text with a suffix or a folder in
            it is a file.
        options: `device` and `dtype`, or the options of that package.

    Raises:
        FileFormatError: the file is missing, damaged or holds another kind of model.
        InputError: no package offers that name, or what it returns is not an adapter.
    """
    if not isinstance(model, str) or Path(model).suffix or len(Path(model).parts) != 1:
        return embedded.load(model, **options)
    found = _offer(model)
    where = f"Adapter {model!r} of {found.value}"
    try:
        made: object = found.load()(**options)
    except AsymflowError:
        raise
    except (ImportError, AttributeError, TypeError) as error:
        raise InputError(
            f"{where} cannot be loaded: {error}. Install what it needs, or check its options."
        ) from error
    if not isinstance(made, Adapter):
        raise InputError(
            f"{where} returned a {type(made).__name__}, which is no asymflow.core.adapter.Adapter. "
            "Report it to its authors."
        )
    return made


def offered() -> tuple[EntryPoint, ...]:
    """What installed packages offer."""
    return tuple(sorted(entry_points(group=GROUP), key=lambda each: each.name))


def _offer(name: str) -> EntryPoint:
    every = offered()
    found = [each for each in every if each.name == name]
    if not found:
        names = ", ".join(dict.fromkeys(each.name for each in every)) or "none"
        raise InputError(
            f"No installed package offers a model called {name!r}; offered: {names}. Install one "
            "that does, or pass the path of a model file: load(Path(...))."
        )
    if len({each.value for each in found}) > 1:
        raise InputError(
            f"Several packages offer a model called {name!r}: "
            f"{', '.join(each.value for each in found)}. Uninstall all but one."
        )
    return found[0]
