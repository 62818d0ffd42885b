"""A real server under load, killed, and fed with damaged pictures.

    OMP_NUM_THREADS=1 taskset -c 0 python -m benchmarks server

starts `asymflow serve` on loopback and writes server.json:

- `load`: 50 clients, each at an address of its own, ask for pictures again and again, listen to
  their events and read everything else meanwhile. Counts jobs that were lost or made twice, and
  measures the calls that make no picture, memory, and pictures per second against the engine
  alone, which runs the same plan on as many pictures per call before and after.
- `turns`: pictures per second of the server against the engine alone, in turn: each is stopped
  while the other runs, so that other work on the machine costs both the same.
- `soak`: hundreds of the quickest jobs, until memory shows whether it is bounded.
- `killed`: a server that is killed while it draws, again and again. Counts finished pictures that
  are gone, jobs that were not made to their end, and files that are not whole.
- `damaged`: pictures with something wrong with them, sent to every call that takes one.

Other programs on the machine take their part of a second, so rates are also given per second that
the server's own process computed, and `late_ms` says how late the clients themselves were called.
`--quick` does little of everything, `--part` one part again.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import multiprocessing
import os
import platform
import random
import runpy
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from asymflow.bench import provenance
from asymflow.core.batcher import Frame
from asymflow.core.statistics import bootstrap_interval
from asymflow.models.embedded import plans
from benchmarks import results

SIDE = 64
PROMPTS = ("a red apple", "a sleepy fox", "a blue umbrella", "a castle on a cloud")
THINKING = 2.0
"""Seconds between two calls of a client that waits for its picture, on average."""
PARTS = ("load", "turns", "soak", "killed", "damaged")
TARGETS = {"lost": 0, "twice": 0, "p95_ms": 100.0, "against_engine": 0.955}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--quality", choices=plans.NAMES, default=plans.DEFAULT)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--damaged", type=int, default=10_000)
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--part", choices=PARTS, action="append", help="again; all of them")
    parser.add_argument("--out", type=Path, metavar="DIR")


def run(given: argparse.Namespace) -> dict[str, Any]:
    if given.quick:
        given.clients, given.seconds, given.kills, given.damaged = 8, 6.0, 1, 300
    out = given.out or (results.QUICK if given.quick else results.SERVER)
    path = out / ("server-quick.json" if given.quick else "server.json")
    report: dict[str, Any] = {"targets": TARGETS}
    if given.part:
        report |= json.loads(path.read_text("utf-8"))
        report.pop(provenance.KEY, None)
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "load": lambda: load(given.clients, given.seconds, given.quality),
        "turns": lambda: turns(given.clients, given.seconds / 24, 12, given.quality),
        "soak": lambda: soak(2 if given.quick else 24),
        "killed": lambda: killed(given.kills),
        "damaged": lambda: damaged(given.damaged),
    }
    for name in given.part or PARTS:
        report[name] = {"machine": machine(), **parts[name]()}
        print(name, json.dumps(report[name], indent=1), flush=True)
        report = results.save(
            path, report, device=f"cpu ({cpu_name()})", weights=[results.shipped()]
        )
    return report


# A server to talk to.


@dataclass(frozen=True, slots=True)
class Server:
    """A process that serves."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def ready(self) -> None:
        """Wait for the model."""
        until = time.monotonic() + 120
        while httpx.get(f"{self.url}/ready").status_code != 200:
            if time.monotonic() > until:
                raise RuntimeError(f"the model is not loaded; see {self.log}")
            time.sleep(0.05)


@contextmanager
def serving(data: Path) -> Generator[Server]:
    """`asymflow serve` on a free port, with its own limits."""
    log = data.with_suffix(".log")
    command = [sys.executable, "-m", "asymflow", "serve", "--port", "0", "--data", str(data)]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stderr=out)
    try:
        yield Server(_address(log, process), process, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _address(log: Path, process: subprocess.Popen[bytes]) -> str:
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        for line in log.read_text("utf-8").splitlines():
            if '"message": "serving"' in line:
                return json.loads(line)["address"]
        time.sleep(0.05)
    raise RuntimeError(f"the server did not start: {log.read_text('utf-8')[-2000:]}")


# What the engine does alone.


@dataclass(frozen=True, slots=True)
class Rate:
    """Pictures, and the seconds they took on the clock and on the processor."""

    pictures: int
    wall: float
    cpu: float


def _bare(quality: str, seconds: float) -> Rate:
    """The engine with nothing around it, for so long."""
    from asymflow.core import engine, presets
    from asymflow.core.types import Request
    from asymflow.generation import pipeline
    from asymflow.server import requests

    model = pipeline.load(None, dtype=None, device=None)
    together = model.adapter.batch or 8
    plan = requests.chosen_plan(model, quality, (SIDE, SIDE))

    def draw(seed: int) -> None:
        engine.run(
            model.adapter,
            plan,
            [
                Request({"prompt": PROMPTS[i % len(PROMPTS)]}, (SIDE, SIDE), i, presets.GUIDANCE)
                for i in range(seed, seed + together)
            ],
        )

    draw(0)
    count, wall, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < seconds:
        draw(count)
        count += together
    return Rate(count, time.perf_counter() - wall, time.process_time() - cpu)


def bare(quality: str, seconds: float) -> Rate:
    """`_bare` in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_bare, (quality, seconds))


# Load.


@dataclass(slots=True)
class Seen:
    """What all clients together saw."""

    calls: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    statuses: Counter[int] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    pictures: Counter[str] = field(default_factory=Counter)
    finished: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    wrong: Counter[str] = field(default_factory=Counter)


def load(clients: int, seconds: float, quality: str) -> dict[str, Any]:
    """Many clients at once for a while, and what was left when they had gone."""
    alone = [bare(quality, min(seconds / 8, 15.0))]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        with serving(data) as server:
            server.ready()
            seen = Seen()
            usage = asyncio.run(_crowd(server, clients, seconds, quality, seen))
        rows = _rows(data)
        problems = [
            line for line in server.log.read_text("utf-8").splitlines() if '"error"' in line
        ]
    alone.append(bare(quality, min(seconds / 8, 15.0)))
    states = Counter(state for _, state, _ in rows)
    made = {job: count for job, _, count in rows}
    inside = sum(usage["begin"] <= at <= usage["end"] for at in seen.finished)
    span = usage["end"] - usage["begin"]
    engine = Rate(*(sum(getattr(each, name) for each in alone) for name in Rate.__slots__))
    quiet = sorted(ms for times in seen.calls.values() for ms in times)
    return {
        "clients": clients,
        "seconds": round(span, 1),
        "quality": quality,
        "size": f"{SIDE}x{SIDE}",
        "jobs": len(rows),
        "lost": sum(made.get(job, 0) < 1 for job in seen.asked)
        + sum(seen.pictures[job] < 1 for job in seen.asked),
        "twice": sum(count > 1 for count in made.values())
        + sum(count > 1 for count in seen.pictures.values())
        + sum(job not in seen.asked for job in made),
        "states": dict(states),
        "wrong": dict(seen.wrong),
        "statuses": {str(key): value for key, value in sorted(seen.statuses.items())},
        "errors in the log": len(problems),
        "calls that make no picture": len(quiet),
        "p50_ms": _quantile(quiet, 0.5),
        "p95_ms": _quantile(quiet, 0.95),
        "max_ms": round(quiet[-1], 1),
        "late_ms": {
            "p50": _quantile(sorted(seen.late), 0.5),
            "p95": _quantile(sorted(seen.late), 0.95),
        },
        "p95_ms by call": {
            name: _quantile(sorted(times), 0.95) for name, times in sorted(seen.calls.items())
        },
        "memory_mb": usage["memory_mb"],
        "pictures per second": {
            "server": round(inside / span, 3),
            "engine alone": round(engine.pictures / engine.wall, 3),
            "ratio": round(inside / span / (engine.pictures / engine.wall), 3),
        },
        "processor seconds per picture": {
            "server": round(usage["cpu"] / inside, 4),
            "its thread that draws": round(usage["worker"]["ran"] / inside, 4),
            "engine alone": round(engine.cpu / engine.pictures, 4),
            # What to expect of the clock where another core does everything but draw.
            "engine against thread that draws, with its rests": round(
                engine.cpu
                / engine.pictures
                / ((usage["worker"]["ran"] + usage["worker"]["rested"]) / inside),
                3,
            ),
        },
        "thread that draws, seconds": usage["worker"],
    }


async def _crowd(
    server: Server, clients: int, seconds: float, quality: str, seen: Seen
) -> dict[str, Any]:
    """Let clients do what they do; how the server was meanwhile."""
    end = time.monotonic() + seconds
    crowd = [
        asyncio.create_task(_client(server.url, number, end, quality, seen))
        for number in range(clients)
    ]
    await asyncio.sleep(min(5.0, seconds / 4))  # until all of them wait
    begin, cpu, threads = time.monotonic(), _process_seconds(server), _threads(server)
    memory = [memory_of(server)]
    while time.monotonic() < end:
        memory.append(memory_of(server))
        for _ in range(10):
            due = time.monotonic() + 0.1
            await asyncio.sleep(0.1)
            seen.late.append(1000 * (time.monotonic() - due))
    ended, spent, later = time.monotonic(), _process_seconds(server), _threads(server)
    worker = max(later, key=lambda thread: later[thread][0])
    ran, waited = (b - a for a, b in zip(threads[worker], later[worker], strict=True))
    await asyncio.gather(*crowd)
    step = max(1, len(memory) // 24)
    return {
        "begin": begin,
        "end": ended,
        "cpu": spent - cpu,
        "worker": {
            "ran": round(ran, 2),
            "waited for a core": round(waited, 2),
            "rested": round(ended - begin - ran - waited, 2),
        },
        "memory_mb": {
            "begin": memory[0],
            "middle": memory[len(memory) // 2],
            "end": memory[-1],
            "most": max(memory),
            "over time": memory[::step],
        },
    }


async def _client(url: str, number: int, end: float, quality: str, seen: Seen) -> None:
    """One person or program: asks, waits, looks around, and asks again until the end."""
    chance = random.Random(number)
    transport = httpx.AsyncHTTPTransport(local_address=f"127.0.1.{number + 1}")
    async with httpx.AsyncClient(base_url=url, transport=transport, timeout=600) as http:
        await asyncio.sleep(chance.random() * 2)
        for turn in range(10**6):
            if time.monotonic() > end:
                return
            ask = _ask_as_openai if number % 5 == 4 else _ask
            body = {
                "prompt": PROMPTS[turn % len(PROMPTS)],
                "seed": 1000 * number + turn,
            }
            async with _looking_around(http, chance, end, seen):
                await ask(http, body, f"{number}-{turn}", quality, seen)


async def _ask(
    http: httpx.AsyncClient, body: dict[str, Any], key: str, quality: str, seen: Seen
) -> None:
    """As the page does. Every third time the answer is taken for lost, and the job sent again."""
    asked = {**body, "width": SIDE, "height": SIDE, "quality": quality}
    headers = {"Idempotency-Key": key}
    answers = [
        await http.post("/api/jobs", json=asked, headers=headers)
        for _ in range(2 if body["seed"] % 3 == 0 else 1)
    ]
    seen.statuses.update(answer.status_code for answer in answers)
    ids = {answer.json()["id"] for answer in answers}
    seen.wrong["one key, two jobs"] += len(ids) - 1
    [id] = ids
    seen.asked[id] += 1
    told: list[str] = []
    picture: dict[str, Any] = {}
    async with http.stream("GET", f"/api/jobs/{id}/events") as events:
        async for line in events.aiter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                told.append(value)
            elif name == "data" and told[-1] == "picture":
                picture = json.loads(value)["picture"]
                seen.pictures[id] += 1
                seen.finished.append(time.monotonic())
                given = (picture["prompt"], picture["seed"])
                seen.wrong["another picture"] += given != (body["prompt"], body["seed"])
    seen.wrong["not done"] += told[-1] != "done"
    await _timed(http, seen, "GET", f"/api/pictures/{picture['id']}/file", "picture file")


async def _ask_as_openai(
    http: httpx.AsyncClient, body: dict[str, Any], key: str, quality: str, seen: Seen
) -> None:
    """As a program does, in one call."""
    asked = {**body, "size": f"{SIDE}x{SIDE}", "plan": quality}
    answer = await http.post("/v1/images/generations", json=asked, headers={"Idempotency-Key": key})
    seen.statuses[answer.status_code] += 1
    [picture] = answer.json()["asymflow"]["pictures"]
    seen.wrong["another picture"] += picture["seed"] != body["seed"]
    seen.finished.append(time.monotonic())
    job = (await http.get(f"/api/pictures/{picture['id']}")).json()["job"]
    seen.asked[job] += 1
    seen.pictures[job] += 1


@asynccontextmanager
async def _looking_around(
    http: httpx.AsyncClient, chance: random.Random, end: float, seen: Seen
) -> AsyncGenerator[None]:
    """Meanwhile, calls that make no picture."""
    picture = _picture()

    async def look() -> None:
        while time.monotonic() < end:
            await asyncio.sleep(chance.uniform(0.5, 1.5) * THINKING)
            path = chance.choice(
                ("/api/info", "/api/jobs", "/api/pictures", "/health", "/metrics", "/api/uploads")
            )
            if path == "/api/uploads":
                headers = {"Content-Type": "image/png"}
                await _timed(http, seen, "POST", path, "upload", content=picture, headers=headers)
            else:
                await _timed(http, seen, "GET", path, path)

    task = asyncio.create_task(look())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _timed(
    http: httpx.AsyncClient, seen: Seen, method: str, path: str, name: str, **more: Any
) -> None:
    begun = time.perf_counter()
    answer = await http.request(method, path, **more)
    seen.calls[name].append(1000 * (time.perf_counter() - begun))
    seen.statuses[answer.status_code] += 1


# Turns.


def _counted(quality: str, pictures: Synchronized[float]) -> None:
    """Count the pictures of the engine alone, for ever; every step is its share of one."""
    from asymflow.core import engine, presets
    from asymflow.core.types import Request
    from asymflow.generation import pipeline
    from asymflow.server import requests

    model = pipeline.load(None, dtype=None, device=None)
    plan = requests.chosen_plan(model, quality, (SIDE, SIDE))

    def observe(frame: Frame) -> None:
        pictures.value += len(frame.moves) / len(plan.steps)

    for seed in range(10**9):
        prompt = PROMPTS[seed % len(PROMPTS)]
        wanted = Request({"prompt": prompt}, (SIDE, SIDE), seed, presets.GUIDANCE)
        engine.run(model.adapter, plan, [wanted], observer=observe)


def turns(clients: int, seconds: float, count: int, quality: str) -> dict[str, Any]:
    """Server and engine in turn, for so many seconds each."""
    context = multiprocessing.get_context("spawn")
    pictures = context.Value("d", 0.0)
    alone = context.Process(target=_counted, args=(quality, pictures), daemon=True)
    alone.start()
    while pictures.value < 1:
        time.sleep(0.1)
    assert alone.pid is not None, "it has started"
    engine = [alone.pid]
    _signal(engine, signal.SIGSTOP)
    seen = Seen()
    try:
        with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "data") as server:
            server.ready()
            own = _family(server.process.pid)
            rates = asyncio.run(
                _in_turn(server, clients, (own, engine), seconds, count, quality, seen, pictures)
            )
    finally:
        alone.kill()
    found = bootstrap_interval(np.array(rates), _ratio)
    return {
        "seconds of a turn": round(seconds, 1),
        "turns": count,
        "pictures per second": {
            "server": round(statistics.fmean(a for a, _ in rates), 3),
            "engine alone": round(statistics.fmean(b for _, b in rates), 3),
        },
        "ratio": {name: round(value, 3) for name, value in asdict(found).items()},
        "load average after": round(os.getloadavg()[0], 1),
    }


def _ratio(rates: Any, axis: int) -> Any:
    """Of the totals of all turns [..., 2]: a turn ends in the middle of pictures."""
    return rates[..., 0].sum(axis) / rates[..., 1].sum(axis)


async def _in_turn(
    server: Server,
    clients: int,
    processes: tuple[Sequence[int], Sequence[int]],
    seconds: float,
    count: int,
    quality: str,
    seen: Seen,
    pictures: Synchronized[float],
) -> list[tuple[float, float]]:
    """Pictures per second of both, in each turn."""
    own, engine = processes
    end = time.monotonic() + 2 * count * seconds + 60
    crowd = [
        asyncio.create_task(_client(server.url, number, end, quality, seen))
        for number in range(clients)
    ]
    await asyncio.sleep(5)  # until all of them wait

    async def rate(made: Callable[[], float]) -> float:
        before, since = made(), time.monotonic()
        await asyncio.sleep(seconds)
        return (made() - before) / (time.monotonic() - since)

    found: list[tuple[float, float]] = []
    for _ in range(count):
        first = await rate(lambda: len(seen.finished))
        _signal(own, signal.SIGSTOP)
        _signal(engine, signal.SIGCONT)
        second = await rate(lambda: pictures.value)
        _signal(engine, signal.SIGSTOP)
        _signal(own, signal.SIGCONT)
        found.append((first, second))
    for task in crowd:
        task.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)
    return found


def _family(pid: int) -> list[int]:
    """A process and all that it has started."""
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    ).stdout.split()
    return [pid, *(each for child in children for each in _family(int(child)))]


def _signal(processes: Sequence[int], number: signal.Signals) -> None:
    for process in processes:
        os.kill(process, number)


# Soak.


def soak(rounds: int, together: int = 16) -> dict[str, Any]:
    """Job after job; more than a server remembers."""
    memory: list[float] = []
    body = {"prompt": "a red apple", "width": 32, "height": 32, "quality": "draft"}
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder) / "data") as server,
        httpx.Client(base_url=server.url, timeout=60) as http,
    ):
        server.ready()
        for number in range(rounds):
            # An address of its own each time, as many calls from one would be limited.
            transport = httpx.HTTPTransport(local_address=f"127.0.3.{number + 1}")
            with httpx.Client(base_url=server.url, transport=transport) as client:
                asked = [client.post("/api/jobs", json=body).json() for _ in range(together)]
            for job in asked:
                while http.get(f"/api/jobs/{job['id']}").json()["state"] != "done":
                    time.sleep(0.05)
            memory.append(memory_of(server))
    return {
        "jobs": rounds * together,
        "memory_mb, by fifths of the jobs": [
            memory[max(0, len(memory) * fifth // 5 - 1)] for fifth in range(6)
        ],
    }


# Killed.


def killed(times: int) -> dict[str, Any]:
    """Kill the server while it draws, start it again, and look at what is there."""
    chance = random.Random(0)
    asked: dict[str, int] = {}
    told: dict[str, bytes] = {}
    found = Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        for number in range(times):
            with serving(data) as server, httpx.Client(base_url=server.url, timeout=60) as http:
                server.ready()
                _compare(http, told, found)
                for _ in range(6):
                    body = {
                        "prompt": "a {red|blue} apple",
                        "quality": "draft",
                        "n": 2,
                        "seed": len(asked),
                        "width": 32,
                        "height": 32,
                    }
                    # The queue of one client would be full after some kills.
                    headers = {"X-Client": str(number)}
                    answer = http.post("/api/jobs", json=body, headers=headers)
                    asked[answer.raise_for_status().json()["id"]] = 4
                until, enough = time.monotonic() + 60, len(told) + chance.randint(2, 8)
                while len(told) < enough and time.monotonic() < until:
                    for picture in http.get("/api/pictures?limit=200").json()["pictures"]:
                        if picture["id"] not in told:
                            told[picture["id"]] = http.get(picture["url"]).content
                found["pictures finished before a kill"] = len(told)
                time.sleep(chance.uniform(0, 0.2))  # until somewhere in the next one
                server.process.kill()
                server.process.wait()
            found["names of files that are not whole"] += _not_whole(data)
        with serving(data) as server, httpx.Client(base_url=server.url, timeout=60) as http:
            server.ready()
            _compare(http, told, found)
            until = time.monotonic() + 600
            while time.monotonic() < until and any(
                http.get(f"/api/jobs/{id}").json()["state"] in ("queued", "running") for id in asked
            ):
                time.sleep(0.2)
        rows = {job: (state, count) for job, state, count in _rows(data)}
        names = {path.name for path in (data / "pictures").iterdir()}
        known = {f"{id}.png" for id in _ids(data)}
        return {
            "kills": times,
            "jobs": len(asked),
            "pictures": sum(asked.values()),
            **found,
            "finished pictures lost": found["finished pictures lost"],
            "jobs not made to their end": sum(
                rows.get(id) != ("done", count) for id, count in asked.items()
            ),
            "files without a picture": len(names - known),
            "pictures without a file": len(known - names),
            "names of files that are not whole": found["names of files that are not whole"]
            + _not_whole(data),
        }


def _compare(http: httpx.Client, told: dict[str, bytes], found: Counter[str]) -> None:
    for id, before in told.items():
        answer = http.get(f"/api/pictures/{id}/file")
        found["finished pictures lost"] += answer.content != before


def _not_whole(data: Path) -> int:
    """Files under the name of a picture that cannot be read to their end."""
    count = 0
    for path in (data / "pictures").glob("[!.]*"):
        try:
            with Image.open(path) as image:
                image.load()
        except (OSError, SyntaxError):
            count += 1
    return count


# Damaged.


def damaged(count: int) -> dict[str, Any]:
    """Send pictures with something wrong to every call that takes one."""
    here = Path(__file__).parents[1]
    pictures = runpy.run_path(str(here / "tests/server/damage.py"))["damaged"]
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "data") as server:
        server.ready()
        statuses = asyncio.run(_send(server.url, pictures(count)))
        alive = httpx.get(f"{server.url}/ready").status_code == 200
        problems = sum('"error"' in line for line in server.log.read_text("utf-8").splitlines())
        memory = memory_of(server)
    return {
        "pictures": count,
        "answers": {str(key): value for key, value in sorted(statuses.items())},
        "server errors": sum(value for key, value in statuses.items() if key >= 500),
        "errors in the log": problems,
        "alive": alive,
        "memory_mb": memory,
    }


async def _send(url: str, pictures: Iterator[bytes]) -> Counter[int]:
    """From many addresses, so that no limit of calls ends it."""
    statuses = Counter[int]()
    numbers = iter(range(10**9))

    async def sender(number: int) -> None:
        transport = httpx.AsyncHTTPTransport(local_address=f"127.0.2.{number + 1}")
        async with httpx.AsyncClient(base_url=url, transport=transport, timeout=60) as http:
            for data in pictures:
                statuses[await _sent(http, next(numbers), data)] += 1

    await asyncio.gather(*(sender(number) for number in range(16)))
    return statuses


async def _sent(http: httpx.AsyncClient, number: int, data: bytes) -> int:
    """Most as an upload; some as a file to restore settings from, or as a mask of an edit."""
    while True:
        if number % 10 == 0:
            files = {"image": ("a.png", _picture()), "mask": ("b.png", data)}
            form = {"prompt": "a fox", "quality": "wrong"}
            answer = await http.post("/v1/images/edits", files=files, data=form)
        else:
            path = "/api/settings" if number % 10 == 1 else "/api/uploads"
            headers = {"Content-Type": "image/png"}
            answer = await http.post(path, content=data, headers=headers)
        if answer.status_code != 429:
            return answer.status_code
        await asyncio.sleep(float(answer.headers["Retry-After"]))


# Small things.


def _picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (48, 48), (200, 30, 30)).save(file, "PNG")
    return file.getvalue()


def _rows(data: Path) -> list[tuple[str, str, int]]:
    """(id, state, pictures) of every job that the database knows."""
    with sqlite3.connect(data / "studio.sqlite") as db:
        return db.execute(
            "SELECT id, state, (SELECT count(*) FROM pictures WHERE job = jobs.id) FROM jobs"
        ).fetchall()


def _ids(data: Path) -> list[str]:
    with sqlite3.connect(data / "studio.sqlite") as db:
        return [id for (id,) in db.execute("SELECT id FROM pictures")]


def _quantile(values: Sequence[float], q: float) -> float:
    return round(statistics.quantiles(values, n=100, method="inclusive")[round(100 * q) - 1], 1)


def machine() -> dict[str, Any]:
    """What measured, and how many programs wanted its cores before we did."""
    return {
        "cpu": cpu_name(),
        "cores": sorted(os.sched_getaffinity(0)),
        "threads": int(os.environ.get("OMP_NUM_THREADS", "0")) or os.cpu_count(),
        "python": platform.python_version(),
        "load average": round(os.getloadavg()[0], 2),
    }


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()


def memory_of(server: Server) -> float:
    """Resident, in MB."""
    status = Path(f"/proc/{server.process.pid}/status").read_text("utf-8")
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return round(int(line.split()[1]) / 1000, 1)


def _process_seconds(server: Server) -> float:
    """That the process computed, all threads together."""
    text = Path(f"/proc/{server.process.pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(text[11]) + int(text[12])) / os.sysconf("SC_CLK_TCK")


def _threads(server: Server) -> dict[str, tuple[float, float]]:
    """Seconds that every thread computed, and waited for a core."""
    found: dict[str, tuple[float, float]] = {}
    for path in Path(f"/proc/{server.process.pid}/task").iterdir():
        ran, waited, _ = (path / "schedstat").read_text("utf-8").split()
        found[path.name] = int(ran) / 1e9, int(waited) / 1e9
    return found
