"""What a job would take, from the prices of its rows and the measured time of each kind of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from asymflow.bulk import job as jobs
from asymflow.bulk.feed import Bad, Feed
from asymflow.bulk.pictures import Made, Pictures, Price
from asymflow.bulk.rows import Columns, Row
from asymflow.bulk.run import Order, job_of
from asymflow.bulk.store import Store
from asymflow.core.errors import AsymflowError

LOOKED = 10_000
"""Rows whose prices are asked for; the others are taken to be like them."""
MEASURED = 8
"""Kinds of rows that are measured, the most frequent ones."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Rows that take the same time.

    Attributes:
        rows: of those that were looked at.
        seconds: of one, on one process.
        bytes: of a picture's file; None where the kind was not measured, but derived.
    """

    name: str
    rows: int
    price: Price
    seconds: float
    bytes: int | None


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is left of a job.

    Attributes:
        rows: to make; `skipped` are done, and `failed` of those looked at cannot be made.
        looked: rows whose prices were asked for.
        kinds: of these, the most frequent ones first.
        errors: the first reasons of rows that cannot be made.
        workers: processes that share the work.
    """

    rows: int
    skipped: int
    failed: int
    looked: int
    kinds: tuple[Kind, ...]
    errors: tuple[Bad, ...]
    workers: int

    def _scaled(self, total: float) -> float:
        return total * self.rows / max(1, sum(kind.rows for kind in self.kinds))

    @property
    def seconds(self) -> float:
        """Of all rows, if processes do not slow one another down."""
        return self._scaled(sum(kind.rows * kind.seconds for kind in self.kinds)) / self.workers

    @property
    def nfe(self) -> int:
        """Network passes of all rows."""
        return round(self._scaled(sum(kind.rows * kind.price.nfe for kind in self.kinds)))

    @property
    def bytes(self) -> int:
        """Of all files, those of kinds that were not measured left out."""
        return round(self._scaled(sum(kind.rows * (kind.bytes or 0) for kind in self.kinds)))

    def to_json(self) -> dict[str, Any]:
        """All of it, for programs."""
        return {
            "rows": {"left": self.rows, "skipped": self.skipped, "failed": self.failed},
            "looked_at": self.looked,
            "workers": self.workers,
            "nfe": self.nfe,
            "hours": round(self.seconds / 3600, 4),
            "megabytes": round(self.bytes / 1e6, 3),
            "kinds": [
                {
                    "kind": kind.name,
                    "rows": kind.rows,
                    "nfe": kind.price.nfe,
                    "seconds": round(kind.seconds, 5),
                    "measured": kind.bytes is not None,
                }
                for kind in self.kinds
            ],
            "errors": [{"line": e.line, "id": e.id, "error": e.error} for e in self.errors],
        }


def estimate(order: Order, *, note: Callable[[str], None]) -> Estimate:
    """Look at the rows of a job, and measure one picture of each kind; nothing is written.

    Raises:
        InputError: the job could not be begun.
        FileFormatError: the manifest or the output is damaged.
    """
    jobs.check_place(order.out)
    pictures = Pictures.load(order.settings)
    columns = Columns()
    store = Store(order.place, order.errors, order.output, columns)
    store.close()
    if (order.out / jobs.NAME).exists():
        job = job_of(order, pictures.identity)
        jobs.join(order.out, job, allow_mixed=order.allow_mixed)
        store.open(repair=False)
    failed: list[Bad] = []
    feed = Feed(
        order.manifest,
        store.done,
        columns,
        shard=order.shard,
        limit=order.limit,
        bad=failed.append,
    )
    found: Counter[str] = Counter()
    examples: dict[str, tuple[Row, Price]] = {}
    rows = looked = 0
    while not feed.exhausted:
        for row in _next(feed):
            rows += 1
            if looked == LOOKED:
                continue
            looked += 1
            try:
                price = pictures.price(row)
            except (AsymflowError, OSError) as error:
                failed.append(Bad(row.line, row.id, str(error)))
                rows -= 1
                continue
            found[price.kind] += 1
            examples.setdefault(price.kind, (row, price))
    kinds = _measured(pictures, found, examples)
    for line in pictures.notes:
        note(line)
    return Estimate(
        rows, feed.skipped, len(failed), looked, kinds, tuple(failed[:10]), order.workers
    )


def _next(feed: Feed) -> list[Row]:
    """Rows of a feed, after a while without any if it is a stream."""
    rows = feed.chunk(1000)
    if rows is None:
        time.sleep(0.01)
    return rows or []


def _measured(
    pictures: Pictures, found: Counter[str], examples: dict[str, tuple[Row, Price]]
) -> tuple[Kind, ...]:
    """The kinds with their seconds; rare ones by those of the nearest kind that was measured."""
    kinds: list[Kind] = []
    for number, (name, count) in enumerate(found.most_common()):
        row, price = examples[name]
        if number < MEASURED:
            seconds, size = _timed(pictures, row)
            kinds.append(Kind(name, count, price, seconds, size))
            continue
        near = min(kinds[:MEASURED], key=lambda kind: abs(kind.price.work - price.work))
        kinds.append(Kind(name, count, price, near.seconds * price.work / near.price.work, None))
    return tuple(kinds)


def _timed(pictures: Pictures, row: Row) -> tuple[float, int]:
    """Seconds of a picture when calls are full, and the bytes of its file; the second time counts.

    A picture that fails after all counts with its time, and no bytes.
    """
    together = [row] * pictures.identity.together
    seconds, size = 0.0, 0
    for _ in range(2):
        began = time.perf_counter()
        results = list(pictures.make(together))
        seconds = (time.perf_counter() - began) / len(together)
        size = max((len(each.png) for each in results if isinstance(each, Made)), default=0)
    return seconds, size
