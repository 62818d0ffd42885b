"""The worker thread: it loads the model, warms up, and serves the queue.

Another thread writes pictures, so that the next ones are generated during compression and disk
writes. With the network in a separate process (`asymflow.server.remote`), two threads generate, to
keep it busy: while one processes an output, the network computes for the other.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from asymflow.core import devices, engine, presets
from asymflow.core.adapter import Adapter
from asymflow.core.batcher import Move
from asymflow.core.errors import AsymflowError
from asymflow.core.transforms import truncated
from asymflow.core.types import Decision, Picture, Plan, Request
from asymflow.generation import pipeline
from asymflow.generation.pipeline import Model
from asymflow.models.embedded import plans
from asymflow.server import media, remote, requests
from asymflow.server.jobs import Unit
from asymflow.server.manager import JobManager
from asymflow.server.problems import NO_ROOM, ApiError, ProblemDetail, disk_is_full
from asymflow.server.supervisor import Lost

_log = logging.getLogger("asymflow.server")

_OUR_FAULT = "Something went wrong in the server. Its log says what."
_TOGETHER = 8
"""Pictures per batch, if the model supports several per call."""
_TRIES = 3
"""Attempts for a picture whose network process is lost, perhaps by chance or by another picture."""
_FIRST_PAUSE, _LAST_PAUSE = 1.0, 60.0
"""Seconds between two attempts to load the model."""


@dataclass(slots=True, eq=False)
class _Run:
    """A running picture.

    Attributes:
        seconds: of computing so far; `started` is the time of its start.
        facts: of every finished or skipped step, by its index in the plan.
    """

    unit: Unit
    made: pipeline.Job
    plan: Plan
    seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)
    facts: dict[int, dict[str, Any]] = field(default_factory=lambda: dict[int, dict[str, Any]]())
    decisions: list[Decision] = field(default_factory=lambda: list[Decision]())


class Worker(threading.Thread):
    """Serves a job manager until that closes.

    Args:
        load: returns the model.
    """

    def __init__(self, engine: JobManager, load: Callable[[], Model]) -> None:
        super().__init__(name="asymflow-worker", daemon=True)
        self._manager = engine
        self._load = load
        self._abandoned = threading.Event()
        self._last = threading.local()  # what each thread passed to the writer

    def abandon(self) -> None:
        """Stop running pictures; their jobs are kept for the next start."""
        self._abandoned.set()
        if (network := self._manager.network) is not None:
            network.abort()

    def run(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                self._work()
            except AsymflowError:
                _log.exception("the model cannot be loaded")
                # The message may have file names, which belong in the log only.
                self._manager.give_up("The model could not be loaded. The server's log says why.")
                return
            except Exception:
                # Such as temporarily exhausted files or threads.
                _log.exception("the model could not be loaded", extra={"pause_s": pause})
                self._manager.give_up("The model could not be loaded, and is tried again soon.")
            else:
                return
            if self._manager.await_close(pause):
                return
            pause = min(2 * pause, _LAST_PAUSE)

    def _work(self) -> None:
        """Load the model, and serve with it until the server closes.

        Raises:
            AsymflowError: the model cannot be used.
            Exception: a resource of the system is exhausted.
        """
        model = self._load()
        network = remote.network_of(model)
        try:
            seconds = _warm_up(model)
            count = 1 if network is None else 2
            with (
                ThreadPoolExecutor(1, "asymflow-writer") as self._writer,
                ThreadPoolExecutor(count, "asymflow-drawing") as drawing,
            ):
                self._writer.submit(int).result()  # starts its thread before it is needed
                self._manager.open(model, seconds, None if network is None else network.process)
                _log.info("ready", extra={"model": model.adapter.name, "device": model.device})
                limit = self._manager.settings.together or model.adapter.batch or _TOGETHER
                for each in [drawing.submit(self._draw, model, limit) for _ in range(count)]:
                    each.result()
        finally:
            remote.end(model)

    def _draw(self, model: Model, limit: int) -> None:
        while units := self._manager.take(limit):
            try:
                self._serve(model, units)
            except Exception:
                # The next start finds these jobs unfinished; this one must go on.
                _log.exception("pictures were given up")
            finally:
                self._manager.rest(units)

    def _serve(self, model: Model, units: Sequence[Unit], tries: int = 1) -> None:
        """Make pictures; one by one if a batch runs out of memory, or its network is lost."""
        runs = [run for unit in units if (run := self._prepared(model, unit)) is not None]
        if not runs:
            return
        try:
            self._walk(model, runs)
        except Lost as error:
            _log.error("lost", extra={"pictures": len(runs), "reason": str(error), "try": tries})
            lost = error
        except Exception as error:
            if not _no_memory(error):
                _log.exception("a picture could not be made")
                self._fail(runs, _OUR_FAULT, None)
                return
            self._manager.metrics.memory.inc()
            _log.error("out of memory", extra={"pictures": len(runs)})
            lost = None
        else:
            return
        # Here, where the error and the objects in its frames are released.
        gc.collect()
        devices.release_memory()
        if lost is not None and lost.memory:
            self._manager.metrics.memory.inc()
        if lost is not None and not self._manager.await_network([run.unit.job for run in runs]):
            return
        if lost is not None and tries < _TRIES:
            for run in runs:
                self._serve(model, [run.unit], tries + 1)
        elif lost is None and len(runs) > 1:
            for run in runs:
                self._serve(model, [run.unit], tries)
        elif lost is None or lost.memory:
            self._fail(
                runs,
                "There is not enough memory for this picture. Ask for a smaller one, or stop other "
                "programs that use the device.",
                "out_of_memory",
            )
        else:
            self._fail(
                runs,
                f"{lost} So it did {_TRIES} times with this picture. Ask for it again; where that "
                "does not help, the server's log says more.",
                "network_lost",
            )

    def _prepared(self, model: Model, unit: Unit) -> _Run | None:
        try:
            made = requests.prepare(model, self._manager.store, unit.job.request, unit.wanted)
        except AsymflowError as error:
            self._manager.fail(unit.job, ProblemDetail(str(error), code="unusable"))
            return None
        except ApiError as refusal:
            self._manager.fail(unit.job, refusal.problem)
            return None
        except Exception:
            _log.exception("a picture could not be prepared")
            problem = ProblemDetail(_OUR_FAULT, "server_error", code="internal_error")
            self._manager.fail(unit.job, problem)
            return None
        return _Run(unit, made, truncated(made.record.plan, made.request.strength))

    def _walk(self, model: Model, runs: Sequence[_Run]) -> None:
        adapter = model.adapter
        requests = [run.made.request for run in runs]
        for run in runs:
            self._manager.begin(run.unit.job)
        ends: dict[int, torch.Tensor] = {}
        walk = engine.walk(adapter, runs[0].made.record.plan, requests)
        try:
            for frame in walk:
                for move, x_0, x_t in zip(frame.moves, frame.x_0, frame.x_t, strict=True):
                    self._note(adapter, runs[move.picture], move, x_0, len(frame.moves))
                    ends[move.picture] = x_t
                if self._abandoned.is_set() or self._nobody_waits(runs):
                    return
        finally:
            walk.close()
        made = engine.pictures(adapter, requests, torch.stack([ends[i] for i in range(len(runs))]))
        # A disk that is slower than the model must not fill the memory.
        wait(getattr(self._last, "written", ()))
        self._last.written = [
            self._writer.submit(self._finish, run, picture)
            for run, picture in zip(runs, made, strict=True)
        ]

    def _nobody_waits(self, runs: Sequence[_Run]) -> bool:
        limit = self._manager.settings.picture_seconds
        for run in runs:
            if time.monotonic() - run.started > limit:
                self._manager.fail(
                    run.unit.job,
                    ProblemDetail(
                        f"A picture took more than {limit:g} seconds, which is too long. Ask for a "
                        "smaller one, or for less quality.",
                        "server_error",
                        code="timeout",
                    ),
                )
        return all(run.unit.job.over for run in runs)

    def _note(
        self, adapter: Adapter, run: _Run, move: Move, x_0: torch.Tensor, together: int
    ) -> None:
        """Publish a step of one picture, which it made with others."""
        if run.unit.job.over:
            return
        if not x_0.isfinite().all():
            self._fail(
                [run],
                "The model returned NaN or infinite values. Its file may have been changed while "
                "the server ran, or be damaged: restart the server, and see asymflow doctor.",
                "not_finite",
            )
            return
        seconds = move.seconds - remote.waited(adapter) / together
        run.seconds += seconds
        if move.decision is not None:
            run.decisions.append(move.decision)
        request = run.made.request
        guided = move.step.guides(guided=request.guidance_scale != 1)
        before = run.facts.get(move.index, {"ms": 0.0, "forwards": 0})
        facts = {
            "t": round(move.step.t, 4),
            "tier": move.step.tier.name,
            "shrink": move.step.tier.pool_factor,
            "guided": guided,
            "skipped": False,
            # A picture that inserts a node makes this step in two moves.
            "ms": round(before["ms"] + 1000 * seconds, 2),
            "forwards": before["forwards"] + move.step.evaluations * (2 if guided else 1),
        }
        run.facts[move.index] = facts
        [look] = engine.pictures(adapter, [request], x_0[None])
        self._manager.step(run.unit, move.index, facts, look)
        if move.action == "skip":
            left_out = run.plan.steps[move.index + 1]
            skipped = {
                "t": round(left_out.t, 4),
                "tier": left_out.tier.name,
                "shrink": left_out.tier.pool_factor,
                "guided": False,
                "skipped": True,
                "ms": 0.0,
                "forwards": 0,
            }
            run.facts[move.index + 1] = skipped
            self._manager.step(run.unit, move.index + 1, skipped, None)

    def _finish(self, run: _Run, picture: Picture) -> None:
        """Write and publish a picture, or its error."""
        try:
            self._write(run, picture)
        except Exception as error:
            _log.exception("a picture could not be written")
            message, code = (NO_ROOM, "disk_full") if disk_is_full(error) else (_OUR_FAULT, None)
            try:
                self._fail([run], message, code)
            except Exception:
                # On a full disk, for example, not even that can be written. The next start finds
                # the job unfinished.
                _log.exception("a picture was given up")

    def _write(self, run: _Run, picture: Picture) -> None:
        job = run.unit.job
        if job.over:
            return
        made = replace(run.made, record=replace(run.made.record, decisions=tuple(run.decisions)))
        forwards = pipeline.forwards(made)
        request = job.request
        facts = {
            "label": run.unit.wanted.label,
            "prompt": made.record.prompt,
            "negative_prompt": made.record.negative,
            "style": made.record.style,
            "width": request.width,
            "height": request.height,
            "seed": made.record.seed,
            "quality": request.quality,
            "guidance_scale": made.record.guidance,
            "plan": made.record.plan.name,
            "seconds": round(run.seconds, 4),
            "forwards": forwards,
            "steps": [
                {key: value for key, value in run.facts[i].items() if key != "forwards"}
                for i in sorted(run.facts)
            ],
        }
        # Before the picture is published, so that metrics read afterwards include it.
        self._manager.metrics.seconds.labels(request.quality).observe(run.seconds)
        self._manager.metrics.forwards.labels(request.quality).observe(forwards)
        self._manager.learn(job.cost, run.seconds)
        self._manager.picture(run.unit, media.encode(picture, made.record), facts)

    def _fail(self, runs: Sequence[_Run], message: str, code: str | None) -> None:
        for run in runs:
            self._manager.fail(
                run.unit.job, ProblemDetail(message, "server_error", code=code or "internal_error")
            )


def _warm_up(model: Model) -> float:
    """Make a fast picture twice; return seconds per full network pass over 64 x 64 pixels."""
    size = (64, 64)
    plan = requests.chosen_plan(model, plans.NAMES[0], size)
    request = Request({"prompt": "a red apple"}, size, 0, presets.GUIDANCE)
    seconds = 0.0
    for _ in range(2):
        started = time.perf_counter()
        [result] = engine.run(model.adapter, plan, [request])
        media.preview(result.picture, composite=False)
        seconds = time.perf_counter() - started
    return seconds / requests.work(plan, size, presets.GUIDANCE)


def _no_memory(error: Exception) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # The allocator of the CPU has no exception class of its own.
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)
