"""An honest client of a real server, alone and beside others that are silent or greedy.

    OMP_NUM_THREADS=1 python -m benchmarks crowded

starts `asymflow serve` on loopback and writes crowded.json. In turn, several times:

- `alone`: one client asks for a picture, listens until it is done, fetches it, sends a picture and
  looks around. The time of every such round is taken.
- `silent`: the same beside 200 connections that send nothing, half a line or a header every few
  seconds, and 50 uploads of 100 MB that are announced and never come. What the server ends begins
  again at once.
- `greedy`: the same beside 45 calls at a time that each enlarge a picture by 16.

`ratio` is that of the medians to `alone`. Memory is the server's own process, without the child
that holds the network; the log is read line by line.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from PIL import Image

from benchmarks import results
from benchmarks.suites.server import Server, cpu_name, machine, memory_of, serving

SMALL = {"width": 32, "height": 32, "quality": "draft"}
SILENT = (b"", b"GET /heal", b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n")
UPLOAD = (
    b"POST /v1/images/edits HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 100000000\r\n\r\n"
)

QUICK = {"turns": 1, "rounds": 2, "out": results.QUICK / "crowded.json"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--turns", type=int, default=3, help="of each kind, by turns")
    parser.add_argument("--rounds", type=int, default=8, help="of the honest client in a turn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=results.SERVER / "crowded.json")


def run(given: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "data") as server:
        server.ready()
        found = asyncio.run(measured(server, given.turns, given.rounds, given.seed))
        report = {"machine": machine(), **found, "log": logged(server)}
    print(json.dumps(report, indent=1))
    return results.save(
        given.out, report, device=f"cpu ({cpu_name()})", weights=[results.shipped()]
    )


async def measured(server: Server, turns: int, rounds: int, seed: int) -> dict[str, Any]:
    """Rounds of the honest client, in seconds, beside each kind of others."""
    crowds: dict[str, Callable[[str], list[Coroutine[Any, Any, None]]]] = {
        "alone": lambda url: [],
        "silent": lambda url: [
            *(stubborn(url, SILENT[i % 3], drip=i % 3 == 2) for i in range(200)),
            *(stubborn(url, UPLOAD, drip=False) for _ in range(50)),
        ],
        "greedy": lambda url: [enlarging(url) for _ in range(45)],
    }
    seconds: dict[str, list[float]] = {name: [] for name in crowds}
    memory: dict[str, list[float]] = {name: [] for name in crowds}
    chance = random.Random(seed)
    async with httpx.AsyncClient(base_url=server.url, timeout=600) as http:
        await honest(http, -1)
        begin = memory_of(server)
        for turn in range(turns):
            for name in chance.sample(sorted(crowds), len(crowds)):
                others = [asyncio.ensure_future(each) for each in crowds[name](server.url)]
                await asyncio.sleep(1)  # until they are all there
                for number in range(rounds):
                    before = time.perf_counter()
                    await honest(http, 1000 * turn + number)
                    seconds[name].append(time.perf_counter() - before)
                    memory[name].append(memory_of(server))
                for each in others:
                    each.cancel()
                await asyncio.gather(*others, return_exceptions=True)
        end = memory_of(server)
    usual = statistics.median(seconds["alone"])
    return {
        "rounds": turns * rounds,
        "seconds": {
            name: {
                "median": round(statistics.median(each), 3),
                "most": round(max(each), 3),
                "ratio": round(statistics.median(each) / usual, 2),
            }
            for name, each in seconds.items()
        },
        "memory_mb": {
            "begin": begin,
            "end": end,
            "most": {name: max(each) for name, each in memory.items()},
        },
    }


async def honest(http: httpx.AsyncClient, seed: int) -> None:
    """What a person does with the page."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (1, 2, 3)).save(file, "PNG")
    asked = {"prompt": "a red apple", "seed": seed % 2**31, **SMALL}
    (answer := await http.post("/api/jobs", json=asked)).raise_for_status()
    id = answer.json()["id"]
    (await http.get(f"/api/jobs/{id}/events")).raise_for_status()
    [picture] = (await http.get(f"/api/jobs/{id}")).json()["pictures"]
    headers = {"Content-Type": "image/png"}
    sent = await http.post("/api/uploads", content=file.getvalue(), headers=headers)
    for path in (sent.raise_for_status().json()["url"], picture["thumbnail"], "/api/pictures"):
        (await http.get(path)).raise_for_status()
    (await http.get("/health")).raise_for_status()


async def stubborn(url: str, sent: bytes, *, drip: bool) -> None:
    """A connection that keeps the server waiting, and comes again when it is ended."""
    parts = urlsplit(url)
    while True:
        try:
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            try:
                writer.write(sent)
                await (_slowly(writer) if drip else reader.read())
            finally:
                writer.close()
        except OSError:
            pass
        await asyncio.sleep(0.1)


async def _slowly(writer: asyncio.StreamWriter) -> None:
    while not writer.is_closing():
        await asyncio.sleep(3)
        writer.write(b"X-A: 1\r\n")
        await writer.drain()


async def enlarging(url: str) -> None:
    """The dearest call that changes nothing, again and again."""
    async with httpx.AsyncClient(base_url=url, timeout=600) as http:
        [newest] = (await http.get("/api/pictures?limit=1")).json()["pictures"]
        while True:
            answer = await http.get(f"{newest['url']}&scale=16")
            await asyncio.sleep(float(answer.headers.get("retry-after", "0")))


def logged(server: Server) -> dict[str, Any]:
    """How much was logged, and whether all of it is JSON."""
    lines = server.log.read_text("utf-8").splitlines()
    plain, kinds = 0, Counter[str]()
    for line in lines:
        try:
            said = json.loads(line)
        except json.JSONDecodeError:
            plain += 1
        else:
            kinds[f"{said['level']}: {said['message']}"[:60]] += 1
    return {
        "bytes": server.log.stat().st_size,
        "lines": len(lines),
        "plain": plain,
        "kinds": dict(kinds.most_common(12)),
    }
