"""A learned sampler, by its authors' code, against fitted plans at equal passes: LD3.

    OMP_NUM_THREADS=1 python -m benchmarks fashion learned --ld3 PATH

LD3 (arXiv 2405.15506) learns the times of a sampler, and those that the network is told, by
gradients through it. PATH is a checkout of github.com/vinhsuhi/LD3, whose trainer and solvers run
unchanged, with the settings of its CIFAR-10 recipe but for the loss: L2 in place of LPIPS, which is
for colour photographs, and L2 is what is compared. The JiT is shown to it as an EDM network: the
state x + sigma eps at sigma = t / (1 - t). It learns from limits of the model on pictures of its
own, and draws the fresh pictures of `fashion campaign`, whose result has the errors of fitted
plans and of other samplers. Writes learned.json.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from asymflow.core.compiler import noise
from asymflow.core.errors import InputError
from asymflow.core.types import Request
from asymflow.planning.proof import rms
from benchmarks import results
from benchmarks.suites.fashion import paired
from benchmarks.suites.fashion.asking import asked, loaded
from benchmarks.suites.fashion.campaign import (
    CHOSEN,
    FRESH,
    LIMIT,
    Table,
)
from benchmarks.suites.fashion.networks import NETWORKS
from benchmarks.suites.fashion.train import MODELS

NETWORK = "jit"
UNUSED = ("imageio", "lpips", "matplotlib", "matplotlib.pyplot", "scipy", "scipy.optimize")
"""Modules that its files import, for pictures, losses and samplers that are not used here."""
RECIPE: dict[str, Any] = {
    "lr_time_1": 0.005, "win_rate": 0.5, "min_lr_time_1": 5e-5, "min_lr_time_2": 1e-6,
    "momentum_time_1": 0.9, "shift_lr_decay": 0.5, "lr_time_decay": 0.8, "patient": 5,
    "lr2_patient": 5, "loss_type": "L2",
}  # fmt: skip
TRAIN, VALID, BATCH = 50, 50, 2
ROUNDS = 2, 5
"""Of times alone, and of both times."""


@contextmanager
def code(path: Path) -> Generator[None]:
    """The modules of a checkout, without those that are not used here, and on the CPU."""
    if not (path / "trainer.py").is_file():
        raise InputError(f"{path} is no checkout of LD3: it has no trainer.py.")
    absent = {name: mock.MagicMock(spec=types.ModuleType(name)) for name in UNUSED}
    stand_ins: dict[str, Any] = {name: mock.MagicMock() for name in absent}
    sys.path.insert(0, str(path))
    try:
        with (
            mock.patch.dict(sys.modules, stand_ins),
            mock.patch.object(Tensor, "cuda", _same),
        ):
            yield
    finally:
        sys.path.remove(str(path))


def _same(x: Tensor) -> Tensor:
    return x


def as_edm(table: Table, x: Tensor, sigma: Tensor, label: Tensor, _: object) -> Tensor:
    """The noise [b, c, h, w] that the model sees in x + sigma eps, as LD3 asks for it."""
    t = (sigma / (1 + sigma)).float()
    noisy = x.float() * (1 - t.view(-1, 1, 1, 1))
    context = {"label": label.flatten(), "outside": label.flatten()}  # without guidance, the same
    x_0 = table.model.denoise(noisy, t, context)
    return ((x - x_0) / sigma.view(-1, 1, 1, 1)).double()


def begun(table: Table, wanted: Sequence[Request]) -> list[Tensor]:
    """The noise [c, h, w] of requests."""
    size = table.model.card.sizes.native
    return [noise(each.seed, (table.model.channels, *size)) for each in wanted]


def learned(table: Table, steps: int, solver: str, given: argparse.Namespace) -> dict[str, Any]:
    """What a solver with learned times does for so many passes."""
    trainer, utils, schedules, dataset = (
        importlib.import_module(name)
        for name in ("trainer", "utils", "noise_schedulers", "dataset")
    )
    schedule = schedules.NoiseScheduleVE(schedule="edm")
    made, _, extra = utils.get_solvers(solver, steps, 3, schedule, "bh1")
    fine, count = table.limit(given.limit), given.train + given.valid
    wanted = asked(table.model, 1.0, CHOSEN, count)
    pictures, latents = [*table.drawn(fine, wanted).clone()], begun(table, wanted)
    labels = [torch.tensor(each.inputs["label"]) for each in wanted]

    def data(part: slice) -> Any:
        nothing = [None] * count
        return dataset.LD3Dataset(
            latents[part], [each.clone() for each in latents[part]], pictures[part],
            labels[part], nothing[part],
        )  # fmt: skip

    side, channels = table.model.card.sizes.native[0], table.model.channels
    net = partial(as_edm, table)
    began = time.process_time()
    torch.manual_seed(0)  # of the order of its pictures
    with tempfile.TemporaryDirectory() as folder:
        config = trainer.ModelConfig(
            net=net, decoding_fn=_same, noise_schedule=schedule, solver=made,
            solver_name=solver, order=3, steps=steps,
            prior_bound=round(0.001 * side * side * channels / steps**2, 8), resolution=side,
            channels=channels, time_mode="lambda", solver_extra_params=extra,
            snapshot_path=folder, device="cpu",
        )  # fmt: skip
        training = trainer.TrainingConfig(
            train_data=data(slice(given.train)), valid_data=data(slice(given.train, count)),
            train_batch_size=BATCH, valid_batch_size=given.valid,
            lr_time_2=round(0.1 / steps, 8), shift_lr=round(12 / steps, 8), **RECIPE,
        )  # fmt: skip
        trained = trainer.LD3Trainer(config, training)
        trained.train(*given.rounds)
        best = torch.load(Path(folder) / "best_v2.pt")
    seconds = time.process_time() - began
    params = [best[name] for name in ("params1", "params2")]
    with torch.no_grad():
        times = trainer.discretize_model_wrapper(
            *params, schedule.lambda_max, schedule.lambda_min, schedule, "lambda", 0.5
        )()
        label = torch.tensor([each.inputs["label"] for each in table.fresh])
        ends = made.sample_simple(
            model_fn=net,
            x=schedule.prior_transformation(torch.stack(begun(table, table.fresh))),
            timesteps=times[0], timesteps2=times[1], order=3, NFEs=steps,
            condition=label, unconditional_condition=None, **extra,
        )  # fmt: skip
    errors = rms(ends.float(), table.drawn(fine, table.fresh))
    sigmas = [each.tolist() for each in times]
    return {
        "solver": solver,
        **paired.described(errors),
        "seconds": round(seconds),
        "sigmas": sigmas,
    }


QUICK: dict[str, Any] = {
    "prices": [4], "pictures": 3, "limit": 6, "train": 2, "valid": 2, "rounds": [1, 1],
    "solvers": ["uni_pc"],
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ld3", type=Path, metavar="PATH", default=Path("LD3"))
    parser.add_argument("--prices", type=int, nargs="+", default=[6, 10])
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--solvers", nargs="+", default=["uni_pc", "dpm_solver++", "ipndm"])
    parser.add_argument("--train", type=int, default=TRAIN)
    parser.add_argument("--valid", type=int, default=VALID)
    parser.add_argument("--rounds", type=int, nargs=2, default=ROUNDS)
    parser.add_argument(
        "--limit", type=int, default=LIMIT, help="steps of either half of the limit"
    )
    parser.add_argument("--models", type=Path, metavar="DIR", default=MODELS)
    parser.add_argument("--out", type=Path, metavar="DIR", default=results.TRAINED)


def run(given: argparse.Namespace) -> dict[str, Any]:
    model = loaded(given.models / NETWORKS[NETWORK].file)
    table = Table.of(model, 1.0, 0, given.pictures)
    table.fresh = asked(model, 1.0, FRESH, given.pictures)
    rows: list[dict[str, Any]] = []
    prices: list[int] = given.prices
    with code(given.ld3):
        logging.disable(logging.INFO)  # several lines for each of its steps
        for price in prices:
            found = [learned(table, price, solver, given) for solver in given.solvers]
            rows.append({"passes": price, "learned": found})
            print(rows[-1], flush=True)
    commit = subprocess.run(
        ["git", "-C", str(given.ld3), "rev-parse", "HEAD"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    report = {"pictures": given.pictures, "code": f"vinhsuhi/LD3@{commit}", "rows": rows}
    path = given.out / "learned.json"
    return results.save(path, report, weights=[model.name], dtype="float32", device="cpu")
