"""Four models that do not come with asymflow, through every command, the server and the studio.

    python -m benchmarks models                    # 10 to 20 minutes on one core
    python -m benchmarks models --only prx --no-studio

A UNet of diffusers and a JiT that learnt Fashion-MNIST, grey pictures of classes; and a
PRXPixelPipeline and a MiniT2I of random weights, which are asked with prompts. Each is taken
through `generate`, `profile`, `plan`, `bench baselines --quick`, and `generate` with the plans that
were made. One `asymflow serve` of all of them then draws the same seeds with the same plans: the
pixels have to be equal. Where the model is a pipeline that can be called, so have those of
`asymflow.accelerate(pipe, plan)`. At last a browser draws with each (web/e2e/served.ts). All of it
happens in a temporary folder, caches included. Writes models.json, and fails where anything did.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import os
import resource
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import asymflow
from asymflow.generation import pipeline
from asymflow.planning import shelf
from benchmarks import results
from benchmarks.suites.clients import serving
from tests import small_models

SEED = 7
TOLERANCE = 1e-5
"""Between pictures in [0, 1] that are the same."""
PATIENCE = 1800.0
"""Seconds that a command may take, on a machine that does other things too."""
SOON = 360.0
"""Seconds of a core in which a quick comparison of a small model should be done."""
PICTURES = 16
QUICK = {"only": "prx", "studio": False, "pictures": 2, "out": results.QUICK / "models.json"}


@dataclass(frozen=True, slots=True)
class Subject:
    """A model, and what it is asked for.

    Attributes:
        name: its id at the server.
        ref: its file or folder.
        words: of the command line.
        asked: fields of a job.
        call: arguments of the pipeline's own call; None where it cannot be called.
    """

    name: str
    ref: Path
    words: tuple[str, ...]
    asked: Mapping[str, Any]
    call: Mapping[str, Any] | None = None


class WrongError(Exception):
    """Something is not as it should be."""


def demand(right: object, wrong: str) -> None:
    """Raise for what is not right.

    Raises:
        WrongError: with what is wrong.
    """
    if not right:
        raise WrongError(wrong)


@dataclass(slots=True)
class Outcome:
    """What happened to a model: seconds and failures by what was done, and numbers."""

    seconds: dict[str, float] = field(default_factory=dict[str, float])
    failed: dict[str, str] = field(default_factory=dict[str, str])
    found: dict[str, Any] = field(default_factory=dict[str, Any])

    def step(self, name: str, do: Callable[[], object]) -> None:
        """Do something, and note how long it took and how it failed."""
        began = time.monotonic()
        try:
            do()
        except Exception as error:  # whatever it is, the next step is of interest too
            self.failed[name] = f"{type(error).__name__}: {error}"[-2000:]
        self.seconds[name] = round(time.monotonic() - began, 1)
        print(f"  {name}: {self.failed.get(name, 'passed')}, {self.seconds[name]:g} s", flush=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", metavar="NAME", help="one of the models")
    parser.add_argument(
        "--trained", type=Path, default=small_models.SMALL, metavar="DIR", help="of both trained"
    )
    parser.add_argument("--pictures", type=int, default=PICTURES, help="that samplers draw each")
    parser.add_argument("--studio", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--out", type=Path, default=results.SERVER / "models.json")


def subjects(folder: Path, trained: Path) -> list[Subject]:
    """The four; those of random weights are written to the folder."""
    dress = (("--class", "dress"), {"label": "dress"})
    fox = "a red fox in the snow"
    words = ((fox,), {"prompt": fox})
    prx = {"prompt": fox, "use_resolution_binning": False}
    return [
        Subject("fashion-unet", trained / small_models.UNET.name, *dress),
        Subject("fashion-jit", trained / small_models.JIT.name, *dress),
        Subject("prx", small_models.prx(folder / "prx"), *words, prx),
        Subject("minit2i", small_models.minit2i(folder / "minit2i"), *words),
    ]


def run(given: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home = {f"XDG_{kind}_HOME": str(folder / kind) for kind in ("CACHE", "CONFIG", "DATA")}
        os.environ.update(home)  # for what is done in this process, and for every command
        chosen = [
            each
            for each in subjects(folder, given.trained.resolve())
            if given.only in (None, each.name)
        ]
        if not chosen:
            sys.exit(f"There is no model {given.only!r}. See the first lines of --help.")
        outcomes = {each.name: Outcome() for each in chosen}
        weights: list[str] = []
        for each in chosen:
            print(each.name, flush=True)
            weights.append(commands(each, folder / "made" / each.name, outcomes, given.pictures))
        server(chosen, folder, outcomes)
        if given.studio:
            studio(chosen, folder, outcomes)
    report: dict[str, Any] = {
        "seed": SEED,
        "pictures": given.pictures,
        "models": {
            each.name: {
                "weights": name,
                "seconds": outcomes[each.name].seconds,
                "failed": outcomes[each.name].failed,
                **outcomes[each.name].found,
            }
            for each, name in zip(chosen, weights, strict=True)
        },
    }
    report["passed"] = not any(each.failed for each in outcomes.values())
    report = results.save(given.out, report, weights=weights)
    if not report["passed"]:
        sys.exit(f"failed: {', '.join(n for n, each in outcomes.items() if each.failed)}")
    return report


def commands(subject: Subject, here: Path, outcomes: Mapping[str, Outcome], pictures: int) -> str:
    """Take a model through the command line, and give the name of its weights."""
    here.mkdir(parents=True)
    outcome = outcomes[subject.name]
    model = pipeline.load(str(subject.ref), dtype="float32", device="cpu")
    size = model.card.sizes.native

    def typed(*words: str | Path) -> str:
        return command(*words, "--model", subject.ref, "--device", "cpu", here=here)

    def draw(plan: str) -> None:
        options = ("--plan", plan, "--seed", str(SEED), "--dtype", "float32")
        typed("generate", *subject.words, *options, "-o", f"{plan}.png")
        check_pixels(pixels(here / f"{plan}.png"), size, model.card.channels)

    def plan() -> None:
        made = json.loads(typed("plan", "--json"))
        outcome.found["plans"] = {
            name: {"steps": len(each["steps"]), "rms": each["evidence"]["rms"]["value"]}
            for name, each in made["plans"].items()
        }
        outcome.found["absent"] = made["absent"]
        demand(made["plans"], f"no plan: {made['absent']}")

    def bench() -> None:
        options = ("--quick", "--pictures", str(pictures), "--profile", "profile.safetensors")
        began = of_children()
        typed("bench", "baselines", *options, "--out", "bench")
        took = of_children() - began
        said = json.loads((here / "bench/baselines.json").read_text("utf-8"))
        rows = {each["name"]: each for each in said["results"]}
        ours = {name: row for name, row in rows.items() if row["family"] in OURS}
        outcome.found["baselines"] = {
            "cpu_seconds": round(took, 1),
            "samplers": len(rows),
            "rounds": said["settings"]["rounds"],
            "limit_rms": said["limit_rms"],
            "results": {
                name: {
                    "nfe": row["forwards"],
                    "ms": row["ms"]["median"],
                    "rms": row["rms"]["value"],
                }
                for name, row in ours.items()
            },
        }
        named = {f"asymflow {name}" for name in outcome.found["plans"]}
        demand(named <= rows.keys(), f"not compared: {named - rows.keys()}")
        for name in ("baselines.png", "sheet.png"):
            with Image.open(here / "bench" / name) as image:
                image.load()
        demand(took < SOON, f"it took {took:.0f} s of a core, and {SOON:.0f} are enough")

    outcome.step("generate", partial(draw, shelf.DEFAULT))
    outcome.step("profile", partial(typed, "profile", "-o", "profile.safetensors"))
    outcome.step("plan", plan)
    outcome.step("bench baselines", bench)
    for name in outcome.found.get("plans", {}):
        outcome.step(f"generate --plan {name}", partial(draw, name))
        if subject.call is not None:
            drawn = here / f"{name}.png"
            agree = partial(pipeline_agrees, subject, model, name, drawn)
            outcome.step(f"accelerate, {name}", agree)
    return model.adapter.name


OURS = ("own sampler", "asymflow")
"""Families of samplers whose numbers are kept."""


def pipeline_agrees(subject: Subject, model: pipeline.Model, name: str, drawn: Path) -> None:
    """The accelerated pipeline draws what the engine and the command draw."""
    diffusers: Any = importlib.import_module("diffusers")
    pipe = diffusers.DiffusionPipeline.from_pretrained(subject.ref, local_files_only=True)
    size, scale = model.card.sizes.native, model.card.guidance
    plan = model.shelf.find(name, size)
    if plan is None:
        raise WrongError(f"the plan {name} is not kept")
    fast = asymflow.accelerate(pipe, plan)
    fast.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(SEED)
    call = {"generator": generator, "guidance_scale": scale, "output_type": "np"}
    [expected] = fast(**(subject.call or {}), **call).images
    request = asymflow.Request({**subject.asked, "negative": ""}, size, SEED, scale)
    [result] = asymflow.run(model.adapter, plan, [request])
    off = float(np.abs(result.picture - expected).max())
    demand(off < TOLERANCE, f"the engine is off by {off:.2g}")
    off = float(np.abs(pixels(drawn) - expected).max())
    demand(off < 0.5 / 255 + TOLERANCE, f"the command is off by {255 * off:.2g} levels")


def server(chosen: Sequence[Subject], folder: Path, outcomes: Mapping[str, Outcome]) -> None:
    """One server of all models draws what the command drew, by both of its interfaces."""
    token = secrets.token_hex(16)
    options = ["--dtype", "float32", "--device", "cpu", "--keep-models", str(len(chosen))]
    for each in chosen:
        options += ["--model", str(each.ref)]
    (folder / "served").mkdir()
    with (
        serving(folder / "served", token, options) as url,
        httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=90
        ) as client,
    ):
        for each in chosen:
            print(f"{each.name}, served", flush=True)
            drawn = folder / "made" / each.name
            outcome = outcomes[each.name]
            plans = (*outcome.found.get("plans", {}), shelf.DEFAULT)
            outcome.step("served plans", partial(_offered, client, each.name, plans))
            for plan in plans:
                served = partial(job, client, each, plan)
                outcome.step(f"served, {plan}", partial(same_pixels, served, drawn / f"{plan}.png"))
            usual = shelf.USUAL if shelf.USUAL in plans else shelf.DEFAULT
            served = partial(openai, client, each)
            outcome.step("served, OpenAI", partial(same_pixels, served, drawn / f"{usual}.png"))


def _offered(client: httpx.Client, name: str, plans: Sequence[str]) -> None:
    """The plans that `asymflow plan` made are those that the server offers."""
    until = time.monotonic() + PATIENCE
    while (answer := client.get("/api/info", params={"model": name})).status_code == 503:
        demand(time.monotonic() < until, "the model is not loaded")
        time.sleep(1)
    offered = [each["id"] for each in answer.raise_for_status().json()["qualities"]]
    demand(set(offered) == set(plans), f"it offers {offered}, and there are {list(plans)}")


def job(client: httpx.Client, subject: Subject, plan: str) -> bytes:
    """The file of a picture by the native interface."""
    asked = {"model": subject.name, "quality": plan, "seed": SEED, **subject.asked}
    made = client.post("/api/jobs", json=asked).raise_for_status().json()
    until = time.monotonic() + PATIENCE
    while made["state"] in ("queued", "running"):
        demand(time.monotonic() < until, f"the job is {made['state']}")
        time.sleep(0.1)
        made = client.get(f"/api/jobs/{made['id']}").raise_for_status().json()
    demand(made["state"] == "done", json.dumps(made))
    [picture] = made["pictures"]
    return client.get(f"/api/pictures/{picture['id']}/file").raise_for_status().content


def openai(client: httpx.Client, subject: Subject) -> bytes:
    """The file of a picture by the interface of OpenAI."""
    [words] = subject.asked.values()
    asked = {"model": subject.name, "prompt": words, "seed": SEED, "response_format": "url"}
    made = client.post("/v1/images/generations", json=asked).raise_for_status().json()
    return client.get(made["data"][0]["url"]).raise_for_status().content


def same_pixels(served: Callable[[], bytes], drawn: Path) -> None:
    """Raise where a file that was served has other pixels than one that was drawn.

    Raises:
        WrongError: with the largest difference.
    """
    off = np.abs(pixels(io.BytesIO(served())) - pixels(drawn)).max()
    demand(off == 0, f"the server is off by {255 * off:.0f} levels")


def studio(chosen: Sequence[Subject], folder: Path, outcomes: Mapping[str, Outcome]) -> None:
    """A browser draws with every model."""
    listed = [
        {
            "id": each.name,
            "ref": str(each.ref),
            "asked": next(iter(each.asked.values())),
            "by": next(iter(each.asked)),
            "grey": "label" in each.asked,
            "plans": list(outcomes[each.name].found.get("plans", {})),
        }
        for each in chosen
    ]
    path = folder / "studio.json"
    path.write_text(json.dumps(listed), "utf-8")
    print("studio", flush=True)
    began = time.monotonic()
    done = subprocess.run(
        [results.ROOT / "scripts/e2e", "--models", path, "--reporter=json"],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    took = round(time.monotonic() - began, 1)
    said = done.stdout[done.stdout.find("{") :]
    tests: dict[str, list[str]] = {}
    if said:
        for each in json.loads(said)["testResults"][0]["assertionResults"]:
            tests[each["title"]] = [*each["failureMessages"], *[each["status"]]]
    for each in chosen:
        own = {title: said for title, said in tests.items() if title.startswith(f"{each.name}:")}
        failed = {title: said[0] for title, said in own.items() if said[-1] != "passed"}
        outcome = outcomes[each.name]
        outcome.seconds["studio"] = took
        outcome.found["studio"] = sorted(own)
        if failed or not own:
            outcome.failed["studio"] = json.dumps(failed) if own else done.stderr[-2000:]
        print(f"  {each.name}: {outcome.failed.get('studio', 'passed')}", flush=True)


def command(*words: str | Path, here: Path) -> str:
    """What a command prints; it has to succeed.

    Raises:
        WrongError: it did not; with what it said.
    """
    done = subprocess.run(
        [sys.executable, "-m", "asymflow", *map(str, words)],
        cwd=here, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    demand(done.returncode == 0, f"status {done.returncode}: {done.stderr}")
    demand("Traceback" not in done.stderr, done.stderr)
    return done.stdout


def of_children() -> float:
    """Seconds of a core that commands have taken so far: others may share the machine."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def pixels(path: Path | io.BytesIO) -> NDArray[np.float32]:
    """The pixels [h, w, 3] of a file, in [0, 1]."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), np.float32) / np.float32(255)


def check_pixels(picture: NDArray[np.float32], size: tuple[int, int], channels: int) -> None:
    """Raise for a picture of another size, of one colour, or coloured where the model is grey.

    Raises:
        WrongError: it is one of these.
    """
    demand(picture.shape == (*size, 3), f"it is {picture.shape}")
    demand(picture.std() > 0.05, "it is of one colour")
    grey = bool((picture == picture[..., :1]).all())
    demand(grey == (channels == 1), "it is grey" if grey else "it has colours")
