"""A server that is killed, stopped and starved, together with the process of its network.

    python -m benchmarks chaos --rounds 100                 # the model that comes with asymflow
    python -m benchmarks chaos --rounds 5 --child small     # a child that imports no torch

In every round one thing happens to a server that draws, at a moment and of a kind that the seed
decides: `kill -9` of the server, of the child, or of both; SIGSTOP of the child, or of the server
for a while; no more files that can be opened, so that the child cannot be started; a child that
ends as soon as it is started. The server is started again where it was killed, as a service manager
does, and nothing else is done for it. Every round asks for pictures, with an idempotency key; where
no answer came, the request is repeated.

At the end every job that was accepted has to be done, once, with as many pictures as it was asked
for; every picture that was told of is there, with the bytes that it had; the database is sound and
knows exactly the files that are there; and no child is left. Writes chaos.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import platform
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx

from benchmarks import results

SMALL_CHILD = results.ROOT / "tests/server/child.py"
PATIENCE = 300.0
"""Seconds after which something did not come back by itself."""
BODY = {"prompt": "a {red|green} apple", "width": 32, "height": 32, "quality": "best"}

QUICK = {"rounds": 2, "child": "small", "out": results.QUICK / "chaos.json"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", choices=("small", "real"), default="real")
    parser.add_argument("--answer-seconds", type=float, default=5.0)
    parser.add_argument("--out", type=Path, default=results.SERVER / "chaos.json")
    parser.add_argument("--serve", type=Path, metavar="DIR", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)


def run(given: argparse.Namespace) -> dict[str, Any]:
    if given.serve is not None:
        serve(given.serve, given.port, given.child, given.answer_seconds)
        return {}
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        report = rounds(Path(folder), given)
    print(json.dumps(report, indent=1))
    whole = results.save(given.out, report, weights=[results.shipped()])
    if any(report["wrong"].values()):
        raise SystemExit(1)
    return whole


def serve(folder: Path, port: int, child: str, answer_seconds: float) -> None:
    """The server of a run: the shipped model, with one child or the other."""
    from asymflow.generation import pipeline
    from asymflow.server import app, logs, remote
    from asymflow.server.settings import Settings

    settings = Settings(
        data=folder / "data", port=port, burst=10_000, rate=1000, network_seconds=answer_seconds
    )
    logs.set_up(logging.INFO)

    def load() -> pipeline.Model:
        model = remote.moved(pipeline.load(None, dtype="float32", device="cpu"), answer_seconds)
        network = remote.network_of(model)
        assert network is not None
        if child == "small":
            network.process.close()
            command = (sys.executable, str(SMALL_CHILD), str(folder / "faults"))
            network = remote.Network(command, answer_seconds=answer_seconds, start_seconds=60)
            assert isinstance(model.adapter, remote.Apart), "the network is in a process of its own"
            model = replace(model, adapter=remote.Apart(model.adapter.inner, network))
        return model

    app.run(settings, started=lambda address: None, load=load)


@dataclass
class Run:
    """A server, and what it has promised.

    Attributes:
        keys: of requests whose answer did not come yet.
        jobs: accepted, by id.
        seen: digests of pictures that were told of, by id.
    """

    folder: Path
    command: list[str]
    url: str
    chance: random.Random
    server: subprocess.Popen[bytes] | None = None
    keys: list[str] = field(default_factory=lambda: list[str]())
    jobs: dict[str, str] = field(default_factory=lambda: dict[str, str]())
    seen: dict[str, str] = field(default_factory=lambda: dict[str, str]())
    recovered: list[float] = field(default_factory=lambda: list[float]())

    def start(self) -> None:
        with (self.folder / "log.jsonl").open("ab") as log:
            self.server = subprocess.Popen(
                self.command, stderr=log, stdin=subprocess.DEVNULL, cwd=results.ROOT
            )

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self.server is not None
        return self.server

    def child(self) -> int | None:
        """The process of the network, if there is one."""
        tasks = Path(f"/proc/{self.process.pid}/task")
        for children in tasks.glob("*/children"):
            for number in children.read_text("ascii").split():
                return int(number)
        return None

    def get(self, path: str, **more: Any) -> httpx.Response | None:
        """An answer, or None where none comes."""
        try:
            return httpx.get(f"{self.url}{path}", timeout=10, **more)
        except httpx.TransportError:
            return None

    def ready(self) -> bool:
        answer = self.get("/ready")
        return (
            self.child() is not None and answer is not None and answer.status_code == HTTPStatus.OK
        )

    def ask(self) -> None:
        """Send every request whose answer did not come, and a new one."""
        self.keys.append(f"key-{self.chance.getrandbits(64):x}")
        for key in list(self.keys):
            body = {**BODY, "seed": int(key[4:], 16) % 2**50}
            try:
                headers = {"Idempotency-Key": key}
                answer = httpx.post(f"{self.url}/api/jobs", json=body, headers=headers, timeout=10)
            except httpx.TransportError:
                continue
            if answer.status_code == HTTPStatus.ACCEPTED:
                self.keys.remove(key)
                self.jobs[answer.json()["id"]] = key

    def look(self) -> int:
        """Note every picture that the server tells of; how many jobs are over."""
        over = 0
        for id in self.jobs:
            answer = self.get(f"/api/jobs/{id}")
            if answer is None or answer.status_code != HTTPStatus.OK:
                continue
            job = answer.json()
            over += job["state"] in ("done", "failed", "cancelled")
            for picture in job["pictures"]:
                if picture["id"] not in self.seen:
                    file = self.folder / "data/pictures" / f"{picture['id']}.png"
                    self.seen[picture["id"]] = hashlib.sha256(file.read_bytes()).hexdigest()
        return over


def rounds(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """All rounds, and the account of them."""
    (folder / "faults").mkdir()
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks", "chaos"]
    command += ["--serve", str(folder), "--port", str(port)]
    command += ["--child", given.child, "--answer-seconds", str(given.answer_seconds)]
    found = Run(folder, command, f"http://127.0.0.1:{port}", random.Random(given.seed))
    began = time.monotonic()
    events: Counter[str] = Counter()
    stuck = 0
    found.start()
    try:
        stuck += not wait(found.ready)
        for number in range(given.rounds):
            for _ in range(3):
                found.ask()
            time.sleep(found.chance.uniform(0, 1))
            kind = found.chance.choice([name for name in EVENTS if fits(name, given.child)])
            events[kind] += 1
            before = None if kind == "stop_server" else found.child()
            EVENTS[kind](found)
            since = time.monotonic()
            back = wait(lambda before=before: found.child() != before and found.ready())
            found.recovered.append(time.monotonic() - since)
            stuck += not back
            found.ask()
            # The next misfortune comes when what was asked for until now is drawn.
            stuck += not wait(lambda: found.look() == len(found.jobs))
            state = "back" if back else "NOT BACK"
            print(
                f"{number + 1}/{given.rounds} {kind}: {state} after {found.recovered[-1]:.1f} s",
                flush=True,
            )
        stuck += not wait(lambda: not found.keys or found.ask() or not found.keys)
        stuck += not wait(lambda: found.look() == len(found.jobs))
        states = Counter(state_of(found, id) for id in found.jobs)
        child = found.child()
        found.process.send_signal(signal.SIGTERM)
        found.process.wait(60)
    finally:
        if found.process.poll() is None:
            found.process.kill()
            found.process.wait()
    wrong = account(found) | {
        "not_done": len(found.jobs) - states["done"],
        "not_back": stuck,
        "child_left": int(child is not None and Path(f"/proc/{child}").exists()),
    }
    logged = (folder / "log.jsonl").read_bytes()
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "rounds": given.rounds,
        "seed": given.seed,
        "child": given.child,
        "seconds": round(time.monotonic() - began),
        "events": dict(sorted(events.items())),
        "jobs": len(found.jobs),
        "states": dict(states),
        "pictures_seen": len(found.seen),
        "recovered_seconds": {
            "median": round(sorted(found.recovered)[len(found.recovered) // 2], 1),
            "most": round(max(found.recovered), 1),
        },
        "log_bytes": len(logged),
        "wrong": wrong,
    }


def account(found: Run) -> dict[str, int]:
    """What is lost, doubled or broken on the disk."""
    data = found.folder / "data"
    files = {path.stem: path for path in (data / "pictures").glob("*.png")}
    with closing(sqlite3.connect(data / "studio.sqlite")) as database:
        rows = database.execute("SELECT id, job, slot FROM pictures").fetchall()
        [sound] = database.execute("PRAGMA integrity_check").fetchone()
        keyed = database.execute("SELECT count(*), count(DISTINCT job) FROM keys").fetchone()
        [aside] = database.execute("SELECT count(*) FROM unreadable").fetchone()
    per_job = Counter(job for _, job, _ in rows)
    changed = [
        id
        for id, digest in found.seen.items()
        if id not in files or hashlib.sha256(files[id].read_bytes()).hexdigest() != digest
    ]
    return {
        "jobs_without_all_pictures": sum(per_job[id] < 2 for id in found.jobs),
        "jobs_with_too_many": sum(per_job[id] > 2 for id in found.jobs),
        "jobs_made_twice": keyed[0] - keyed[1] + len(per_job.keys() - found.jobs.keys()),
        "seen_and_gone_or_changed": len(changed),
        "rows_without_file": len({id for id, _, _ in rows} - files.keys()),
        "files_without_row": len(files.keys() - {id for id, _, _ in rows}),
        "left_overs": len(
            [*(data / "pictures").glob("*.pending"), *(data / "pictures").glob(".*")]
        ),
        "rows_set_aside": aside,
        "database_unsound": int(sound != "ok"),
    }


def kill_server(found: Run) -> None:
    found.process.kill()
    found.process.wait()
    found.start()


def kill_child(found: Run) -> None:
    if (child := found.child()) is not None:
        os.kill(child, signal.SIGKILL)


def kill_both(found: Run) -> None:
    kill_child(found)
    kill_server(found)


def stop_child(found: Run) -> None:
    """Until somebody notices: it does not go on by itself."""
    if (child := found.child()) is not None:
        os.kill(child, signal.SIGSTOP)
        wait(lambda: not Path(f"/proc/{child}").exists())


def kill_server_with_stopped_child(found: Run) -> None:
    child = found.child()
    if child is not None:
        os.kill(child, signal.SIGSTOP)
    kill_server(found)
    assert child is None or wait(lambda: not alive(child)), "an orphan is left"


def stop_server(found: Run) -> None:
    found.process.send_signal(signal.SIGSTOP)
    time.sleep(found.chance.uniform(1, 8))
    found.process.send_signal(signal.SIGCONT)


def no_files(found: Run) -> None:
    """No pipe to a new child can be opened, nor a connection taken."""
    import resource

    number = found.process.pid
    used = len(list(Path(f"/proc/{number}/fd").iterdir()))
    soft, hard = resource.prlimit(number, resource.RLIMIT_NOFILE)
    resource.prlimit(number, resource.RLIMIT_NOFILE, (used, hard))
    kill_child(found)
    time.sleep(found.chance.uniform(1, 4))
    resource.prlimit(number, resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def faulty(found: Run, fault: str) -> Generator[None]:
    path = found.folder / "faults" / fault
    path.touch()
    yield
    path.unlink()


def failing_starts(found: Run) -> None:
    with faulty(found, found.chance.choice(["exit", "garbage", "closed"])):
        kill_child(found)
        time.sleep(found.chance.uniform(0.5, 3))


EVENTS: dict[str, Callable[[Run], None]] = {
    each.__name__: each
    for each in (
        kill_server,
        kill_child,
        kill_both,
        stop_child,
        kill_server_with_stopped_child,
        stop_server,
        no_files,
        failing_starts,
    )
}


def fits(kind: str, child: str) -> bool:
    """Only the small child fails when it is told to."""
    return kind != "failing_starts" or child == "small"


def alive(number: int) -> bool:
    """Whether a process is there, and has not ended."""
    try:
        state = Path(f"/proc/{number}/stat").read_text("utf-8").rpartition(")")[2]
    except FileNotFoundError:
        return False
    return state.split()[0] != "Z"


def wait(what: Callable[[], Any]) -> bool:
    """Whether something came to be in time."""
    until = time.monotonic() + PATIENCE
    while not what():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def state_of(found: Run, id: str) -> str:
    answer = found.get(f"/api/jobs/{id}")
    return "lost" if answer is None or answer.status_code != 200 else answer.json()["state"]
