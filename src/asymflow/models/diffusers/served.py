"""Pipelines from a folder or a hub, asked as all models are: "prompt" and "negative".

`models.diffusers.pipelines` is asked with the arguments of its pipeline, which differ.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from asymflow.core.adapter import Context, Wrapped
from asymflow.core.card import Card, Sizes
from asymflow.core.checks import as_path
from asymflow.core.errors import FileFormatError, InputError, MissingExtra
from asymflow.core.requests import refuse_others
from asymflow.core.schedules import plan_of
from asymflow.core.types import Plan, Request, part_name
from asymflow.models import calls
from asymflow.models.diffusers.families import AUTOENCODERS, FAMILIES, family_of
from asymflow.models.diffusers.own import (
    ENOUGH,
    LATE,
    default,
    default_steps,
    original,
)
from asymflow.models.diffusers.pipelines import Family, PipelineAdapter, adapt, guidance
from asymflow.models.diffusers.weights import FAILURES, complete, quiet

SIDE = 64
"""Of pictures, where neither pipeline nor network says it."""
LARGEST = 8
"""Sides are possible up to so many times the native ones."""
SMALLEST = 4


class ServedPipeline(Wrapped):
    """A pipeline behind the inputs that all models share.

    Attributes:
        pipe: of diffusers.
        family: how it calls its network.
    """

    def __init__(self, pipe: Any, family: Family) -> None:
        self.network: PipelineAdapter = adapt(pipe, family)
        for part in pipe.components.values():  # text encoders draw random numbers in training
            if isinstance(part, torch.nn.Module):
                part.eval()
        super().__init__(self.network)
        self.pipe, self.family = pipe, family

    @property
    def card(self) -> Card:
        """What the model is asked with, and what it can make."""
        arguments = inspect.signature(self.pipe.__call__).parameters
        prompt, guided = "prompt" in arguments, "guidance_scale" in arguments
        interval = (LATE if guided else 0.0, 1.0)
        return Card(
            title=type(self.pipe).__name__.removesuffix("Pipeline"),
            asks="prompt" if prompt else "nothing",
            sizes=self._sizes(),
            channels=self.network.channels,
            negative=guided and "negative_prompt" in arguments,
            guidance=guidance({"guidance_scale": arguments["guidance_scale"].default})
            if guided
            else 1.0,
            guided=guided,
            guidance_interval=interval,
            calibration=tuple({"prompt": each} for each in calls.PROMPTS) if prompt else ({},),
            tiers=(
                *(["conditional"] if guided else []),
                *map(part_name, self.family.factors),
            ),
            steps=default_steps(self.pipe),
            notes=_notes(default_steps(self.pipe)),
        )

    def default_plan(self, size: tuple[int, int]) -> Plan:
        return default(self.pipe, self.family)

    def own_plan(self, size: tuple[int, int]) -> Plan:
        """The pipeline's own schedule; Euler's method on its grid, where it is no plan."""
        convention = self.network.convention
        steps = min(default_steps(self.pipe), ENOUGH, convention.most or ENOUGH)
        try:
            return original(self.pipe, self.family, steps)
        except InputError:  # it draws noise, or changes between two calls
            return plan_of(convention.times(steps), solver="euler", name="own grid")

    def check(self, request: Request) -> None:
        card = self.card
        if not card.sizes.possible(request.size):
            (height, width), sizes = request.size, card.sizes
            sides = f"{sizes.smallest} to {sizes.largest}, in multiples of {sizes.multiple}"
            only = f"{sizes.native[1]}x{sizes.native[0]} only"
            raise InputError(
                f"Size {width}x{height} is not possible: {card.title} makes pictures of "
                f"{only if sizes.fixed else f'sides from {sides}'}. Ask for such a size."
            )
        taken = [*(["prompt"] if card.asks == "prompt" else [])]
        taken += ["negative"] if card.negative else []
        own = set(request.inputs) - _SHARED
        refuse_others(request, (*taken, *own), card.title)
        self.network.check(self._asked(request))

    def encode(self, requests: Sequence[Request]) -> tuple[Context, Context]:
        try:
            return self.network.encode([self._asked(request) for request in requests])
        except NameError as error:  # diffusers does not say which package a pipeline needs
            if not error.name or find_spec(error.name) is not None:
                raise
            raise MissingExtra(error.name, "text") from error

    def _asked(self, request: Request) -> Request:
        """The request with the arguments of the pipeline."""
        call = dict(request.inputs)
        negative = call.pop("negative", "")
        for name in _SHARED & call.keys():
            if not self._takes(name):  # it asks for nothing, see `check`
                del call[name]
        if negative:
            call["negative_prompt"] = negative
        if self._takes("use_resolution_binning"):
            call.setdefault("use_resolution_binning", False)  # or it would make another size
        return replace(request, inputs=call)

    def _takes(self, name: str) -> bool:
        return name in inspect.signature(self.pipe.__call__).parameters

    def _sizes(self) -> Sizes:
        """As the pipeline makes pictures by default."""
        config = self.network.network.config
        trained = config.get("sample_size")
        if isinstance(trained, int):
            trained = trained, trained
        arguments = inspect.signature(self.pipe.__call__).parameters
        native = self.pipe.config.get("default_sample_size") or trained or (SIDE, SIDE)
        if isinstance(native, int):
            native = native, native
        height, width = (int(side) for side in native)
        if "height" not in arguments:
            return Sizes.only(height, width)
        grain = int(config.get("patch_size") or 1) if "patch_size" in config else 1
        blocks = config.get("block_out_channels")
        if blocks is not None:
            grain = 2 ** (len(blocks) - 1)
        side = max(height, width)
        return Sizes((height, width), max(grain, side // SMALLEST), LARGEST * side, multiple=grain)


_SHARED = {"prompt", "negative", "label", "style", "reference"}
"""Inputs that mean the same for all models; others are arguments of the pipeline."""


def _notes(steps: int) -> tuple[str, ...]:
    if steps > 8:
        return ()
    return (
        f"It makes pictures in {steps} steps by itself: such models are distilled, and a plan "
        "gains little.",
    )


def serve(pipe: Any, family: Family | None = None) -> ServedPipeline:
    """A pipeline in memory, as a model like all others.

    Raises:
        InputError: it works on latents, or is of an unknown kind.
    """
    return ServedPipeline(pipe, family_of(pipe, family))


def check_index(index: Mapping[str, Any], where: str, *, trust: bool = False) -> type[Any]:
    """The class of a pipeline that can be served, by its `model_index.json`, before it is loaded.

    Args:
        index: the file.
        where: it is from, for messages.
        trust: whether code that comes with the weights may run.

    Raises:
        InputError: it is latent or unknown, or comes with code.
        FileFormatError: the file is not of a pipeline.
        MissingExtra: diffusers is not installed.
    """
    named = index.get("_class_name")
    if isinstance(named, list):
        if not trust:
            raise InputError(
                f"{where} brings its own code ({'/'.join(map(str, named))}), and code of others is "
                "not run unless you ask for it. Read it, and if you trust it, load it in Python: "
                "asymflow.load(..., trust_remote_code=True)."
            )
        named = named[-1]
    _check_parts(index, where, trust)
    if not isinstance(named, str):
        raise FileFormatError(
            f"{where} does not name the class of its pipeline in model_index.json. Save it again "
            "with save_pretrained."
        )
    latent = [name for name in AUTOENCODERS if _given(index.get(name))]
    if latent:
        raise InputError(
            f"{where} is a {named}, which works on the latents of its {latent[0]}. asymflow plans "
            "in pixels: a difference between latents says nothing of what is seen until they are "
            f"decoded. {_CONVERTED.get(named, 'Use a pixel-space model.')}"
        )
    library = _diffusers()
    kind = getattr(library, named, None)
    if isinstance(kind, type) and _family(kind) is not None:
        if "image" in inspect.signature(kind.__call__).parameters:
            raise InputError(_begins_with_a_picture(where, named))
        return kind
    if trust:
        return library.DiffusionPipeline
    raise InputError(
        f"{where} is a {named}, which is not known: these are {', '.join(FAMILIES)}. Load it with "
        "diffusers in Python and declare how it calls its network: asymflow.accelerate(pipe, "
        "family=Family(...)) returns the same pipeline with a plan."
    )


def fetched(
    name: str,
    kind: type[Any],
    *,
    revision: str | None = None,
    variant: str | None = None,
    trust: bool = False,
) -> str:
    """The folder in the cache with the files that a pipeline of the hub needs.

    Raises:
        OSError, ValueError: it cannot be reached, or has no weights as safetensors.
    """
    options: dict[str, Any] = {"trust_remote_code": True} if trust else {}
    return kind.download(name, revision=revision, variant=variant, use_safetensors=True, **options)


def load(
    ref: Path | str,
    kind: type[Any],
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    variant: str | None = None,
    trust_remote_code: bool = False,
) -> ServedPipeline:
    """Load a pipeline of a known kind from a folder.

    Raises:
        FileFormatError: files are missing or damaged, or a network's weights are not all there.
        InputError: it works on latents, or its scheduler cannot be translated.
    """
    options = {"dtype": dtype, "variant": variant, "use_safetensors": True}
    trusted: dict[str, Any] = {"trust_remote_code": True} if trust_remote_code else {}
    path = as_path("ref", ref)
    try:
        with quiet():
            parts = dict(_networks(path, options))
            pipe = kind.from_pretrained(path, **parts, **options, **trusted)
    except MissingExtra:
        raise
    except (*FAILURES, ImportError, AttributeError) as error:
        raise FileFormatError(
            f"Cannot load the pipeline {ref}: {_first_line(error)} Save it again with "
            "save_pretrained, which writes safetensors, or fetch it again."
        ) from error
    pipe.to(device)
    pipe.set_progress_bar_config(disable=True)
    return serve(pipe)


def _networks(path: Path, options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names and networks of a pipeline's folder, with all of their weights.

    Text encoders of transformers may come with more, such as a decoder.
    """
    index: dict[str, Any] = json.loads((path / "model_index.json").read_text("utf-8"))
    for name, part in index.items():
        if not _given(part) or part[0] not in _LIBRARIES or not (path / name).is_dir():
            continue
        try:
            kind = getattr(importlib.import_module(part[0]), str(part[1]), None)
        except ImportError as error:
            raise MissingExtra(part[0], "text") from error
        if isinstance(kind, type) and issubclass(kind, torch.nn.Module):
            of_diffusers = part[0] == "diffusers"
            if of_diffusers or options["variant"] is None:
                own = {**options, "low_cpu_mem_usage": _SPARING} if of_diffusers else options
                yield name, complete(kind, path / name, own, exact=of_diffusers)


def _check_parts(index: Mapping[str, Any], where: str, trust: bool) -> None:
    """Raise `InputError` for a pipeline whose parts are code that comes along."""
    pipelines: Any = importlib.import_module("diffusers.pipelines") if _diffusers() else None
    foreign = [
        f"{name} ({part[0]}.{part[1]})"
        for name, part in index.items()
        if not name.startswith("_") and _given(part) and part[0] not in _LIBRARIES
        and not hasattr(pipelines, str(part[0]))
    ]  # fmt: skip
    if foreign and not trust:
        raise InputError(
            f"{where} brings its own code for {', '.join(foreign)}, and code of others is not run "
            "unless you ask for it. Read it, and if you trust it, load it in Python: "
            "asymflow.load(..., trust_remote_code=True)."
        )


_LIBRARIES = ("diffusers", "transformers")
_SPARING = find_spec("accelerate") is not None
"""Whether weights can be read without a second copy in memory."""
_CONVERTED = {
    "Flux2KleinPipeline": "AsymFLUX.2 converts this one to pixels: in Python, "
    "asymflow.load(..., adapter=FILE) with its file."
}
"""What makes a latent pipeline one in pixels."""


def _family(kind: type[Any]) -> Family | None:
    """How a known pipeline calls its network."""
    known = (FAMILIES.get(base.__name__) for base in kind.__mro__)
    return next((family for family in known if family is not None), None)


_ACCELERATE = "asymflow.accelerate(pipe, examples=[{'prompt': ..., 'image': ...}])"
"""The call for a pipeline that begins with a picture."""


def _begins_with_a_picture(where: str, named: str) -> str:
    if "SuperResolution" in named:
        return (
            f"{where} is a {named}, a second stage that enlarges a small picture, so it makes none "
            f"by itself. Load it with diffusers in Python: {_ACCELERATE} returns it with a plan, "
            "and cascade.accelerate of asymflow.integrations.diffusers plans it together with its "
            "first stage."
        )
    return (
        f"{where} is a {named}, which begins with a picture. Load the pipeline of the same model "
        "that begins with noise, such as IFPipeline: any model can begin with a picture here, "
        f"asymflow generate --image FILE. Or load this one with diffusers in Python: {_ACCELERATE} "
        "returns it with a plan."
    )


def _given(part: object) -> bool:
    """Whether an entry of a model_index.json is a component: a pair of names, or of nulls."""
    return isinstance(part, list) and any(name is not None for name in part)


def _diffusers() -> Any:
    try:
        return importlib.import_module("diffusers")
    except ImportError as error:
        raise MissingExtra("diffusers", "diffusers") from error


def _first_line(error: Exception) -> str:
    lines = (line.strip() for line in str(error).splitlines())
    text = next((line for line in lines if line), type(error).__name__)
    return text if text.endswith(".") else f"{text}."
