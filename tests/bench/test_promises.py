"""Whether promises of `accelerate` are measured by the suite `families promises` as it says."""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.__main__ import parser_of
from benchmarks.registry import SUITES
from benchmarks.results import ROOT

import asymflow
from asymflow import InputError
from asymflow.core.statistics import Interval, rms

diffusers: Any = pytest.importorskip("diffusers")

PARTS = "benchmarks.suites.families"


def part(name: str) -> Any:
    return importlib.import_module(f"{PARTS}.{name}")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """More are slower for networks of this size."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- the limit ---------------------------------------------------------------------------------


def test_the_limit_of_one_gaussian_is_known() -> None:
    """Its flow multiplies the distance to the mean by the ratio of the standard deviations."""
    small, limits = part("small"), part("limits")
    one = small.exact(Path(), 0, side=4, components=1)
    found = limits.limit_of(one, range(3), 256)
    noise = [torch.randn(one.shape, generator=torch.Generator().manual_seed(n)) for n in range(3)]
    [mean] = one.pipe.unet.mixture.means.double()
    (a, s), (b, r) = (small.alpha_sigma(float(one.log_snr[i])) for i in (-1, 0))
    width, narrow = (math.hypot(x * small.SPREAD, y) for x, y in ((a, s), (b, r)))
    moved = b * small.SPREAD**2 / narrow * (torch.stack(noise).double() - a * mean) / width
    wrong = rms((found["states"] - (mean + moved).clamp(-1, 1)).numpy())
    assert (wrong < 1e-3).all()
    # What is stated of the error is no less than the error.
    assert (wrong <= found["errors"].numpy()).all()


@pytest.mark.parametrize("name", ["velocity", "guided"])
def test_the_limit_is_where_the_scheduler_of_diffusers_leads(name: str, tmp_path: Path) -> None:
    """With the noise that fits what it clips: the error falls as that of Euler's method."""
    small, limits, promised = part("small"), part("limits"), part("promised")
    one = small.LOAD[name](tmp_path, 1)
    limit = limits.limit_of(one, promised.seeds(1), 64)["states"]
    one.pipe.scheduler = scheduler = diffusers.DDIMScheduler.from_config(
        one.pipe.scheduler.config, timestep_spacing="trailing"
    )
    scheduler.register_to_config(variance_type="fixed_small")
    own = scheduler.step

    @functools.wraps(own)
    def step(*args: Any, **named: Any) -> Any:
        return own(*args, **{**named, "use_clipped_model_output": True})

    scheduler.step = step
    errors: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        for steps in (10, 50):  # which divide its timesteps
            patch.setattr(promised, "OWN_STEPS", steps)
            made = promised.drawn(one, one.pipe, 1)
            errors.append(float(rms((made.double() - limit).numpy())[0]))
    assert errors[0] > 1e-3
    assert errors[1] < errors[0] / 2.5


def test_nodes_of_the_limit_are_as_dense_as_two_grids_together() -> None:
    small, limits = part("small"), part("limits")
    levels = small.exact(Path(), 0, side=4).log_snr
    nodes = limits.grid(levels, 64)
    assert (len(nodes), nodes[0], nodes[-1]) == (65, levels[-1], levels[0])
    steps = -np.diff([small.timestep(levels, node) for node in nodes])
    # No move is longer than those of 32 equal timesteps, or of 32 equal shares of log(alpha/sigma).
    assert steps.min() > 0
    assert steps.max() <= 999 / 32 + 1e-9
    assert np.diff(nodes).max() <= (levels[0] - levels[-1]) / 32 + 1e-9
    shares = steps / 999 + np.diff(nodes) / (levels[0] - levels[-1])
    assert np.allclose(shares, 2 / 64)


# --- counting ----------------------------------------------------------------------------------


class Fast:
    """What `accelerate` returns: a pipeline with a plan, which may come later."""

    def __init__(self, pipe: Any, plan: Any) -> None:
        self.pipe, self.asymflow_plan = pipe, plan

    def __call__(self, **call: Any) -> Any:
        return self.pipe(**{**call, "num_inference_steps": 5})


def plan(evidence: Any) -> Any:
    step = SimpleNamespace(solver="euler", tier=SimpleNamespace(name="full"))
    return SimpleNamespace(steps=[step] * 5, evidence=evidence)


EVIDENCE = SimpleNamespace(rms=Interval(0.02, 0.01, 0.03), made={"a": 1})


def test_passes_of_a_plan_are_counted_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    promised, one = part("promised"), part("small").exact(Path(), 0, side=4, components=2)

    def accelerate(pipe: Any, plan: str = "auto", examples: Any = ()) -> Fast:
        if plan != "auto":
            raise InputError("There is no plan called 'default'.")
        pipe(batch_size=3, num_inference_steps=7)
        return Fast(pipe, measured)

    measured = plan(EVIDENCE)

    monkeypatch.setattr(asymflow, "accelerate", accelerate)
    found = promised.measure(one, 3)
    assert found["passes"] == 21
    assert found["first_seconds"] is None
    assert (found["passes_per_picture"], found["own_passes_per_picture"]) == (5, 50)
    assert (found["steps"], found["solvers"], found["tiers"]) == (5, ["euler"], ["full"])
    assert found["stated_rms"] == {"value": 0.02, "low": 0.01, "high": 0.03}
    assert not torch.equal(found["states"], found["own_states"])
    # The same seeds in batches of other sizes.
    monkeypatch.setattr(promised, "TOGETHER", 2)
    assert torch.allclose(promised.drawn(one, one.pipe, 3), found["own_states"], atol=1e-5)


def test_a_plan_that_needs_no_measuring_is_timed_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    promised, one = part("promised"), part("small").exact(Path(), 0, side=4, components=2)

    def accelerate(pipe: Any, plan: str = "auto", examples: Any = ()) -> Fast:
        if plan == "auto":
            pipe(batch_size=3, num_inference_steps=7)
        return Fast(pipe, wanted)

    wanted = plan(EVIDENCE)
    monkeypatch.setattr(asymflow, "accelerate", accelerate)
    found = promised.measure(one, 3)
    assert found["passes"] == 21
    assert found["first_seconds"] > 0
    assert found["default_passes_per_picture"] == 5
    assert torch.equal(found["default_states"], found["states"])


def test_a_plan_that_was_kept_is_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    promised, one = part("promised"), part("small").exact(Path(), 0, side=4, components=2)

    def accelerate(pipe: Any, examples: Any) -> Fast:
        return Fast(pipe, plan(EVIDENCE))

    monkeypatch.setattr(asymflow, "accelerate", accelerate)
    with pytest.raises(AssertionError, match="kept by an earlier run"):
        promised.accelerated(one)


def test_examples_take_turns(tmp_path: Path) -> None:
    one = part("small").LOAD["guided"](tmp_path, 1)
    call = one.call([1, 4, 6])
    told = [each["prompt_embeds"] for each in one.examples]
    assert torch.equal(call["prompt_embeds"], torch.cat([told[1], told[0], told[2]]))
    assert call["negative_prompt_embeds"].shape == call["prompt_embeds"].shape
    assert call["guidance_scale"] == part("small").SCALE


# --- verdicts ----------------------------------------------------------------------------------

LIMIT = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def found(plan: float, own: float, low: float, high: float) -> dict[str, Any]:
    """Measurements where every picture has these errors."""
    return {
        "passes": 900,
        "seconds": 9.0,
        "first_seconds": None,
        "steps": 10,
        "solvers": ["euler"],
        "tiers": ["full"],
        "passes_per_picture": 10,
        "own_passes_per_picture": 50,
        "stated_rms": {"value": low, "low": low, "high": high},
        "made": {"pictures": "16", "adapter": "pipeline:0"},
        "states": LIMIT + plan,
        "own_states": LIMIT - own,
        "default_states": LIMIT + 2 * plan,
        "default_passes_per_picture": 20,
    }


def judged(measured: dict[str, Any]) -> dict[str, Any]:
    return part("promises").judge(measured, {"states": LIMIT})


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ((0.02, 0.03, 0.01, 0.03), []),
        ((0.02, 0.03, 0.021, 0.03), ["stated", "overlaps"]),
        ((0.02, 0.03, 0.001, 0.019), ["stated", "overlaps"]),
        ((0.04, 0.03, 0.01, 0.05), ["kept"]),
        ((0.0078, 0.001, 0.001, 0.01), []),  # less than a level of a byte
        ((0.0079, 0.001, 0.001, 0.01), ["kept"]),
    ],
)
def test_verdicts(given: tuple[float, ...], wrong: list[str]) -> None:
    report = judged(found(*given))
    assert [name for name, held in report["verdicts"].items() if not held] == wrong
    assert report["fresh"]["rms"]["value"] == pytest.approx(given[0])
    assert report["difference"]["value"] == pytest.approx(given[0] - given[1])
    assert report["broken_beyond_chance"] == ("kept" in wrong)


def test_a_picture_that_became_another_is_found() -> None:
    measured = found(0.002, 0.03, 0.0, 1.0)
    measured["states"][3] = LIMIT[4]
    report = judged(measured)
    assert report["fresh"]["changed"] == 1
    assert report["fresh"]["changed_share"] == 1 / 8
    assert not report["verdicts"]["pictures"]
    assert report["verdicts"]["overlaps"]
    # One of eight pictures may be chance.
    assert not report["broken_beyond_chance"]


def test_versions_are_compared_on_the_same_seeds() -> None:
    promises = part("promises")
    now, before = (judged(found(*errors, 0.0, 1.0)) for errors in ((0.02, 0.03), (0.025, 0.03)))
    now["measuring"]["passes"] = 300
    report = promises.compared(now, before)
    assert report["passes_ratio"] == pytest.approx(1 / 3)
    assert report["difference"]["value"] == pytest.approx(-0.005)
    assert report["verdicts"] == {"a_third": True, "equal_or_better": True}
    now["measuring"]["passes"] = 301
    now["plan"]["passes_per_picture"] = 11
    report = promises.compared(now, before)
    assert report["verdicts"] == {"a_third": False, "equal_or_better": False}
    before["verdicts"]["kept"] = False
    assert promises.compared(now, before)["verdicts"]["equal_or_better"]
    now["verdicts"]["pictures"] = False
    assert not promises.compared(now, before)["verdicts"]["equal_or_better"]


REPOSITORY = pytest.mark.skipif(
    not (ROOT / ".git").exists(), reason="an earlier version takes a repository"
)


@REPOSITORY
def test_a_tree_of_a_commit_is_there_and_goes() -> None:
    promises = part("promises")
    with promises.tree_of("HEAD") as tree:
        assert tree != ROOT
        assert (tree / "src/asymflow/__init__.py").exists()
        # The same code has the same name, wherever it is.
        code = promises.digest(tree / "src/asymflow")
        (tree / "src/asymflow/one_more.py").write_text("")
        assert promises.digest(tree / "src/asymflow") != code
    assert not tree.exists()


@pytest.mark.slow
@REPOSITORY
def test_the_suite_measures_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [suite] = [suite for suite in SUITES if suite.name == "families promises"]
    promises = part("promises")
    words = ["--only", "exact", "--pictures", "2", "--against", "HEAD"]
    for option in ("networks", "work", "out"):
        words += [f"--{option}", str(tmp_path / option)]
    given = parser_of(suite).parse_args(words)
    report = promises.run(given)["networks"]["exact"]
    # What is committed may differ from what is here, and not by that much.
    assert 0.1 < report["compared"]["passes_ratio"] < 10
    assert report["now"]["plan"]["passes_per_picture"] < 50

    def measured(*args: Any) -> None:
        pytest.fail("it was measured again")

    monkeypatch.setattr(promises, "measured", measured)
    again = promises.run(given)["networks"]["exact"]
    assert again == report
