"""Measures the plans of a model in the background, while no picture is drawn.

A measurement runs in a thread of its own. It tells how far it is between two evaluations of the
network, and is held there while pictures wait: so those come first, at the price of one evaluation.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from asymflow.core.errors import AsymflowError
from asymflow.core.types import Plan
from asymflow.generation.pipeline import Model
from asymflow.planning import named
from asymflow.server import views

_log = logging.getLogger("asymflow.server")

Size = tuple[int, int]
State = Literal["running", "done", "failed", "cancelled"]


class Cancelled(Exception):
    """Raised by `Tell` when the measurement is to end."""


class Tell(Protocol):
    """Called between two evaluations of the network; returns when the measurement may go on."""

    def __call__(self, done: float, seconds: float | None) -> None:
        """Report progress.

        Args:
            done: share of the measurement that is done.
            seconds: that are left, if that is known.

        Raises:
            Cancelled: the measurement is to end.
        """
        ...


class Measurement(Protocol):
    """Measures a model, and yields plans that were made for it, named as they are to be kept."""

    def __call__(self, model: Model, size: Size, tell: Tell) -> Iterable[Plan]:
        """Measure pictures of (height, width).

        Raises:
            AsymflowError: the model cannot be measured.
            Cancelled: from `tell`.
        """
        ...


def connected() -> Measurement | None:
    """The measurement that servers run; None if there is none.

    This is the one place that names it.
    """
    return named_plans


def named_plans(model: Model, size: Size, tell: Tell) -> Iterable[Plan]:
    """Measure the named plans of a model, see `planning.named`; resumes what was interrupted."""
    started = time.monotonic()

    def progress(activity: str, done: int, total: int) -> None:
        spent = time.monotonic() - started
        tell(done / max(1, total), spent * (total - done) / done if done else None)

    journal = named.journal_of(model.adapter, model.dtype, size)
    found = named.measure(model.adapter, size, journal=journal, progress=progress)
    journal.remove()
    for name in found.absent:
        model.shelf.forget(name, size)
    return found.plans.values()


@dataclass(slots=True, eq=False)
class Measuring:
    """One measurement: how far it is, and what it found.

    Attributes:
        seconds: that are left, if that is known.
        plans: names of plans that were kept.
        error: why it failed, for people.
    """

    size: Size
    state: State = "running"
    done: float = 0.0
    seconds: float | None = None
    plans: list[str] = field(default_factory=lambda: list[str]())
    error: str | None = None
    _ended: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        """End it after the evaluation at hand; no effect if it is over."""
        self._ended.set()
        if self.state == "running":
            self.state = "cancelled"

    def start(
        self,
        measurement: Measurement,
        model: Model,
        held: Callable[[], bool],
        kept: Callable[[Plan], None],
        over: Callable[[], None],
    ) -> None:
        """Run in a thread.

        Args:
            measurement: to run.
            model: to measure.
            held: waits a moment while pictures are drawn; False when they are not.
            kept: called with every plan, after it was put on the model's shelf.
            over: called at the end.
        """

        def tell(done: float, seconds: float | None) -> None:
            self.done, self.seconds = done, seconds
            while not self._ended.is_set() and held():
                pass
            if self._ended.is_set():
                raise Cancelled

        def run() -> None:
            try:
                tell(0.0, None)
                for plan in measurement(model, self.size, tell):
                    model.shelf.keep(plan, self.size)
                    self.plans.append(plan.name)
                    kept(plan)
                if self.state == "running":
                    self.state, self.done, self.seconds = "done", 1.0, 0.0
            except Cancelled:
                self.state = "cancelled"
            except AsymflowError as error:
                self.state, self.error = "failed", str(error)
            except Exception:
                if not self._ended.is_set():  # else the model may be gone already
                    _log.exception("plans could not be measured")
                    self.state = "failed"
                    self.error = "The model could not be measured. The server's log says why."
            finally:
                over()

        threading.Thread(target=run, name="asymflow-measuring", daemon=True).start()

    def view(self) -> views.Measurement:
        """The measurement as in the API."""
        return views.Measurement(
            state=self.state,
            size=f"{self.size[1]}x{self.size[0]}",
            progress=round(self.done, 4),
            eta_seconds=None if self.seconds is None else round(self.seconds, 1),
            plans=list(self.plans),
            error=self.error,
        )
