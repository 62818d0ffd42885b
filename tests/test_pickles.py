"""What users hold can be copied, and sent to another process: results, plans, errors."""

from __future__ import annotations

import copy
import importlib
import pickle
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import asymflow
from asymflow.core.batcher import Interrupted
from asymflow.core.errors import AsymflowError, FileFormatError, InputError, MissingExtra
from asymflow.core.types import Profile
from asymflow.io.images import TooManyPixels
from asymflow.models.embedded import plans
from asymflow.models.gaussian import GaussianAdapter
from asymflow.server.problems import Refusal

HOW: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}
ways = pytest.mark.parametrize("again", HOW.values(), ids=HOW)

NOT_DATA = {
    "asymflow.core.batcher.Batcher": "runs pictures, and has a lock",
    "asymflow.core.state.State": "has tensors only; tests/core/test_state.py pickles it",
    "asymflow.server.measuring.Measuring": "is shared with its thread, and has a lock",
    "asymflow.server.jobs.Job": "is shared by the threads of a server, and has a lock",
}


@cache
def classes() -> tuple[type[Any], ...]:
    """Every class of the package, but of modules whose extra is not installed."""
    found: list[type[Any]] = []
    for each in pkgutil.walk_packages(asymflow.__path__, "asymflow."):
        if each.name.endswith("__main__"):
            continue
        with suppress(ImportError):
            module = importlib.import_module(each.name)
            own = (one for one in vars(module).values() if isinstance(one, type))
            found += [one for one in own if one.__module__ == module.__name__]
    return tuple(found)


def name_of(kind: type[Any]) -> str:
    return f"{kind.__module__}.{kind.__name__}"


def public_dataclasses() -> Iterator[type[Any]]:
    for kind in classes():
        if is_dataclass(kind) and kind.__name__[0] != "_" and name_of(kind) not in NOT_DATA:
            yield kind


def filled(kind: type[Any]) -> Any:
    """An instance with its defaults, and texts where it has none."""
    made = object.__new__(kind)
    for each in fields(kind):
        default = each.default_factory() if each.default_factory is not MISSING else each.default
        object.__setattr__(made, each.name, f"its {each.name}" if default is MISSING else default)
    return made


def assert_same(found: Any, wanted: Any) -> None:
    """Compare field by field, since not all that hold arrays can be compared as a whole."""
    assert type(found) is type(wanted)
    if is_dataclass(wanted):
        for each in fields(wanted):
            assert_same(getattr(found, each.name), getattr(wanted, each.name))
    elif isinstance(wanted, tuple | list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_same(one, other)
    elif isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            assert_same(found[key], value)
    elif isinstance(wanted, Tensor):
        assert torch.equal(found, wanted)
    else:
        np.testing.assert_array_equal(found, wanted)


@ways
def test_every_dataclass_survives(again: Callable[[Any], Any]) -> None:
    for kind in public_dataclasses():
        made = filled(kind)
        assert_same(again(made), made)


def test_what_is_left_out_exists() -> None:
    assert NOT_DATA.keys() <= {name_of(kind) for kind in classes()}


ERRORS = (
    AsymflowError("one"),
    InputError("size=0 is no size. Give one."),
    FileFormatError("Cannot read it."),
    MissingExtra("diffusers", "diffusers"),
    Interrupted((3, 5)),
    TooManyPixels("It has 9 pixels, and 4 are the most.", 4),
    Refusal("A mask selects nothing.", "invalid_mask", side=4),
)


@ways
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_survive_with_what_they_say(
    error: AsymflowError, again: Callable[[Any], Any]
) -> None:
    error.add_note("at step 3")
    found = again(error)
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert vars(found) == vars(error)
    assert found.__notes__[-1] == "at step 3"


@ways
def test_every_error_of_ours_survives(again: Callable[[Any], Any]) -> None:
    for kind in classes():
        if issubclass(kind, AsymflowError):
            made = next((each for each in ERRORS if type(each) is kind), None) or kind("a text")
            assert str(again(made)) == str(made)


def model() -> GaussianAdapter:
    return GaussianAdapter(torch.zeros(2, 3, 8, 8), torch.ones(2, 3, 8, 8))


@ways
def test_results_survive(again: Callable[[Any], Any]) -> None:
    image = np.full((8, 8, 3), 0.5, np.float32)
    mask = np.ones((8, 8), np.float32)
    request = asymflow.Request({"label": 1}, (8, 8), 3, 2.0, image, 0.9, mask)
    plan = asymflow.plan_of((1.0, 0.5, 0.0))
    [result] = asymflow.run(model(), plan, [request])
    assert_same(again(result), result)
    [frame, *_] = asymflow.walk(model(), plan, [request])
    assert_same(again(frame), frame)


@ways
@pytest.mark.parametrize("name", plans.NAMES)
def test_plans_survive_with_their_evidence(name: str, again: Callable[[Any], Any]) -> None:
    plan = plans.load(name, (64, 64))
    assert plan.evidence is not None
    found = again(plan)
    assert_same(found, plan)
    assert str(found) == str(plan)


@ways
def test_profiles_survive(tmp_path: Path, again: Callable[[Any], Any]) -> None:
    requests = [asymflow.Request({"label": 1}, (8, 8), seed) for seed in range(2)]
    profile = asymflow.profile(model(), requests, times=(1.0, 0.6, 0.3, 0.0), repeats=1)
    assert_same(again(profile), profile)
    asymflow.save_profile(again(profile), tmp_path / "profile")
    read: Profile = asymflow.load_profile(tmp_path / "profile")
    assert again(read).times == profile.times
    assert asymflow.front(again(read), cost="forwards") == asymflow.front(profile, cost="forwards")
