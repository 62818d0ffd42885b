"""Adapters of diffusers' pixel-space pipelines, from a declaration of how they call their network.

Conditioning is not reimplemented here: we run the pipeline for one step with the network replaced
by a recorder (`listen`), and reuse the conditioning it passes. So prompts, negative prompts,
embeddings and masks are treated exactly as by the pipeline.
"""

from __future__ import annotations

import copy
import inspect
from collections import OrderedDict
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from asymflow.core.adapter import Context
from asymflow.core.binding import ModelDescription
from asymflow.core.errors import InputError
from asymflow.core.flow import per_image
from asymflow.core.types import Picture, Request
from asymflow.models.diffusers.conventions import Convention, convention_of, estimated
from asymflow.models.gaussian import to_picture, to_state
from asymflow.models.hashing import digest_of, identity_of

Call = Mapping[str, Any]
"""Arguments of a pipeline, e.g. {"prompt": "a fox"}."""
STRENGTH = "strength"
"""The argument of pipelines for the strength of image-to-image."""
BESIDE = "beside"
"""The key in a context of the picture that the network gets beside the state."""


@dataclass(frozen=True, slots=True)
class Family:
    """How a pipeline calls its network.

    Attributes:
        network: the name of the component.
        state, time: arguments of its `forward` for the state z [b, c, h, w] and the time.
        conditions: arguments with one row per picture that it is conditioned on. With guidance the
            pipeline is expected to stack rows without the prompt before those with it.
        normalised: the network gets tau / num_train_timesteps instead of tau.
        floor: for a network that predicts x_0, which the pipeline converts to a velocity,
            (z - x_0) / max(u, floor). None if the scheduler gets the output of the network.
        noise: the pipeline's configuration of the standard deviation of the noise at u = 1.
        unit: pictures of output_type="pt" fill [0, 1]; otherwise they are states in [-1, 1].
        factors: by which pictures may be pooled; empty unless the network was trained on smaller
            pictures, too.
        beside: the network gets another picture in as many extra channels after those of the
            state, as super-resolution networks do.
        timed: the network needs a time per row, which the pipeline passes for one picture only.
    """

    network: str
    state: str = "hidden_states"
    time: str = "timestep"
    conditions: tuple[str, ...] = ("encoder_hidden_states",)
    normalised: bool = False
    floor: float | None = None
    noise: str | None = None
    unit: bool = False
    factors: tuple[int, ...] = ()
    beside: bool = False
    timed: bool = False

    def __post_init__(self) -> None:
        if self.beside and self.factors:
            raise InputError(
                f"Pictures cannot be pooled by {', '.join(map(str, self.factors))} where the "
                "network is shown another picture beside them. Leave out factors or beside."
            )

    def noise_of(self, pipe: Any) -> float:
        return 1.0 if self.noise is None else float(pipe.config[self.noise])

    def convention(self, pipe: Any) -> Convention:
        """Of the pipeline's own scheduler."""
        return convention_of(pipe.scheduler, noise=self.noise_of(pipe))

    def on_time(self, forward: Callable[..., Any], named: Mapping[str, Any]) -> Tensor:
        """The output of the network, called with a time for every row."""
        rows: Tensor = named[self.state]
        tau = torch.as_tensor(named[self.time]).flatten()[:1].expand(len(rows))
        return forward(**{**named, self.time: tau, "return_dict": False})[0]

    def scheduler_input(self, output: Tensor, z: Tensor, tau: Tensor, steps: int) -> Tensor:
        """What the pipeline passes to its scheduler [b, c, h, w] for this network output."""
        if self.floor is None:
            return output
        u = (tau / steps).clamp(min=self.floor)
        return (z - output) / per_image(u, z)


@dataclass(frozen=True, slots=True, eq=False)
class CapturedCall:
    """The arguments of one network call of a pipeline.

    Attributes:
        z: the initial state [b, c, h, w].
        cond, null: rows with and without the prompt; equal without guidance. The picture beside
            the state is "beside" [b, c, h, w].
        others: arguments that are the same for all pictures.
    """

    z: Tensor
    cond: Context
    null: Context
    others: Mapping[str, Any]

    @classmethod
    def of(cls, family: Family, named: Mapping[str, Any], guided: bool) -> CapturedCall:
        """From the arguments of one call of the network."""
        z: Tensor = named[family.state]
        n = len(z) // 2 if guided else len(z)
        rows = {
            name: value
            for name in family.conditions
            if isinstance(value := named.get(name), Tensor)
        }
        known = {family.state, family.time, "return_dict", *rows}
        if family.beside:
            z, rows[BESIDE] = z.chunk(2, dim=1)
        others = {name: value for name, value in named.items() if name not in known}
        cond = {name: value[-n:] for name, value in rows.items()}
        return cls(z[-n:], cond, {name: value[:n] for name, value in rows.items()}, others)


def copy_of(pipe: Any, **parts: Any) -> Any:
    """A copy of the pipeline with some parts or settings replaced.

    It shares everything else, weights included, and is used for one call or one measurement. So
    calls in other threads, of this pipeline or of others on the same network, are isolated: from
    each other's schedulers and networks, and from state that pipelines keep during a call.
    """
    made = object.__new__(type(pipe))
    # Offloading restores its hooks after every call, on the original components and not on copies.
    vars(made).update(vars(pipe), maybe_free_model_hooks=pipe.maybe_free_model_hooks)
    vars(made).update(parts)
    return made


def capture_call(
    network: Any, answer: Callable[[Callable[..., Any], Mapping[str, Any]], Tensor]
) -> Any:
    """A copy of the network that calls `answer(forward, named arguments)` [rows, c, h, w].

    It shares weights, submodules and hooks with the network, which stays unchanged. An attribute
    of the copy hides `forward`, as the offloading hooks of diffusers do.
    """
    compiled = vars(network).get("_compiled_call_impl")  # by `network.compile()`, in place
    forward = network.forward if compiled is None else compiled
    signature = inspect.signature(type(unwrapped(network)).forward)
    outputs = import_module("diffusers.models.unets.unet_2d")

    def instead(*args: Any, **kwargs: Any) -> Any:
        named = flat(signature.bind(network, *args, **kwargs))
        del named[next(iter(signature.parameters))]  # self
        output = answer(forward, named)
        return outputs.UNet2DOutput(output) if named.get("return_dict", True) else (output,)

    made = object.__new__(type(network))
    vars(made).update(vars(network), forward=instead, _compiled_call_impl=None)
    if compiled is not None:  # and that calls the hooks of the network itself
        vars(made).update(_forward_pre_hooks=OrderedDict(), _forward_hooks=OrderedDict())
    return made


def quiet(pipe: Any) -> dict[str, Any]:
    """Settings for `copy_of` that disable the progress bar of a pipeline."""
    return {"_progress_bar_config": {**getattr(pipe, "_progress_bar_config", {}), "disable": True}}


def flat(found: inspect.BoundArguments) -> dict[str, Any]:
    """All arguments of a call by their names, with defaults."""
    found.apply_defaults()
    arguments = dict(found.arguments)
    for name, parameter in found.signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments |= arguments.pop(name)
    return arguments


def bound(pipe: Any, call: Call) -> dict[str, Any]:
    """The arguments of a call of the pipeline, with its defaults.

    Raises:
        InputError: the pipeline has no such argument.
    """
    try:
        found = inspect.signature(pipe.__call__).bind(**call)
    except TypeError as error:
        raise InputError(
            f"{type(pipe).__name__} cannot be called with {', '.join(map(repr, call))}: {error}. "
            "Give arguments that it takes, as in pipe(**example)."
        ) from error
    return flat(found)


def guidance(arguments: Mapping[str, Any]) -> float:
    """The guidance weight of a call; 1 where there is none, as pipelines treat weights below 1."""
    scale = arguments.get("guidance_scale")
    return float(scale) if scale is not None and scale > 1 else 1.0


class _Captured(Exception):
    """Ends a call of the pipeline at its first network call."""


def listen(pipe: Any, family: Family, call: Call) -> CapturedCall:
    """Capture the first network call of a pipeline, without running the network."""
    network = getattr(pipe, family.network)
    arguments = bound(pipe, call)
    captured: list[CapturedCall] = []

    def answer(forward: Callable[..., Any], named: Mapping[str, Any]) -> Tensor:
        captured.append(CapturedCall.of(family, named, guidance(arguments) != 1))
        raise _Captured

    once = {**call, "num_inference_steps": 1, "output_type": "pt"}
    if STRENGTH in arguments:
        once[STRENGTH] = 1.0  # otherwise one step would round to none
    # Schedulers count steps: do not use one that another call may be using.
    scheduler = copy.deepcopy(pipe.scheduler)
    replaced = {
        family.network: capture_call(network, answer),
        "scheduler": scheduler,
        **quiet(pipe),
    }
    with _own_noise(arguments, once), suppress(_Captured):
        copy_of(pipe, **replaced)(**once)
    pipe.maybe_free_model_hooks()  # as at the end of every call
    if not captured:
        raise InputError(
            f"{type(pipe).__name__} never called its {family.network!r}, so there is nothing to "
            "plan. Name the network that it calls at every step: Family(network=...)."
        )
    return captured[0]


@contextmanager
def _own_noise(arguments: Mapping[str, Any], call: dict[str, Any]) -> Generator[None]:
    """Give a call its own generator, so that no shared random state is consumed."""
    if "generator" in arguments:
        call["generator"] = arguments["generator"] or torch.Generator().manual_seed(0)
        yield
    else:
        with torch.random.fork_rng():
            yield


def unwrapped(network: Any) -> Any:
    """The network inside of a torch.compile wrapper."""
    return getattr(network, "_orig_mod", network)


def channels_out(network: Any) -> int:
    """Channels of the network's output, a learned variance included."""
    return int(network.config.get("out_channels") or network.config["in_channels"])


@dataclass(frozen=True, slots=True, eq=False)
class PipelineAdapter:
    """The network of a pipeline. Inputs of a request are arguments of the pipeline.

    The state is in [-1, 1] and float32; the network may run in another dtype.

    Attributes:
        name: identifies weights and training schedule, as `name_of` does.
        ask: the network, or a replacement.
        others: arguments of the network that are not conditions.
    """

    pipe: Any
    family: Family
    name: str
    convention: Convention
    ask: Callable[..., Any]
    others: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def description(self) -> ModelDescription:
        """What plans have to know of the model."""
        return description_of(self.pipe, self.family)

    @property
    def network(self) -> Any:
        return getattr(self.pipe, self.family.network)

    @property
    def channels(self) -> int:
        shown = int(self.network.config["in_channels"])
        return shown // 2 if self.family.beside else shown

    @property
    def template(self) -> Tensor:
        # Not `network.device`, which is wrong while offloading keeps the weights elsewhere.
        return torch.empty(0, dtype=torch.float32, device=self.pipe._execution_device)

    @property
    def batch(self) -> int | None:
        # CPU kernels choose their summation order by the size of the batch: see the protocol.
        return 1 if self.template.device.type == "cpu" else None

    def pool_factors(self, size: tuple[int, int]) -> tuple[int, ...]:
        return tuple(f for f in self.family.factors if all(side % f == 0 for side in size))

    def check(self, request: Request) -> None:
        height, width = request.size
        trained = self.network.config.get("sample_size")
        if isinstance(trained, int):
            trained = (trained, trained)
        fixed = not self._takes("height") and not self._takes("image")
        if fixed and trained is not None and tuple(trained) != request.size:
            raise InputError(
                f"Size {width}x{height} is not possible: {type(self.pipe).__name__} makes pictures "
                f"of {trained[1]}x{trained[0]} only. Ask for that size."
            )
        grain = int(self.network.config.get("patch_size") or 1)
        if any(side < 1 or side % grain for side in request.size):
            raise InputError(
                f"Size {width}x{height} is not possible: this network reads patches of {grain}. "
                f"Choose multiples of {grain}."
            )
        if request.guidance_scale != 1 and not self._takes("guidance_scale"):
            raise InputError(
                f"Guidance scale {request.guidance_scale} is not possible: "
                f"{type(self.pipe).__name__} has no guidance. Ask for 1."
            )
        bound(self.pipe, request.inputs)

    def encode(self, requests: Sequence[Request]) -> tuple[Context, Context]:
        captured = [self._capture(request) for request in requests]
        return _stacked([each.cond for each in captured]), _stacked(
            [each.null for each in captured]
        )

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        steps = int(self.pipe.scheduler.config["num_train_timesteps"])
        conditions = dict(context)
        beside = [conditions.pop(BESIDE)] if self.family.beside else []

        def network(z: Tensor, tau: Tensor) -> Tensor:
            arguments = {
                **self.others,
                **conditions,
                self.family.state: torch.cat([z.to(self.network.dtype), *beside], dim=1),
                self.family.time: tau / steps if self.family.normalised else tau,
            }
            output: Tensor = self.ask(**arguments, return_dict=False)[0].to(x_t)
            return self.family.scheduler_input(output, z, tau, steps)

        return estimated(self.convention, network, x_t, t)

    def clip_estimate(self, x_0: Tensor) -> Tensor:
        return self.convention.clip_estimate(x_0)

    def begin(self, eps: Tensor, t: float) -> Tensor:
        return self.convention.beginning(t) * eps

    def to_state(self, picture: Picture) -> Tensor:
        return to_state(picture).to(self.template)

    def to_picture(self, x_0: Tensor) -> Picture:
        return to_picture(x_0)

    def _takes(self, name: str) -> bool:
        return name in inspect.signature(self.pipe.__call__).parameters

    def _capture(self, request: Request) -> CapturedCall:
        """The captured network call of the pipeline for a request."""
        call = dict(request.inputs)
        if self._takes("height"):
            call["height"], call["width"] = request.size
        if self._takes("guidance_scale"):
            call["guidance_scale"] = request.guidance_scale
        if self._takes("generator"):
            # Other draws, such as the noise on a small picture, come after that of the state.
            call.setdefault("generator", torch.Generator().manual_seed(request.seed))
        captured = listen(self.pipe, self.family, call)
        height, width = captured.z.shape[-2:]
        if (height, width) != request.size:
            raise InputError(
                f"Size {request.size[1]}x{request.size[0]} is not possible: called with "
                f"{', '.join(map(repr, request.inputs)) or 'nothing'}, {type(self.pipe).__name__} "
                f"makes {width}x{height}. Ask for that size."
            )
        return captured


def adapt(pipe: Any, family: Family) -> PipelineAdapter:
    """Make an adapter of a pipeline's network, to profile it or run plans without the pipeline.

    It is put into evaluation mode.

    Raises:
        InputError: the pipeline's scheduler cannot be translated.
    """
    network = getattr(pipe, family.network)
    unwrapped(network).eval()
    convention = family.convention(pipe)
    return PipelineAdapter(pipe, family, name_of(pipe, family), convention, network)


def name_of(pipe: Any, family: Family) -> str:
    """A name that identifies the weights and their training schedule."""
    convention = family.convention(pipe)
    grid = convention.times(min(50, int(pipe.scheduler.config["num_train_timesteps"])))
    settings = (
        repr((family, family.noise_of(pipe)))
        + repr((type(convention).__name__, [f"{t:.6f}" for t in grid]))
        + str(pipe.scheduler.config.get("prediction_type"))
    )
    network = unwrapped(getattr(pipe, family.network))
    return f"pipeline:{digest_of(network, settings.encode())[:12]}"


def description_of(pipe: Any, family: Family) -> ModelDescription:
    """What plans have to know of a pipeline: all that changes the pictures that they make.

    Its kind is that of its network, which other pipelines and `models.diffusers.networks` share.

    Raises:
        InputError: the scheduler cannot be translated, or weights are offloaded to "meta".
    """
    convention = family.convention(pipe)
    network = unwrapped(getattr(pipe, family.network))
    identity = identity_of(network)
    guided = "guidance_scale" in inspect.signature(pipe.__call__).parameters
    settings = dict(convention.settings)
    if family.normalised:
        settings["time"] = "normalised"
    if family.floor is not None:
        settings["floor"] = f"{family.floor:g}"
    return ModelDescription(
        family=type(network).__name__,
        weights=identity.weights,
        # A network whose output the pipeline converts to a velocity predicts x_0.
        parameterisation=convention.parameterisation if family.floor is None else "x_0",
        guidance="cfg" if guided else "none",
        noise_scale=convention.noise,
        fingerprint=identity.fingerprint,
        settings=settings,
    )


def _stacked(rows: Sequence[Context]) -> Context:
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
