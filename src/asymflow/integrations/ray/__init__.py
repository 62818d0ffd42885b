"""asymflow on a cluster of Ray, which this package itself does not import.

- `PictureBatch`: a class for `Dataset.map_batches` of Ray Data, or for any program with columns.
- `actors`: the workers of `asymflow batch --ray`.
- `serve`: the HTTP API as an application of Ray Serve, and `proxy`: what its proxies do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asymflow.integrations.ray.batches import PictureBatch

__all__ = ["PictureBatch"]


def __getattr__(name: str) -> object:
    # When it is first used: proxies of Serve have no use for torch.
    if name == "PictureBatch":
        from asymflow.integrations.ray.batches import PictureBatch

        return PictureBatch
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
