"""Openly licensed emoji art as a captioned dataset: build it, then sample from it.

::

    from asymflow.data import Dataset, build

    build(Path("emoji"), progress=True)
    batch = Dataset("emoji").sample(np.random.default_rng(0), n=256, size=64)

Names are loaded when first used, so that importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asymflow.data.builder import BuildReport as BuildReport
    from asymflow.data.builder import build as build
    from asymflow.data.captions import caption as caption
    from asymflow.data.dataset import Batch as Batch
    from asymflow.data.dataset import Dataset as Dataset
    from asymflow.data.emoji import spell as spell
    from asymflow.data.manifest import Entry as Entry
    from asymflow.data.scenes import canvas_sizes as canvas_sizes
    from asymflow.data.sources import STYLES as STYLES
    from asymflow.data.sources import Style as Style

_HOME = {
    "STYLES": "sources",
    "Batch": "dataset",
    "BuildReport": "builder",
    "Dataset": "dataset",
    "Entry": "manifest",
    "Style": "sources",
    "build": "builder",
    "canvas_sizes": "scenes",
    "caption": "captions",
    "spell": "emoji",
}

__all__ = [
    "STYLES",
    "Batch",
    "BuildReport",
    "Dataset",
    "Entry",
    "Style",
    "build",
    "canvas_sizes",
    "caption",
    "spell",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
