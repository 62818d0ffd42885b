"""What was found of each property: kept, broken, or that it does not apply."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from asymflow.models.contract.subject import Subject

Property = Callable[[Subject], Iterator[str]]
"""Yields a message for everything that is wrong; the first line of its docstring is the promise."""

State = Literal["kept", "broken", "absent"]


class DoesNotApply(Exception):
    """Raised by a property that an adapter need not have; the message says what is absent."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one property.

    Attributes:
        name: of the property.
        promise: in one sentence.
        state: "absent" where it does not apply.
        messages: what is wrong, or absent.
    """

    name: str
    promise: str
    state: State
    messages: tuple[str, ...] = ()

    @property
    def kept(self) -> bool:
        """Whether nothing is wrong."""
        return self.state != "broken"

    def __str__(self) -> str:
        head = f"{self.state:<8}{self.name:<16}"
        if self.state == "absent":
            return f"{head}({self.messages[0]})"
        return "\n".join([head + self.promise, *(f"{'':8}{each}" for each in self.messages)])


@dataclass(frozen=True, slots=True)
class Report:
    """The findings of an adapter; printed, it is a table.

    Attributes:
        adapter: its name.
    """

    adapter: str
    findings: tuple[Finding, ...]

    @property
    def kept(self) -> bool:
        """Whether nothing is wrong."""
        return all(each.kept for each in self.findings)

    def __str__(self) -> str:
        states = [each.state for each in self.findings]
        parts = (("kept", "kept"), ("broken", "broken"), ("absent", "do not apply"))
        counts = ", ".join(f"{states.count(state)} {word}" for state, word in parts)
        return "\n".join([f"{self.adapter}: {counts}", *map(str, self.findings)])


def tried(check: Property, subject: Subject) -> Finding:
    """What is found of one property. What an adapter raises is a finding, too."""
    name, promise = check.__name__, (check.__doc__ or "").partition("\n")[0]
    messages: list[str] = []
    try:
        with torch.inference_mode():
            for message in check(subject):
                messages.append(message)  # those before an error are kept
    except DoesNotApply as error:
        return Finding(name, promise, "absent", (str(error),))
    except Exception as error:  # whatever an adapter may raise
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{frame.filename}:{frame.lineno}, in {frame.name}"
        messages.append(f"{type(error).__name__}: {error} ({where})")
    return Finding(name, promise, "broken" if messages else "kept", tuple(messages))
