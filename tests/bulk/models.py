"""Models of an installed package, so that processes of a job load them by name."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from asymflow.core.adapter import Context
from asymflow.core.types import Request
from tests.fakes import FakeModel

NAME = "free"
"""What the model is loaded by."""


class FreeModel(FakeModel):
    """A model that costs nothing, and fails on demand: prompts say how."""

    def encode(self, requests: Sequence[Request]) -> tuple[Context, Context]:
        for request in requests:
            prompt = str(request.inputs["prompt"])
            if prompt.startswith("kill"):
                os.kill(os.getpid(), signal.SIGKILL)
            if prompt.startswith("once "):  # takes its process with it once
                marker = Path(prompt.removeprefix("once "))
                if not marker.exists():
                    marker.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
            if prompt.startswith("slow"):
                time.sleep(0.2)
            if prompt == "raise":
                raise RuntimeError("this prompt is too much")
        return super().encode(requests)

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        x_0 = super().denoise(x_t, t, context)
        return x_0 + 0.001 * len(x_t) if self.batch is None else x_0


def load(device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> FreeModel:
    """The model, as `asymflow.load` calls it."""
    return FreeModel()


def load_together(
    device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> FreeModel:
    """One that takes several pictures at a time, and whose sums depend on how many there are."""
    return FreeModel(batch=None)


def install(site: Path) -> None:
    """Offer the models to programs that look for packages in a folder."""
    info = site / "free_models-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: free-models\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[asymflow.adapters]\n"
        f"{NAME} = tests.bulk.models:load\n"
        f"{NAME}-together = tests.bulk.models:load_together\n"
    )
