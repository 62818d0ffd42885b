"""GS, the Generalized Solver of GAS (arXiv 2510.17699): times and all coefficients learned.

A step is a linear combination of all states and all estimates so far. Its solver, its loss and its
training loop run unchanged, with its recipe for Stable Diffusion, which has, as our models do, a
condition, and a loss on what is drawn itself: 2000 batches of 4, Adam, averaged weights. But the
loss is L2 in place of L1, since L2 is what is compared, and the rate is ten times as high, since a
higher one gets nearer in as few steps. Nothing else is learned from: no LPIPS, which is for colour
photographs, and no discriminator, which asks for other pictures than the limits. The schedule and
the first times are those of its EDM models.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import math
import pickle
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from asymflow.planning.proof import rms
from benchmarks.suites.fashion import paired
from benchmarks.suites.fashion.campaign import Table
from benchmarks.suites.fashion.peers import Code, Lesson, denoised

CODE = Code(
    "3145tttt/GAS",
    "src/gas/generalized_solver.py",
    (
        "dnnlib", "evaluate", "lpips", "ml_collections", "omegaconf", "wandb", "src.ldm.util",
        "src.gas.adversarial_module.dist_adv_loss", "src.gas.utils.loggers",
    ),
    ("torch-ema",),
)  # fmt: skip
BATCH, DECAY, LAST = 4, 0.999, 0.001
"""Pictures of a step of its training, of its averages, and the time that its samplers end at."""
NEVER = 10**9


@dataclass(eq=False)
class Shown:
    """A model as an EDM network, which has any noise level and is told the classes beforehand."""

    table: Table
    label: Tensor
    sigma_min: float = 0.0
    sigma_max: float = math.inf

    @property
    def img_resolution(self) -> int:
        return self.table.model.card.sizes.native[0]

    def set_condition(self, label: Tensor) -> None:
        self.label = label

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        return denoised(self.table, x, sigma, self.label)


def learned(table: Table, fresh: Lesson, steps: int, given: argparse.Namespace) -> dict[str, Any]:
    """What a learned solver does for so many passes."""
    models, wrappers, data, training = (
        importlib.import_module(name)
        for name in ("src.gas.base_model", "src.gas.gs_wrapper", "src.gas.synt_data", "training")
    )
    count, iterations = given.train + given.valid, given.iterations
    lesson = Lesson.learned(table, count, given.limit)
    net = Shown(table, lesson.label)
    began = time.process_time()
    torch.manual_seed(0)  # of the order of its pictures
    with mock.patch.object(models.EDMModel, "load_model", return_value=net):
        model = models.EDMModel(SimpleNamespace(path=None, t_eps=LAST), torch.device("cpu"))
    model.set_condition = net.set_condition
    solver = SimpleNamespace(
        steps=steps, order=steps, t_parametrization="mu_logit", use_theory_coef=True,
        loss_config=SimpleNamespace(loss_type="GS", loss_key=f"loss_{given.loss}_latents",
        disc_weight=1),
    )  # fmt: skip
    wrapper = wrappers.GSWrapperLatent(model, solver).eval()
    average = importlib.import_module("torch_ema").ExponentialMovingAverage(
        wrapper.parameters(), decay=DECAY
    )
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # its checkpoints
        limits = lesson.limit
        pairs = {"noise": lesson.noise, "images": limits, "latents": limits}
        Path("pairs.pkl").write_bytes(pickle.dumps({**pairs, "condition": lesson.label}))
        loaders = data.SyntDataLoaders(
            SimpleNamespace(
                teacher_pkl="pairs.pkl", use_latents=True, use_condition=True, train_size=count,
                validation_size=0, batch_size=min(BATCH, count), validation_batch_size=1,
                size_vis=1, num_workers=0,
            )
        )  # fmt: skip
        config = SimpleNamespace(
            training=SimpleNamespace(
                n_iters=iterations, iters_to_accumulate=1,
                epoch_num=math.ceil(iterations / len(loaders.train_loader)),
            ),
            logging=SimpleNamespace(
                project_name=None, run_name=None, eval_freq=NEVER, checkpoint_freq=NEVER,
                log_weights_freq=NEVER,
            ),
        )  # fmt: skip
        optimizer = torch.optim.Adam(wrapper.parameters(), lr=given.rate)
        training.train(config, wrapper, average, loaders, optimizer, model.device)
    seconds = time.process_time() - began
    with torch.no_grad(), average.average_parameters():
        ends, _ = wrapper.student_sampler_fn(fresh.noise, condition=fresh.label)
        sigmas = model.sigma(wrapper.get_t_steps())
    return {
        "solver": "gs",
        **paired.described(rms(ends, fresh.limit)),
        "seconds": round(seconds),
        "sigmas": [sigmas.tolist()],
        "iterations": iterations,
        "rate": given.rate,
        "loss": given.loss,
    }
