"""Training: the schedule, the sampling of times, resuming, and that the loss falls."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from asymflow.data.dataset import SIZES as IMAGE_SIZES
from asymflow.data.dataset import Dataset
from asymflow.data.manifest import Entry, write_manifest
from asymflow.errors import FileFormatError, InputError
from asymflow.flow import coarse_time
from asymflow.nets.transformer import TransformerConfig
from asymflow.training.loop import build, draw_times, train
from asymflow.training.recipes import RECIPES, Phase, Recipe, recipe
from asymflow.training.run import blended

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
    """Eight flat discs, each of a colour of its own."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:128, :128] - 63.5
    disc = (np.hypot(x, y) < 50)[..., None]
    colours = np.concatenate((rng.integers(0, 256, (8, 3)), np.full((8, 1), 255)), axis=1)
    large = (disc * colours[:, None, None]).astype(np.uint8)
    for size in IMAGE_SIZES:
        f = 128 // size
        pooled = large.reshape(8, size, f, size, f, 4).mean((2, 4)).round().astype(np.uint8)
        np.save(root / f"images-{size}.npy", pooled)
    names = ("fox", "apple", "car", "tree", "house", "rocket", "guitar", "pizza")
    write_manifest(
        root / "manifest.jsonl",
        (
            Entry(i, f"{i:04x}", name, "noto", name, (), "objects", "tool", 1.0, "train", True,
                  "Apache-2.0", "drawn", "1")
            for i, name in enumerate(names)
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


def test_loss_falls_and_a_killed_run_goes_on(dataset: Dataset, tmp_path: Path) -> None:
    vectors = torch.randn(30522, 32, generator=torch.Generator().manual_seed(0))
    cpu = torch.device("cpu")
    each_step = dataclasses.replace(TINY, checkpoint_minutes=0.0)
    run = train(build(TINY, dataset, vectors), each_step, dataset, tmp_path, device=cpu, steps=60)
    for _ in itertools.islice(run, 30):
        pass
    run.close()  # killed between two steps
    again = train(build(TINY, dataset, vectors), TINY, dataset, tmp_path, device=cpu, steps=60)
    steps = [row.step for row, _ in again]
    assert steps == list(range(31, 61))
    losses = [
        json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()
    ]
    assert len(losses) == 60
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])


def test_a_checkpoint_of_another_shape_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    vectors = torch.randn(30522, 32)
    cpu = torch.device("cpu")
    list(train(build(TINY, dataset, vectors), TINY, dataset, tmp_path, device=cpu, steps=1))
    other = dataclasses.replace(TINY, rank=3)
    with pytest.raises(FileFormatError, match="another model shape"):
        next(train(build(other, dataset, vectors), other, dataset, tmp_path, device=cpu, steps=2))


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
