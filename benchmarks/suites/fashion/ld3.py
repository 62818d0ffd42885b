"""LD3 (arXiv 2405.15506): the times of a sampler, and those that the network is told, learned.

Its trainer and solvers run unchanged, with the settings of its CIFAR-10 recipe but for the loss: L2
in place of LPIPS, which is for colour photographs, and L2 is what is compared.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asymflow.planning.proof import rms
from benchmarks.suites.fashion import paired
from benchmarks.suites.fashion.campaign import Table
from benchmarks.suites.fashion.peers import Code, Lesson, denoised, same

CODE = Code(
    "vinhsuhi/LD3",
    "trainer.py",
    ("imageio", "lpips", "matplotlib", "matplotlib.pyplot", "scipy", "scipy.optimize"),
)
RECIPE: dict[str, Any] = {
    "lr_time_1": 0.005, "win_rate": 0.5, "min_lr_time_1": 5e-5, "min_lr_time_2": 1e-6,
    "momentum_time_1": 0.9, "shift_lr_decay": 0.5, "lr_time_decay": 0.8, "patient": 5,
    "lr2_patient": 5, "loss_type": "L2",
}  # fmt: skip
BATCH = 2


def as_edm(table: Table, x: Tensor, sigma: Tensor, label: Tensor, _: object) -> Tensor:
    """The noise [b, c, h, w] that the model sees in x_0 + sigma eps, as LD3 asks for it."""
    x_0 = denoised(table, x, sigma, label.flatten())
    return ((x - x_0) / sigma.view(-1, 1, 1, 1)).double()


def learned(
    table: Table, fresh: Lesson, steps: int, solver: str, given: argparse.Namespace
) -> dict[str, Any]:
    """What a solver with learned times does for so many passes."""
    trainer, utils, schedules, dataset = (
        importlib.import_module(name)
        for name in ("trainer", "utils", "noise_schedulers", "dataset")
    )
    logging.disable(logging.INFO)  # several lines for each of its steps
    schedule = schedules.NoiseScheduleVE(schedule="edm")
    made, _, extra = utils.get_solvers(solver, steps, 3, schedule, "bh1")
    count = given.train + given.valid
    lesson = Lesson.learned(table, count, given.limit)

    def data(part: slice) -> Any:
        begun, nothing = lesson.noise[part], [None] * count
        return dataset.LD3Dataset(
            [*begun], [*begun.clone()], [*lesson.limit[part]], [*lesson.label[part]], nothing[part]
        )

    side, channels = table.model.card.sizes.native[0], table.model.channels
    net = partial(as_edm, table)
    began = time.process_time()
    torch.manual_seed(0)  # of the order of its pictures
    with tempfile.TemporaryDirectory() as folder:
        config = trainer.ModelConfig(
            net=net, decoding_fn=same, noise_schedule=schedule, solver=made,
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
        ends = made.sample_simple(
            model_fn=net,
            x=schedule.prior_transformation(fresh.noise),
            timesteps=times[0], timesteps2=times[1], order=3, NFEs=steps,
            condition=fresh.label, unconditional_condition=None, **extra,
        )  # fmt: skip
    return {
        "solver": solver,
        **paired.described(rms(ends.float(), fresh.limit)),
        "seconds": round(seconds),
        "sigmas": [each.tolist() for each in times],
    }
