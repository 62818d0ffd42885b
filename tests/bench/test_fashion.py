"""The suite of Fashion-MNIST: its data, and that training goes on bit for bit."""

from __future__ import annotations

import gzip
import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.__main__ import parser_of
from benchmarks.registry import SUITES
from benchmarks.suites.fashion import data, train
from benchmarks.suites.fashion.networks import NETWORKS

import asymflow
from asymflow.core import engine
from asymflow.core.card import Carded
from asymflow.core.errors import FileFormatError, InputError
from asymflow.core.types import Request


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files as those of Fashion-MNIST, with pictures whose every pixel is their number."""
    made = tmp_path_factory.mktemp("fashion")
    for name, count in (("train", 60_000), ("t10k", 10_000)):
        numbers = (np.arange(count) % 250).astype(np.uint8)
        pixels = np.repeat(numbers, 28 * 28).tobytes()
        head = struct.pack(">4I", 2051, count, 28, 28)
        (made / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + pixels, 1))
        head = struct.pack(">2I", 2049, count)
        labels = (numbers % 10).tobytes()
        (made / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(head + labels, 1))
    return made


def test_parts_are_apart_and_padded(folder: Path) -> None:
    counts = {"networks": 45_000, "judge": 15_000, "test": 10_000}
    for part, count in counts.items():
        pixels, labels = data.pictures(part, folder)
        first = 45_000 if part == "judge" else 0
        assert pixels.shape == (count, 32, 32)
        assert labels.shape == (count,)
        np.testing.assert_array_equal(pixels[:, 16, 16], (first + np.arange(count)) % 250)
        np.testing.assert_array_equal(labels, pixels[:, 16, 16] % 10)
        assert pixels[:, :2].max() == pixels[:, -2:].max() == pixels[:, :, :2].max() == 0


def test_missing_and_damaged_data_is_said(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InputError, match=r"Install Debian's package dataset-fashion-mnist.*--data"):
        data.pictures("test", tmp_path)
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[:-9])
    with pytest.raises(FileFormatError, match=re.escape("Fetch it again")):
        data.pictures("test", tmp_path)


@pytest.mark.parametrize("name", ["unet", "jit"])
def test_training_goes_on_bit_for_bit(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("diffusers")
    [suite] = [each for each in SUITES if each.name == "fashion train"]

    def trained(steps: int, runs: str) -> dict[str, torch.Tensor]:
        there = str(tmp_path / runs)
        given = [name, "--steps", str(steps), "--data", str(folder)]
        given += ["--runs", there, "--models", there, "--out", there]
        monkeypatch.setattr(train, "DECAY", 1e-9)  # the rate depends on the number of steps
        train.run(parser_of(suite).parse_args(given))
        return torch.load(tmp_path / runs / f"{name}.pt", weights_only=True)["average"]

    at_once = trained(3, "once")
    trained(2, "twice")
    resumed = trained(3, "twice")
    assert all(torch.equal(value, resumed[key]) for key, value in at_once.items())
    report = json.loads((tmp_path / f"twice/fashion-{name}.json").read_text("utf-8"))
    assert report["steps"] == len(report["loss"]) == 3

    adapter = asymflow.load(tmp_path / "twice" / NETWORKS[name].file)
    assert isinstance(adapter, Carded)
    card = adapter.card
    assert (card.classes, card.guidance, card.channels) == (data.CLASSES, 2.0, 1)
    request = Request({"label": 3}, card.sizes.native, 0, card.guidance)
    plan = adapter.own_plan(card.sizes.native)  # type: ignore[attr-defined]
    [made] = engine.run(adapter, plan, [request])
    assert made.picture.shape == (32, 32, 1)
