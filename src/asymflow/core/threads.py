"""How long PyTorch's threads spin while they wait for each other on a CPU.

On a busy machine spinning threads take time from one another: beside other programs on the same
cores a picture may take several times as long. The limit is read once, when torch is loaded, so it
is set when asymflow is imported.
"""

from __future__ import annotations

from collections.abc import Container, MutableMapping

SPIN_COUNT = "5000"
"""Rounds of a waiting thread before it sleeps; fewer are slower on an idle machine."""


def limit_spinning(environment: MutableMapping[str, str], loaded: Container[str]) -> None:
    """Set the limit for GNU OpenMP, unless the user has set how threads wait.

    Args:
        environment: of this process.
        loaded: names of loaded modules; once torch is among them, nothing is set.
    """
    user = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    if "torch" not in loaded and not any(name in environment for name in user):
        environment["GOMP_SPINCOUNT"] = SPIN_COUNT
