"""The clients that people use, as they are published, against a real server with the real model.

    scripts/clients

Every client is installed into an environment of its own (.venv/clients), never with torch, and
runs its program in benchmarks/clients/: it makes pictures, edits them with masks, listens to
streams, and looks at what it raises when something is wrong. What came of it is written to
clients.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import results

ROOT = results.ROOT
PROGRAMS = ROOT / "benchmarks" / "clients"
ENVIRONMENTS = ROOT / ".venv" / "clients"
PILLOW = "pillow==12.3.0"
SECONDS = 1200
"""That a client may take, on a machine that does other things too."""


@dataclass(frozen=True, slots=True)
class Client:
    """A client, and the program that uses it.

    Attributes:
        packages: with exact versions; of PyPI, or of npm where the program is JavaScript.
        program: a file in benchmarks/clients/.
    """

    name: str
    packages: tuple[str, ...]
    program: str

    @property
    def folder(self) -> Path:
        """Its environment, which changes with its versions."""
        return ENVIRONMENTS / "-".join((self.name, *self.packages)).replace("/", "-")

    @property
    def script(self) -> bool:
        return self.program.endswith(".mjs")


CLIENTS = (
    Client("openai for Python 1", ("openai==1.109.1", PILLOW), "openai_python.py"),
    Client("openai for Python", ("openai==3.57.0", PILLOW), "openai_python.py"),
    Client("openai for JavaScript", ("openai@7.59.0",), "openai_javascript.mjs"),
    Client("litellm", ("litellm==1.110.2", PILLOW), "litellm_python.py"),
    Client(
        "langchain",
        ("langchain-community==0.4.2", "openai==3.57.0", PILLOW),
        "langchain_python.py",
    ),
    Client("requests of Open WebUI and LibreChat", (PILLOW,), "recorded.py"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", help="a part of the name of the clients that run")
    parser.add_argument("--out", type=Path, default=results.SERVER / "clients.json")


def run(given: argparse.Namespace) -> dict[str, Any]:
    chosen = [client for client in CLIENTS if (given.only or "") in client.name]
    for client in chosen:
        prepare(client)
    found: list[dict[str, Any]] = []
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), token) as url:
        for client in chosen:
            found.append(result(client, url, token))
            show(found[-1])
    report: dict[str, Any] = {"clients": found}
    if given.only is None:
        report = results.save(given.out, report, weights=[results.shipped()])
    failed = [client["client"] for client in found if client["failed"] or not client["passed"]]
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")
    return report


def prepare(client: Client) -> None:
    """Install a client, unless it is there."""
    done = client.folder / ".ready"
    if done.exists():
        return
    print(f"installing {', '.join(client.packages)}", flush=True)
    shutil.rmtree(client.folder, ignore_errors=True)
    if client.script:
        client.folder.mkdir(parents=True)
        (client.folder / "package.json").write_text('{"private": true}')
        execute(("npm", "install", "--silent", "--no-audit", "--no-fund", *client.packages), client)
    else:
        execute((sys.executable, "-m", "venv", str(client.folder)), client)
        pip = (str(client.folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check")
        execute((*pip, "install", "-qq", *client.packages), client)
        for package in ("torch", "torchvision"):
            if subprocess.run((*pip, "show", "-qq", package), capture_output=True).returncode == 0:
                sys.exit(f"{client.name} brings {package}, which no client needs. Choose another.")
    done.touch()


def execute(command: Sequence[str], client: Client) -> None:
    client.folder.parent.mkdir(parents=True, exist_ok=True)
    where = client.folder if client.folder.exists() else client.folder.parent
    subprocess.run(command, cwd=where, check=True)


@contextmanager
def serving(
    folder: Path,
    token: str,
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Generator[str]:
    """The address of `asymflow serve`, ready, on a free port.

    Args:
        folder: of its log and its data.
        token: that it asks for.
        options: further ones of the command.
        environment: further variables of the process.
    """
    log = folder / "log"
    command = [sys.executable, "-m", "asymflow", "serve", "--port", "0", *options]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--data", str(folder / "data")],
            stderr=out,
            env={**os.environ, **(environment or {}), "ASYMFLOW_TOKEN": token},
        )
    try:
        until = time.monotonic() + 180
        while time.monotonic() < until and process.poll() is None:
            # The first line of its log that names an address.
            said = re.search(r'"address": "(http[^"]+)"', log.read_text("utf-8"))
            if said and ready(said[1]):
                yield said[1]
                return
            time.sleep(0.1)
        sys.exit(f"The server did not start:\n{log.read_text('utf-8')}")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/ready", timeout=10) as answer:
            return answer.status == 200
    except (urllib.error.URLError, TimeoutError):
        return False


def result(client: Client, url: str, token: str) -> dict[str, Any]:
    """What the program of a client printed: a line of JSON for each of its checks."""
    program = PROGRAMS / client.program
    if client.script:
        # Packages are looked for beside the program.
        program = Path(shutil.copy(program, client.folder))
        command = ("node", str(program))
    else:
        command = (str(client.folder / "bin" / "python"), str(program))
    started = time.monotonic()
    environment = {**os.environ, "SERVER": url, "TOKEN": token, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    checks = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    failed = {each["check"]: each["error"] for each in checks if each["error"] is not None}
    if done.returncode:
        failed["the program"] = done.stderr[-2000:]
    return {
        "client": client.name,
        "packages": list(client.packages),
        "passed": sorted(each["check"] for each in checks if each["error"] is None),
        "failed": failed,
        "seconds": round(time.monotonic() - started, 1),
    }


def show(found: dict[str, Any]) -> None:
    print(f"{found['client']}: {len(found['passed'])} passed, {found['seconds']:g} s", flush=True)
    for check, error in found["failed"].items():
        print(f"  failed: {check}: {error}", flush=True)
