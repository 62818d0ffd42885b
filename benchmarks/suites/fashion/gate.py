"""Does the gate of distributions, which needs no network, say of plans what the judge says?

    OMP_NUM_THREADS=1 python -m benchmarks fashion gate

Both models draw unguided pictures in many steps, and from the same noise by plans of few steps.
Beside the gate (`asymflow.planning.distribution`): FD and KID of both sets to real pictures in the
features of the judge, KID of one to the other, and the distance of single pictures. Writes
gate.json.

Pictures are kept in runs/fashion while they are drawn, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from asymflow.bench import metrics
from asymflow.core.types import Plan, Solver
from asymflow.planning import distribution
from asymflow.planning.proof import ANOTHER
from benchmarks import results
from benchmarks.suites.fashion import data
from benchmarks.suites.fashion.asking import loaded
from benchmarks.suites.fashion.judge import (
    FIRST,
    MOVES,
    REFERENCE,
    Bytes,
    Features,
    Judge,
    drawn,
    many_steps,
)
from benchmarks.suites.fashion.networks import NETWORKS
from benchmarks.suites.fashion.train import MODELS, RUNS

SOLVER: Solver = "multistep3"


def compared(planned: Bytes, many: Bytes, judge: Judge, reference: Features) -> dict[str, Any]:
    """What the gate and the judge say of pictures [n, 32, 32] of a plan and of many steps."""
    x, y = (np.asarray(each[..., None] / 255, np.float32) for each in (planned, many))
    gate = distribution.compare(x, y)
    of_planned, of_many = judge.features(planned), judge.features(many)
    errors = metrics.rms(2 * x, 2 * y)
    apart = np.median(metrics.rms(2 * y, 2 * np.roll(y, 1, axis=0)))
    return {
        "verdict": "kept" if gate.kept else "lost" if gate.lost else "undecided",
        "gate": asdict(gate),
        "fd": metrics.fd(of_planned, reference).value,
        "fd_many": metrics.fd(of_many, reference).value,
        "kid": metrics.kid(of_planned, reference).value,
        "kid_many": metrics.kid(of_many, reference).value,
        "kid_to_many": asdict(metrics.kid(of_planned, of_many, paired=True)),
        "rms": float(errors.mean()),
        "changed": float((errors > ANOTHER * apart).mean()),
    }


def agreement(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Rank correlations (Spearman) between the gate's distance and what the judge says."""
    gate = [row["gate"]["distance"]["value"] for row in rows]
    said = {
        "fd_more": [row["fd"] - row["fd_many"] for row in rows],
        "kid_more": [row["kid"] - row["kid_many"] for row in rows],
        "kid_to_many": [row["kid_to_many"]["value"] for row in rows],
    }
    return {name: _spearman(gate, values) for name, values in said.items()}


def _spearman(x: Sequence[float], y: Sequence[float]) -> float:
    ranks = np.stack([np.argsort(np.argsort(each)) for each in (x, y)])
    off = ranks - ranks.mean(1, keepdims=True)
    return float((off[0] * off[1]).sum() / np.sqrt((off**2).sum(1).prod()))


QUICK: dict[str, Any] = {
    "steps": [2, 4],
    "pictures": 20,
    "moves": 6,
    "reference": 100,
    "runs": results.QUICK,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 6, 8, 12])
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--moves", type=int, default=MOVES)
    parser.add_argument("--reference", type=int, default=REFERENCE)
    parser.add_argument("--data", type=Path, metavar="DIR", default=data.FOLDER)
    parser.add_argument("--models", type=Path, metavar="DIR", default=MODELS)
    parser.add_argument("--runs", type=Path, metavar="DIR", default=RUNS)
    parser.add_argument("--out", type=Path, metavar="DIR", default=results.TRAINED)


def run(given: argparse.Namespace) -> dict[str, Any]:
    judge = Judge.load(given.models)
    reference = judge.features(data.pictures("networks", given.data)[0][: given.reference])
    names: list[str] = []
    plans: dict[str, Plan] = {}
    rows: list[dict[str, Any]] = []
    prices: list[int] = given.steps
    for network in NETWORKS.values():
        model = loaded(given.models / network.file)
        title = network.card["title"]
        names.append(model.name)
        fine = many_steps(model, given.moves)
        many = drawn(model, fine, 1.0, FIRST, given.pictures, given.runs)[0]
        for steps in prices:
            plan = plans[f"{title}, {steps} steps"] = many_steps(model, steps, solver=SOLVER)
            planned = drawn(model, plan, 1.0, FIRST, given.pictures, given.runs)[0]
            rows.append(
                {"model": title, "steps": steps, **compared(planned, many, judge, reference)}
            )
            print(rows[-1], flush=True)
    report = {
        "pictures": given.pictures,
        "moves": given.moves,
        "reference": len(reference),
        "solver": SOLVER,
        "rows": rows,
        "rank_correlation": agreement(rows),
    }
    described = {"weights": names, "plans": plans, "dtype": "float32", "device": "cpu"}
    return results.save(given.out / "gate.json", report, **described)
