"""A ComfyUI of its own with the pack in custom_nodes, driven by its HTTP interface.

It runs on the CPU and on the loopback interface, in a temporary folder, and loads a small PixelDiT
of random weights: the real network in ComfyUI, a thousandth of its size.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

from asymflow.core.schedules import plan_of, shifted
from asymflow.core.types import Plan
from asymflow.planning.plan_files import save_plan
from benchmarks.comfyui import graphs
from benchmarks.comfyui.host import PACK

CHECKPOINT = "small-pixeldit.safetensors"
SIDE = 64
SHORT = plan_of(shifted(6, 4.0), solver="corrected2", guidance_interval=(0.2, 1.0), name="short")
LONG = plan_of(shifted(250, 4.0), solver="corrected2", name="long")
PATIENCE = 180.0
PREVIEW = 1
"""Kind of a binary message with a picture, in its first four bytes."""

Graph = dict[str, dict[str, Any]]


class WrongError(Exception):
    """Something is not as it should be."""


@dataclass(slots=True)
class Messages:
    """What the server said of a graph, in order."""

    kinds: list[str] = field(default_factory=list[str])
    previews: int = 0
    steps: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])


@dataclass(frozen=True, slots=True)
class Server:
    """A running ComfyUI.

    Attributes:
        base: its folder of models, custom nodes and pictures.
        log: what it prints.
    """

    url: str
    base: Path
    log: Path

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=30) as answer:
            return json.load(answer)

    def post(self, path: str, data: Mapping[str, Any]) -> Any:
        body = json.dumps(data).encode()
        request = urllib.request.Request(
            f"{self.url}{path}", body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise WrongError(f"{path} was refused: {error.read().decode()[:2000]}") from error
        return json.loads(text) if text else None

    def run(self, graph: Graph, on_preview: Callable[[int], None] | None = None) -> Messages:
        """Queue a graph, and listen until it is done or ends otherwise."""
        return import_module("asyncio").run(self._listened(graph, on_preview))

    async def _listened(self, graph: Graph, on_preview: Callable[[int], None] | None) -> Messages:
        aiohttp: Any = import_module("aiohttp")
        client, seen = uuid.uuid4().hex, Messages()
        address = f"{self.url.replace('http', 'ws', 1)}/ws?clientId={client}"
        async with aiohttp.ClientSession() as session, session.ws_connect(address) as socket_:
            number = self.post("/prompt", {"prompt": graph, "client_id": client})["prompt_id"]
            while True:
                message = await socket_.receive(timeout=PATIENCE)
                if message.type == aiohttp.WSMsgType.BINARY:
                    if int.from_bytes(message.data[:4], "big") == PREVIEW:
                        seen.previews += 1
                        if on_preview is not None:
                            on_preview(seen.previews)
                    continue
                if message.type != aiohttp.WSMsgType.TEXT:
                    raise WrongError(f"The server closed the connection: {self.tail()}")
                told = json.loads(message.data)
                data = told["data"]
                seen.kinds.append(told["type"])
                if told["type"] == "progress":
                    seen.steps.append((data["value"], data["max"]))
                if told["type"] == "execution_error":
                    raise WrongError(f"{data['node_type']}: {data['exception_message']}")
                if data.get("prompt_id") == number and told["type"] in (
                    "execution_success",
                    "execution_interrupted",
                ):
                    return seen

    def pictures(self, prefix: str) -> list[NDArray[np.uint8]]:
        """What SaveImage wrote under a prefix."""
        paths = sorted((self.base / "output").glob(f"{prefix}_*.png"))
        return [np.asarray(Image.open(path)) for path in paths]

    def tail(self) -> str:
        """The end of what the server printed."""
        return self.log.read_text("utf-8", "replace")[-2000:]


@contextmanager
def serving(comfyui: Path, base: Path, pack: Path = PACK) -> Generator[Server]:
    """A server with the pack, while the block runs.

    Args:
        comfyui: the checkout.
        base: an empty folder for everything that it reads and writes.
        pack: the folder of nodes, such as that of a release.
    """
    nodes, models = base / "custom_nodes", base / "models"
    for name in ("diffusion_models", "asymflow_plans"):
        (models / name).mkdir(parents=True)
    nodes.mkdir()
    shutil.copytree(pack, nodes / "asymflow", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(Path(__file__).with_name("nodes"), nodes / "asymflow_checks")
    for plan in (SHORT, LONG):
        save_plan(plan, models / "asymflow_plans" / f"{plan.name}.json")
    checkpoint(models / "diffusion_models" / CHECKPOINT)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    log = base / "log.txt"
    command = [
        sys.executable, str(comfyui / "main.py"), "--cpu", "--listen", "127.0.0.1", "--port",
        str(port), "--base-directory", str(base), "--disable-auto-launch", "--preview-method",
        "latent2rgb",
    ]  # fmt: skip
    environment = {**os.environ, "XDG_CACHE_HOME": str(base / "cache")}
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, cwd=comfyui, env=environment
        )
    server = Server(f"http://127.0.0.1:{port}", base, log)
    try:
        _wait(server, process)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(server: Server, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if process.poll() is not None:
            raise WrongError(f"ComfyUI ended at its start: {server.tail()}")
        try:
            server.get("/system_stats")
        except OSError:
            time.sleep(0.3)
        else:
            return
    raise WrongError(f"ComfyUI does not answer: {server.tail()}")


def checkpoint(path: Path) -> None:
    """Write the weights of a small PixelDiT: random, about as large as trained ones."""
    generator = torch.Generator().manual_seed(3)
    state = {name: _drawn(name, shape, generator) for name, shape in sorted(shapes().items())}
    save_file(state, path)


def _drawn(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    if "norm" in name:
        return torch.ones(shape)
    fan = math.prod(shape[1:]) if len(shape) > 1 else 100
    return torch.randn(shape, generator=generator) / math.sqrt(fan)


def shapes() -> dict[str, tuple[int, ...]]:
    """Of all weights of the small PixelDiT, by name: those of the shape in `nodes`."""
    wide, pixel, patch, text, tokens, head = 48, 16, 16, 16, 8, 24
    area, hidden = patch * patch, 128
    found: dict[str, tuple[int, ...]] = {"y_pos_embedding": (1, tokens, wide)}

    def linear(name: str, out: int, width: int, bias: bool = True) -> None:
        found[f"{name}.weight"] = (out, width)
        if bias:
            found[f"{name}.bias"] = (out,)

    def norm(name: str, width: int) -> None:
        found[f"{name}.weight"] = (width,)

    linear("pixel_embedder.proj", pixel, 3)
    linear("s_embedder.proj", wide, 3 * area)
    linear("t_embedder.mlp.0", wide, 256)
    linear("t_embedder.mlp.2", wide, wide)
    linear("y_embedder.proj", wide, text)
    norm("y_embedder.norm", wide)
    for block in ("patch_blocks.0", "patch_blocks.1"):
        for kind, stream in (("x", "img"), ("y", "txt")):
            norm(f"{block}.norm_{kind}1", wide)
            norm(f"{block}.norm_{kind}2", wide)
            linear(f"{block}.attn.qkv_{kind}", 3 * wide, wide, bias=False)
            norm(f"{block}.attn.q_norm_{kind}", head)
            norm(f"{block}.attn.k_norm_{kind}", head)
            linear(f"{block}.attn.proj_{kind}", wide, wide)
            linear(f"{block}.mlp_{kind}.w1", hidden, wide, bias=False)
            linear(f"{block}.mlp_{kind}.w2", wide, hidden, bias=False)
            linear(f"{block}.mlp_{kind}.w3", hidden, wide, bias=False)
            linear(f"{block}.adaLN_modulation_{stream}.0", 6 * wide, wide)
    block = "pixel_blocks.0"
    linear(f"{block}.compress_to_attn", wide, area * pixel)
    linear(f"{block}.expand_from_attn", area * pixel, wide)
    norm(f"{block}.norm1", pixel)
    linear(f"{block}.attn.qkv", 3 * wide, wide, bias=False)
    norm(f"{block}.attn.q_norm", head)
    norm(f"{block}.attn.k_norm", head)
    linear(f"{block}.attn.proj", wide, wide)
    norm(f"{block}.norm2", pixel)
    linear(f"{block}.mlp.fc1", 4 * pixel, pixel)
    linear(f"{block}.mlp.fc2", pixel, 4 * pixel)
    linear(f"{block}.adaLN_modulation_msa", 3 * area * pixel, wide)
    linear(f"{block}.adaLN_modulation_mlp", 3 * area * pixel, wide)
    norm("final_layer.norm", pixel)
    linear("final_layer.linear", 3, pixel)
    return found


# Graphs, as they are queued.


def graph(prefix: str, plan: Plan, *, seed: int = 7, batch: int = 2, side: int = SIDE) -> Graph:
    """Load plan and SamplerCustomAdvanced."""
    found = _begun(batch, side)
    file = plan.name if plan.name == "auto" else f"{plan.name}.json"
    found["plan"] = _node(
        "AsymflowLoadPlan", model=["model", 0], positive=["positive", 0], negative=["negative", 0],
        latent_image=["latent", 0], plan=file, cfg=3.0, denoise=1.0,
    )  # fmt: skip
    found["noise"] = _node("RandomNoise", noise_seed=seed)
    found["samples"] = _node(
        "SamplerCustomAdvanced", noise=["noise", 0], guider=["plan", 0], sampler=["plan", 1],
        sigmas=["plan", 2], latent_image=["latent", 0],
    )  # fmt: skip
    return found | _saved(prefix)


def ksampler_graph(prefix: str, plan: Plan, *, seed: int = 7, batch: int = 2) -> Graph:
    """KSampler with Apply plan."""
    found = _begun(batch, SIDE)
    found["applied"] = _node("AsymflowApplyPlan", model=["model", 0], plan=f"{plan.name}.json")
    found["samples"] = _node(
        "KSampler", model=["applied", 0], seed=seed, steps=20, cfg=3.0, sampler_name="euler",
        scheduler="simple", positive=["positive", 0], negative=["negative", 0],
        latent_image=["latent", 0], denoise=1.0,
    )  # fmt: skip
    return found | _saved(prefix)


def measuring_graph(side: int) -> Graph:
    """Measure model alone."""
    found = _begun(1, side)
    found["measured"] = _node(
        "AsymflowMeasureModel", model=["model", 0], positive=["positive", 0],
        negative=["negative", 0], latent_image=["latent", 0], cfg=3.0, effort="quick", again=False,
    )  # fmt: skip
    return found


def _begun(batch: int, side: int) -> Graph:
    size = {"width": side, "height": side, "batch_size": batch}
    return {
        "model": _node("ChecksSmallPixelDiT", name=CHECKPOINT),
        "positive": _node("ChecksPrompt", seed=1),
        "negative": _node("ChecksPrompt", seed=2),
        "latent": _node("EmptyChromaRadianceLatentImage", **size),
    }


def _saved(prefix: str) -> Graph:
    return {
        "vae": _node("VAELoader", vae_name="pixel_space"),
        "decoded": _node("VAEDecode", samples=["samples", 0], vae=["vae", 0]),
        "saved": _node("SaveImage", images=["decoded", 0], filename_prefix=prefix),
    }


def _node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


# Checks.


def checked(server: Server) -> dict[str, Any]:
    """Everything that a user of the server would notice.

    Raises:
        WrongError: something is not as it should be.
    """
    known = server.get("/object_info")
    nodes = [name for name in known if name.startswith("Asymflow")]
    _expect(len(nodes) == 3, f"three nodes are loaded: {nodes}: {server.tail()}")
    examples = {
        name: graphs.wrong(each, known)
        for name, each in graphs.graphs().items()
        if not name.startswith("sensenova") or "SenseNovaSamplingOptions" in known
    }
    _expect(not any(examples.values()), f"the example graphs fit its nodes: {examples}")
    count = len(SHORT.steps)
    seen = server.run(graph("plan", SHORT))
    _expect(seen.previews == count, f"{count} previews came: {seen.previews}")
    _expect((count, count) in seen.steps, f"progress ended at {count}: {seen.steps}")
    planned = server.pictures("plan")
    _expect(len(planned) == 2, f"two pictures came out: {len(planned)}")
    _expect(all(picture.std() > 1 for picture in planned), "the pictures show something")
    server.run(ksampler_graph("ksampler", SHORT))
    same = all(
        np.array_equal(one, other)
        for one, other in zip(planned, server.pictures("ksampler"), strict=True)
    )
    _expect(same, "KSampler with Apply plan makes the same pictures")
    stopped = _interrupted(server)
    again = server.run(graph("again", SHORT, seed=8))
    _expect(again.previews == count, "the next graph runs as ever")
    return {
        "nodes": sorted(nodes),
        "examples": sorted(examples),
        "steps": count,
        "previews": seen.previews,
        "pictures": len(planned),
        "ksampler_equal": same,
        "interrupted_after_previews": stopped,
        "of_steps": len(LONG.steps),
    }


def _interrupted(server: Server) -> int:
    """The previews of a long plan that is interrupted after the third."""

    def stop(previews: int) -> None:
        if previews == 3:
            server.post("/interrupt", {})

    seen = server.run(graph("long", LONG), stop)
    _expect(seen.kinds[-1] == "execution_interrupted", f"it was interrupted: {seen.kinds[-3:]}")
    _expect(seen.previews < len(LONG.steps) // 2, f"it ended soon: {seen.previews} previews")
    _expect(not server.pictures("long"), "no picture of it was saved")
    return seen.previews


def measured(server: Server, side: int = 16) -> dict[str, Any]:
    """Measuring in the server: interrupted, resumed, kept, and used."""
    begun = time.monotonic()
    # Before the search begins, which has no previews: by the clock.
    stopper = import_module("threading").Timer(8.0, lambda: server.post("/interrupt", {}))
    stopper.start()
    first = server.run(measuring_graph(side))
    stopper.cancel()
    interrupted = first.kinds[-1] == "execution_interrupted"
    resumed = server.run(measuring_graph(side)) if interrupted else first
    seconds = time.monotonic() - begun
    kept = sorted(path.name for path in (server.base / "cache/asymflow/plans").glob("*/*.json"))
    left = list((server.base / "cache/asymflow/measuring").glob("*"))
    _expect(resumed.kinds[-1] == "execution_success", f"it was measured: {resumed.kinds[-3:]}")
    _expect(bool(kept), f"plans are kept: {server.tail()}")
    _expect(not left, f"nothing unfinished is left: {left}")
    once = time.monotonic()
    server.run(measuring_graph(side))
    _expect(time.monotonic() - once < 5, "the second time nothing is measured")
    server.run(graph("measured", Plan("auto", SHORT.steps), side=side))
    told = "was measured on this model."
    _expect(told in server.tail(), f"the kept plan is used: {server.tail()}")
    return {"interrupted": interrupted, "kept": kept, "seconds": round(seconds)}


def _expect(true: bool, what: str) -> None:
    if not true:
        raise WrongError(f"It should be that {what}.")
