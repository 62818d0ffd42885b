"""A judge of distributions of Fashion-MNIST: are as many pictures as real, and as varied?

    OMP_NUM_THREADS=1 python -m benchmarks fashion judge train
    OMP_NUM_THREADS=1 python -m benchmarks fashion judge score

The first trains a small classifier on 15,000 pictures that no network of this suite learns from,
and writes benchmarks/models/fashion-judge.safetensors. In the features of its last layer but one
the second measures what both networks draw in many steps, beside anchors: the test set, measured
in the same way, is what a perfect network would score. It writes judge.json and judge-sheet.png.

Pictures are kept in runs/fashion while they are drawn, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from asymflow.bench import features, metrics
from asymflow.core.adapter import CardedAdapter
from asymflow.core.errors import FileFormatError, InputError, MissingExtra
from asymflow.core.schedules import plan_of, switched
from asymflow.core.statistics import Interval
from asymflow.core.types import Plan, Request, Solver
from asymflow.io.files import key_name, replacing
from asymflow.io.plots import new_figure
from asymflow.planning import grids, plan_files
from asymflow.planning.encoded import Encoded
from asymflow.planning.journal import Journal
from asymflow.planning.verifier import rollout
from benchmarks import results
from benchmarks.suites.fashion import data
from benchmarks.suites.fashion.asking import Together, asked, dense, loaded
from benchmarks.suites.fashion.networks import NETWORKS
from benchmarks.suites.fashion.train import KEEP_SECONDS, MODELS, RUNS, Run, rate_at

FILE = "fashion-judge.safetensors"
DIM = 128
"""Of features."""
STEPS, BATCH, RATE = 3600, 64, 2e-3
"""Of training: 15 times through the pictures."""
SHIFT = 2
"""Pixels that a picture is moved by at most in training."""
NEAREST = 3
"""Radius of a picture in precision and recall: the distance of its third neighbour."""
REFERENCE = 5000
"""Real pictures that others are compared with: the first of the networks' part."""
ANCHORS = (500, 1000, 2000, 10_000)
LITE = 500
"""Pictures, and reference, of EfficientNet-Lite0, which takes a hundred times as long."""
MOVES, PICTURES, FIRST, TOGETHER = 32, 1000, 10_000, 50
"""Moves of "many steps", pictures, their first seed, and how many are drawn at once."""
CHECKED = 16
"""Pictures that are drawn with twice the moves, to see how far many steps are from the limit."""

Features = NDArray[np.float32]
Labels = NDArray[np.int64]
Bytes = NDArray[np.uint8]


class Classifier(nn.Module):
    """From pictures [b, 1, 32, 32] in [-1, 1] to features [b, DIM] and logits [b, 10]."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 32, 64, 96, 96, DIM)
        sides, strides = (5, 3, 3, 3, 3), (2, 1, 1, 1, 1)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, side, stride, padding=side // 2)
            for before, after, side, stride in zip(
                widths[:-1], widths[1:], sides, strides, strict=True
            )
        )
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for width in widths[1:])
        self.head = nn.Linear(DIM, len(data.CLASSES))

    def features(self, x: Tensor) -> Tensor:
        """Features [b, DIM], none negative."""
        for number, (convolution, norm) in enumerate(
            zip(self.convolutions, self.norms, strict=True)
        ):
            x = F.relu(norm(convolution(x)))
            if number in (1, 3):
                x = F.max_pool2d(x, 2)
        return x.mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


@dataclass(frozen=True, slots=True)
class Scores:
    """How pictures compare with real ones; intervals are at 95 %.

    Attributes:
        fd: Frechet distance of features, which is larger for fewer pictures.
        kid: unbiased squared maximum mean discrepancy of features, times 1000.
        accuracy: share of pictures that are recognised as the class that was asked for.
        precision: share of pictures that are as near to real ones as these to one another.
        recall: share of real pictures that are as near to these, as these to one another; both are
            measured with equally many of either.
    """

    pictures: int
    fd: Interval
    kid: Interval
    accuracy: Interval
    precision: float
    recall: float


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """The trained classifier."""

    network: Classifier

    @classmethod
    def load(cls, models: Path = MODELS) -> Judge:
        """The judge in a folder of models.

        Raises:
            InputError: there is none.
            FileFormatError: its file is damaged.
        """
        path = models / FILE
        if not path.is_file():
            raise InputError(
                f"There is no {path}. Train it with `python -m benchmarks fashion judge train`."
            )
        network = Classifier()
        try:
            state = {name: value.float() for name, value in load_file(path).items()}
            network.load_state_dict(state)
        except (SafetensorError, RuntimeError) as error:
            raise FileFormatError(
                f"{path} does not hold a judge ({error}). Restore it, or train it again with "
                "`python -m benchmarks fashion judge train`."
            ) from error
        return cls(network.eval())

    @torch.inference_mode()
    def features(self, pictures: NDArray[Any], batch: int = 250) -> Features:
        """Features [n, DIM] of pictures [n, 32, 32]: bytes, or numbers in [0, 1].

        Raises:
            InputError: the pictures have another shape, type or range.
        """
        if pictures.shape[1:] != (data.SIDE, data.SIDE):
            raise InputError(
                f"Pictures have shape {pictures.shape}; the judge needs "
                f"[n, {data.SIDE}, {data.SIDE}]."
            )
        x = torch.from_numpy(features.as_unit_float(pictures)).unsqueeze(1) * 2 - 1
        found = [self.network.features(part) for part in x.split(batch)]
        return torch.cat(found).numpy() if found else np.zeros((0, DIM), np.float32)

    @torch.inference_mode()
    def classes(self, found: Features) -> Labels:
        """The most probable class [n] of pictures, by their features [n, DIM]."""
        return self.network.head(torch.from_numpy(found)).argmax(1).numpy()

    def scores(self, found: Features, labels: Labels, reference: Features) -> Scores:
        """Scores of pictures by their features [n, DIM] and by the classes asked for [n].

        Args:
            found: features of the pictures.
            labels: classes that they should show.
            reference: features of real pictures.
        """
        right = self.classes(found) == labels
        count = min(len(found), len(reference))
        some, real = found[:count], reference[:count]
        return Scores(
            pictures=len(found),
            fd=metrics.fd(found, reference),
            kid=metrics.kid(found, reference),
            accuracy=metrics.recall(np.where(right, 1, 2), 1),  # a share, with Wilson's interval
            precision=covered(some, real),
            recall=covered(real, some),
        )


def covered(points: Features, centres: Features, nearest: int = NEAREST) -> float:
    """Share of points [n, d] inside a ball around any centre [m, d].

    The radius of a ball is the distance of its centre from the `nearest`-th other centre
    (Kynkaanniemi et al., arXiv 1904.06991).
    """
    radii = np.concatenate(
        [np.partition(part, nearest, axis=1)[:, nearest] for part in _squares(centres, centres)]
    )
    inside = [(part <= radii).any(axis=1) for part in _squares(points, centres)]
    return float(np.concatenate(inside).mean())


def _squares(x: Features, y: Features, rows: int = 500) -> Iterator[NDArray[np.float64]]:
    """Squared distances [<= rows, m] between rows of x [n, d] and y [m, d]."""
    x_, y_ = x.astype(np.float64), y.astype(np.float64)
    for start in range(0, len(x), rows):
        part = x_[start : start + rows]
        yield (part**2).sum(1)[:, None] + (y_**2).sum(1) - 2 * part @ y_.T


def moved(pictures: Tensor, by: int) -> Tensor:
    """Pictures [b, 1, h, w], each moved by at most so many pixels in either direction."""
    count, _, height, width = pictures.shape
    padded = F.pad(pictures, (by, by, by, by))
    top, left = torch.randint(2 * by + 1, (2, count, 1))
    rows = (top + torch.arange(height)).unsqueeze(2)
    columns = (left + torch.arange(width)).unsqueeze(1)
    return padded[torch.arange(count).view(-1, 1, 1), 0, rows, columns].unsqueeze(1)


def train(given: argparse.Namespace) -> dict[str, Any]:
    """Train the judge, or go on with it, and measure it on the test set."""
    steps: int = given.steps
    torch.manual_seed(0)
    running = Run.begin(Classifier(), RATE)
    checkpoint = given.runs / "judge.pt"
    if checkpoint.is_file():
        running.resume(checkpoint)
        print(f"goes on at step {running.step}")
    pixels, numbers = data.pictures("judge", given.data)
    pictures, labels = torch.from_numpy(pixels).unsqueeze(1), torch.from_numpy(numbers)
    began, kept = time.monotonic() - running.seconds, time.monotonic()
    while running.step < steps:
        rows = torch.randint(len(pictures), (BATCH,))
        x = moved(pictures[rows], SHIFT).float() / 127.5 - 1
        loss = F.cross_entropy(running.network(x), labels[rows])
        running.advance(loss, RATE * rate_at(running.step, steps))
        running.seconds = time.monotonic() - began
        if running.step % 100 == 0:
            recent = float(np.mean(running.losses[-100:]))
            print(f"{running.step} of {steps}: loss {recent:.4f}", flush=True)
        if time.monotonic() - kept > KEEP_SECONDS:
            kept = time.monotonic()
            running.save(checkpoint)
    running.save(checkpoint)
    write(running.average, given.into)
    judge = Judge.load(given.into)
    tested, answers = data.pictures("test", given.data)
    right = judge.classes(judge.features(tested)) == answers
    report = {
        "parameters": sum(each.numel() for each in running.network.parameters()),
        "steps": steps,
        "batch": BATCH,
        "pictures": len(pictures),
        "seconds_of_training": round(running.seconds),
        "test_accuracy": float(right.mean()),
        "test_accuracy_of": {
            name: float(right[answers == number].mean()) for number, name in enumerate(data.CLASSES)
        },
        "loss": [
            round(float(part.mean()), 5)
            for part in np.array_split(np.array(running.losses), min(steps, 36))
        ],
    }
    print(f"test accuracy {report['test_accuracy']:.4f}")
    return results.save(given.out / "fashion-judge.json", report, device="cpu")


def write(network: nn.Module, models: Path) -> Path:
    """Write the judge's weights in float16."""
    path = models / FILE
    models.mkdir(parents=True, exist_ok=True)
    state = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    source = "python -m benchmarks fashion judge train, on Fashion-MNIST (MIT)"
    with replacing(path) as file:
        file.write(save(state, {"source": source, "licence": "Apache-2.0"}))
    return path


def many_steps(
    model: CardedAdapter, moves: int, scale: float = 1.0, solver: Solver = "corrected2"
) -> Plan:
    """Where the model leads: moves on the grid of its own sampler, blended with equal log-SNR."""
    times = grids.blended(dense(model), moves)
    if scale != 1:
        times = switched(times, model.card.guidance_interval)
    return plan_of(times, solver=solver)


def drawn(
    model: CardedAdapter, plan: Plan, scale: float, first: int, count: int, runs: Path = RUNS
) -> tuple[Bytes, Labels]:
    """Pictures [n, 32, 32] of all classes in turn, and these [n].

    What is drawn is kept in `runs`, in parts: the same call goes on where one was interrupted.

    Args:
        model: draws.
        plan: of every picture.
        scale: guidance scale.
        first: seed.
        count: number of pictures.
        runs: folder of what is kept.
    """
    adapter = Encoded(Together(model))
    wanted = asked(model, scale, first, count)
    facts = {"model": model.name, "plan": plan_files.plan_hash(plan), "guidance": f"{scale:g}"}
    journal = Journal(runs / "drawn" / key_name(facts))

    def made(part: Sequence[Request]) -> Tensor:
        states = rollout(adapter, plan, part)
        pictures = np.stack([model.to_picture(state)[..., 0] for state in states])
        return torch.from_numpy((pictures * 255).round().astype(np.uint8))

    kept: list[Tensor] = []
    for start in range(0, count, TOGETHER):
        part = wanted[start : start + TOGETHER]
        kept.append(journal.states(f"{first + start}-{len(part)}", partial(made, part)))
    labels = np.array([request.inputs["label"] for request in wanted], np.int64)
    return torch.cat(kept).numpy(), labels


def lite_scores(pictures: Bytes, reference: Bytes, cache: Path) -> dict[str, Any]:
    """FD and KID in the features of EfficientNet-Lite0.

    Raises:
        MissingExtra: it is not installed.
    """
    network = features.load_network()
    x, y = (
        features.extract(_premultiplied(each), network, cache=cache)
        for each in (pictures, reference)
    )
    return {
        "pictures": len(pictures),
        "fd": asdict(metrics.fd(x, y)),
        "kid": asdict(metrics.kid(x, y)),
    }


def _premultiplied(pictures: Bytes) -> Bytes:
    """Grey pictures [n, h, w] as opaque RGBA [n, h, w, 4]."""
    found = np.repeat(pictures[..., None], 4, axis=-1)
    found[..., 3] = 255
    return found


def score(given: argparse.Namespace) -> dict[str, Any]:
    """Measure anchors and both networks."""
    judge = Judge.load(given.models)
    pixels, _ = data.pictures("networks", given.data)
    real = pixels[: given.reference]
    reference = judge.features(real)
    tested, answers = data.pictures("test", given.data)
    anchor = judge.features(tested)
    anchors = [asdict(judge.scores(anchor[:n], answers[:n], reference)) for n in given.anchors]
    names: list[str] = []
    plans: dict[str, Plan] = {}
    rows: list[dict[str, Any]] = []
    every: dict[str, Bytes] = {"real": real, "test set": tested}
    count: int = given.pictures
    scales: list[float] = given.guidance
    for network in NETWORKS.values():
        model = loaded(given.models / network.file)
        names.append(model.name)
        for scale in scales:
            title = f"{network.card['title']}, guidance {scale:g}"
            plan = plans[title] = many_steps(model, given.moves, scale)
            # A guided picture takes two passes of a step.
            wanted = count if scale == 1 else count // 2
            pictures, labels = drawn(model, plan, scale, FIRST, wanted, given.runs)
            finer = many_steps(model, 2 * given.moves, scale)
            checked = drawn(model, finer, scale, FIRST, given.checked, given.runs)[0]
            found = judge.scores(judge.features(pictures), labels, reference)
            apart = metrics.rms(pictures[: len(checked)] / 127.5, checked / 127.5)
            rows.append({"model": title, "limit_rms": float(apart.mean()), **asdict(found)})
            every[title] = pictures
            print(f"{title}: {rows[-1]}", flush=True)
    report: dict[str, Any] = {
        "moves": given.moves,
        "reference": len(real),
        "nearest": NEAREST,
        "anchors": anchors,
        "models": rows,
    }
    lite: int = given.lite
    try:
        report["efficientnet_lite0"] = {
            name: lite_scores(pictures[-lite:], real[:lite], given.runs / "features")
            for name, pictures in every.items()
            if name != "real"
        }
    except MissingExtra as error:
        report["efficientnet_lite0"] = f"not measured: {error}"
    _draw(every, given.out / "judge-sheet.png")
    described = {"weights": names, "plans": plans, "dtype": "float32", "device": "cpu"}
    return results.save(given.out / "judge.json", report, **described)


def _draw(every: Mapping[str, Bytes], path: Path, columns: int = 20, rows: int = 4) -> None:
    """Rows of pictures of every origin, in the order that they are kept in."""
    figure = new_figure(columns * 0.36, len(every) * (rows * 0.36 + 0.22))
    for place, (title, pictures) in enumerate(every.items()):
        panel = figure.add_subplot(len(every), 1, place + 1)
        panel.imshow(_tiled(pictures[: columns * rows], columns), cmap="gray", vmin=0, vmax=255)
        panel.set_title(title, fontsize=8, pad=2)
        panel.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=100)


def _tiled(pictures: Bytes, columns: int) -> Bytes:
    """One picture of rows of pictures [n, h, w]; what is missing is black."""
    missing = -len(pictures) % columns
    filled = np.pad(pictures, ((0, missing), (0, 0), (0, 0)))
    count, height, width = filled.shape
    grid = filled.reshape(count // columns, columns, height, width)
    return grid.transpose(0, 2, 1, 3).reshape(-1, columns * width)


PARTS = {"train": train, "score": score}
QUICK: dict[str, Any] = {
    "steps": 4,
    "pictures": 20,
    "moves": 4,
    "checked": 2,
    "anchors": [200],
    "reference": 400,
    "lite": 20,
    "guidance": [1.0],
    "into": results.QUICK,
    "runs": results.QUICK,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("part", choices=tuple(PARTS))
    parser.add_argument("--steps", type=int, default=STEPS, help="of training")
    parser.add_argument("--pictures", type=int, default=PICTURES)
    parser.add_argument("--moves", type=int, default=MOVES)
    parser.add_argument("--checked", type=int, default=CHECKED)
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 2.0])
    parser.add_argument("--anchors", type=int, nargs="+", default=list(ANCHORS))
    parser.add_argument("--reference", type=int, default=REFERENCE)
    parser.add_argument("--lite", type=int, default=LITE)
    parser.add_argument("--data", type=Path, metavar="DIR", default=data.FOLDER)
    parser.add_argument("--models", type=Path, metavar="DIR", default=MODELS)
    parser.add_argument("--into", type=Path, metavar="DIR", default=MODELS, help="of the judge")
    parser.add_argument("--runs", type=Path, metavar="DIR", default=RUNS)
    parser.add_argument("--out", type=Path, metavar="DIR", default=results.TRAINED)


def run(given: argparse.Namespace) -> dict[str, Any]:
    return PARTS[given.part](given)
