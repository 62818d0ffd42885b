"""Learned samplers, by their authors' code, against fitted plans at equal passes: LD3 and GS.

    OMP_NUM_THREADS=1 python -m benchmarks fashion learned --ld3 PATH --gas PATH

LD3 learns the times of a sampler, and GS those and all its coefficients, by gradients through it
(`ld3.py`, `gs.py`). Each PATH is a checkout: of github.com/vinhsuhi/LD3, and of
github.com/3145tttt/GAS, which needs the package torch-ema. One alone is run alone. They learn from
as many limits of the model, on pictures of their own, and draw the fresh pictures of `fashion
campaign`, whose result has the errors of fitted plans and of other samplers. Writes learned.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from asymflow.core.errors import InputError
from benchmarks import results
from benchmarks.suites.fashion import gs, ld3
from benchmarks.suites.fashion.asking import asked, loaded
from benchmarks.suites.fashion.campaign import FRESH, LIMIT, Table
from benchmarks.suites.fashion.networks import NETWORKS
from benchmarks.suites.fashion.peers import Lesson
from benchmarks.suites.fashion.train import MODELS

NETWORK = "jit"
TRAIN, VALID = 50, 50
"""Pictures that LD3 learns from and chooses by. GS chooses nothing, and learns from all."""
ROUNDS = 2, 5
"""Of times alone, and of both times, of LD3."""
ITERATIONS, RATE = 2000, 0.01
"""Of the training of GS."""
QUICK: dict[str, Any] = {
    "prices": [4], "pictures": 3, "limit": 6, "train": 2, "valid": 2, "rounds": [1, 1],
    "solvers": ["uni_pc"], "iterations": 2,
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ld3", type=Path, metavar="PATH", help="a checkout of LD3")
    parser.add_argument("--gas", type=Path, metavar="PATH", help="a checkout of GAS")
    parser.add_argument("--prices", type=int, nargs="+", default=[6, 10])
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument(
        "--solvers", nargs="+", default=["uni_pc", "dpm_solver++", "ipndm"], help="of LD3"
    )
    parser.add_argument("--train", type=int, default=TRAIN)
    parser.add_argument("--valid", type=int, default=VALID)
    parser.add_argument("--rounds", type=int, nargs=2, default=ROUNDS, help="of LD3")
    parser.add_argument("--iterations", type=int, default=ITERATIONS, help="of GS")
    parser.add_argument("--rate", type=float, default=RATE, help="the learning rate of GS")
    parser.add_argument("--loss", choices=["l1", "l2"], default="l2", help="of GS")
    parser.add_argument(
        "--limit", type=int, default=LIMIT, help="steps of either half of the limit"
    )
    parser.add_argument("--models", type=Path, metavar="DIR", default=MODELS)
    parser.add_argument("--out", type=Path, metavar="DIR", default=results.TRAINED)


def run(given: argparse.Namespace) -> dict[str, Any]:
    checkouts = [(ld3.CODE, given.ld3), (gs.CODE, given.gas)]
    codes = [(code, path) for code, path in checkouts if path is not None]
    if not codes:
        raise InputError(
            "No checkout of a learned sampler is given. Give --ld3 PATH, --gas PATH, or both: "
            f"clones of {' and '.join(f'github.com/{code.name}' for code, _ in checkouts)}."
        )
    for code, path in codes:
        code.check(path)
    model = loaded(given.models / NETWORKS[NETWORK].file)
    table = Table.of(model, 1.0, 0, given.pictures)
    fresh = Lesson.of(table, asked(model, 1.0, FRESH, given.pictures), given.limit)
    rows: list[dict[str, Any]] = []
    prices: list[int] = given.prices
    for price in prices:
        found: list[dict[str, Any]] = []
        if given.ld3 is not None:
            with ld3.CODE.imported(given.ld3):
                found += [ld3.learned(table, fresh, price, each, given) for each in given.solvers]
        if given.gas is not None:
            with gs.CODE.imported(given.gas):
                found.append(gs.learned(table, fresh, price, given))
        rows.append({"passes": price, "learned": found})
        print(rows[-1], flush=True)
    commits = [code.commit(path) for code, path in codes]
    report = {"pictures": given.pictures, "code": commits, "rows": rows}
    path = given.out / "learned.json"
    return results.save(path, report, weights=[model.name], dtype="float32", device="cpu")
