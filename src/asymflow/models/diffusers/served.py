"""Pipelines from a folder or a hub, asked as all models are: "prompt" and "negative".

`models.diffusers.pipelines` is asked with the arguments of its pipeline, which differ.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from asymflow.core.adapter import Context, Wrapped
from asymflow.core.card import Card, Sizes
from asymflow.core.errors import FileFormatError, InputError, MissingExtra
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
        self.network.check(self._asked(request))

    def encode(self, requests: Sequence[Request]) -> tuple[Context, Context]:
        return self.network.encode([self._asked(request) for request in requests])

    def _asked(self, request: Request) -> Request:
        """The request with the arguments of the pipeline."""
        inputs = dict(request.inputs)
        negative = inputs.pop("negative", "")
        call: dict[str, Any] = inputs
        for name, advice in _REFUSED.items():
            if call.pop(name, None) is not None:
                raise InputError(f"{self.card.title} has no {name}. {advice}")
        if negative:
            call["negative_prompt"] = negative
        if "use_resolution_binning" in inspect.signature(self.pipe.__call__).parameters:
            call.setdefault("use_resolution_binning", False)  # or it would make another size
        if "prompt" in call and self.card.asks != "prompt":
            raise InputError(
                f"{self.card.title} cannot be asked with a prompt: it makes pictures like those "
                "of its training. Leave the prompt out."
            )
        return replace(request, inputs=call)

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


_REFUSED: Mapping[str, str] = {
    "label": "Ask it with a prompt.",
    "style": "Say it in the prompt.",
    "reference": "Leave it out.",
}


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
            "decoded. Use a pixel-space model."
        )
    library = _diffusers()
    kind = getattr(library, named, None)
    if isinstance(kind, type) and any(base.__name__ in FAMILIES for base in kind.__mro__):
        return kind
    if trust:
        return library.DiffusionPipeline
    raise InputError(
        f"{where} is a {named}, which is not known: these are {', '.join(FAMILIES)}. Load it with "
        "diffusers and declare how it calls its network: asymflow.accelerate(pipe, "
        "family=Family(...))."
    )


def load(
    ref: Path | str,
    kind: type[Any],
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    revision: str | None = None,
    variant: str | None = None,
    trust_remote_code: bool = False,
) -> ServedPipeline:
    """Load a pipeline of a known kind from a folder or a hub.

    Raises:
        FileFormatError: files are missing or damaged.
        InputError: it works on latents, or its scheduler cannot be translated.
    """
    options: dict[str, Any] = {
        "dtype": dtype,
        "variant": variant,
        "revision": revision,
        "low_cpu_mem_usage": False,  # needs a further package, and says so each time
    }
    if trust_remote_code:
        options["trust_remote_code"] = True
    logs = importlib.import_module("diffusers.utils.logging")
    shown: bool = logs.is_progress_bar_enabled()
    logs.disable_progress_bar()
    try:
        pipe = kind.from_pretrained(ref, use_safetensors=True, **options)
    except (
        OSError,
        ImportError,
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        RuntimeError,
    ) as error:
        raise FileFormatError(
            f"Cannot load the pipeline {ref}: {_first_line(error)} Save it again with "
            "save_pretrained, which writes safetensors, or fetch it again."
        ) from error
    finally:
        if shown:
            logs.enable_progress_bar()
    pipe.to(device)
    pipe.set_progress_bar_config(disable=True)
    return serve(pipe)


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
