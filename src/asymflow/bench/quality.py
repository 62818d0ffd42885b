"""The quality suite: fixed prompts and seeds, with anchors for scale.

The generator under test draws two sets of (concept, style) pairs: *seen* pairs come from training;
the concept of a *held-out* pair was in training in other styles only. The pictures are compared
with real ones in EfficientNet-Lite0 features:

- recall@k: a real picture of the concept is among the k nearest of the style (prompt fidelity).
- style: the nearest real picture of the concept is of the style.
- KID and FD: distance between the distributions of generated and real pictures (rendering).
- distance: one minus the cosine to the real picture of the pair.

The same metrics are computed for anchors, real pictures altered in known ways:
`asymflow.bench.report.MEANING`.
"""

import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from asymflow.bench import anchors, metrics
from asymflow.bench.features import DIM, as_unit_float, extract, load_network
from asymflow.bench.pairs import Job, job, pick
from asymflow.bench.provenance import versions
from asymflow.bench.report import NEAREST, Nearest, QualityReport, Score, Source, Split
from asymflow.core.errors import InputError
from asymflow.core.statistics import Interval, mean_interval
from asymflow.generation.sheets import sheet
from asymflow.io.files import replacing
from asymflow.io.progress import bars
from asymflow.training.data.dataset import Dataset
from asymflow.training.data.manifest import Entry

Generate = Callable[[Sequence[Job], int], NDArray[np.float32]]
"""Jobs (prompt, style, seed) and a side to premultiplied RGBA [n, side, side, 4] in [0, 1]."""
Features = NDArray[np.float32]
Step = Callable[[int], None]
"""Progress callback, with the number of further pictures done."""
Field = Literal["key", "style"]

_MIN_PAIRS = 3  # needed to compare distributions
_SHEET_COLUMNS = 8
_SHEET_SIDE = 128


def quality(
    generate: Generate,
    dataset_root: Path,
    *,
    name: str,
    size: int = 64,
    pairs: int = 512,
    seed: int = 0,
    batch: int = 32,
    config: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    out: Path | None = None,
    cache: Path | None = None,
    progress: bool = True,
) -> QualityReport:
    """Measure a generator on fixed pairs, prompts and seeds.

    Args:
        generate: the generator; called with at most `batch` jobs, returns premultiplied RGBA
            pictures [n, size, size, 4] in [0, 1].
        dataset_root: folder of the dataset.
        name: name of the generator.
        size: side of the pictures.
        pairs: maximum number of seen and of held-out pairs, spread evenly over the styles.
        seed: selects the pairs, together with the dataset.
        batch: maximum number of jobs per call.
        config: settings of the generator (model, plan, steps), copied to the report.
        provenance: header from `asymflow.bench.provenance`, copied to the report.
        out: folder for `quality.json` and the contact sheets `seen.png` and `heldout.png`.
        cache: folder for features of real pictures, reused by later runs.
        progress: show progress bars.

    Raises:
        InputError: `generate` returns pictures of another shape or range, or the dataset has too
            few pairs.
        MissingExtra: the feature network is not installed.
    """
    network = load_network()
    dataset = Dataset(dataset_root)
    common = [entry for entry in dataset.entries if entry.weight == 1]
    chosen: dict[Split, list[Entry]] = {
        "seen": pick((entry for entry in common if entry.split == "train"), pairs, seed),
        "heldout": pick((entry for entry in common if entry.split == "heldout"), pairs, seed),
    }
    for split, entries in chosen.items():
        if max(map(len, rows_by("style", entries).values()), default=0) < _MIN_PAIRS:
            raise InputError(
                f"pairs={pairs} and this dataset give no style {_MIN_PAIRS} {split} pairs, the "
                "fewest a distribution can be compared on: raise `pairs`, or build all styles."
            )
    jobs = {split: [job(entry, seed) for entry in entries] for split, entries in chosen.items()}
    real = {split: real_pictures(dataset, entries, size) for split, entries in chosen.items()}
    made: dict[Split, NDArray[np.float32]] = {}
    scores: list[Score] = []
    nearest: dict[Split, Mapping[Nearest, float]] = {}
    seconds: dict[str, float] = {}

    with bars(visible=progress) as shown:

        @contextmanager
        def stage(what: str, total: int) -> Generator[Step]:
            started = time.monotonic()
            yield partial(shown.advance, shown.add_task(what, total=total))
            seconds[what] = round(time.monotonic() - started, 2)

        with stage("features of real pictures", len(common)) as step:
            features_of = partial(extract, network=network, cache=cache, on_batch=step)
            gallery = gallery_of(dataset, common, size, features_of)
        for split, entries in chosen.items():
            with stage(f"generating {split} pairs", len(entries)) as step:
                made[split] = _generate(generate, jobs[split], size, batch, step)
            with stage(f"scoring {split} pairs", 3 * len(entries)) as step:
                score = partial(scores_of, split=split, gallery=gallery)
                features_of = partial(extract, network=network, on_batch=step)
                drawn = features_of(made[split])
                scores += score("generated", entries, drawn)
                nearest[split] = nearest_of(entries, drawn, gallery)
                features_of = partial(features_of, cache=cache)
                changed = anchors.nudged(real[split], seed)
                scores += score("nudged", entries, features_of(changed))
                changed = anchors.half_size(real[split])
                scores += score("half size", entries, features_of(changed))
                same, others = anchors.reference(entries, common)
                scores += score("reference", same, gallery.of(others))
                same, others = anchors.other_style(entries, common, seed)
                scores += score("other style", same, gallery.of(others))
                same, others = anchors.other_concept(entries, common, seed)
                scores += score("other concept", same, gallery.of(others), paired=False)

    report = QualityReport(
        provenance=dict(provenance or {}),
        name=name,
        config=dict(config or {}),
        settings={
            "size": size,
            "pairs": pairs,
            "seed": seed,
            "batch": batch,
            "seen": len(chosen["seen"]),
            "heldout": len(chosen["heldout"]),
            "gallery": {style: len(rows) for style, rows in rows_by("style", common).items()},
        },
        versions=versions(),
        hashes={
            "feature weights": network.digest,
            "manifest": sha256_of((dataset_root / "manifest.jsonl").read_bytes()),
            "jobs": sha256_of(repr(jobs).encode()),
            "real pictures": sha256_of(*(pictures.tobytes() for pictures in real.values())),
        },
        seconds=seconds,
        scores=tuple(scores),
        nearest=nearest,
    )
    if out is not None:
        for split, entries in chosen.items():
            picture = _sheet(entries, jobs[split], real[split], made[split])
            with replacing(out / f"{split}.png") as file:
                picture.save(file, "PNG")
        with replacing(out / "quality.json") as file:
            file.write(report.to_json().encode())
    return report


@dataclass(frozen=True, slots=True)
class _Gallery:
    """Real pictures for retrieval: `features` [n, 1280] of n entries, `rows` by entry index."""

    entries: Sequence[Entry]
    features: Features
    rows: Mapping[int, int]

    def of(self, entries: Sequence[Entry]) -> Features:
        return self.features[[self.rows[entry.index] for entry in entries]]

    def ranks(
        self, entries: Sequence[Entry], features: Features, *, within: Field, find: Field
    ) -> NDArray[np.int64]:
        """Rank of the first picture with the entry's `find`, among those with its `within`."""
        gallery = rows_by(within, self.entries)
        found = np.empty(len(entries), np.int64)
        for value, rows in rows_by(within, entries).items():
            found[rows] = metrics.ranks(
                features[rows],
                [getattr(entries[row], find) for row in rows],
                self.features[gallery[value]],
                [getattr(self.entries[row], find) for row in gallery[value]],
            )
        return found


def gallery_of(
    dataset: Dataset,
    entries: Sequence[Entry],
    size: int,
    features_of: Callable[[NDArray[np.uint8]], Features],
) -> _Gallery:
    """Features of the real pictures of entries at `size` pixels a side."""
    features = np.empty((len(entries), DIM), np.float32)
    # One style at a time to limit memory: all pictures at 128 px take half a gigabyte.
    for rows in rows_by("style", entries).values():
        features[rows] = features_of(real_pictures(dataset, [entries[row] for row in rows], size))
    return _Gallery(entries, features, {entry.index: row for row, entry in enumerate(entries)})


def scores_of(
    source: Source,
    entries: Sequence[Entry],
    features: Features,
    *,
    split: Split,
    gallery: _Gallery,
    paired: bool = True,
) -> list[Score]:
    """Score `features`, row i for entry i: over all styles, then for each style."""
    real = gallery.of(entries)
    concept_ranks = gallery.ranks(entries, features, within="style", find="key")
    style_ranks = gallery.ranks(entries, features, within="key", find="style")
    distances = metrics.cosine_distance(features, real)

    def score(style: str | None, rows: Sequence[int], kid: Interval) -> Score:
        return Score(
            source=source,
            split=split,
            style=style,
            n=len(rows),
            recall_1=metrics.recall(concept_ranks[rows], 1),
            recall_5=metrics.recall(concept_ranks[rows], 5),
            style_1=metrics.recall(style_ranks[rows], 1),
            kid=kid,
            fd=metrics.fd(features[rows], real[rows], paired=paired),
            distance=mean_interval(distances[rows]),
        )

    each = [
        score(style, rows, metrics.kid(features[rows], real[rows], paired=paired))
        for style, rows in sorted(rows_by("style", entries).items())
        if len(rows) >= _MIN_PAIRS
    ]
    if not each:
        return []
    kid = metrics.weighted_mean([part.kid for part in each], [part.n for part in each])
    return [score(None, range(len(entries)), kid), *each]


def nearest_of(
    entries: Sequence[Entry], features: Features, gallery: _Gallery
) -> Mapping[Nearest, float]:
    """Shares of pictures, row i for entry i, by the kind of their nearest real picture."""
    real = gallery.features / np.linalg.norm(gallery.features, axis=1, keepdims=True)
    kinds: list[Nearest] = []
    for entry, row in zip(entries, (features @ real.T).argmax(axis=1).tolist(), strict=True):
        found = gallery.entries[row]
        used = anchors.library_of(entry, gallery.entries)
        if (found.key, found.style) == (entry.key, entry.style):
            kinds.append("own")
        elif found in used:
            kinds.append("reference")
        elif found.key == entry.key:
            kinds.append("concept")
        else:
            kinds.append("style" if found.style == entry.style else "none")
    return {kind: kinds.count(kind) / len(kinds) for kind in NEAREST}


def rows_by(field: Field, entries: Sequence[Entry]) -> dict[str, list[int]]:
    """Indices of entries by the value of a field."""
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for row, entry in enumerate(entries):
        rows[getattr(entry, field)].append(row)
    return dict(rows)


def real_pictures(dataset: Dataset, entries: Sequence[Entry], size: int) -> NDArray[np.uint8]:
    """Pictures of entries, premultiplied RGBA [n, size, size, 4]."""
    return dataset.images([entry.index for entry in entries], size)


def _generate(
    generate: Generate, jobs: Sequence[Job], size: int, batch: int, step: Step
) -> NDArray[np.float32]:
    pictures = np.empty((len(jobs), size, size, 4), np.float32)
    for start in range(0, len(jobs), batch):
        part = jobs[start : start + batch]
        made = generate(part, size)
        if made.shape != (len(part), size, size, 4):
            raise InputError(
                f"generate returned shape {made.shape} for {len(part)} jobs at {size} px; "
                f"return {(len(part), size, size, 4)}, premultiplied RGBA."
            )
        pictures[start : start + len(part)] = as_unit_float(made)
        step(len(part))
    return pictures


def _sheet(
    entries: Sequence[Entry],
    jobs: Sequence[Job],
    real: NDArray[np.uint8],
    made: NDArray[np.float32],
) -> Image.Image:
    """A contact sheet: for each style a row of real pictures above a row of generated ones."""
    images: list[Sequence[NDArray[Any]]] = []
    labels: list[str] = []
    captions: list[list[str]] = []
    for style, rows in sorted(rows_by("style", entries).items()):
        rows = rows[:_SHEET_COLUMNS]
        images += [[real[row] for row in rows], [made[row] for row in rows]]
        labels += [f"{style}, real", f"{style}, made"]
        captions += [["" for _ in rows], [jobs[row][0] for row in rows]]
    scale = max(1, _SHEET_SIDE // real.shape[1])
    return sheet(images, row_labels=labels, captions=captions, scale=scale)


def sha256_of(*parts: bytes) -> str:
    """SHA-256 of the concatenated parts, in hex."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
