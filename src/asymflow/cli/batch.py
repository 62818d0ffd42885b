"""`asymflow batch`: a picture for every row of a manifest."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Sequence

from asymflow.bulk import estimate as estimates
from asymflow.bulk import run as runs
from asymflow.bulk.feed import Shard
from asymflow.bulk.pool import Pool
from asymflow.bulk.run import Order, Progress, Report
from asymflow.cli.report import print_json, print_note, print_result
from asymflow.core import devices
from asymflow.core.errors import InputError
from asymflow.io.progress import bars

_MOST = 8
"""Processes that are started on a CPU unless more are asked for; each holds the model."""


def batch(order: Order, *, pool: Callable[[Order], Pool], dry: bool, as_json: bool) -> int:
    """Make the pictures of a job by the workers of a pool, or say what it would take.

    Returns:
        The exit code: 0 if every row became a picture, 1 if some failed; 128 and the number of a
        signal that ended it.

    Raises:
        InputError: the job cannot be begun, or the output not be written.
        FileFormatError: the manifest, the model or the output is damaged.
    """
    if dry:
        found = estimates.estimate(order, note=print_note)
        if as_json:
            print_json(found.to_json())
        else:
            print_result(_prediction(found))
        return 1 if found.failed else 0
    with bars("rows") as progress:
        task = progress.add_task("starting", total=None)

        def advance(done: Progress) -> None:
            rate = max(done.seconds, 1e-9)
            said = f"{done.made / rate:.1f} rows/s, {done.nfe / rate:.0f} NFE/s"
            if done.failed:
                said += f", {done.failed} failed"
            finished = done.made + done.skipped + done.failed
            total = None if done.total is None else max(done.total, finished)
            progress.update(task, description=said, completed=finished, total=total)

        report = runs.run(order, note=print_note, advance=advance, pool=pool)
    if as_json:
        print_json(report.to_json())
    else:
        print_result(str(report.place))
        print_note(_sentence(report))
    if report.ended in signal.Signals.__members__:
        return 128 + signal.Signals[report.ended]
    return 0 if report.complete else 1


def workers_of(given: int | None, device: str | None) -> int:
    """The processes of a job: as given; otherwise one per GPU, or per core of a CPU.

    Raises:
        InputError: this machine cannot use the device.
    """
    where = devices.choose(device)
    if given is not None:
        return given
    if where.type != "cpu":
        return max(1, devices.count(device))
    if hasattr(os, "sched_getaffinity"):
        return min(_MOST, len(os.sched_getaffinity(0)))
    return min(_MOST, os.cpu_count() or 1)


def actors(
    address: str, cpus: float, gpus: float | None, count: int | None
) -> Callable[[Order], Pool]:
    """Workers of a Ray cluster.

    Args:
        address: of the cluster.
        cpus, gpus: that each takes of its node; None for a GPU if there are any and none is
            refused.
        count: None for as many as there is room for.

    Raises:
        MissingExtra: Ray is not installed.
    """
    from asymflow.integrations.ray import actors as ray

    ray.library()
    return lambda order: ray.Actors(order.settings, address, count, cpus=cpus, gpus=gpus)


def shard_of(text: str | None) -> Shard | None:
    """Parse a shard: "i/n", with i from 0 on.

    Raises:
        InputError: it is none.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,5})/(\d{1,5})", text)
    if found is None or int(found[1]) >= int(found[2]):
        raise InputError(
            f"--shard {text} is no shard. Give its number, from 0 on, and how many there are: "
            "0/8 to 7/8."
        )
    return Shard(int(found[1]), int(found[2]))


def _sentence(report: Report) -> str:
    done = report.progress
    parts = [f"{done.made} made"]
    if done.skipped:
        parts.append(f"{done.skipped} were done before")
    if done.failed:
        parts.append(f"{done.failed} failed, see {report.errors}")
    rate = max(done.seconds, 1e-9)
    speed = f"{done.seconds:.1f} s, {done.made / rate:.1f} rows/s, {done.nfe / rate:.0f} NFE/s"
    said = f"{', '.join(parts)}; {speed}"
    if report.ended == "finished":
        return said
    return f"{said}\nstopped: {report.ended}; the same command continues"


def _time(seconds: float) -> str:
    return f"{seconds:.1f} seconds" if seconds < 600 else f"{seconds / 3600:.2f} hours"


def _prediction(found: estimates.Estimate) -> str:
    lines: Sequence[str] = [
        f"{kind.rows} rows of {kind.name}: {kind.seconds:.4f} s each"
        + ("" if kind.bytes is not None else " (not measured)")
        for kind in found.kinds
    ]
    return "\n".join(
        [
            f"{found.rows} rows to make, {found.skipped} are done, {found.failed} cannot be made",
            *(f"  line {each.line}: {each.error}" for each in found.errors),
            *lines,
            *(
                [f"the first {found.looked} rows were looked at"]
                if found.looked < found.rows
                else []
            ),
            f"{found.nfe} passes, {found.bytes / 1e6:.1f} MB, {_time(found.seconds)} "
            f"with {found.workers} processes",
        ]
    )
