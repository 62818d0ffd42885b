"""Bulk jobs and the HTTP API on a Ray cluster of two nodes of this machine.

    OMP_NUM_THREADS=1 python -m benchmarks cluster

needs the extra `ray`, and writes cluster.json:

- `division`: rows of the embedded model at 32 px with the plan draft, one thread per worker: by two
  processes, by 1, 2 and 4 actors, and by `PictureBatch` in a pipeline of Ray Data. How many rows
  have the same SHA-256 of their pixels in all of them.
- `throughput`: rows per second of two actors over that of two processes, in pairs one after the
  other.
- `free`: rows whose pictures cost nothing: rows per second, and memory of the driver at a tenth of
  them and at the end.
- `chaos`: a job of such a model is killed in every round, at a moment that the seed decides: the
  driver, an actor, or a whole node. At the end every row has to be there once, with the pixels of a
  job that nobody disturbed, and no file that is not named.
- `serve`: calls of OpenAI's client to two replicas, of which one is killed under load: what was
  answered, and how. Then more calls at once than the queues take, and a stream.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import random
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import openai

from asymflow.integrations.ray import PictureBatch, proxy
from asymflow.integrations.ray import serve as api
from benchmarks import results
from benchmarks.suites.bulk import (
    command,
    done,
    drawn,
    finished,
    free_rows,
    hashes,
    offered,
    write,
    written,
    wrong,
)
from benchmarks.suites.server import cpu_name, machine
from tests.bulk import models

KINDS = ("driver", "actor", "node")
TOKEN = "a token of this benchmark"
PORT = 8917

QUICK = {
    "rows": 8,
    "pairs": 1,
    "rounds": 2,
    "free": 200,
    "calls": 6,
    "out": results.QUICK / "cluster.json",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=2000, help="of the embedded model")
    parser.add_argument("--pairs", type=int, default=5, help="of jobs whose speed is compared")
    parser.add_argument("--rounds", type=int, default=20, help="of chaos")
    parser.add_argument("--free", type=int, default=100_000, help="rows that cost nothing")
    parser.add_argument("--calls", type=int, default=200, help="to the replicas, 8 at a time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=results.SERVER / "cluster.json")


def run(given: argparse.Namespace) -> dict[str, Any]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # As nice as the processes of the command are, whatever else runs.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (Ray's own spelling)
    os.environ["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] = f"{proxy.__name__}:middlewares"
    report: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory(prefix="cluster-") as folder, offered(Path(folder)):
        place = Path(folder)
        with Cluster() as cluster:
            parts = {
                "division": lambda: division(place, cluster, given.rows),
                "throughput": lambda: throughput(place, cluster, given.rows // 8, given.pairs),
                "free": lambda: free(place, cluster, given.free),
                "chaos": lambda: chaos(place, cluster, given.free // 5, given.rounds, given.seed),
                "serve": lambda: serve(cluster, given.calls),
            }
            for name, part in parts.items():
                report[name] = part()
                print(f"{name}: {json.dumps(report[name], indent=1)}", flush=True)
    whole = results.save(
        given.out, report, device=f"cpu ({cpu_name()})", weights=[results.shipped()]
    )
    if report["division"]["different"] or any(report["chaos"]["wrong"].values()):
        raise SystemExit(1)
    return whole


class Cluster:
    """Two nodes of this machine, with two CPUs each. The first has the head, and no workers."""

    def __init__(self) -> None:
        utils: Any = importlib.import_module("ray.cluster_utils")
        self._cluster = utils.Cluster()
        self._cluster.add_node(num_cpus=0, include_dashboard=False)
        self.address = str(self._cluster.address)
        self.nodes = [self._add() for _ in range(2)]
        self._cluster.wait_for_nodes()

    def _add(self) -> Any:
        return self._cluster.add_node(num_cpus=2, include_dashboard=False)

    def replace(self, number: int) -> None:
        """Kill a node with all its processes, and start another one."""
        self._cluster.remove_node(self.nodes[number], allow_graceful=False)
        self.nodes[number] = self._add()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.shutdown()

    @contextmanager
    def joined(self) -> Generator[Any]:
        """The package ray, with this process in the cluster."""
        ray: Any = importlib.import_module("ray")
        ray.init(address=self.address, log_to_driver=False, logging_level=logging.ERROR)
        try:
            yield ray
        finally:
            ray.shutdown()


def division(place: Path, cluster: Cluster, count: int) -> dict[str, Any]:
    """How many rows have the same pixels however the work is divided."""
    manifest = write(place / "division.jsonl", drawn(count))
    found: dict[str, dict[str, str]] = {}
    done(manifest, place / "processes", *USUAL, "--workers", 2)
    found["two processes"] = hashes(place / "processes")
    for actors in (1, 2, 4):
        out = place / f"actors-{actors}"
        done(manifest, out, *USUAL, "--workers", actors, "--ray", cluster.address)
        found[f"{actors} actor" + "s" * (actors > 1)] = hashes(out)
    with cluster.joined():
        data: Any = importlib.import_module("ray.data")
        made = data.read_json(str(manifest), num_cpus=0.5).map_batches(
            PictureBatch,
            fn_constructor_kwargs={"plan": "draft"},
            compute=data.ActorPoolStrategy(size=2),
            num_cpus=1,
            batch_size=16,
        )
        found["Ray Data"] = {row["id"]: row["sha256"] for row in made.iter_rows()}
    ids = {f"row-{i}" for i in range(count)}
    same = sum(len({each.get(id) for each in found.values()}) == 1 for id in ids)
    return {
        "rows": count,
        "pictures": {name: len(each) for name, each in found.items()},
        "different pixels among rows": len(set(found["two processes"].values())),
        "same": same,
        "different": count - same,
    }


USUAL = ("--plan", "draft", "--threads", 1)


def throughput(place: Path, cluster: Cluster, count: int, pairs: int) -> dict[str, Any]:
    """Rows per second of two actors over that of two processes."""
    manifest = write(place / "throughput.jsonl", drawn(count))
    ratios: list[float] = []
    speed: dict[str, list[float]] = {"processes": [], "actors": []}
    for pair in range(pairs):
        kinds = [("processes", ()), ("actors", ("--ray", cluster.address))]
        for name, words in kinds[:: 1 if pair % 2 else -1]:
            out = place / f"throughput-{name}-{pair}"
            said = done(manifest, out, *USUAL, "--workers", 2, *words)
            # From the moment that both are ready on, which takes actors longer.
            busy = max(each["busy_seconds"] for each in said["processes"])
            speed[name].append(round(count / max(busy, 1e-9), 2))
        ratios.append(speed["actors"][-1] / speed["processes"][-1])
    return {
        "rows": count,
        "rows_per_second": speed,
        "ratio": {
            "median": round(statistics.median(ratios), 3),
            "least": round(min(ratios), 3),
            "most": round(max(ratios), 3),
        },
    }


def free(place: Path, cluster: Cluster, count: int) -> dict[str, Any]:
    """What driver and storage take of a row, and how the memory of the driver grows."""
    manifest = write(place / "free.jsonl", free_rows(count))
    out = place / "free"
    usual = ("--model", models.NAME, "--steps", 1, "--workers", 2, "--ray", cluster.address)
    megabytes: dict[int, int] = {}
    with subprocess.Popen(
        command(manifest, out, *usual), stdout=subprocess.PIPE, text=True
    ) as process:
        marks = [count // 10, count // 2]
        while process.poll() is None and marks:
            if rows_of(out) >= marks[0]:
                megabytes[marks.pop(0)] = resident(process.pid)
            time.sleep(0.2)
        assert process.stdout is not None
        said = json.loads(process.stdout.read())
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert said["rows"]["made"] == count, said["rows"]
    rate = said["rows_per_second"]
    return {
        "rows": count,
        "rows_per_second": rate,
        "ms_per_row": round(1000 / rate, 2),
        "driver_mb": {str(rows): each for rows, each in megabytes.items()},
        "peak_mb": round(usage.ru_maxrss / 1000),
    }


def rows_of(out: Path) -> int:
    """About how many rows are written: full folders, and the lines of the last one."""
    folders = sorted((out / "data").glob("[0-9]*"))
    if not folders:
        return 0
    with suppress(OSError):
        last = (folders[-1] / "metadata.jsonl").read_bytes().count(b"\n")
        return 1000 * (len(folders) - 1) + last
    return 1000 * (len(folders) - 1)


def resident(pid: int) -> int:
    """Megabytes of memory that a process has."""
    with suppress(OSError):
        pages = int((Path("/proc") / str(pid) / "statm").read_text().split()[1])
        return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)
    return 0


def chaos(place: Path, cluster: Cluster, count: int, rounds: int, seed: int) -> dict[str, Any]:
    """A job that is killed again and again."""
    usual = ("--model", models.NAME, "--steps", 2, "--workers", 2)
    manifest = write(place / "chaos.jsonl", free_rows(count))
    done(manifest, place / "calm", *usual)
    expected = hashes(place / "calm")
    chance = random.Random(seed)
    out = place / "chaos"
    killed: Counter[str] = Counter()
    progress: list[int] = []
    for number in range(rounds):
        # All that is there is for the rounds that are left: the job is to last to the end.
        part = write(place / "part.jsonl", free_rows(count * (number + 1) // rounds))
        process = subprocess.Popen(
            command(part, out, *usual, "--ray", cluster.address),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        before = written(out)
        while process.poll() is None and written(out) == before:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 1))
        kind = KINDS[number % len(KINDS)]
        killed[kind if process.poll() is None else "too late"] += 1
        if kind == "driver":
            process.kill()
        elif kind == "actor":
            with suppress(IndexError):
                os.kill(chance.choice(actors()), signal.SIGKILL)
        else:
            cluster.replace(chance.randrange(2))
        process.wait()
        progress.append(len(finished(out)))
    done(manifest, out, *usual, "--ray", cluster.address)
    found = hashes(out)
    return {
        "rounds": rounds,
        "rows": count,
        "killed": dict(killed),
        "rows after each round": progress,
        "wrong": wrong(expected, found),
    }


def actors(name: str = "Painter") -> list[int]:
    """The processes of all actors of a class on this machine."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"ray::{name}".encode() in (path / "cmdline").read_bytes():
                found.append(int(path.name))
    return found


def serve(cluster: Cluster, count: int) -> dict[str, Any]:
    """Calls to two replicas, of which one is killed under load."""
    os.environ[api.TOKEN] = TOKEN
    with cluster.joined():
        library: Any = importlib.import_module("ray.serve")
        # All nodes are this machine, on which a port is for one proxy.
        library.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": PORT})
        two = api.deployment().options(autoscaling_config=None, num_replicas=2)
        library.run(two.bind(api.Options(queue=8)), name="asymflow", route_prefix="/")
        try:
            calm = calls(count, workers=8, kill=False)
            lost = calls(count, workers=8, kill=True)
            full = calls(count, workers=100, kill=False, retries=0)
            client = openai.OpenAI(base_url=f"http://127.0.0.1:{PORT}/v1", api_key=TOKEN)
            events = [
                each.type
                for each in client.images.generate(
                    prompt="a hen", size="64x64", stream=True, partial_images=2, quality="low"
                )
            ]
        finally:
            library.shutdown()
    return {"calm": calm, "one killed": lost, "too many at once": full, "events": Counter(events)}


def calls(count: int, *, workers: int, kill: bool, retries: int = 4) -> dict[str, Any]:
    """So many calls at once as workers: how they ended.

    Args:
        count: of calls, each with a seed of its own.
        workers: calls at a time.
        kill: end a replica after a third of them.
        retries: of the client, which waits as long as Retry-After says.
    """
    seen: list[tuple[int, bool]] = []
    answers: dict[int, str] = {}
    failed: Counter[str] = Counter()
    numbers = iter(range(count))
    lock = threading.Lock()

    def hear(response: Any) -> None:
        if response.status_code >= 400:
            with lock:
                seen.append((response.status_code, "retry-after" in response.headers))

    def work() -> None:
        client = openai.OpenAI(
            base_url=f"http://127.0.0.1:{PORT}/v1",
            api_key=TOKEN,
            max_retries=retries,
            timeout=120,
            http_client=openai.DefaultHttpxClient(event_hooks={"response": [hear]}),
        )
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            try:
                made = client.images.generate(
                    prompt="a fox", size="64x64", quality="low", extra_body={"seed": number}
                )
            except openai.APIError as error:
                with lock:
                    failed[type(error).__name__] += 1
                continue
            with lock:
                assert number not in answers
                assert made.data is not None
                answers[number] = str(made.data[0].b64_json)
            if kill and len(answers) == count // 3:
                os.kill(actors("ServeReplica")[0], signal.SIGKILL)

    began = time.perf_counter()
    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        "calls": count,
        "at once": workers,
        "answered": len(answers),
        "different pictures": len(set(answers.values())),
        "failed": dict(failed),
        "refusals": {
            f"{status}, {'with' if told else 'without'} Retry-After": number
            for (status, told), number in sorted(Counter(seen).items())
        },
        "seconds": round(time.perf_counter() - began, 1),
    }
