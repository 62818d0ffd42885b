"""Learned samplers by their authors' code: how it is taken, and how our model is shown to it."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from benchmarks.__main__ import parser_of
from benchmarks.registry import SUITES
from benchmarks.suites.fashion import ld3, learned, peers
from benchmarks.suites.fashion.campaign import Table
from benchmarks.suites.fashion.networks import NETWORKS
from benchmarks.suites.fashion.train import MODELS

from asymflow.core.errors import InputError
from asymflow.models.gaussian import GaussianAdapter
from asymflow.planning.proof import rms
from tests.helpers import draw

[SUITE] = [each for each in SUITES if each.name == "fashion learned"]
STUDENT = {
    "src/gas/generalized_solver.py": "",
    "src/gas/base_model.py": """
import dnnlib

class EDMModel:
    def __init__(self, config, device):
        self.model, self.device = self.load_model(config.path), device
        assert self.model.sigma_min < 0.01 < 150 < self.model.sigma_max

    def load_model(self, path):
        return dnnlib.util.open_url(path)

    def sigma(self, t):
        return 150 * t
""",
    "src/gas/gs_wrapper.py": """
import lpips, torch

class GSWrapperLatent(torch.nn.Module):
    def __init__(self, model, config):
        super().__init__()
        assert config.steps == config.order
        self.model, self.shift = model, torch.nn.Parameter(torch.zeros(()))

    def get_t_steps(self):
        return torch.tensor([1.0, 0.0])

    def student_sampler_fn(self, noise, condition):
        self.model.set_condition(condition)
        sigma = self.model.sigma(torch.ones(()))
        return self.model.model(noise * sigma, sigma) + self.shift, None
""",
    "src/gas/synt_data.py": """
import pickle

class SyntDataLoaders:
    def __init__(self, config):
        with open(config.teacher_pkl, "rb") as file:
            self.pairs = pickle.load(file)
        assert {len(part) for part in self.pairs.values()} == {config.train_size}
        self.train_loader = [self.pairs]
""",
    "training.py": """
import wandb

def train(config, gs_wrapper, ema, data, optim, device):
    wandb.login()
    open("in-the-way", "w").close()
    pairs = data.pairs
    for _ in range(config.training.epoch_num):
        drawn, _ = gs_wrapper.student_sampler_fn(pairs["noise"], condition=pairs["condition"])
        with_grad = (drawn - pairs["latents"]).square().mean()
        with_grad.backward()
        gs_wrapper.shift.data -= gs_wrapper.shift.grad / 2  # the minimum of a parabola
        gs_wrapper.shift.grad = None
""",
}
"""A learned solver of one step and one number, where the code of GAS is looked for."""
AVERAGES = """
import contextlib

class ExponentialMovingAverage:
    def __init__(self, parameters, decay):
        self.average_parameters = contextlib.nullcontext
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages/torch_ema.py").write_text(AVERAGES)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    for name, text in STUDENT.items():
        path = tmp_path / "GAS" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    git = ["git", "-C", str(tmp_path / "GAS"), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *command], check=True)
    return tmp_path / "GAS"


def ran(out: Path, *given: str) -> dict[str, Any]:
    typed = ["--quick", "--out", str(out), "--models", str(MODELS), *given]
    return learned.run(parser_of(SUITE, quick=True).parse_args(typed))


def test_without_a_checkout_it_is_said_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Give --ld3 PATH, --gas PATH, or both"):
        ran(tmp_path)
    for option, name in (("--ld3", "vinhsuhi/LD3"), ("--gas", "3145tttt/GAS")):
        with pytest.raises(InputError, match=f"no checkout of {name}.*Clone github.com/{name}"):
            ran(tmp_path, option, str(tmp_path))


def test_a_package_that_is_missing_is_named(checkout: Path) -> None:
    code = peers.Code("a/b", "training.py", (), ("sys", "there-is-none-such"))
    with pytest.raises(InputError, match=re.escape("pip install there-is-none-such")):
        code.check(checkout)


def test_modules_of_a_checkout_are_there_only_within(checkout: Path) -> None:
    path, here = [*sys.path], sys.modules.get("json")
    code = peers.Code("a/b", "training.py", ("wandb", "json"))
    with code.imported(checkout):
        found = cast("Any", importlib.import_module("training"))
        assert Path(found.__file__) == checkout / "training.py"
        assert sys.modules["json"] is not here
        assert torch.ones(1).cuda().device.type == "cpu"
    assert sys.path == path
    assert sys.modules["json"] is here
    assert not {"training", "wandb"} & set(sys.modules)


def test_states_are_shown_as_an_edm_network_has_them() -> None:
    mean, std = draw(1, 2, 1, 8, 8), draw(2, 2, 1, 8, 8).exp()
    table = cast("Table", type("Made", (), {"model": GaussianAdapter(mean, std)}))
    x, label = draw(3, 2, 1, 8, 8), torch.tensor([1, 0])
    for sigma in (torch.tensor([0.05, 7.0]), torch.tensor(0.4)):
        each, own, spread = sigma.expand(2).view(-1, 1, 1, 1), mean[label], std[label]
        noisy = x * each.clamp(min=1)
        wanted = own + spread**2 / (spread**2 + each**2) * (noisy - own)
        found = peers.denoised(table, noisy, sigma, label)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
        eps = ld3.as_edm(table, noisy, sigma.expand(2), label.view(2, 1), None)
        assert eps.dtype == torch.float64
        torch.testing.assert_close((noisy - each * eps).float(), wanted, rtol=1e-4, atol=1e-4)


def test_a_learned_solver_is_measured_as_it_draws(checkout: Path, tmp_path: Path) -> None:
    report = ran(tmp_path / "out", "--gas", str(checkout), "--iterations", "3", "--loss", "l1")
    commit = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "HEAD"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    assert report["code"] == [f"3145tttt/GAS@{commit}"]
    [row] = report["rows"]
    [found] = row["learned"]
    assert (row["passes"], found["solver"], found["loss"]) == (4, "gs", "l1")
    assert not (checkout / "in-the-way").exists()
    assert not Path("in-the-way").exists()

    model = learned.loaded(MODELS / NETWORKS["jit"].file)
    table = Table.of(model, 1.0, 0, 3)
    lesson = peers.Lesson.learned(table, 4, 6)
    fresh = peers.Lesson.of(table, learned.asked(model, 1.0, learned.FRESH, 3), 6)
    assert not np.intersect1d(lesson.noise.numpy(), fresh.noise.numpy()).size

    def first(part: peers.Lesson) -> torch.Tensor:
        return peers.denoised(table, part.noise * 150, torch.tensor(150.0), part.label)

    with torch.no_grad():
        shift = (lesson.limit - first(lesson)).mean()
        errors = rms(first(fresh) + shift, fresh.limit)
    assert found["mean"] == pytest.approx(errors.mean(), rel=1e-4)
    assert found["worst"] == pytest.approx(errors.max(), rel=1e-4)
