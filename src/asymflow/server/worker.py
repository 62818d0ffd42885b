"""The workers: each loads a model, warms up, and serves that model's part of the queue.

`Workers` starts one for every model that is wanted.

Another thread writes pictures, so that the next ones are generated during compression and disk
writes. With the network in a separate process (`asymflow.server.remote`), two threads generate, to
keep it busy: while one processes an output, the network computes for the other.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import torch

from asymflow.core import engine
from asymflow.core.adapter import Adapter
from asymflow.core.batcher import (
    Batcher,
    Frame,
    Interrupted,
    Move,
    NotFinite,
    is_out_of_memory,
)
from asymflow.core.errors import AsymflowError
from asymflow.core.transforms import truncated
from asymflow.core.types import Picture, Plan, Request
from asymflow.generation import pipeline
from asymflow.generation.pipeline import Model
from asymflow.generation.pixels import to_rgba
from asymflow.io import folders
from asymflow.server import media, remote, requests
from asymflow.server.call_sizes import CallSizes
from asymflow.server.jobs import Look, Unit
from asymflow.server.lineup import Served
from asymflow.server.manager import JobManager
from asymflow.server.memory import give_back
from asymflow.server.problems import NO_ROOM, ApiError, ProblemDetail, disk_is_full
from asymflow.server.supervisor import Lost
from asymflow.server.views import Facts, Step

_log = logging.getLogger("asymflow.server")

_OUR_FAULT = "Something went wrong in the server. Its log says what."
_TOGETHER = 8
"""Pictures per network call until its cost is known, if the model supports several."""
_NO_MEMORY = (
    "There is not enough memory for this picture. Request a smaller one, or stop other programs "
    "that use the device."
)
_TRIES = 3
"""Attempts for a picture whose network process is lost, perhaps by chance or by another picture."""
_PAUSE = 1.0
"""Seconds after a fault in drawing."""


@dataclass(slots=True, eq=False)
class _Run:
    """A running picture.

    Attributes:
        tries: attempts that were lost with the process of the network.
        seconds: of computing so far; `started` is the time of its start.
        steps: that are finished, by their index in the plan.
    """

    unit: Unit
    made: pipeline.Job
    plan: Plan
    tries: int = 0
    seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)
    steps: dict[int, Step] = field(default_factory=lambda: dict[int, Step]())


@dataclass(slots=True, eq=False)
class _Drawing:
    """State shared by the threads that draw: the batcher, and its pictures by their number.

    Attributes:
        threads: number of those threads.
        sizes: sets the batcher's limits by size; None if the settings fix the limit.
        reserved: pictures that threads are about to add.
        exhausted: calls without enough memory that have been counted.
    """

    model: Model
    batcher: Batcher
    threads: int
    sizes: CallSizes | None = None
    runs: dict[int, _Run] = field(default_factory=lambda: dict[int, _Run]())
    lock: threading.Lock = field(default_factory=threading.Lock)
    reserved: int = 0
    exhausted: int = 0

    def reserve(self) -> int:
        """Reserve room in the batcher for the pictures of one call, or less if it has less."""
        limit = max(self.batcher.limit or 1, *self.batcher.limits.values(), 1)
        with self.lock:
            free = self.threads * limit - len(self.runs) - self.reserved
            room = max(0, min(free, limit))
            self.reserved += room
        return room

    def release(self, room: int) -> None:
        """End a reservation."""
        with self.lock:
            self.reserved -= room

    @property
    def measuring(self) -> bool:
        """Whether the cost of calls is to be measured."""
        return self.sizes is not None and self.sizes.pending


class Workers(threading.Thread):
    """Starts a worker for every model that a job manager wants, until that closes."""

    def __init__(self, manager: JobManager) -> None:
        super().__init__(name="asymflow-workers", daemon=True)
        self._manager = manager
        self._working: list[Worker] = []

    def run(self) -> None:
        while (served := self._manager.wanted()) is not None:
            self._working = [each for each in self._working if each.is_alive()]
            worker = Worker(self._manager, served)
            self._working.append(worker)
            worker.start()

    def abandon(self) -> None:
        """Stop running pictures; their jobs are kept for the next start."""
        for worker in self._working:
            worker.abandon()

    def finish(self, seconds: float) -> None:
        """Wait for the workers to end; not for one that loads its model, which may take long."""
        until = time.monotonic() + seconds
        self.join(seconds)
        for worker in self._working:
            loading = worker.served.model is None
            worker.join(0.0 if loading else max(0.0, until - time.monotonic()))


class Worker(threading.Thread):
    """Serves the pictures of one model until the job manager closes, or the model has to leave."""

    def __init__(self, manager: JobManager, served: Served) -> None:
        super().__init__(name="asymflow-worker", daemon=True)
        self._manager = manager
        self.served = served
        self._abandoned = threading.Event()
        self._last = threading.local()  # what each thread passed to the writer

    def abandon(self) -> None:
        """Stop running pictures; their jobs are kept for the next start."""
        self._abandoned.set()
        if (network := self.served.network) is not None:
            network.abort()

    def run(self) -> None:
        while True:
            try:
                self._work()
            except AsymflowError:
                _log.exception("the model cannot be loaded")
                # The message may have file names, which belong in the log only.
                self._manager.give_up(
                    self.served,
                    "The model could not be loaded. The server's log says why.",
                    over=True,
                )
                return
            except Exception:
                # Such as temporarily exhausted files or threads.
                self._manager.give_up(
                    self.served,
                    "The model could not be loaded, and is tried again soon.",
                    over=False,
                )
                pause = self.served.pause
                _log.exception("the model could not be loaded", extra={"pause_s": pause})
                if self._manager.await_close(pause):
                    return
            else:
                self._manager.left(self.served)
                give_back()
                return

    def _work(self) -> None:
        """Load the model, and serve with it until the server closes or it has to leave.

        Raises:
            AsymflowError: the model cannot be used.
            Exception: a resource of the system is exhausted.
        """
        model = self.served.load()
        network = remote.network_of(model)
        try:
            seconds = _warm_up(model)
            count = 1 if network is None else 2
            with (
                ThreadPoolExecutor(1, "asymflow-writer") as self._writer,
                ThreadPoolExecutor(count, "asymflow-drawing") as drawing,
            ):
                self._writer.submit(int).result()  # starts its thread before it is needed
                process = None if network is None else network.process
                self._manager.open(self.served, model, seconds, process)
                _log.info("ready", extra={"model": model.adapter.name, "device": model.device})
                limit = self._manager.settings.together or model.adapter.batch or _TOGETHER
                batcher = Batcher(model.adapter, limit, isolated=True, fatal=(Lost,))
                shared = _Drawing(model, batcher, count)
                if self._manager.settings.together is None:
                    shared.sizes = CallSizes(model, batcher, folders.cache() / "calls")
                for each in [drawing.submit(self._draw, shared) for _ in range(count)]:
                    each.result()
        finally:
            remote.end(model)

    def _draw(self, shared: _Drawing) -> None:
        """Take pictures and move them, until the server closes or the model has to leave."""
        while not self._abandoned.is_set():
            try:
                if not self._turn(shared):
                    return
            except Exception:
                # It may be the fault of any of them; later pictures are made all the same.
                _log.exception("pictures were given up")
                with shared.lock:
                    runs = dict(shared.runs)
                self._give_up(list(runs.values()), _OUR_FAULT, None)
                self._release(shared, list(runs))
                if self._manager.await_close(_PAUSE):
                    return

    def _turn(self, shared: _Drawing) -> bool:
        """Take pictures while there is room, and move some; False when the server stops."""
        if not self._fill(shared):
            return False
        if not self.served.alive:
            with shared.lock:
                jobs = [run.unit.job for run in shared.runs.values()]
            if jobs and not self._manager.await_network(self.served, jobs):
                self._drop_unwanted(shared)
                return True
        try:
            frame = shared.batcher.tick()
        except Interrupted as interruption:
            self._lost(shared, interruption)
        else:
            if frame is not None:
                self._follow(shared, frame)
        self._drop_unwanted(shared)
        if shared.sizes is not None and self._manager.quiet(self.served):
            shared.sizes.measure()
        return True

    def _fill(self, shared: _Drawing) -> bool:
        """Add pictures to the batcher while it has room; False when the server stops."""
        room = shared.reserve()
        if not room:
            return True
        try:
            return self._take(shared, room)
        finally:
            shared.release(room)

    def _take(self, shared: _Drawing, room: int) -> bool:
        """Add at most `room` pictures to the batcher; False when the server stops."""
        batcher, manager = shared.batcher, self._manager
        # While this thread waits for jobs, the other one draws what it has.
        measuring = shared.measuring and manager.quiet(self.served)
        units = manager.take(self.served, room, wait=batcher.waiting == 0 and not measuring)
        if units is None:
            return batcher.waiting > 0
        runs = [run for unit in units if (run := self._prepared(shared.model, unit)) is not None]
        manager.rest([unit for unit in units if all(run.unit is not unit for run in runs)])
        for size in dict.fromkeys(run.made.request.size for run in runs):
            self._add(shared, [run for run in runs if run.made.request.size == size])
        return True

    def _add(self, shared: _Drawing, runs: Sequence[_Run]) -> None:
        """Add pictures of one size; one by one if they cannot be encoded together."""
        try:
            for run in runs:
                self._manager.begin(run.unit.job)
            plans, requests = [run.plan for run in runs], [run.made.request for run in runs]
            with shared.lock:  # or the other thread might move a picture that is not known yet
                shared.runs |= zip(shared.batcher.add(plans, requests), runs, strict=True)
        except Exception as error:
            exhausted = is_out_of_memory(error)
            if not exhausted:
                _log.exception("a picture could not be made")
        else:
            return
        if len(runs) > 1:
            for run in runs:
                self._add(shared, [run])
        else:
            message, code = (_NO_MEMORY, "out_of_memory") if exhausted else (_OUR_FAULT, None)
            self._fail(runs, message, code)
            self._manager.rest([run.unit for run in runs])

    def _follow(self, shared: _Drawing, frame: Frame) -> None:
        """Publish what pictures have done, and pass finished ones to the writer."""
        waited = remote.waited(shared.model.adapter) / max(1, len(frame.moves))
        self._count_exhausted(shared)
        for move, x_0, x_t in zip(frame.moves, frame.x_0, frame.x_t, strict=True):
            run = shared.runs.get(move.picture)
            if run is None or run.unit.job.over:
                continue
            self._note(shared.model.adapter, run, move, x_0, move.seconds - waited)
            if move.last:
                self._finish_later(shared.model.adapter, run, x_t)
                if shared.sizes is not None:
                    shared.sizes.finished(run.made.request)
        for number, error in frame.failed:
            if (run := shared.runs.get(number)) is not None:
                self._fail_with(run, error)
        over = [move.picture for move in frame.moves if move.last]
        self._release(shared, [*over, *(number for number, _ in frame.failed)])

    def _lost(self, shared: _Drawing, interruption: Interrupted) -> None:
        """Count a loss of the network; pictures continue where they were, but not for ever."""
        lost = interruption.__cause__
        assert isinstance(lost, Lost), "nothing else is fatal"
        runs = {n: run for n in interruption.pictures if (run := shared.runs.get(n)) is not None}
        tries = max((run.tries + 1 for run in runs.values()), default=1)
        _log.error("lost", extra={"pictures": len(runs), "reason": str(lost), "try": tries})
        if lost.memory:
            self._manager.metrics.memory.inc()
        for number, run in runs.items():
            run.tries += 1
            if run.tries < _TRIES:
                continue
            message, code = _NO_MEMORY, "out_of_memory"
            if not lost.memory:
                code = "network_lost"
                message = (
                    f"{lost} So it did {_TRIES} times with this picture. Request it again; where "
                    "that does not help, the server's log says more."
                )
            self._fail([run], message, code)
            self._release(shared, [number])

    def _drop_unwanted(self, shared: _Drawing) -> None:
        """Drop pictures whose job is over, or that take too long."""
        limit = self._manager.settings.picture_seconds
        with shared.lock:
            runs = dict(shared.runs)
        for run in runs.values():
            if time.monotonic() - run.started > limit:
                self._manager.fail(
                    run.unit.job,
                    ProblemDetail(
                        f"A picture took more than {limit:g} seconds, which is too long. Request a "
                        "smaller one, or for less quality.",
                        "server_error",
                        code="timeout",
                        values={"seconds": limit},
                    ),
                )
        self._release(shared, [n for n, run in runs.items() if run.unit.job.over])

    def _release(self, shared: _Drawing, numbers: Sequence[int]) -> None:
        """Forget pictures that are finished, failed or no longer wanted."""
        with shared.lock:
            runs = [run for n in numbers if (run := shared.runs.pop(n, None)) is not None]
        for number in numbers:
            shared.batcher.cancel(number)
        self._manager.rest([run.unit for run in runs])

    def _count_exhausted(self, shared: _Drawing) -> None:
        with shared.lock:
            more = shared.batcher.exhausted - shared.exhausted
            shared.exhausted += more
        if more:
            self._manager.metrics.memory.inc(more)
            _log.error("out of memory", extra={"calls": more})

    def _fail_with(self, run: _Run, error: Exception) -> None:
        if isinstance(error, NotFinite):
            message = (
                "The model returned NaN or infinite values. Its file may have been changed while "
                "the server ran, or be damaged: restart the server, and see asymflow doctor."
            )
            self._fail([run], message, "not_finite")
        elif is_out_of_memory(error):
            self._fail([run], _NO_MEMORY, "out_of_memory")
        else:
            _log.error("a picture could not be made", exc_info=error)
            self._fail([run], _OUR_FAULT, None)

    def _finish_later(self, adapter: Adapter, run: _Run, x_0: torch.Tensor) -> None:
        [drawn] = engine.pictures(adapter, [run.made.request], x_0[None])
        picture = to_rgba(drawn)
        # A disk that is slower than the model must not fill the memory.
        wait(getattr(self._last, "written", ()))
        self._last.written = [self._writer.submit(self._finish, run, picture)]

    def _prepared(self, model: Model, unit: Unit) -> _Run | None:
        job = unit.job
        try:
            if job.inputs is None:
                job.inputs = requests.inputs(self._manager.store, job.request)
            made = requests.prepare(model, job.request, unit.wanted, job.inputs)
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

    def _note(
        self, adapter: Adapter, run: _Run, move: Move, x_0: torch.Tensor, seconds: float
    ) -> None:
        """Publish a step of one picture."""
        run.seconds += seconds
        request = run.made.request
        guided = move.step.guides(guided=request.guidance_scale != 1)
        step = run.steps[move.index] = Step(
            t=round(move.step.t, 4),
            tier=move.step.tier.name,
            shrink=move.step.tier.pool_factor,
            guided=guided,
            ms=round(1000 * seconds, 2),
        )
        forwards = move.step.passes(guided=request.guidance_scale != 1)
        estimate = x_0.clone()  # a view would keep those of the whole call

        def look() -> Picture:
            [picture] = engine.pictures(adapter, [request], estimate[None])
            return to_rgba(picture)

        self._manager.step(run.unit, move.index, step, forwards, Look(look))

    def _finish(self, run: _Run, picture: Picture) -> None:
        """Write and publish a picture, or its error."""
        try:
            self._write(run, picture)
        except Exception as error:
            _log.exception("a picture could not be written")
            message, code = (NO_ROOM, "disk_full") if disk_is_full(error) else (_OUR_FAULT, None)
            self._give_up([run], message, code)

    def _write(self, run: _Run, picture: Picture) -> None:
        job = run.unit.job
        if job.over:
            return
        made = run.made
        forwards = pipeline.forwards(made)
        request = job.request
        facts = Facts(
            label=run.unit.wanted.label,
            prompt=made.record.prompt,
            drawn=made.record.drawn,
            negative_prompt=made.record.negative,
            style=made.record.style,
            width=request.width,
            height=request.height,
            seed=made.record.seed,
            quality=request.quality,
            guidance_scale=made.record.guidance,
            plan=made.record.plan.name,
            class_label=made.record.label,
            model=self.served.id,
            reference=None if made.record.reference is None else made.record.reference.named,
            seconds=round(run.seconds, 4),
            forwards=forwards,
            steps=tuple(run.steps[i] for i in sorted(run.steps)),
        )
        # Before the picture is published, so that metrics read afterwards include it.
        name = self.served.id
        self._manager.metrics.seconds.labels(request.quality, name).observe(run.seconds)
        self._manager.metrics.forwards.labels(request.quality, name).observe(forwards)
        self._manager.learn(self.served, job.cost, run.seconds)
        assert self.served.about is not None, "it is known since it was loaded"
        file = media.encode(picture, made.record, alpha=self.served.about.card.alpha)
        self._manager.picture(run.unit, file, facts)

    def _fail(self, runs: Sequence[_Run], message: str, code: str | None) -> None:
        for run in runs:
            self._manager.fail(
                run.unit.job, ProblemDetail(message, "server_error", code=code or "internal_error")
            )

    def _give_up(self, runs: Sequence[_Run], message: str, code: str | None) -> None:
        """Fail pictures after a fault, which may be one of the job manager itself."""
        for run in runs:
            try:
                self._fail([run], message, code)
            except Exception:
                _log.exception("a job could not be failed; the next start makes it again")


def _warm_up(model: Model) -> float:
    """Make a fast picture twice; return seconds per full network pass over 64 x 64 pixels."""
    card, size = model.card, model.card.sizes.native
    plan = next(iter(pipeline.plans_of(model, size).values()))
    request = Request(card.calibration[0], size, 0, card.guidance)
    seconds = 0.0
    for _ in range(2):
        started = time.perf_counter()
        [result] = engine.run(model.adapter, plan, [request])
        media.preview(to_rgba(result.picture), composite=False)
        seconds = time.perf_counter() - started
    return seconds / requests.work(plan, size, card.guidance)
