"""What learned samplers share that run here by their authors' code: their modules, and our model.

A model is shown to them as an EDM network, which is asked with x_0 + sigma eps. A state of the
model's own, (1 - t) x_0 + t eps, is the same divided by 1 - t, at sigma = t / (1 - t).
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from asymflow.core.compiler import noise
from asymflow.core.errors import InputError
from asymflow.core.types import Request
from benchmarks.suites.fashion.asking import asked
from benchmarks.suites.fashion.campaign import CHOSEN, Table


@dataclass(frozen=True, slots=True)
class Code:
    """A repository of others, as it is checked out.

    Attributes:
        name: owner and name.
        file: that is in every checkout of it.
        unused: modules that its files import, for what is not used here.
        needed: packages that it takes from elsewhere, as they are installed.
    """

    name: str
    file: str
    unused: tuple[str, ...]
    needed: tuple[str, ...] = ()

    def check(self, path: Path) -> None:
        """Whether it can run.

        Raises:
            InputError: the path is no checkout, or a package is missing.
        """
        if not (path / self.file).is_file():
            raise InputError(
                f"{path} is no checkout of {self.name}: it has no {self.file}. "
                f"Clone github.com/{self.name}, and give its folder."
            )
        missing = [
            name for name in self.needed if importlib.util.find_spec(name.replace("-", "_")) is None
        ]
        if missing:
            raise InputError(f"{self.name} needs {missing[0]}: pip install {' '.join(missing)}")

    def commit(self, path: Path) -> str:
        """Its name and the commit of a checkout."""
        done = subprocess.run(
            ["git", "-C", str(path), "rev-parse", "HEAD"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return f"{self.name}@{done.stdout.strip()}"

    @contextmanager
    def imported(self, path: Path) -> Generator[None]:
        """Its modules can be imported, with stand-ins for those that are unused, on the CPU."""
        stand_ins = {name: mock.MagicMock() for name in self.unused}
        folder = str(path.resolve())
        sys.path.insert(0, folder)
        try:
            with (
                mock.patch.dict(sys.modules, stand_ins),
                mock.patch.object(Tensor, "cuda", same),
            ):
                yield
        finally:
            sys.path.remove(folder)


def same(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True, slots=True)
class Lesson:
    """Requests, and what they start and should end with: tensors of [b, c, h, w], labels of [b]."""

    noise: Tensor
    label: Tensor
    limit: Tensor

    @classmethod
    def of(cls, table: Table, wanted: Sequence[Request], halves: int) -> Lesson:
        size = (table.model.channels, *table.model.card.sizes.native)
        return cls(
            torch.stack([noise(each.seed, size) for each in wanted]),
            torch.tensor([each.inputs["label"] for each in wanted]),
            table.drawn(table.limit(halves), wanted).clone(),
        )

    @classmethod
    def learned(cls, table: Table, count: int, halves: int) -> Lesson:
        """Pictures to learn from, which are none of the fresh ones."""
        return cls.of(table, asked(table.model, 1.0, CHOSEN, count), halves)


def denoised(table: Table, x: Tensor, sigma: Tensor, label: Tensor) -> Tensor:
    """x_0 that the model sees in x_0 + sigma eps.

    Args:
        table: of the model.
        x: states [b, c, h, w].
        sigma: of each of them [b], or of all.
        label: their classes [b].
    """
    t = (sigma / (1 + sigma)).float().expand(len(x))
    noisy = x.float() * (1 - t.view(-1, 1, 1, 1))
    context = {"label": label, "outside": label}  # without guidance, the same
    return table.model.denoise(noisy, t, context)
