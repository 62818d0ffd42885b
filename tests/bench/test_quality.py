import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from asymflow.bench import quality as suite
from asymflow.bench.features import as_unit_float
from asymflow.bench.pairs import Job
from asymflow.bench.quality import Generate, quality
from asymflow.bench.report import SCHEMA, QualityReport, Split
from asymflow.core.errors import InputError
from asymflow.models.embedded.words import nouns
from asymflow.training.data.dataset import Dataset

from .conftest import Projection

Pictures = NDArray[np.float32]
Drawings = dict[tuple[str, str], Pictures]


@pytest.fixture(autouse=True)
def _projection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "load_network", Projection)


@pytest.fixture(scope="module")
def drawings(dataset_root: Path) -> Drawings:
    """(prompt, style) to picture at 32 px."""
    dataset = Dataset(dataset_root)
    return {
        (nouns(entry.name)[0].single, entry.style): as_unit_float(dataset.image(entry.index, 32))
        for entry in dataset.entries
    }


@pytest.fixture(scope="module")
def copy(drawings: Drawings) -> Generate:
    def generate(jobs: Sequence[Job], size: int) -> Pictures:
        return np.stack([drawings[prompt, style] for prompt, style, _ in jobs])

    return generate


def run(generate: Generate, root: Path, **options: Any) -> QualityReport:
    return quality(generate, root, name="x", size=32, progress=False, **options)


@pytest.mark.parametrize("split", ["seen", "heldout"])
def test_a_perfect_generator_scores_perfectly(
    copy: Generate, dataset_root: Path, split: Split
) -> None:
    score = run(copy, dataset_root).score("generated", split)
    assert score.n == {"seen": 15, "heldout": 12}[split]
    assert score.recall_1.value == score.recall_5.value == score.style_1.value == 1
    assert score.kid.value == pytest.approx(0, abs=1e-3)
    assert score.fd.value == pytest.approx(0, abs=1e-3)
    assert score.distance.value == pytest.approx(0, abs=1e-5)


def test_noise_scores_worse_than_every_anchor_that_knows_the_concept(dataset_root: Path) -> None:
    def noise(jobs: Sequence[Job], size: int) -> Pictures:
        rngs = [np.random.default_rng(seed) for _, _, seed in jobs]
        return np.stack([rng.random((size, size, 4), np.float32) for rng in rngs])

    report = run(noise, dataset_root)
    made = report.score("generated", "seen")
    for anchor in (report.score("nudged", "seen"), report.score("half size", "seen")):
        assert anchor.recall_1.value > 0.9 > 0.5 > made.recall_1.value
        assert anchor.kid.value < made.kid.value
        assert anchor.distance.value < made.distance.value


def test_exchanged_styles_show_in_style_and_kid(copy: Generate, dataset_root: Path) -> None:
    styles = ("noto", "twemoji", "fxemoji")

    def exchanged(jobs: Sequence[Job], size: int) -> Pictures:
        return copy([(p, styles[styles.index(s) - 1], n) for p, s, n in jobs], size)

    report = run(exchanged, dataset_root)
    made, right = report.score("generated", "seen"), run(copy, dataset_root)
    assert made.recall_1.value > 0.8  # the concept is still right
    assert made.style_1.value == 0
    assert made.kid.value > right.score("generated", "seen").kid.value + 1


def test_anchor_of_other_concepts_never_finds_its_own(copy: Generate, dataset_root: Path) -> None:
    score = run(copy, dataset_root, pairs=9).score("other concept", "seen")
    assert score.recall_1.value == 0
    assert score.distance.value > 0.01


def test_generator_is_asked_in_batches_with_fixed_jobs(copy: Generate, dataset_root: Path) -> None:
    asked: list[list[Job]] = []

    def recording(jobs: Sequence[Job], size: int) -> Pictures:
        assert len(jobs) <= 4
        assert size == 32
        asked.append(list(jobs))
        return copy(jobs, size)

    run(recording, dataset_root, batch=4)
    first = [job for jobs in asked for job in jobs]
    asked.clear()
    run(recording, dataset_root, batch=4)
    assert [job for jobs in asked for job in jobs] == first
    assert len(first) == 27

    split_of = {
        (nouns(entry.name)[0].single, entry.style): entry.split
        for entry in Dataset(dataset_root).entries
        if entry.weight == 1
    }
    splits = [split_of[prompt, style] for prompt, style, _ in first]
    assert splits == ["train"] * 15 + ["heldout"] * 12  # rare concepts are not asked for


def test_files_hold_the_report(copy: Generate, dataset_root: Path, tmp_path: Path) -> None:
    out, cache = tmp_path / "out", tmp_path / "cache"
    report = run(copy, dataset_root, out=out, cache=cache, config={"steps": 8})
    assert sorted(path.name for path in out.iterdir()) == [
        "heldout.png",
        "quality.json",
        "seen.png",
    ]
    stored = json.loads((out / "quality.json").read_text())
    assert stored["schema"] == SCHEMA
    assert stored["config"] == {"steps": 8}
    assert stored["settings"]["gallery"] == {"noto": 9, "twemoji": 9, "fxemoji": 9}
    assert stored["hashes"]["feature weights"] == "projection"
    assert len(stored["scores"]) == len(report.scores)
    score = report.score("generated", "heldout", "noto")
    assert any(
        row["style"] == "noto"
        and row["split"] == "heldout"
        and row["fd"]["value"] == score.fd.value
        for row in stored["scores"]
        if row["source"] == "generated"
    )
    with Image.open(out / "seen.png") as picture:
        assert picture.width > 5 * 128  # at least five pictures of each style, enlarged

    again = run(copy, dataset_root, cache=cache)
    assert again.scores == report.scores
    assert again.hashes == report.hashes


def test_report_prints_a_table(copy: Generate, dataset_root: Path) -> None:
    text = str(run(copy, dataset_root))
    lines = text.splitlines()
    assert "seen pairs" in text
    assert "held-out pairs" in text
    assert sum(line.startswith("generated  ") for line in lines) == 3  # two rows, one meaning
    assert sum(line.startswith("  noto") for line in lines) == 2
    assert max(map(len, lines)) <= 120


def test_report_says_which_score_is_absent(copy: Generate, dataset_root: Path) -> None:
    with pytest.raises(InputError, match="streamline"):
        run(copy, dataset_root).score("generated", "seen", "streamline")


def test_wrong_pictures_are_refused(copy: Generate, dataset_root: Path) -> None:
    with pytest.raises(InputError, match=r"\(15, 4, 32, 32\)"):
        run(lambda jobs, size: copy(jobs, size).transpose(0, 3, 1, 2), dataset_root)
    with pytest.raises(InputError, match="range from"):
        run(lambda jobs, size: 2 * copy(jobs, size) - 1, dataset_root)


def test_too_few_pairs_are_refused(copy: Generate, dataset_root: Path) -> None:
    with pytest.raises(InputError, match="pairs=4"):
        run(copy, dataset_root, pairs=4)
