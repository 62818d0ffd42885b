"""Job manager: the queue, running jobs, their state, and subscribers.

`JobManager` is thread-safe; its state changes under its lock. The worker takes pictures from it a
few at a time and reports progress to it (see `asymflow.server.worker`). With several models, each
one that is loaded has a worker, and one of them draws at a time: the model of the first picture in
the queue, until a picture of another one comes first.
"""

from __future__ import annotations

import hashlib
import logging
import math
import sqlite3
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from pydantic import TypeAdapter

from asymflow.core.errors import AsymflowError
from asymflow.core.types import Plan
from asymflow.generation import pipeline
from asymflow.generation.pipeline import Model
from asymflow.server import measuring, requests, views
from asymflow.server.asked import scale_of
from asymflow.server.clients import OPERATOR, Client
from asymflow.server.jobs import Event, Job, Kind, Look, Unit, job_row, picture_view
from asymflow.server.lineup import About, Load, Served, about
from asymflow.server.measuring import Measuring
from asymflow.server.metrics import Metrics
from asymflow.server.notify import Broadcast
from asymflow.server.problems import ApiError, ProblemDetail, stopping
from asymflow.server.queue import FairQueue
from asymflow.server.schemas import CompletedRequest, JobRequest, Slot, remembered, unknown
from asymflow.server.settings import Settings
from asymflow.server.store import JobRow, PictureRow, Store, new_id
from asymflow.server.supervisor import Supervised
from asymflow.server.views import Facts, State, Step

_log = logging.getLogger("asymflow.server")

_REMEMBERED = 256
"""Number of ended jobs whose events can still be replayed."""
_EPOCH = 10**12
"""Event numbers reserved per start of the server, so that numbers rise across starts. A picture
takes some hundreds where many jobs wait."""
_DOWN = "The process that draws is not there, and is being started again. Try again in a moment."
_TURN = 30.0
"""Seconds after which a model makes room for another one although it has work."""
_CHANGES = 1000
"""Number of job changes kept for pages that reconnect."""
_STATE = TypeAdapter[State](State)
_EVENTS = 5000
"""Number of events of all jobs that a subscriber may lag behind."""


class JobManager:
    """The queue, the jobs and their events.

    Args:
        settings: of the server.
        store: of jobs and pictures.
        metrics: to count in.
        models: that are served, by id; the first is the default.
    """

    def __init__(
        self, settings: Settings, store: Store, metrics: Metrics, models: Mapping[str, Load]
    ) -> None:
        self.settings = settings
        self.store = store
        self.metrics = metrics
        self.models = {id: Served(id, load) for id, load in models.items()}
        self.first = next(iter(self.models.values()))
        self.first.asked = True
        self.stopping = False
        self.closing = False
        self.changes: deque[tuple[str, Event]] = deque(maxlen=_CHANGES)
        self.changed = Broadcast()
        self.job_events: deque[tuple[Job, Event]] = deque(maxlen=_EVENTS)
        self.job_event_added = Broadcast()
        self.opened = Broadcast()
        self._lock = threading.RLock()
        self._work = threading.Condition(self._lock)
        self._queue: FairQueue[Unit] = FairQueue()
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._running: list[Unit] = []
        self._next = store.start * _EPOCH
        self._restored = False

    # Called for clients.

    def submit(
        self,
        request: JobRequest,
        *,
        client: Client,
        kind: Kind = "studio",
        key: str | None = None,
        keep: frozenset[int] = frozenset(),
        literal: int | None = None,
        sent: str = "",
    ) -> Job:
        """Queue a job; with an idempotency key that was used before, return that job.

        Args:
            request: the pictures to make.
            client: who asks.
            kind: of the API that was called.
            key: the idempotency key.
            keep: steps whose previews a caller waits for.
            literal: number of pictures of the prompt, in which braces are no choices.
            sent: hash of pictures in the request, whose ids differ each time.

        Raises:
            InputError: it cannot be served.
            ApiError: the queue is full, the server stops, or the key belongs to another request.
        """
        served = self.served(request.model)
        about = self.about(served)
        unique = {"image", "mask"} if sent else None
        text = f"{literal} {sent} {request.model_dump_json(exclude=unique)}"
        body = hashlib.sha256(text.encode()).hexdigest()
        whose = "" if client.owner == OPERATOR else f"{client.owner} "
        # An empty key says nothing: it is none.
        scoped = hashlib.sha256(f"{kind} {whose}{key}".encode()).hexdigest() if key else None
        with self._lock:
            if scoped is not None and (again := self._again(scoped, body)) is not None:
                again.callers += 1
                return again
            if self.stopping:
                raise stopping()
            model = served.model
            completed, slots = requests.completed(about, request, literal)
            completed = completed.model_copy(update={"model": served.id})
            requests.check(model, self.store, completed, client.owner)
            if request.live:
                self._supersede(client)
            self._admit(client.name, len(slots))
            self.check_disk()
            job = Job(
                id=new_id(),
                client=client,
                kind=kind,
                request=completed,
                slots=slots,
                created=time.time(),
                served=served,
                cost=requests.expected_work(about.card, completed),
                steps=about.card.steps,
                keep=keep,
                callers=1,
            )
            if model is not None:
                _plan(job, model)
            self.store.add_job(job_row(job), scoped, body)
            self._enter(job)
            return job

    def check_disk(self) -> None:
        """Check the free space of the disk.

        Raises:
            ApiError: it is less than the limit.
        """
        spare = self.settings.spare
        self.store.make_room(spare)
        if (free := self.store.free()) < spare:
            raise ApiError(
                507,
                f"The disk has {free // 10**6} MB left, and {spare // 10**6} MB stay free. Delete "
                "pictures, or make room where the server keeps them.",
                code="disk_full",
                values={"free_mb": free // 10**6, "spare_mb": spare // 10**6},
            )

    def cancel(self, job: Job) -> None:
        """Cancel a job, at its next step if it runs; no effect if it has ended."""
        with self._lock:
            if not job.over:
                self._end(job, "cancelled", views.Cancelled())

    def leave(self, job: Job) -> None:
        """Unregister a waiting caller of `submit`; a job without callers is cancelled."""
        with self._lock:
            job.callers -= 1
            if job.callers == 0:
                self.cancel(job)
                job.kept.clear()

    def job(self, id: str) -> Job | None:
        """A job of this run of the server, or an earlier one from the database."""
        with self._lock:
            found = self._jobs.get(id)
        if found is not None:
            return found
        row = self.store.job(id)
        return None if row is None else self._recalled(row)

    def recent(self, limit: int, owner: str) -> list[Job]:
        """The newest jobs of the studio of an owner first."""
        rows = self.store.recent_jobs(limit, owner)
        found = (self.job(row.id) for row in rows)
        return [job for job in found if job is not None]

    def active(self, owner: str) -> list[Job]:
        """Jobs of the studio of an owner that wait or run."""
        with self._lock:
            return [
                job
                for job in self._jobs.values()
                if not job.over and job.kind == "studio" and job.client.owner == owner
            ]

    def events(self, job: Job, after: int) -> list[Event]:
        """Events of a job after a number; those of earlier starts are reported as new."""
        with self._lock:
            return [event for event in job.log if event.number > after]

    def changes_after(self, number: int, owner: str) -> list[Event]:
        """Changes of state of all jobs of an owner after a number."""
        with self._lock:
            return [e for whose, e in self.changes if e.number > number and whose == owner]

    def job_events_after(self, number: int, owner: str) -> list[tuple[Job, Event]]:
        """Events of all jobs of the studio of an owner after a number, in order."""
        found: list[tuple[Job, Event]] = []
        with self._lock:
            for job, event in reversed(self.job_events):
                if event.number <= number:
                    break
                if job.client.owner == owner:
                    found.append((job, event))
        return found[::-1]

    def last_event(self) -> int:
        """The number of the newest event of all."""
        with self._lock:
            return self._next

    def last_change(self) -> int:
        """The number of the newest change."""
        with self._lock:
            return self.changes[-1][1].number if self.changes else self._next

    def hide(self, ids: Sequence[str], owner: str, *, hidden: bool) -> list[PictureRow]:
        """Hide pictures of an owner, or show them again; return those there are."""
        return self._renewed(self.store.hide(ids, hidden=hidden, owner=owner))

    def favour(self, ids: Sequence[str], owner: str, *, favourite: bool) -> list[PictureRow]:
        """Make pictures of an owner favourites, or not; return those there are."""
        return self._renewed(self.store.favour(ids, favourite=favourite, owner=owner))

    def remove(self, rows: Sequence[PictureRow]) -> list[PictureRow]:
        """Delete pictures permanently; return their rows as reported from now on."""
        self.store.remove([row.id for row in rows])
        return self._renewed([replace(row, deleted=time.time()) for row in rows])

    def empty_trash(self, owner: str) -> int:
        """Delete the hidden pictures of an owner permanently; return how many there were."""
        return len(self.store.empty_trash(owner))

    def _renewed(self, rows: list[PictureRow]) -> list[PictureRow]:
        for row in rows:
            self._renew(row)
        return rows

    def _renew(self, row: PictureRow) -> None:
        """Publish the job of a picture that has changed."""
        with self._lock:
            job = self._jobs.get(row.job)
            if job is not None and row.slot in job.pictures:
                job.pictures[row.slot] = row

    def outlook(self, job: Job) -> tuple[int | None, float | None]:
        """The number of jobs before a queued job, and the estimated seconds until it is done."""
        with self._lock:
            return self._outlook(job)

    def newest(self, job: Job, slot: int) -> tuple[int, Look] | None:
        """The newest preview of a running picture, and its step."""
        with self._lock:
            return job.previews.get(slot)

    def kept(self, job: Job, slot: int, step: int) -> Look | None:
        """The kept preview of a step, as long as a caller waits for the job."""
        with self._lock:
            return job.kept.get((slot, step))

    def served(self, id: str | None) -> Served:
        """A model by its id; the first one without any.

        Raises:
            ApiError: there is none of that id.
        """
        if id is None:
            return self.first
        found = self.models.get(id)
        if found is None:
            known = ", ".join(map(repr, self.models))
            raise ApiError(
                400,
                f"There is no model {id[:64]!r} here: there is {known}.",
                param="model",
                code="model_not_found",
            )
        return found

    def ask(self, served: Served) -> None:
        """Have a model loaded that nothing is known of yet, or that has failed some time ago."""
        with self._lock:
            if served.due:
                served.state, served.failure, served.again = "away", None, None
                served.asked = True
                self._work.notify_all()
            elif served.state == "away" and served.about is None and not served.asked:
                served.asked = True
                self._work.notify_all()

    def about(self, served: Served) -> About:
        """What is known of a model.

        Raises:
            ApiError: it was not loaded yet, or could not be loaded.
        """
        with self._lock:
            failure, again = served.failure, served.again
        if failure is not None:
            seconds = 5 if again is None else max(1, math.ceil(again - time.monotonic()))
            if again is not None:
                failure += f" It is tried again by the first request after {seconds} s."
            raise ApiError(503, failure, code="model_failed", retry_after=seconds)
        if served.about is None:
            raise ApiError(
                503,
                "The model is being loaded. Try again in a moment.",
                code="loading",
                retry_after=2,
            )
        return served.about

    def measure(self, served: Served, size: tuple[int, int] | None) -> Measuring:
        """Measure plans for a model that is loaded; return the measurement that runs already.

        Raises:
            ApiError: this server measures nothing, or the model is not loaded.
        """
        measurement = measuring.connected()
        if measurement is None:
            raise ApiError(409, "This server cannot measure models.", code="cannot_measure")
        with self._lock:
            if self.stopping:
                raise stopping()
            model = served.model
            if served.measuring is not None and served.measures:
                return served.measuring
            if model is None or served.state != "ready":
                served.asked = True
                self._work.notify_all()
                raise ApiError(
                    503,
                    "The model is being loaded. Try again in a moment.",
                    code="loading",
                    retry_after=2,
                )
            wanted = size or model.card.sizes.native
            if not model.card.sizes.possible(wanted):
                problem = pipeline.no_size(model.card, wanted)
                raise ApiError(400, problem, param="size", code="invalid_value")
            served.measuring = found = Measuring(wanted)

        def held() -> bool:
            with self._lock:
                busy = bool(self._running or self._queue)
                if busy:
                    self._work.wait(timeout=1)
                return busy

        def kept(plan: Plan) -> None:
            del plan
            with self._lock:
                served.about = about(model)

        def over() -> None:
            with self._lock:
                self._work.notify_all()

        found.start(measurement, model, held, kept, over)
        return found

    def waiting(self) -> int:
        """Pictures in the queue."""
        with self._lock:
            return len(self._queue)

    def drawing(self) -> int:
        """Pictures that are being made."""
        with self._lock:
            return len(self._running)

    # Called by the worker.

    @property
    def alive(self) -> bool:
        """Whether the networks of all models that are loaded respond."""
        return all(served.alive for served in self.models.values())

    @property
    def ready(self) -> bool:
        """Whether the first model has been loaded."""
        return self.first.about is not None and self.first.failure is None

    def wanted(self) -> Served | None:
        """Wait for a model that is to be loaded, and for room; None when the server stops.

        Models leave in the order of their last use, and not while they have work, unless another
        one has waited long.
        """
        with self._lock:
            while not self.stopping and not self.closing:
                since = self._wanted()
                away = [served for served in since if served.state == "away"]
                if away:
                    kept = [s for s in self.models.values() if s.state not in ("away", "failed")]
                    if len(kept) < self.settings.keep_models:
                        away[0].state = "loading"
                        self._tell_loading(away[0])
                        return away[0]
                    if not any(served.state in ("leaving", "loading") for served in kept):
                        self._make_room(kept, since[away[0]])
                self._work.wait(timeout=1 if away else None)
            return None

    def left(self, served: Served) -> None:
        """Note that a model is not loaded any more."""
        with self._lock:
            if served.measuring is not None:
                served.measuring.cancel()
            if served.network is not None:
                served.restarts += served.network.restarts
            served.model = served.network = served.down_since = None
            if served.state != "failed":
                served.state = "away"
            self.metrics.loaded.set(self._count_loaded())
            self._work.notify_all()

    def open(
        self,
        served: Served,
        model: Model,
        seconds_per_work: float,
        network: Supervised[Any] | None = None,
    ) -> None:
        """Begin to serve a model; with the first one, the unfinished jobs of an earlier run.

        Args:
            served: the model's place.
            model: as loaded.
            seconds_per_work: of a warm model.
            network: the process that holds the network of the model, if one does.
        """
        known = about(model)
        with self._lock:
            if self.stopping:
                return
            served.seconds_per_work = seconds_per_work
            served.model, served.about, served.network = model, known, network
            served.state, served.failure, served.asked = "ready", None, False
            served.failures, served.again = 0, None
            served.used = time.monotonic()
            for job in {unit.job.id: unit.job for unit in self._queue}.values():
                if job.served is served:
                    _plan(job, model)
            if served is self.first and not self._restored:
                self._restored = True
                self._restore()
            if network is not None:
                network.changed = partial(self._network_changed, served)
            self.metrics.loaded.set(self._count_loaded())
            self._network_changed(served)
            self._tell_loading(served)
            self.opened.ring()

    def give_up(self, served: Served, reason: str, *, over: bool) -> None:
        """Record that a model is not there; queued jobs wait for it.

        Args:
            served: the model's place.
            reason: for people.
            over: whether its worker ends. A request then has it loaded again, but not before a
                pause that grows with every failure. Jobs do not: another model may have to make
                room for it, each time.
        """
        with self._lock:
            served.failures += 1
            served.failure = reason
            served.again = time.monotonic() + served.pause if over else None
            served.state = "failed"
            served.asked = False
            if served is self.first:
                self.metrics.ready.set(0)
            self.opened.ring()

    def await_close(self, seconds: float) -> bool:
        """Wait up to this long for the server to stop; return whether it does."""
        with self._lock:
            return self._work.wait_for(lambda: self.closing, seconds)

    def _network_changed(self, served: Served) -> None:
        with self._lock:
            self.metrics.ready.set(self.ready and self.alive)
            restarts = (s.restarts + (s.network.restarts if s.network else 0) for s in self._all())
            self.metrics.restarts.set(sum(restarts))
            served.down_since = None if served.alive else served.down_since or time.monotonic()
            self._work.notify_all()

    def take(self, served: Served, limit: int, *, wait: bool = True) -> list[Unit] | None:
        """The next pictures of a model, at most `limit`.

        Args:
            served: the model.
            limit: number of pictures.
            wait: until there are some; without it, the result may be empty.

        Returns:
            None when the server stops or the model has to leave.
        """
        with self._lock:
            while True:
                ended = self.closing or (self.stopping and not self._queue)
                if ended or served.state == "leaving":
                    return None
                self._expire()
                units: list[Unit] = []
                if served.alive and self._has_turn(served):
                    units = self._queue.pop(limit, lambda unit: unit.job.served is served)
                if units:
                    served.used = time.monotonic()
                    self._running += units
                    self.metrics.queue.set(len(self._queue))
                    self._move_up()
                if units or not wait:
                    return units
                self._work.wait(timeout=5)

    def quiet(self, served: Served) -> bool:
        """Whether no other model draws, so that this one can be measured meanwhile."""
        with self._lock:
            return all(unit.job.served is served for unit in self._running)

    def await_network(self, served: Served, jobs: Sequence[Job]) -> bool:
        """Wait for the network; False if the server stops or all jobs are cancelled first."""
        with self._lock:
            while not served.alive:
                self._expire()
                if self.closing or all(job.over for job in jobs):
                    return False
                self._work.wait(timeout=1)
            return True

    def begin(self, job: Job) -> None:
        """Mark a job as running, once."""
        with self._lock:
            if job.state != "queued":
                return
            # Not written: for the next start queued and running are the same, and the worker would
            # wait for the disk.
            job.state = "running"
            job.started = time.time()
            self.metrics.wait.observe(time.monotonic() - job.since)
            self._record(job, views.Started())
            self._announce(job)

    def step(self, unit: Unit, index: int, step: Step, forwards: int, look: Look) -> None:
        """Record a finished step of a picture.

        Args:
            unit: the picture.
            index: of the step in its plan.
            step: what was done.
            forwards: network passes of it.
            look: the picture as it is now.
        """
        job = unit.job
        with self._lock:
            if job.over:
                return
            job.done[unit.slot] = index + 1
            job.previews[unit.slot] = (index, look)
            if index in job.keep:
                job.kept[unit.slot, index] = look
            data = views.Stepped(
                **dict(step),
                slot=unit.slot,
                step=index,
                steps=job.steps,
                forwards=forwards,
                progress=round(job.progress, 4),
                eta_seconds=self._outlook(job)[1],
                preview=f"/api/jobs/{job.id}/preview/{unit.slot}?v={index}",
            )
            self._record(job, data)

    def picture(self, unit: Unit, data: bytes, facts: Facts) -> None:
        """Store a finished picture."""
        job, id = unit.job, new_id()
        listed = job.kind == "studio" and not job.request.live
        self.store.write_picture(id, data)  # before taking the lock, since the disk may be slow
        with self._lock:
            if job.over:
                self.store.drop_picture(id)
                return
            row = self.store.add_picture(
                id, job.id, unit.slot, facts, listed=listed, owner=job.client.owner
            )
            job.pictures[unit.slot] = row
            job.previews.pop(unit.slot, None)
            self._record(job, views.Finished(slot=unit.slot, picture=picture_view(row)))
            self.metrics.pictures.labels(
                job.kind, job.request.quality, job.request.model or self.first.id
            ).inc()
            if len(job.pictures) == len(job.slots):
                self._end(job, "done", _done(job))

    def fail(self, job: Job, problem: ProblemDetail) -> None:
        """Mark a job as failed."""
        with self._lock:
            if not job.over:
                job.error = problem
                self.metrics.failures.labels(problem.code or "unknown").inc()
                self._end(job, "failed", views.Failed(error=problem))

    def rest(self, units: Sequence[Unit]) -> None:
        """Release the units that were taken."""
        with self._lock:
            self._running = [unit for unit in self._running if unit not in units]
            if len(self.models) > 1 and not self._running:
                self._work.notify_all()  # it may be another model's turn

    def learn(self, served: Served, work: float, seconds: float) -> None:
        """Update the speed estimate of a model on this machine with the time of a picture."""
        with self._lock:
            served.seconds_per_work += 0.2 * (seconds / work - served.seconds_per_work)

    def drain(self) -> None:
        """Accept no more jobs, and run only those that a call waits for.

        Others are kept for the next start.
        """
        with self._lock:
            self.stopping = True
            self._queue.remove(lambda unit: unit.job.kind != "api")
            self._work.notify_all()

    def drained(self) -> bool:
        """Whether no picture is running, and no call waits for one."""
        with self._lock:
            waited_for = any(job.kind == "api" and not job.over for job in self._jobs.values())
            return not waited_for and not self._running

    def close(self) -> None:
        """End subscriptions, and fail the jobs that calls still wait for.

        Others are kept for the next start.
        """
        with self._lock:
            self.drain()
            for job in list(self._jobs.values()):
                if job.kind == "api":
                    self.fail(job, stopping().problem)
            self.closing = True
            for served in self._all():
                if served.measuring is not None:
                    served.measuring.cancel()
            self._work.notify_all()
            for job in self._jobs.values():
                job.broadcast.ring()
            self.changed.ring()
            self.job_event_added.ring()
            self.opened.ring()

    # The methods below are called with the lock held.

    def _all(self) -> Collection[Served]:
        return self.models.values()

    def _count_loaded(self) -> int:
        return sum(served.model is not None for served in self._all())

    def _wanted(self) -> dict[Served, float]:
        """Models that are asked for or have work, with the time that the oldest came."""
        found = {served: 0.0 for served in self._all() if served.asked}
        for unit in self._queue:
            served = unit.job.served
            if served is not None and served.failure is None:
                found[served] = min(found.get(served, unit.job.since), unit.job.since)
        return found

    def _make_room(self, kept: Sequence[Served], since: float) -> None:
        """Let the model leave that was used least recently."""
        busy = {unit.job.served for unit in (*self._queue, *self._running)}
        idle = [s for s in kept if s not in busy and not s.measures]
        if not idle and time.monotonic() - since > _TURN:
            idle = list(kept)
        if idle:
            min(idle, key=lambda served: served.used).state = "leaving"
            self._work.notify_all()

    def _has_turn(self, served: Served) -> bool:
        """Whether a model may take pictures: no other one draws, and the next picture is its."""
        if len(self.models) == 1:
            return True
        if any(
            unit.job.served is not served and unit.job.served is not None and unit.job.served.alive
            for unit in self._running
        ):
            return False
        first = next((u for u in self._queue if u.job.served and u.job.served.active), None)
        return first is not None and first.job.served is served

    def _tell_loading(self, served: Served) -> None:
        """Publish the jobs that wait for a model whose state has changed."""
        for job in {unit.job.id: unit.job for unit in self._queue}.values():
            if job.served is served and job.kind == "studio":
                self._announce(job)

    def _seconds(self, job: Job, work: float) -> float:
        return work * (self.first if job.served is None else job.served).seconds_per_work

    def _again(self, key: str, body: str) -> Job | None:
        found = self.store.keyed_job(key)
        if found is None:
            return None
        if found[0] != body:
            raise ApiError(
                409,
                "This Idempotency-Key was used for another request. Take a new one.",
                code="idempotency_conflict",
            )
        job = self.job(found[1])
        if job is None or (job.kind == "api" and not self._answers(job)):
            return None
        return job

    def _answers(self, job: Job) -> bool:
        """Whether a job can be the response to a repeated call.

        A job that was interrupted, or whose pictures have been removed, is run again.
        """
        rows = job.pictures.values()
        return (
            job.state not in ("failed", "cancelled")
            and (job.state != "done" or len(rows) == len(job.slots))
            and all(requests.has_picture(self.store, row.id, row.owner) for row in rows)
        )

    def _admit(self, client: str, count: int) -> None:
        wait = len(self._queue) * self.first.seconds_per_work * 10 + 1
        if self._queue.of(client) + count > self.settings.queue_of_one:
            raise ApiError(
                429,
                f"You have {self._queue.of(client)} pictures in the queue, and "
                f"{self.settings.queue_of_one} is the most. Wait for some, or cancel them.",
                code="too_many_jobs",
                values={"waiting": self._queue.of(client), "limit": self.settings.queue_of_one},
                retry_after=wait,
            )
        if len(self._queue) + count > self.settings.queue:
            raise ApiError(
                503,
                f"{len(self._queue)} pictures are in the queue, which is full. Try again later.",
                code="queue_full",
                values={"waiting": len(self._queue)},
                retry_after=wait,
            )

    def _supersede(self, client: Client) -> None:
        for job in list(self._jobs.values()):
            if job.request.live and job.client == client and not job.over:
                self._end(job, "cancelled", views.Cancelled())

    def _enter(self, job: Job) -> None:
        """Queue the missing pictures of a job."""
        self._jobs[job.id] = job
        for slot in range(len(job.slots)):
            if slot not in job.pictures:
                self._queue.push(Unit(job, slot), job.client.name, job.cost)
        job.position, eta = self._outlook(job)
        self._record(job, views.Queued(position=job.position, eta_seconds=eta))
        self._announce(job)
        self.metrics.queue.set(len(self._queue))
        self._work.notify_all()

    def _move_up(self) -> None:
        """Publish the changed queue positions of waiting jobs."""
        for id, (position, seconds) in self._ahead().items():
            job = self._jobs[id]
            if job.state == "queued" and position != job.position:
                job.position = position
                eta = round(seconds, 3)
                self._record(job, views.Queued(position=position, eta_seconds=eta))

    def _end(self, job: Job, state: State, data: views.Said) -> None:
        self._queue.remove(lambda unit: unit.job is job)
        job.state = state
        job.finished = time.time()
        job.previews.clear()
        job.inputs = None
        self._write(job)
        self.metrics.jobs.labels(job.kind, state).inc()
        self.metrics.queue.set(len(self._queue))
        self._record(job, data)
        self._announce(job)
        over = [each for each in self._jobs.values() if each.over]
        for old in over[:-_REMEMBERED]:
            del self._jobs[old.id]

    def _write(self, job: Job) -> None:
        """Write the state of a job to the database.

        If that fails, subscribers are still notified; the next start then runs the job again.
        """
        try:
            self.store.change_job(
                job.id,
                job.state,
                started=job.started,
                finished=job.finished,
                error=None if job.error is None else job.error.as_json(),
            )
        except (OSError, sqlite3.Error):
            _log.exception("the state of a job could not be written")

    def _expire(self) -> None:
        for job in {unit.job.id: unit.job for unit in (*self._queue, *self._running)}.values():
            down = None if job.served is None else job.served.down_since
            lost = down is not None and time.monotonic() - down > self.settings.network_seconds
            if lost and job.kind == "api":  # a client holds a connection open for it
                self.fail(job, ProblemDetail(_DOWN, "server_error", code="network_lost"))
        late = time.monotonic() - self.settings.wait_seconds
        for job in {unit.job.id: unit.job for unit in self._queue}.values():
            if job.since < late and job.state == "queued":
                self.fail(
                    job,
                    ProblemDetail(
                        f"The job waited for {self.settings.wait_seconds:g} seconds, which is too "
                        "long. Try again when less is going on.",
                        "server_error",
                        code="timeout",
                        values={"seconds": self.settings.wait_seconds},
                    ),
                )

    def _outlook(self, job: Job) -> tuple[int | None, float | None]:
        if job.over:
            return None, None
        position, seconds = self._ahead().get(job.id, (0, self._left()))
        return (position if job.state == "queued" else None), round(seconds, 3)

    def _ahead(self) -> dict[str, tuple[int, float]]:
        """For every queued job, the number of jobs before it and the seconds until it is done."""
        found: dict[str, tuple[int, float]] = {}
        seconds = self._left()
        for unit in self._queue:
            seconds += self._seconds(unit.job, unit.job.cost)
            position, _ = found.get(unit.job.id, (len(found), 0.0))
            found[unit.job.id] = position, seconds
        return found

    def _left(self) -> float:
        """The remaining seconds of running pictures. Pictures of one batch end together."""
        return sum(
            max(0.0, 1 - unit.job.done.get(unit.slot, 0) / unit.job.steps)
            * self._seconds(unit.job, unit.job.cost)
            for unit in self._running
        )

    def _number(self) -> int:
        self._next += 1
        return self._next

    def _record(self, job: Job, data: views.Said) -> None:
        event = Event(self._number(), data)
        job.log.append(event)
        job.broadcast.ring()
        self._spread(job, event)

    def _announce(self, job: Job) -> None:
        if job.kind == "studio":
            event = Event(self._number(), views.Changed(job=self._view(job)))
            self.changes.append((job.client.owner, event))
            self.changed.ring()
            self._spread(job, event)

    def _spread(self, job: Job, event: Event) -> None:
        """Publish an event to subscribers of all jobs of the studio."""
        if job.kind == "studio":
            self.job_events.append((job, event))
            self.job_event_added.ring()

    def view(self, job: Job) -> views.Job:
        """A job as in the API."""
        with self._lock:
            return self._view(job)

    def _view(self, job: Job) -> views.Job:
        position, eta = self._outlook(job)
        return views.Job(
            id=job.id,
            state=job.state,
            created=job.created,
            started=job.started,
            finished=job.finished,
            request=job.request,
            position=position,
            loading=not job.over and job.served is not None and job.served.state == "loading",
            eta_seconds=eta,
            progress=round(job.progress, 4),
            pictures=tuple(picture_view(job.pictures[i]) for i in sorted(job.pictures)),
            slots=job.slots,
            error=job.error,
            seconds=round(job.seconds, 4) if job.pictures else None,
            forwards=job.forwards if job.pictures else None,
        )

    def _restore(self) -> None:
        for row in self.store.unfinished_jobs():
            job = self._recalled(row)
            if job is None:
                continue
            job.log = [Event(self._number(), each.data) for each in job.log]
            if len(job.pictures) == len(job.slots):
                self._end(job, "done", _done(job))
            elif job.kind == "api" or job.request.live:
                # Its caller is disconnected.
                self._end(job, "cancelled", views.Cancelled())
            elif strange := unknown(CompletedRequest, row.request):
                job.error = ProblemDetail(
                    "This job comes from another version of asymflow, and has fields that this "
                    f"one does not know: {', '.join(strange)}. Request it again.",
                    "server_error",
                    code="other_version",
                )
                self._end(job, "failed", views.Failed(error=job.error))
            elif job.served is None:
                job.error = ProblemDetail(
                    f"This job is for the model {job.request.model!r}, which this server does not "
                    "have. Request it of another model.",
                    "server_error",
                    code="model_not_found",
                )
                self._end(job, "failed", views.Failed(error=job.error))
            else:
                if job.served.model is not None:
                    _plan(job, job.served.model)
                job.state, job.started = "queued", None
                self._write(job)
                self._enter(job)

    def _recalled(self, row: JobRow) -> Job | None:
        """A job from the database; None for one that cannot be read, which is set aside."""
        try:
            return self._remembered(row)
        except (ValueError, TypeError, KeyError) as error:
            self.store.set_aside("jobs", row.id, repr(error))
            return None

    def _remembered(self, row: JobRow) -> Job:
        """A job from the database, with a log reconstructed from its row."""
        request = remembered(CompletedRequest, row.request)
        job = Job(
            id=row.id,
            client=Client(row.owner, row.client),
            kind="api" if row.kind == "api" else "studio",
            request=request,
            slots=tuple(remembered(Slot, slot) for slot in row.slots),
            created=row.created,
            served=self.first if request.model is None else self.models.get(request.model),
            cost=1.0,
            steps=1,
            state=_STATE.validate_python(row.state),
            started=row.started,
            finished=row.finished,
            error=None if row.error is None else remembered(ProblemDetail, row.error),
            pictures={picture.slot: picture for picture in self.store.pictures_of(row.id)},
        )
        base = self.store.start * _EPOCH
        entries: list[views.Said] = [
            views.Finished(slot=slot, picture=picture_view(picture))
            for slot, picture in sorted(job.pictures.items())
        ]
        if job.state == "done":
            entries.append(_done(job))
        elif job.state == "failed" and job.error is not None:
            entries.append(views.Failed(error=job.error))
        elif job.state == "cancelled":
            entries.append(views.Cancelled())
        job.log = [Event(base + i, data) for i, data in enumerate(entries)]
        return job


def _done(job: Job) -> views.Done:
    return views.Done(seconds=round(job.seconds, 4), forwards=job.forwards)


def _plan(job: Job, model: Model) -> None:
    """Set the cost and the steps of a job by the plan that it will run."""
    try:
        plan = requests.plan(model, job.request)
    except AsymflowError:
        return  # it is told why when its turn comes
    guidance = scale_of(model.card, job.request)
    job.cost = requests.work(plan, job.request.size, guidance)
    job.steps = len(plan.steps)
