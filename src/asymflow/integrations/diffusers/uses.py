"""What an automatic plan is made for besides the model: how the pipeline is used.

Its evidence speaks of the size, the guidance and the calls that it was measured with, and of the
pipeline's own sampler, which it is compared with. A plan that is kept serves for the same use only.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from torch import Tensor

from asymflow.core.errors import InputError
from asymflow.integrations.diffusers import auto
from asymflow.models.diffusers.pipelines import STRENGTH, Call, Family, bound

SHORT = 12
"""Digits of a digest that are kept."""


@dataclass(frozen=True, slots=True)
class Use:
    """What a plan is made for besides the model.

    Attributes:
        conditions: size, guidance, noise that a picture begins with, and the price of the plan,
            by their names in `Evidence.made`; without those that do not apply.
        sampler: the pipeline's own, with its options.
        examples: digest of the calls that are measured.
        given: whether these were given, or are those for a pipeline of which nothing is known.
    """

    conditions: Mapping[str, str]
    sampler: str
    examples: str
    given: bool

    @property
    def made(self) -> Mapping[str, str]:
        """Entries of `Evidence.made`."""
        return {**self.conditions, "sampler": self.sampler, "examples": self.examples}

    @property
    def label(self) -> str:
        """For names of files: conditions that people know."""
        return "-".join(self.conditions.values())

    def fits(self, made: Mapping[str, str]) -> bool:
        """Whether a plan with that evidence is for this use, but for the examples.

        Plans of version 0.1 do not say what their sampler was.
        """
        named = {**dict.fromkeys(_CONDITIONS, ""), **self.conditions}
        same = all(made.get(name, "") == value for name, value in named.items())
        return same and made.get("sampler", self.sampler) == self.sampler


_CONDITIONS = ("size", "guidance_scale", "pipeline", STRENGTH, "noise_level", "steps")


def use_of(
    pipe: Any, family: Family, calls: Sequence[Call], steps: int | None, *, given: bool
) -> Use:
    """The use of a pipeline that examples stand for.

    Args:
        calls: the examples.
        steps: the price of the plan, if there is one.
        given: whether the examples were given by the caller.

    Raises:
        InputError: the examples are of several uses.
    """
    uses = [{**auto.conditions(pipe, family, call), **_beginning(pipe, call)} for call in calls]
    for index, use in enumerate(uses):
        if use != uses[0]:
            raise InputError(
                f"examples[{index}] is called for {_text(use)}, and examples[0] for "
                f"{_text(uses[0])}. A plan is made for one use: give examples that share it, and "
                "make a plan for each."
            )
    price = {} if steps is None else {"steps": str(steps)}
    return Use({**uses[0], **price}, sampler_of(pipe.scheduler), digest_of(calls), given)


def sampler_of(scheduler: Any) -> str:
    """A scheduler and those of its options that are not defaults, in a short text."""
    parameters = inspect.signature(type(scheduler).__init__).parameters
    options = {
        name: _plain(value)
        for name, value in sorted(dict(scheduler.config).items())
        if name in parameters and _plain(value) != _plain(parameters[name].default)
    }
    digest = hashlib.sha256(repr(options).encode()).hexdigest()
    return f"{type(scheduler).__name__}:{digest[:SHORT]}"


def digest_of(calls: Sequence[Call]) -> str:
    """Tells calls of a pipeline from others: texts, numbers, tensors and pictures in them."""
    digest: Any = hashlib.sha256()
    _add(digest, calls)
    return digest.hexdigest()[:SHORT]


def _add(digest: Any, value: object) -> None:
    """Add a value to a digest of hashlib, with its kind."""
    digest.update(f"{type(value).__name__} ".encode())
    if isinstance(value, Tensor):
        array = value.detach().float().cpu().numpy()
        digest.update(f"{array.shape} ".encode() + array.tobytes())
    elif isinstance(value, np.ndarray) or hasattr(value, "__array_interface__"):  # PIL pictures
        array = np.asarray(cast("Any", value))
        digest.update(f"{array.dtype} {array.shape} ".encode() + array.tobytes())
    elif isinstance(value, Mapping):
        entries = cast("Mapping[object, object]", value)
        for name in sorted(entries, key=str):
            _add(digest, name)
            _add(digest, entries[name])
    elif isinstance(value, list | tuple):
        items = cast("Sequence[object]", value)
        digest.update(f"{len(items)} ".encode())
        for item in items:
            _add(digest, item)
    elif isinstance(value, str | bytes | bool | int | float | None):
        digest.update(repr(value).encode() + b" ")
    # Of anything else, such as a callback, the kind has to do: its text may be another each time.


def _plain(value: Any) -> str:
    return repr(value.tolist() if hasattr(value, "tolist") else value)


def _beginning(pipe: Any, call: Call) -> dict[str, str]:
    """What a plan is made for besides, where the pipeline is given a picture to begin with."""
    arguments = bound(pipe, call)
    if "image" not in arguments:
        return {}
    given = {name: arguments[name] for name in (STRENGTH, "noise_level") if name in arguments}
    return {"pipeline": type(pipe).__name__, **{name: f"{given[name]:g}" for name in given}}


def _text(use: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in use.items())
