"""From rows to pictures, the same in every process: what a local worker and an actor of Ray run."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from asymflow._version import __version__
from asymflow.bulk.rows import Row, options
from asymflow.core import engine
from asymflow.core.batcher import Batcher, is_out_of_memory
from asymflow.core.determinism import determinism
from asymflow.core.errors import AsymflowError
from asymflow.core.transforms import truncated
from asymflow.generation import metadata, pipeline, resolve
from asymflow.generation.pipeline import Job, Model
from asymflow.generation.pixels import to_rgba
from asymflow.generation.resolve import GenerateOptions
from asymflow.generation.spec import PlanChoice
from asymflow.io import images
from asymflow.planning.plan_files import plan_hash

ROWS = 16
"""Pictures of a network call, on devices that take several."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What all pictures of a job have in common.

    Attributes:
        model: as `asymflow.load` takes it; None for the embedded model.
        dtype: None for the fastest of the device.
        device: None for a GPU if there is one.
        threads: of a process on a CPU; None leaves them as they are.
        rows: pictures of every network call, on devices that take several.
        defaults: options of rows that do not say otherwise.
        folder: paths in rows are relative to it.
    """

    model: str | None = None
    dtype: str | None = None
    device: str | None = None
    threads: int | None = 1
    rows: int = ROWS
    defaults: GenerateOptions = field(default_factory=GenerateOptions)
    folder: Path = field(default_factory=Path)


@dataclass(frozen=True, slots=True)
class Identity:
    """What decides the bits of pictures beside their rows.

    Attributes:
        model: name of the adapter.
        weights: hash of the weights.
        plan: hash of the plan of rows that ask for none, at `size`; None where that plan needs
            more than the job says.
        size: "WxH" of rows that ask for none.
        dtype: of the network.
        determinism: the class, see `asymflow.core.determinism`.
        version: of asymflow.
        together: rows that are best asked for together.
    """

    model: str
    weights: str
    plan: str | None
    size: str
    dtype: str
    determinism: str
    version: str
    together: int


@dataclass(frozen=True, slots=True)
class Made:
    """A finished picture.

    Attributes:
        row: that asked for it.
        png: its file.
        facts: the columns that it adds to those of the row.
    """

    row: Row
    png: bytes
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Failed:
    """A row that became no picture, and why."""

    row: Row
    error: str


@dataclass(frozen=True, slots=True)
class Price:
    """What a row costs, before it is made.

    Attributes:
        nfe: network passes.
        pixels: that each of them sees.
        kind: rows of one kind take the same time.
    """

    nfe: int
    pixels: int
    kind: str

    @property
    def work(self) -> int:
        """What grows about as the time does: pixels that the network sees."""
        return self.nfe * self.pixels


@dataclass(slots=True, eq=False)
class Pictures:
    """Makes pictures of rows with one loaded model.

    Attributes:
        notes: that were not read yet: what is worth knowing about plans and sizes, once each.
    """

    settings: Settings
    model: Model
    identity: Identity
    notes: list[str] = field(default_factory=list[str])
    _noted: set[str] = field(default_factory=set[str])
    _plans: dict[tuple[Any, ...], PlanChoice] = field(
        default_factory=dict[tuple[Any, ...], PlanChoice]
    )

    @classmethod
    def load(cls, settings: Settings) -> Pictures:
        """Load the model.

        Raises:
            InputError: there is no such model or device, or the settings cannot be served.
            FileFormatError: the model or the plan is a file that cannot be used.
        """
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        resolve.known_dtype(settings.dtype)
        model = pipeline.load(settings.model, dtype=settings.dtype, device=settings.device)
        alone = model.adapter.batch
        rows = None if alone == 1 else min(settings.rows, alone or settings.rows)
        where = model.adapter.template.device
        height, width = _size(model, settings.defaults)
        own = cls(
            settings,
            model,
            Identity(
                model=model.adapter.name,
                weights=model.weights,
                plan=None,
                size=f"{width}x{height}",
                dtype=model.dtype,
                determinism=determinism(where, model.dtype, rows),
                version=__version__,
                together=rows or 1,
            ),
        )
        plan = pipeline.plan_for(
            model, own._chosen(settings.defaults), (height, width), note=own._note
        )
        own.identity = replace(own.identity, plan=plan_hash(plan))
        return own

    def price(self, row: Row) -> Price:
        """What a row costs.

        Raises:
            AsymflowError: it cannot be made.
        """
        job = self._job(row)
        height, width = job.request.size
        nfe = pipeline.forwards(job)
        kind = f"{width}x{height}, {nfe} passes, plan {plan_hash(job.record.plan)[:12]}"
        return Price(nfe, width * height, kind)

    def make(self, rows: Sequence[Row]) -> Iterator[Made | Failed]:
        """Make pictures; each is given when it is finished.

        A row that cannot be made is `Failed`, and says nothing of the others.
        """
        ready: dict[tuple[Any, ...], list[tuple[Row, Job]]] = {}
        for row in rows:
            try:
                job = self._job(row)
                engine.check_plan(self.model.adapter, job.record.plan, job.request.size)
            except (AsymflowError, OSError) as error:
                yield Failed(row, _reason(error))
                continue
            ready.setdefault(self._kind(job), []).append((row, job))
        count = self.identity.together
        for group in ready.values():
            for begin in range(0, len(group), count):
                yield from self._drawn(group[begin : begin + count], count)

    def _kind(self, job: Job) -> tuple[Any, ...]:
        """What pictures have in common that make every network call together."""
        request = job.request
        guided = request.guidance_scale != 1
        return plan_hash(job.record.plan), request.size, request.strength, guided

    def _drawn(self, group: Sequence[tuple[Row, Job]], count: int) -> Iterator[Made | Failed]:
        """Pictures of one kind, asked together in calls of a fixed number of rows.

        Matrix kernels sum by the number of rows. So calls are filled with copies, and a picture
        does not depend on how many are beside it.
        """
        fatal = (torch.AcceleratorError,)  # after which this process can compute nothing more
        batcher = Batcher(self.model.adapter, limit=count, isolated=True, fatal=fatal)
        filled = [*group, *[group[0]] * (count - len(group))]
        plans = [truncated(job.record.plan, job.request.strength) for _, job in filled]
        try:
            numbers = batcher.add(plans, [job.request for _, job in filled])
        except fatal:
            raise
        except Exception as error:
            if len(group) == 1:
                yield Failed(group[0][0], self._failure(error, group[0][1]))
            else:  # the one at fault is found alone
                for each in group:
                    yield from self._drawn([each], count)
            return
        waiting = dict(zip(numbers, group, strict=False))
        seconds = dict.fromkeys(waiting, 0.0)
        while waiting and (frame := batcher.tick()) is not None:
            for number, error in frame.failed:
                if number in waiting:
                    row, job = waiting.pop(number)
                    yield Failed(row, self._failure(error, job))
            for move, x_0 in zip(frame.moves, frame.x_t, strict=True):
                if move.picture not in waiting:
                    continue
                seconds[move.picture] += move.seconds
                if move.last:
                    row, job = waiting.pop(move.picture)
                    same = not batcher.exhausted
                    yield self._finished(row, job, x_0, seconds[move.picture], exact=same)
        assert not waiting, "the batcher gives back every picture"

    def _finished(
        self, row: Row, job: Job, x_0: torch.Tensor, seconds: float, *, exact: bool
    ) -> Made:
        [picture] = engine.pictures(self.model.adapter, [job.request], x_0[None])
        pixels = images.to_bytes(to_rgba(picture), pipeline.background(self.model, job.record))
        file = io.BytesIO()
        notes = metadata.notes(job.record, in_xmp=False)
        images.save(file, Image.fromarray(pixels), format="png", notes=notes)
        height, width = job.record.size
        who = self.identity
        return Made(
            row,
            file.getvalue(),
            {
                "seed": job.record.seed,
                "size": f"{width}x{height}",
                "model": who.model,
                "weights": who.weights,
                "plan_name": job.record.plan.name,
                "plan_hash": plan_hash(job.record.plan),
                # With fewer rows in a call than usual, sums may have been rounded otherwise.
                "determinism": who.determinism + ("" if exact else ", or fewer for lack of memory"),
                "nfe": pipeline.forwards(job),
                "seconds": round(seconds, 6),
                "sha256": sha256(pixels.tobytes()).hexdigest(),
            },
        )

    def _job(self, row: Row) -> Job:
        asked = options(row, self.settings.defaults, self.settings.folder)
        wanted = resolve.spec(asked, "png", self._chosen(asked))
        [job] = pipeline.jobs(self.model, wanted, note=self._note)
        return job

    def _chosen(self, asked: GenerateOptions) -> PlanChoice:
        """The plan that options choose; a file is read once."""
        key = asked.plan, asked.steps, asked.solver, asked.guidance_interval
        if key not in self._plans:
            self._plans[key] = resolve.plan(asked)
        return self._plans[key]

    def _note(self, line: str) -> None:
        if line not in self._noted:
            self._noted.add(line)
            self.notes.append(line)

    def _failure(self, error: Exception, job: Job) -> str:
        if not is_out_of_memory(error):
            return _reason(error)
        height, width = job.request.size
        return (
            f"A picture of {width}x{height} did not fit into the memory of {self.model.device}, "
            "not even alone. Ask for a smaller size, or half precision (--dtype bfloat16)."
        )


def _size(model: Model, defaults: GenerateOptions) -> tuple[int, int]:
    return model.card.sizes.native if defaults.size is None else resolve.size_of(defaults.size)


def _reason(error: Exception) -> str:
    if isinstance(error, AsymflowError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename or 'a file'}."
    return f"{type(error).__name__}: {error}"
