"""Adapters of plain callables: EDM's D(x, sigma), and net(x, t) of guided-diffusion.

edm                 z = x_0 + sigma eps, the output is x_0: the interface of the networks of
                    arXiv 2206.00364, whatever their preconditioning (VP, VE or EDM).
guided_diffusion    z = alpha x_0 + sigma eps with alpha^2 + sigma^2 = 1 at timesteps 0, 1, ...;
                    the output is eps, v or x_0; a learned variance is ignored.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from asymflow.core.adapter import Context
from asymflow.core.binding import ModelDescription
from asymflow.core.card import Card, Sizes
from asymflow.core.checks import each_instance, instance, whole
from asymflow.core.errors import InputError
from asymflow.core.flow import per_image, to_ve
from asymflow.core.requests import refuse_others
from asymflow.core.schedules import karras, plan_of
from asymflow.core.types import Picture, Plan, Request, part_name
from asymflow.models.diffusers.conventions import Clip, Diffusion, blended, estimated
from asymflow.models.diffusers.networks import label_of
from asymflow.models.diffusers.schedule import X_0, Prediction, Schedule
from asymflow.models.gaussian import to_picture, to_state
from asymflow.models.hashing import digest_of, identity_of

_CPU = torch.device("cpu")

GUIDANCE = 2.0
"""Scale by default where a model has guidance: the authors of these models name none."""
LATE = 0.1
"""Time below which default plans do without guidance, which hardly changes the picture there."""
EDM_STEPS = 18
"""Of Heun's method, the setting of arXiv 2206.00364 for CIFAR-10."""
EDM_EVALUATIONS = 16
"""Of the default plan: less than half of those of 18 steps of Heun's method. With fewer the error
grows quickly, since this grid ends in many small steps."""
ADM_STEPS = 250
"""Of the official commands of guided-diffusion."""
ADM_EVALUATIONS = 20
"""Of the default plan: 40% of the 50 steps beyond which DDIM gains little."""

_FAINT, _STRONG = 0.002, 80.0  # smallest and largest noise of EDM, by default and in its sampler
_ASSUMED = 64  # side of pictures where nobody said the size of training
_LARGEST = 4096
_CALIBRATION = 8  # classes that a model is measured with


class Estimate(Protocol):
    """Calls a network in its own convention for x_0 [b, c, h, w].

    Times t [b] are float64, on the CPU. `label` [b] is None for a model without classes.
    """

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None, /) -> Tensor: ...


@dataclass(frozen=True, slots=True, eq=False)
class CallableAdapter:
    """An adapter of a callable. The inputs are {"label": k} for a model of classes, else none.

    Attributes:
        channels: of pictures, in a state space where they fill [-1, 1].
        grain: sides must be multiples of this number.
        classes: number of classes; 0 for none.
        null: the label that means no class; guidance needs it.
        device: of the network; by default a CPU.
        factors: by which pictures may be pooled; the network was trained on these sizes, too.
        kind: of the network's interface, the family of its plans.
        net: the network, if it has weights that tell which one it is; else `name` does.
        parameterisation: what it predicts, as in `asymflow.core.binding.Requirements`.
        settings: what else changes pictures, by name.
        clip: of estimates, after guidance.
        start: factor of the noise draw eps in the initial state at a time t; None is t.
        size: (height, width) of training, the only one that is served; None where it is not known.
        class_names: by number; empty for numbers.
        title: name for people.
        steps: of the model's own sampler.
        own: the plan of that.
        grid: the times of a plan with fewer evaluations.
    """

    estimate: Estimate
    name: str
    channels: int
    grain: int = 1
    classes: int = 0
    null: int | None = None
    device: torch.device = _CPU
    factors: tuple[int, ...] = ()
    kind: str = "callable"
    net: torch.nn.Module | None = None
    parameterisation: str = "x_0"
    settings: Mapping[str, str] = field(default_factory=dict[str, str])
    clip: Clip = field(default_factory=Clip)
    start: Callable[[float], float] | None = None
    size: tuple[int, int] | None = None
    class_names: tuple[str, ...] = ()
    title: str | None = None
    _: KW_ONLY
    steps: int
    own: Callable[[], Plan]
    grid: Callable[[], tuple[float, ...]]

    @property
    def card(self) -> Card:
        """What the model is asked with, and what it can make."""
        guided = self.null is not None
        names = self.class_names or tuple(str(label) for label in range(self.classes))
        unknown = f"Its size of training is not known: {_ASSUMED} px is a guess. Give size=..."
        spaced = range(0, self.classes, max(1, self.classes // _CALIBRATION))[:_CALIBRATION]
        return Card(
            title=self.title or self.name,
            asks="class" if self.classes else "nothing",
            sizes=self._sizes,
            channels=self.channels,
            classes=names,
            guidance=GUIDANCE if guided else 1.0,
            guided=guided,
            guidance_interval=(LATE, 1.0) if guided else (0.0, 1.0),
            calibration=tuple({"label": label} for label in spaced) or ({},),
            tiers=(
                *(["conditional"] if guided else []),
                *map(part_name, self.factors),
            ),
            steps=self.steps,
            notes=() if self.size is not None else (unknown,),
        )

    @property
    def _sizes(self) -> Sizes:
        if self.size is not None:
            low, high = min(self.size), max(self.size)
            return Sizes(self.size, low, high, self.grain, fixed=True)
        side = self.grain * max(1, round(_ASSUMED / self.grain))
        return Sizes((side, side), self.grain, max(_LARGEST, side), self.grain)

    def default_plan(self, size: tuple[int, int]) -> Plan:
        """A solver of second order on a grid like the model's own, the same for every size.

        Guidance is off where it hardly changes the picture.
        """
        return plan_of(
            self.grid(),
            solver="corrected2",
            guidance_interval=self.card.guidance_interval,
            name="default",
        )

    def own_plan(self, size: tuple[int, int]) -> Plan:
        """The deterministic sampler of the official code, the same for every size.

        Of EDM Heun's method, which averages slopes in t here and in sigma there; of
        guided-diffusion DDIM, where the official commands draw noise at every step.
        """
        return self.own()

    @property
    def description(self) -> ModelDescription:
        """What plans have to know of the model."""
        identity = None if self.net is None else identity_of(self.net)
        null = {} if self.null is None else {"null": str(self.null)}
        return ModelDescription(
            family=self.kind,
            weights=hashlib.sha256(self.name.encode()).hexdigest()
            if identity is None
            else identity.weights,
            parameterisation=self.parameterisation,
            guidance="none" if self.null is None else "cfg",
            fingerprint=None if identity is None else identity.fingerprint,
            settings={**self.settings, **null},
        )

    @property
    def template(self) -> Tensor:
        return torch.empty(0, dtype=torch.float32, device=self.device)

    @property
    def batch(self) -> int | None:
        # CPU kernels choose their summation order by the size of the batch: see the protocol.
        return 1 if self.device.type == "cpu" else None

    def pool_factors(self, size: tuple[int, int]) -> tuple[int, ...]:
        return tuple(f for f in self.factors if all(s % (f * self.grain) == 0 for s in size))

    def check(self, request: Request) -> None:
        height, width = request.size
        if not self._sizes.possible(request.size):
            why = (
                f"sides of this network are multiples of {self.grain}, from {self.grain} to "
                f"{self._sizes.largest}. Choose such a size."
                if self.size is None
                else f"this network was trained at {self.size[1]}x{self.size[0]} pixels. Request "
                "that size, and resize the picture."
            )
            raise InputError(f"Size {width}x{height} is not possible: {why}")
        if request.guidance_scale != 1 and self.null is None:
            raise InputError(
                f"Guidance scale {request.guidance_scale} needs a label that stands for no class, "
                "and this model was adapted without one. Ask for 1, or say which: null=..."
            )
        refuse_others(request, ("label",) if self.classes else (), self.title or self.name)
        self._label(request)

    def encode(self, requests: Sequence[Request]) -> tuple[Context, Context]:
        if not self.classes:
            return {}, {}
        labels = torch.tensor([self._label(request) for request in requests], device=self.device)
        # Without a null label there is no guidance, and the second context is not used.
        return {"label": labels}, {"label": torch.full_like(labels, self.null or 0)}

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        return self.estimate(x_t, t.cpu().double(), context.get("label")).to(x_t)

    def clip_estimate(self, x_0: Tensor) -> Tensor:
        return self.clip(x_0)

    def begin(self, eps: Tensor, t: float) -> Tensor:
        return (t if self.start is None else self.start(t)) * eps

    def to_state(self, picture: Picture) -> Tensor:
        return to_state(picture).to(self.template)

    def to_picture(self, x_0: Tensor) -> Picture:
        return to_picture(x_0)

    def _label(self, request: Request) -> int:
        label = request.inputs.get("label", self.null)
        if not self.classes:
            return 0
        return label_of(label, self.classes, self.null)


def edm(
    net: Callable[..., Tensor],
    *,
    channels: int,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    classes: int = 0,
    null: bool = False,
    name: str | None = None,
    grain: int = 1,
    device: torch.device | str = _CPU,
    factors: Sequence[int] = (),
    size: tuple[int, int] | None = None,
    class_names: Sequence[str] = (),
    title: str | None = None,
) -> CallableAdapter:
    """Make an adapter of a denoiser net(x, sigma), or net(x, sigma, one_hot) with classes.

    x = x_0 + sigma eps [b, c, h, w], sigma [b]. Noise above `sigma_max` is scaled down to it, with
    a signal that is weaker than the model expects; below `sigma_min` the network is evaluated at
    `sigma_min`. A network with discrete levels and EDM's `round_sigma` is evaluated at the nearest
    one, with the state scaled to it. A `torch.nn.Module` is put into evaluation mode.

    Args:
        net: the denoiser.
        channels: of pictures.
        sigma_min, sigma_max: by default those of the network, if it has these attributes of
            EDM's networks and they are noise levels; else 0.002 and 80.
        classes: columns of `one_hot` [b, classes].
        null: whether labels were dropped in training, with all zeros instead.
        size: (height, width) of training, the only one that is served; by default that of the
            network, if it has EDM's attribute `img_resolution`, and else any.
        name, grain, device, factors, class_names, title: of the adapter; a plain function needs a
            name.

    Raises:
        InputError: the limits are not noise levels, or an argument is of another kind.
    """
    instance("null", null, bool, "EDM's networks show all zeros for no class: was this one, too?")
    low = _limit(sigma_min, net, "sigma_min", _FAINT)
    high = _limit(sigma_max, net, "sigma_max", _STRONG)
    if not 0 < low < high:
        raise InputError(
            f"sigma_min={low} and sigma_max={high} are no limits of noise. Give two "
            "positive numbers, the smaller one first."
        )
    round_sigma: Callable[[Tensor], Any] | None = getattr(net, "round_sigma", None)
    known = whole("classes", classes, 0)

    def times(count: int) -> tuple[float, ...]:
        # The official sampler stays within this range of noise, whatever the network knows.
        grid = karras(count, sigma_min=max(low, _FAINT), sigma_max=min(high, _STRONG))
        if round_sigma is None:
            return grid
        t = torch.tensor(grid[:-1], dtype=torch.float64)
        sigma = torch.as_tensor(round_sigma(t / (1 - t))).cpu().double()
        return (*dict.fromkeys((sigma / (1 + sigma)).tolist()), 0.0)

    def own() -> Plan:
        return plan_of(times(EDM_STEPS), solver="heun", name=f"edm {EDM_STEPS} heun")

    def estimate(x_t: Tensor, t: Tensor, label: Tensor | None, /) -> Tensor:
        sigma, k = to_ve(t, high)
        level = sigma.clamp(min=low).to(x_t)
        x = per_image(k, x_t) * x_t
        if round_sigma is not None:
            rounded = torch.as_tensor(round_sigma(level)).to(level).view_as(level)
            x, level = per_image(rounded / level, x) * x, rounded
        if label is None:
            return net(x, level)
        # The null label is one more class, whose column is left out.
        one_hot = functional.one_hot(label, classes + 1)[:, :classes].to(x_t)
        return net(x, level, one_hot)

    return CallableAdapter(
        estimate,
        _name(net, ("edm", low, high, classes, null), name),
        whole("channels", channels, 1),
        whole("grain", grain, 1),
        known,
        known if null else None,
        torch.device(device),
        _factors(factors),
        kind="edm",
        net=net if isinstance(net, torch.nn.Module) else None,
        settings={"sigma": f"{low:g} to {high:g}"},
        size=_size(size, net, "img_resolution", grain),
        class_names=_names(class_names, known),
        title=title,
        steps=EDM_STEPS,
        own=own,
        grid=lambda: times(EDM_EVALUATIONS),
    )


def guided_diffusion(
    net: Callable[..., Tensor],
    alphas_cumprod: Tensor,
    *,
    channels: int,
    prediction: Prediction = "epsilon",
    classes: int = 0,
    null: int | None = None,
    clip_denoised: bool = False,
    rescale_timesteps: bool = False,
    name: str | None = None,
    grain: int = 1,
    device: torch.device | str = _CPU,
    factors: Sequence[int] = (),
    size: tuple[int, int] | None = None,
    class_names: Sequence[str] = (),
    title: str | None = None,
) -> CallableAdapter:
    """Make an adapter of a network net(z, tau), or net(z, tau, y=label) with classes.

    z [b, c, h, w] is variance preserving, tau [b] a real timestep. Pictures begin with z = eps. A
    `torch.nn.Module` is put into evaluation mode.

    Args:
        net: the network.
        channels: of pictures.
        classes: number of classes; 0 for none.
        alphas_cumprod: alpha^2 at timesteps 0, 1, ... [n], as a tensor or an array.
        prediction: what the network predicts.
        null: the label used in training for dropped ones; may be `classes`.
        clip_denoised: x_0 is clipped to [-1, 1], the default of the official sampling scripts.
        rescale_timesteps: the n timesteps are scaled to 1000, as by the official flag.
        size: (height, width) of training, the only one that is served; by default that of the
            network, if it has the official attribute `image_size`, and else any.
        name, grain, device, factors, class_names, title: of the adapter; a plain function needs a
            name.

    Raises:
        InputError: the prediction is unknown, the schedule is invalid, or an argument has another
            type.
    """
    if prediction not in X_0:
        raise InputError(
            f"Prediction {prediction!r} is not supported. Choose one of {', '.join(X_0)}."
        )
    schedule = Schedule.of(alphas_cumprod)
    convention = Diffusion(schedule, prediction, Clip(1.0 if clip_denoised else None))
    total = len(schedule.log_snr)
    scale = 1000 / total if rescale_timesteps else 1.0
    known, steps = whole("classes", classes, 0), min(ADM_STEPS, total)

    def estimate(x_t: Tensor, t: Tensor, label: Tensor | None, /) -> Tensor:
        def network(z: Tensor, tau: Tensor) -> Tensor:
            return net(z, scale * tau) if label is None else net(z, scale * tau, y=label)

        return estimated(convention, network, x_t, t)

    def own() -> Plan:
        tau = torch.tensor(spaced(total, steps), dtype=torch.float64)
        times = (*dict.fromkeys(convention.time(tau).tolist()), 0.0)
        return plan_of(times, solver="euler", name=f"guided-diffusion {steps} ddim")

    log_snr = [f"{each:.6f}" for each in schedule.log_snr.tolist()]
    settings: tuple[object, ...] = ("guided-diffusion", prediction, classes, null, log_snr)
    if clip_denoised or rescale_timesteps:
        settings = (*settings, clip_denoised, rescale_timesteps)
    return CallableAdapter(
        estimate,
        _name(net, settings, name),
        whole("channels", channels, 1),
        whole("grain", grain, 1),
        known,
        null,
        torch.device(device),
        _factors(factors),
        kind="guided-diffusion",
        net=net if isinstance(net, torch.nn.Module) else None,
        parameterisation=convention.parameterisation,
        settings={**convention.settings, "timesteps": f"{scale:g} each"},
        clip=convention.clip,
        start=convention.beginning,
        size=_size(size, net, "image_size", grain),
        class_names=_names(class_names, known),
        title=title,
        steps=steps,
        own=own,
        grid=lambda: blended(convention, ADM_EVALUATIONS),
    )


def spaced(total: int, count: int) -> list[int]:
    """`count` of the timesteps 0 to `total` - 1, falling: the official spacing without sections."""
    stride = (total - 1) / max(1, count - 1)
    return [round(stride * index) for index in reversed(range(count))]


def _limit(given: float | None, net: object, name: str, default: float) -> float:
    """A limit of noise: as given, else the attribute of the network, else the default."""
    if given is not None:
        return given
    found = float(getattr(net, name, 0.0))
    return found if 0 < found < math.inf else default


def _name(net: Callable[..., Tensor], settings: object, name: str | None) -> str:
    """The given name, or one derived from weights and settings."""
    if not callable(net):
        raise InputError(
            f"A {type(net).__name__} cannot be called, so it is no network. Pass a function or a "
            "torch.nn.Module that is called as net(x, noise)."
        )
    if isinstance(net, torch.nn.Module):
        net.eval()
        if name is None:
            name = f"callable:{digest_of(net, repr(settings).encode())[:12]}"
    if not isinstance(name, str) or not name:
        raise InputError(
            "A network that is a plain function has no weights to be named after, and plans are "
            f"kept by the name of their model: name={name!r}. Give it one: name='mine-1'."
        )
    return name


def _factors(factors: Sequence[int]) -> tuple[int, ...]:
    return tuple(whole("each of factors", factor, 2) for factor in factors)


def _size(
    given: tuple[int, int] | None, net: object, attribute: str, grain: int
) -> tuple[int, int] | None:
    """(height, width) of training: as given, else by the attribute of the network."""
    if given is None:
        side = getattr(net, attribute, None)
        return (side, side) if isinstance(side, int) and side > 0 else None
    each_instance("size", given, int, "Give (height, width).")
    if len(given) != 2 or any(side < 1 or side % grain for side in given):
        raise InputError(
            f"size={given} is not possible. Give (height, width), multiples of {grain}."
        )
    return given[0], given[1]


def _names(given: Sequence[str], classes: int) -> tuple[str, ...]:
    each_instance("class_names", given, str, "Give one for every class, in their order.")
    if given and len(given) != classes:
        raise InputError(
            f"There are {len(given)} class names, and {classes} classes. Give one for every class, "
            "in their order, or none."
        )
    return tuple(given)
