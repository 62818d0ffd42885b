"""Training: the schedule, the sampling of times, resuming, and that the loss falls."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import pickle
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

import asymflow
from asymflow.core.errors import FileFormatError, InputError
from asymflow.core.flow import coarse_time
from asymflow.models.embedded.detail import DetailConfig
from asymflow.models.embedded.network import PictureModel
from asymflow.models.embedded.transformer import TransformerConfig
from asymflow.training import curve
from asymflow.training.data.dataset import SIZES as IMAGE_SIZES
from asymflow.training.data.dataset import Dataset
from asymflow.training.data.manifest import Entry, write_manifest
from asymflow.training.errors import squared_errors
from asymflow.training.loop import (
    EDGES_UNTIL,
    Batch,
    build,
    draw,
    draw_times,
    loss,
    states,
    train,
)
from asymflow.training.recipes import RECIPES, Phase, Recipe, recipe
from asymflow.training.run import blended, finishing

TINY = Recipe(
    name="tiny",
    minutes=10,
    phases=(Phase(1.0, (((32, 32), 1.0),)),),
    transformer=TransformerConfig(width=64, depth=1, head_dim=32, hidden=96, text_width=32),
    tokens=256,
    warmup_steps=2,
    scene=0.0,
    time_mean=0.0,
    time_std=1.0,
    muon_rate=3e-3,
    adam_rate=3e-3,
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Eight flat discs in two styles, each of a colour of its own."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:128, :128] - 63.5
    disc = (np.hypot(x, y) < 50)[..., None]
    colours = np.concatenate((rng.integers(0, 256, (16, 3)), np.full((16, 1), 255)), axis=1)
    large = (disc * colours[:, None, None]).astype(np.uint8)
    for size in IMAGE_SIZES:
        f = 128 // size
        pooled = large.reshape(16, size, f, size, f, 4).mean((2, 4)).round().astype(np.uint8)
        np.save(root / f"images-{size}.npy", pooled)
    names = ("fox", "apple", "car", "tree", "house", "rocket", "guitar", "pizza")
    write_manifest(
        root / "manifest.jsonl",
        (
            Entry(i, f"{i % 8:04x}", name, style, name, (), "objects", "tool", 1.0, "train", True,
                  "Apache-2.0", "drawn", "1")
            for i, (style, name) in enumerate(product(("noto", "twemoji"), names))
        ),
    )  # fmt: skip
    return Dataset(root)


def test_rate_warms_up_holds_and_falls_to_zero() -> None:
    assert TINY.rate(0, 0.0) == 0.5
    assert TINY.rate(100, 0.3) == 1.0
    assert TINY.rate(100, 1 - TINY.decay / 2) == pytest.approx(0.5)
    assert TINY.rate(100, 1.0) == 0.0


def test_recipes_cover_the_whole_run_and_multiples_of_the_patch() -> None:
    for each in RECIPES.values():
        assert each.phases[-1].until == 1.0
        assert sorted(phase.until for phase in each.phases) == [p.until for p in each.phases]
        for progress in (0.0, 0.5, 1.0):
            for (height, width), weight in each.phase(progress).shares:
                assert weight > 0
                assert height % each.transformer.patch == 0 == width % each.transformer.patch


def test_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="cpu"):
        recipe("tpu")


def test_times_of_two_sizes_have_the_same_pooled_noise() -> None:
    rng = np.random.default_rng(0)
    large = draw_times(rng, 40_000, (128, 128), TINY).median()
    small = draw_times(rng, 40_000, (64, 64), TINY).median()
    assert float(coarse_time(large, 2)) == pytest.approx(float(small), abs=0.02)
    assert abs(float(large - small)) > 0.05


class Off(torch.nn.Module):
    """A model whose estimate is off by what is given."""

    def __init__(self, x_0: torch.Tensor, by: torch.Tensor) -> None:
        super().__init__()
        self.made = x_0 + by

    def forward(self, *about: object) -> torch.Tensor:
        del about
        return self.made


def test_edges_cost_what_is_not_flat_in_the_error(dataset: Dataset) -> None:
    batch, _ = draw(dataset, TINY, 0, 0.5)
    batch = dataclasses.replace(batch, t=torch.linspace(0.1, 0.9, len(batch.t)))
    noise, context = torch.randn_like(batch.x_0), {"summary": torch.zeros(1)}

    def cost(by: torch.Tensor, edges: float) -> float:
        model = cast("PictureModel", Off(batch.x_0, by * batch.t.view(-1, 1, 1, 1)))
        return float(loss(model, batch, noise, context, edges))

    flat = torch.full_like(batch.x_0, 0.3)
    assert cost(flat, 0.0) == pytest.approx(0.09, rel=1e-4)
    assert cost(flat, 1.0) == pytest.approx(0.09, rel=1e-4)
    # A check of +-1 differs by 2 from its neighbours, and by 0 from what is 2 and 4 pixels away.
    check = 1 - 2.0 * (torch.arange(32)[:, None] + torch.arange(32)).remainder(2).expand_as(flat)
    late = float((batch.t < EDGES_UNTIL).float().mean())
    assert cost(check, 0.0) == pytest.approx(1, rel=1e-4)
    assert cost(check, 0.6) == pytest.approx(1 + 0.6 * late * 2 / 3, rel=1e-4)


def test_loss_falls_and_a_killed_run_goes_on(dataset: Dataset, tmp_path: Path) -> None:
    vectors = torch.randn(30522, 32, generator=torch.Generator().manual_seed(0))
    cpu = torch.device("cpu")
    steps = dataclasses.replace(TINY, steps=60)
    each_step = dataclasses.replace(steps, checkpoint_minutes=0.0)
    run = train(build(TINY, dataset, vectors), each_step, dataset, tmp_path, device=cpu)
    for _ in itertools.islice(run, 30):
        pass
    run.close()  # killed between two steps
    again = train(build(TINY, dataset, vectors), steps, dataset, tmp_path, device=cpu)
    assert [row.step for row, _ in again] == list(range(31, 61))
    losses = [
        json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()
    ]
    assert len(losses) == 60
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])


def test_a_run_is_ended_beside_itself(dataset: Dataset, tmp_path: Path) -> None:
    vectors = torch.randn(30522, 32)
    whole = dataclasses.replace(TINY, steps=100, checkpoint_minutes=0.0)
    going = train(
        build(whole, dataset, vectors), whole, dataset, tmp_path, device=torch.device("cpu")
    )
    for _ in itertools.islice(going, 30):
        pass
    going.close()
    before = (tmp_path / "checkpoint.pt").read_bytes()
    ends, folder = finishing(whole, tmp_path, 10)
    assert ends.steps == 40
    run = train(build(ends, dataset, vectors), ends, dataset, folder, device=torch.device("cpu"))
    rates = [row.rate for row, _ in itertools.islice(run, 4)]
    run.close()  # killed
    ends, folder = finishing(whole, tmp_path, 10)
    assert ends.steps == 40, "it ends where it was to end"
    run = train(build(ends, dataset, vectors), ends, dataset, folder, device=torch.device("cpu"))
    rates += [row.rate for row, _ in run]
    assert rates == pytest.approx([1 - i / 10 for i in range(10)])
    assert (tmp_path / "checkpoint.pt").read_bytes() == before, "the run itself can go on"
    late = dataclasses.replace(whole, decay=0.8)
    with pytest.raises(InputError, match="fall already"):
        finishing(late, tmp_path, 20)
    with pytest.raises(InputError, match="to finish"):
        finishing(whole, tmp_path / "elsewhere", 10)


def test_a_checkpoint_of_another_shape_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    vectors = torch.randn(30522, 32)
    cpu = torch.device("cpu")
    one = dataclasses.replace(TINY, steps=1)
    list(train(build(one, dataset, vectors), one, dataset, tmp_path, device=cpu))
    other = dataclasses.replace(TINY, rank=3, steps=2)
    with pytest.raises(FileFormatError, match="another model shape"):
        next(train(build(other, dataset, vectors), other, dataset, tmp_path, device=cpu))


def test_a_blend_is_a_point_on_the_line_between_two_models(dataset: Dataset) -> None:
    first, last = (
        build(dataclasses.replace(TINY, seed=seed), dataset, torch.randn(3, 32)) for seed in (0, 1)
    )
    for share, expected in ((0.0, first), (1.0, last)):
        found = blended(first, last, share)
        for own, wanted in zip(found.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(own, wanted)
    middle = blended(first, last, 0.5)
    triples = zip(middle.parameters(), first.parameters(), last.parameters(), strict=True)
    for own, a, b in triples:
        torch.testing.assert_close(own, (a + b) / 2)
    assert any(
        not torch.equal(a, b) for a, b in zip(first.parameters(), last.parameters(), strict=True)
    )


LOOKING = dataclasses.replace(
    TINY,
    rank=0,
    detail=DetailConfig(half=8, quarter=8, gates=True),
    skip=0.2,
    references=2,
    time_uniform=0.5,
    disturb=0.5,
    recolour=0.5,
    drop_reference=0.1,
    drop_words=0.1,
    flip=0.0,
    checkpoint_minutes=0.0,
    steps=24,
)

# What a process that will be killed runs: the same as `train`, from a file of the recipe.
RUN = """
import sys, pickle, torch
from pathlib import Path
from asymflow.training.data.dataset import Dataset
from asymflow.training.loop import build, train
torch.set_num_threads(1)
recipe = pickle.loads(Path(sys.argv[1]).read_bytes())
dataset = Dataset(sys.argv[2])
vectors = torch.randn(30522, 32, generator=torch.Generator().manual_seed(0))
for row, _ in train(build(recipe, dataset, vectors), recipe, dataset, Path(sys.argv[3]),
                    device=torch.device("cpu")):
    print(row.step, flush=True)
"""


def test_a_run_killed_in_a_moved_checkout_comes_out_the_same_bit_for_bit(
    dataset: Dataset, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.pickle"
    recipe.write_bytes(pickle.dumps(LOOKING))
    here = Path(asymflow.__file__).parent
    moved = tmp_path / "elsewhere" / "asymflow"
    shutil.copytree(here, moved, ignore=shutil.ignore_patterns("__pycache__", "static"))

    def start(source: Path, out: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            (sys.executable, "-c", RUN, recipe, dataset.root, out),
            env=os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )

    with start(here.parent, tmp_path / "whole") as process:
        assert process.stdout is not None
        assert len(process.stdout.readlines()) == LOOKING.steps
    for source, steps in ((here.parent, 5), (moved.parent, 9)):
        with start(source, tmp_path / "parts") as process:
            assert process.stdout is not None
            for _ in range(steps):
                assert process.stdout.readline()
            process.kill()
    with start(moved.parent, tmp_path / "parts") as process:
        assert process.stdout is not None
        last = [int(line) for line in process.stdout]
        assert last[-1] == LOOKING.steps
        assert len(last) < last[-1] - 10

    whole, parts = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)
        for name in ("whole", "parts")
    )
    for part in ("model", "average"):
        for name, value in whole[part].items():
            assert torch.equal(value, parts[part][name]), name
    for one, other in zip(whole["optimizers"], parts["optimizers"], strict=True):
        for number, state in one["state"].items():
            for name, value in state.items():
                assert torch.equal(value, other["state"][number][name]), name
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("whole", "parts")]
    losses = [[(row["step"], row["loss"]) for row in map(json.loads, log)] for log in logs]
    assert losses[0] == losses[1]


def test_kernels_take_muon_and_their_own_rate(dataset: Dataset, tmp_path: Path) -> None:
    still = dataclasses.replace(LOOKING, muon_rate=0.0, adam_rate=0.0, kernel_rate=0.1, steps=2)
    model = build(still, dataset, torch.randn(30522, 32))
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    list(train(model, still, dataset, tmp_path, device=torch.device("cpu")))
    moved = {n for n, value in model.named_parameters() if not torch.equal(value, before[n])}
    assert moved
    assert all(name.rsplit(".", 2)[-2] in ("first", "second") for name in moved)
    assert all(before[name].ndim == 4 for name in moved)


def test_time_in_which_a_run_was_held_is_not_counted(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each step takes a second of this clock, but for the sixth, in which it was held for an hour.
    ticks = iter([0.0, 1.0] * 5 + [0.0, 3600.0] + [0.0, 1.0] * 4)
    monkeypatch.setattr("asymflow.training.loop.time.perf_counter", lambda: next(ticks))
    ten = dataclasses.replace(LOOKING, steps=10)
    run = train(build(ten, dataset, torch.randn(30522, 32)), ten, dataset, tmp_path,
                device=torch.device("cpu"))  # fmt: skip
    minutes = [row.minutes for row, _ in run]
    assert minutes[4] == pytest.approx(5 / 60)
    assert minutes[-1] < 30 / 60


def test_a_batch_is_decided_by_recipe_and_step_alone(dataset: Dataset) -> None:
    one, again = (draw(dataset, LOOKING, 7, 0.3) for _ in range(2))
    other = draw(dataset, LOOKING, 8, 0.3)
    assert one[1] == again[1] != other[1]
    for field in dataclasses.fields(Batch):
        assert torch.equal(getattr(one[0], field.name), getattr(again[0], field.name))
    assert not torch.equal(one[0].t, other[0].t)


def test_what_is_dropped_together(dataset: Dataset) -> None:
    bare = dataclasses.replace(LOOKING, tokens=6400, drop_text=0.0, drop_style=0.0)
    nothing, _ = draw(dataset, dataclasses.replace(bare, drop_all=1.0), 0, 0.5)
    assert not nothing.present.any()
    assert not nothing.style.any()
    assert int(nothing.mask.sum(dim=1).max()) == 2  # the two markers of an empty prompt
    words = dataclasses.replace(bare, drop_all=0.0, drop_words=1.0, drop_reference=1.0)
    looked, _ = draw(dataset, words, 0, 0.5)
    assert not looked.style.any()
    assert looked.present[:, 0].all()  # or nothing at all would be left
    alone, _ = draw(dataset, dataclasses.replace(words, drop_words=0.0), 0, 0.5)
    assert not alone.present.any()
    assert alone.style.all()


def test_squared_errors_of_a_fresh_model_are_those_of_its_mean(dataset: Dataset) -> None:
    model = build(dataclasses.replace(LOOKING, skip=1e-4), dataset, torch.randn(30522, 32))
    errors = squared_errors(model, dataset, dataset.entries, 32, times=(1.0, 0.5))
    pictures = states(dataset.images(range(len(dataset.entries)), 32))
    expected = (pictures - model.mean.view(1, 4, 1, 1)).square().mean()
    assert errors[1.0] == pytest.approx(float(expected), rel=1e-4)
    assert errors[0.5] == pytest.approx(float(expected), rel=1e-4)


def test_the_curve_follows_a_power_law_exactly(tmp_path: Path) -> None:
    minutes = [20.0 * i for i in range(1, 9)]
    values = [3 * m**-0.4 for m in minutes]
    assert curve.extrapolated(minutes, values, 6000) == pytest.approx(3 * 6000**-0.4)
    assert curve.table(curve.read(tmp_path)) == "the curve has no points yet"
    with (tmp_path / curve.ERRORS).open("w") as file:
        for step, (minute, value) in enumerate(zip(minutes, values, strict=True)):
            point = {"step": step, "minutes": minute, "errors": {"seen": {"1": value}}}
            file.write(json.dumps(point) + "\n")
    text = curve.table(curve.read(tmp_path))
    assert f"{3 * 600**-0.4:7.4f}" in text.splitlines()[-3]
    assert "predicted      60" in text
