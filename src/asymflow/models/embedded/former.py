"""Weights of the embedded model that came with asymflow before: what pictures and plans may need.

The files are in the history of the repository only.
"""

from __future__ import annotations

from asymflow.core.binding import SHORTEST_HASH

_FIRST = "src/asymflow/weights/embedded.safetensors"
_SECOND = "src/asymflow/models/embedded/weights/embedded.safetensors"
_PLACES = {
    "288b709bea9972c2078fe40d05465a465cc43ae80dccc4931150fe1e7d5e6729": f"157790d:{_FIRST}",
    "350127695dc7f7491bcd13c000ba13517716b85c8decf9e993e1aa7596ad764d": f"58480ae:{_FIRST}",
    "12fd6e59820eec30839ae2d716b7ceb02efcf8d935658c05c5c6649f72c3d418": f"2f4d734:{_FIRST}",
    "e11a8aadabb0308afecd49022b89c4ee64e10754f47b6638a6d0ff1151a3ab5f": f"624cd02:{_FIRST}",
    "01cc14d7bc3d69825544106e477a3ccd42237a86ede6e4fcec5c6b59ccd260bb": f"d4ccc36:{_SECOND}",
}
"""Commits and paths in them, by the SHA-256 of the file."""


def recovery(weights: str) -> str | None:
    """How to get former weights, by their hash or its beginning; None for others."""
    for digest, place in _PLACES.items():
        if len(weights) >= SHORTEST_HASH and digest.startswith(weights):
            target = f"embedded-{digest[:8]}.safetensors"
            return (
                f"These came with asymflow before. In a clone of its repository, "
                f"`git show {place} > {target}` writes them; then pass --model {target}."
            )
    return None
