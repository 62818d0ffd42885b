"""Train the networks of Fashion-MNIST, each on one core within two hours; can be interrupted.

    OMP_NUM_THREADS=1 python -m benchmarks fashion train unet
    OMP_NUM_THREADS=1 python -m benchmarks fashion train jit

write into benchmarks/models. A run goes on from its last checkpoint in runs/fashion, bit for bit,
and leaves weights that can be looked at there while it runs: moving averages, as at the end.
Everything follows from a seed, up to the rounding of a machine and of a version of torch.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from asymflow.core import devices
from asymflow.io.files import replacing
from benchmarks import results
from benchmarks.suites.fashion import data
from benchmarks.suites.fashion.networks import NETWORKS, NULL, write

MODELS = results.ROOT / "benchmarks/models"
RUNS = Path("runs/fashion")
DROP = 0.1
"""Share of pictures whose class is dropped."""
AVERAGE = 0.9995
"""Decay of the moving average of the weights per step."""
WARMUP = 200
DECAY = 0.4
"""Final share of the run in which the rate falls linearly to zero."""
KEEP_SECONDS = 180


@dataclass
class Run:
    """A training run: everything that its next step depends on, and what it has shown."""

    network: nn.Module
    average: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list[float])

    @classmethod
    def begin(cls, network: nn.Module, rate: float) -> Run:
        average = copy.deepcopy(network).requires_grad_(False)
        return cls(network, average, torch.optim.AdamW(network.parameters(), rate, fused=True))

    def save(self, path: Path) -> None:
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "rest": (self.step, self.seconds, self.losses),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            torch.save(state, file)

    def resume(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        self.step, self.seconds, self.losses = state["rest"]

    def advance(self, loss: Tensor, rate: float) -> None:
        """Take one step down a loss, and let the average follow."""
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        decay = min(AVERAGE, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, now in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(now, 1 - decay)
        self.losses.append(loss.item())
        self.step += 1


def rate_at(step: int, steps: int) -> float:
    """Factor on the rate: warm-up, constant, linear decay to zero."""
    return min(1.0, (step + 1) / WARMUP, (1 - step / steps) / DECAY)


def train(
    run: Run, name: str, steps: int, learnt: tuple[Tensor, Tensor], keep: Callable[[], None]
) -> None:
    """Take a run to its end.

    Args:
        name: of the network.
        learnt: pictures [n, 1, h, w] in [0, 255], and their classes [n].
        keep: called now and then, and at the end.
    """
    network = NETWORKS[name]
    fast = devices.fast_dtype(torch.device("cpu")) == torch.bfloat16
    began, kept = time.monotonic() - run.seconds, time.monotonic()
    while run.step < steps:
        x_0, labels = _drawn(*learnt, network.batch)
        with torch.autocast("cpu", torch.bfloat16, enabled=fast and network.bfloat16):
            loss = network.loss(run.network, x_0, labels)
        run.advance(loss, network.rate * rate_at(run.step, steps))
        run.seconds = time.monotonic() - began
        if run.step % 100 == 0:
            left = run.seconds / run.step * (steps - run.step) / 60
            recent = float(np.mean(run.losses[-100:]))
            print(f"{run.step} of {steps}: loss {recent:.4f}, {left:.0f} min left", flush=True)
        if time.monotonic() - kept > KEEP_SECONDS:
            kept = time.monotonic()
            keep()
    keep()


def _drawn(pictures: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Pictures x_0 [b, 1, h, w] in [-1, 1] and what the network is told of their classes [b]."""
    rows = torch.randint(len(pictures), (count,))
    told = torch.where(torch.rand(count) < DROP, NULL, labels[rows])
    return pictures[rows].float() / 127.5 - 1, told


QUICK = {"steps": 4, "models": results.QUICK, "runs": results.QUICK}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", choices=tuple(NETWORKS))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--data", type=Path, metavar="DIR", default=data.FOLDER)
    parser.add_argument("--models", type=Path, metavar="DIR", default=MODELS)
    parser.add_argument("--runs", type=Path, metavar="DIR", default=RUNS)
    parser.add_argument("--out", type=Path, metavar="DIR", default=results.TRAINED)


def run(given: argparse.Namespace) -> dict[str, Any]:
    name: str = given.network
    network = NETWORKS[name]
    steps = given.steps or network.steps
    torch.manual_seed(0)
    running = Run.begin(network.make(), network.rate)
    checkpoint = given.runs / f"{name}.pt"
    if checkpoint.is_file():
        running.resume(checkpoint)
        print(f"goes on at step {running.step}")
    pixels, numbers = data.pictures("networks", given.data)

    def keep() -> None:
        running.save(checkpoint)
        write(copy.deepcopy(running.average), name, given.runs)

    learnt = torch.from_numpy(pixels).unsqueeze(1), torch.from_numpy(numbers)
    train(running, name, steps, learnt, keep)
    path = write(running.average, name, given.models)
    print(f"written to {path}")
    parts = np.array_split(np.array(running.losses), min(steps, 100))
    report = {
        "network": name,
        "parameters": sum(each.numel() for each in running.network.parameters()),
        "steps": steps,
        "batch": network.batch,
        "seconds_of_training": round(running.seconds),
        "loss": [round(float(part.mean()), 5) for part in parts],
    }
    return results.save(given.out / f"fashion-{name}.json", report, device="cpu")
