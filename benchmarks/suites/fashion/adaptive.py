"""What steps for each picture could gain over as many for all.

    OMP_NUM_THREADS=1 python -m benchmarks fashion adaptive

Every picture is drawn by fitted plans of several numbers of steps. Then steps are given out, with a
common mean, so that the sum of errors is least: by the errors themselves (an oracle, which nobody
has); by the mean errors of a class, which are known before a picture is begun; and by a regression
of the errors on what a sampler knows after a few steps, how much its estimates still change, and on
the class. Classes and regressions are learnt from one half of the pictures and used for the other.
Writes adaptive-jit.json and .png, and the same of the other network.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asymflow.core.types import Plan
from asymflow.io.files import replacing
from asymflow.io.plots import new_figure
from asymflow.planning.fitting import Teacher
from asymflow.planning.proof import rms
from asymflow.planning.verifier import rollout
from benchmarks import results
from benchmarks.suites.fashion.asking import asked, loaded
from benchmarks.suites.fashion.campaign import TOGETHER, Table, fits
from benchmarks.suites.fashion.networks import NETWORKS
from benchmarks.suites.fashion.train import MODELS

FIRST, SCALE, LIMIT = 30_000, 2.0, 50
SIGNALS = 3
"""Changes of estimates that a regression knows, of the plan of median length."""
RIDGE = 1.0
RESAMPLED = 1000

Array = NDArray[np.float64]


def allocated(predicted: Array, steps: Array, mean: float) -> NDArray[np.int64]:
    """Which plan [n] every picture gets, so that the sum of predicted errors [k, n] is least.

    The price of a step is the least at which pictures take no more steps than `mean` on average.
    """
    low, high = 0.0, float(predicted.max())
    for _ in range(60):
        price = (low + high) / 2
        picked = (predicted + price * steps[:, None]).argmin(0)
        low, high = (price, high) if steps[picked].mean() > mean else (low, price)
    return (predicted + high * steps[:, None]).argmin(0)


def by_class(errors: Array, labels: NDArray[np.int64]) -> Array:
    """Mean errors [k, n] of the class of each picture, of the other half of pictures."""
    half = np.arange(len(labels)) // (labels.max() + 1) % 2
    found = np.empty_like(errors)
    for number in np.unique(labels):
        for part in (0, 1):
            known = errors[:, (labels == number) & (half != part)]
            found[:, (labels == number) & (half == part)] = known.mean(1, keepdims=True)
    return found


def by_signals(errors: Array, signals: Array, labels: NDArray[np.int64]) -> Array:
    """Errors [k, n] predicted from signals [n, m] and classes, learnt from the other half."""
    half = np.arange(len(labels)) // (labels.max() + 1) % 2
    logs = np.log(signals)
    scaled = (logs - logs.mean(0)) / logs.std(0)
    known = np.hstack([scaled, scaled**2, labels[:, None] == np.unique(labels)])
    found = np.empty_like(errors)
    for part in (0, 1):
        x, y = known[half != part], np.log(errors[:, half != part]).T
        centre = y.mean(0)
        weights = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ (y - centre))
        found[:, half == part] = np.exp(known[half == part] @ weights + centre).T
    return found


def fixed(errors: Array, steps: Array, mean: float) -> Array:
    """The errors [n] of as many steps for all, between two plans in logarithms of their means."""
    after = int(np.clip(np.searchsorted(steps, mean), 1, len(steps) - 1))
    x, y = np.log(steps[after - 1 : after + 1]), np.log(errors[after - 1 : after + 1])
    share = (np.log(mean) - x[0]) / (x[1] - x[0])
    return np.exp(y[0] + share * (y[1] - y[0]))


def measured(network: str, given: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """What every way of giving out steps reaches on a network, and the name of its weights."""
    model = loaded(given.models / NETWORKS[network].file)
    table = Table.of(model, SCALE, 1, 1)
    wanted = asked(model, SCALE, FIRST, given.pictures)
    labels = np.array([request.inputs["label"] for request in wanted], np.int64)
    ours = fits(table)
    plans = [ours.at(steps)["fitted"] for steps in given.steps]
    # Of equal price, a guided estimate, whatever the plan leaves out.
    steps = np.array([sum(s.passes(guided=True) for s in plan.steps) / 2 for plan in plans])
    fine = table.limit(given.limit)
    parts = [wanted[i : i + TOGETHER] for i in range(0, len(wanted), TOGETHER)]
    every = [_errors(table, plans, fine, part) for part in parts]
    errors = np.concatenate([each for each, _ in every], axis=1)
    signals = np.concatenate([each for _, each in every])
    predicted = {
        "oracle": errors,
        "class": by_class(errors, labels),
        "signals": by_signals(errors, signals, labels),
    }
    rows: list[dict[str, Any]] = []
    for mean in given.means:
        row: dict[str, Any] = {"mean": mean}
        for name, each in predicted.items():
            picked = allocated(each, steps, mean)
            own, spent = errors[picked, np.arange(len(picked))], float(steps[picked].mean())
            row[name] = {
                "steps": spent,
                "error": float(own.mean()),
                **_gain(own, errors, steps, spent),
            }
        rows.append(row)
        print(f"{model.name}: {row}", flush=True)
    return {
        "steps": steps.tolist(),
        "errors": errors.mean(1).tolist(),
        "by_class": [errors[:, labels == each].mean(1).tolist() for each in np.unique(labels)],
        "rows": rows,
    }, model.name


def _errors(
    table: Table, plans: Sequence[Plan], fine: Plan, wanted: Sequence[Any]
) -> tuple[Array, Array]:
    """Errors [k, n] of all plans, and the signals [n, m] of the middle one."""
    limit = rollout(table.adapter, fine, wanted)
    runs = [Teacher.of(table.adapter, wanted, plan) for plan in plans]
    estimates = runs[len(runs) // 2].estimates[: SIGNALS + 1].flatten(2)
    changes = (estimates[1:] - estimates[:-1]).norm(dim=2) / estimates[1:].norm(dim=2)
    return np.stack([rms(run.ends, limit) for run in runs]), changes.T.double().numpy()


def _gain(own: Array, errors: Array, steps: Array, spent: float) -> dict[str, Any]:
    """How many times larger the mean error of as many steps for all is, with an interval."""
    rows = np.random.default_rng(0).integers(len(own), size=(RESAMPLED, len(own)))
    means = errors[:, rows].mean(2)
    same = np.array([fixed(each[:, None], steps, spent)[0] for each in means.T])
    low, high = np.quantile(same / own[rows].mean(1), (0.025, 0.975))
    value = fixed(errors.mean(1)[:, None], steps, spent)[0] / own.mean()
    return {"gain": {"value": float(value), "low": float(low), "high": float(high)}}


def _draw(title: str, table: Mapping[str, Any], path: Path) -> None:
    """Error against mean steps."""
    figure = new_figure(4.8, 3.4)
    panel = figure.add_subplot(1, 1, 1)
    panel.plot(table["steps"], table["errors"], "o-", color="0.4", label="as many for all")
    for name, colour in (("oracle", "C0"), ("class", "C2"), ("signals", "C1")):
        found = [row[name] for row in table["rows"]]
        x, y = [each["steps"] for each in found], [each["error"] for each in found]
        panel.plot(x, y, "s--", ms=4, color=colour, label=f"by {name}")
    panel.set(xscale="log", yscale="log", title=title, xlabel="mean guided estimates")
    panel.set_xticks(table["steps"], [f"{n:g}" for n in table["steps"]])
    panel.minorticks_off()
    panel.grid(alpha=0.3)
    panel.set_ylabel("RMSE to the limit")
    panel.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=130)


QUICK: dict[str, Any] = {"steps": [2, 3, 4], "means": [3.0], "pictures": 40, "limit": 8}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 6, 8, 10, 12, 16])
    parser.add_argument("--means", type=float, nargs="+", default=[6.0, 8.0, 10.0, 12.0])
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument(
        "--limit", type=int, default=LIMIT, help="steps of either half of the limit"
    )
    parser.add_argument("--networks", choices=tuple(NETWORKS), nargs="+", default=["unet", "jit"])
    parser.add_argument("--models", type=Path, metavar="DIR", default=MODELS)
    parser.add_argument("--out", type=Path, metavar="DIR", default=results.TRAINED)


def run(given: argparse.Namespace) -> dict[str, Any]:
    saved: dict[str, Any] = {}
    networks: list[str] = given.networks
    for network in networks:
        table, name = measured(network, given)
        title = f"{NETWORKS[network].card['title']}, guidance {SCALE:g}"
        _draw(title, table, given.out / f"adaptive-{network}.png")
        report = {"pictures": given.pictures, "tables": {title: table}}
        path = given.out / f"adaptive-{network}.json"
        saved[network] = results.save(path, report, weights=[name], dtype="float32", device="cpu")
    return saved
