"""Networks that are plain callables: EDM's D(x, sigma), and net(x, t) of guided-diffusion.

edm                 z = x_0 + sigma eps, the answer is x_0. Whatever a network of arXiv
                    2206.00364 was preconditioned for, VP, VE or EDM, this is how it is asked.
guided_diffusion    z = alpha x_0 + sigma eps with alpha^2 + sigma^2 = 1 at timesteps 0, 1, ...;
                    the answer is eps, v or x_0, and a learned variance after it is left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from asymflow.adapter import Context
from asymflow.adapters.diffusers import X_0, Prediction, Schedule
from asymflow.adapters.gaussian import to_picture, to_state
from asymflow.adapters.weights import weigh
from asymflow.errors import InputError
from asymflow.flow import per_image, to_ve
from asymflow.types import Picture, Request

_CPU = torch.device("cpu")


class Question(Protocol):
    """Asks a network in its own convention for x_0 [b, c, h, w] at times t [b], float64 on the CPU.

    `label` [b] is None for a model without classes.
    """

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None, /) -> Tensor: ...


@dataclass(frozen=True, slots=True, eq=False)
class CallableAdapter:
    """A network behind a question. The inputs are {"label": k} for a model of classes, else none.

    Attributes:
        channels: of pictures, in a state space where they fill [-1, 1].
        grain: the multiple that sides have to be of.
        classes: that the network knows; 0 for none.
        null: the label that stands for no class, without which there is no guidance.
        device: of the network; a CPU where it is not given.
        factors: by which pictures may be pooled, since the network was trained on that too.
    """

    ask: Question
    name: str
    channels: int
    grain: int = 1
    classes: int = 0
    null: int | None = None
    device: torch.device = _CPU
    factors: tuple[int, ...] = ()

    @property
    def like(self) -> Tensor:
        return torch.empty(0, dtype=torch.float32, device=self.device)

    @property
    def batch(self) -> int | None:
        # CPU kernels choose their summation order by the size of the batch: see the protocol.
        return 1 if self.device.type == "cpu" else None

    def shrinks(self, size: tuple[int, int]) -> tuple[int, ...]:
        return tuple(f for f in self.factors if all(s % (f * self.grain) == 0 for s in size))

    def check(self, request: Request) -> None:
        height, width = request.size
        if any(side < 1 or side % self.grain for side in request.size):
            raise InputError(
                f"Size {width}x{height} is not possible: sides of this network are multiples of "
                f"{self.grain}, from {self.grain}. Choose such a size."
            )
        if request.guidance_scale != 1 and self.null is None:
            raise InputError(
                f"Guidance scale {request.guidance_scale} needs a label that stands for no class, "
                "and this model was adapted without one. Ask for 1, or say which: null=..."
            )
        self._label(request)

    def encode(self, requests: Sequence[Request]) -> tuple[Context, Context]:
        if not self.classes:
            return {}, {}
        labels = torch.tensor([self._label(request) for request in requests], device=self.device)
        # Without a null label nothing is ever guided, and the second context never read.
        return {"label": labels}, {"label": torch.full_like(labels, self.null or 0)}

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        return self.ask(x_t, t.cpu().double(), context.get("label")).to(x_t)

    def to_state(self, picture: Picture) -> Tensor:
        return to_state(picture).to(self.like)

    def to_picture(self, x_0: Tensor) -> Picture:
        return to_picture(x_0)

    def _label(self, request: Request) -> int:
        label = request.inputs.get("label", self.null)
        if not self.classes:
            if request.inputs.get("label") is not None:
                raise InputError(
                    f"Label {label!r} cannot be served: this model knows no classes. Leave it out."
                )
            return 0
        if isinstance(label, int) and (label == self.null or label in range(self.classes)):
            return label
        raise InputError(
            f"Label {label!r} is not a class of this model. "
            f"Choose an integer from 0 to {self.classes - 1}."
        )


def edm(
    net: Callable[..., Tensor],
    *,
    channels: int,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    classes: int = 0,
    null: bool = False,
    **options: Any,
) -> CallableAdapter:
    """A denoiser D = net(x, sigma), or net(x, sigma, one_hot) for a model of classes.

    x = x_0 + sigma eps [b, c, h, w], sigma [b]. Noise above `sigma_max` is scaled down to it, with
    a signal that is weaker than the model expects; below `sigma_min` it is asked there.

    Args:
        classes: columns of `one_hot` [b, classes].
        null: whether training dropped classes, and showed all zeros instead.
        options: `name`, `grain`, `device` and `factors` of the adapter.

    Raises:
        InputError: the limits are not noise levels.
    """
    if not 0 < sigma_min < sigma_max:
        raise InputError(
            f"sigma_min={sigma_min} and sigma_max={sigma_max} are no limits of noise. Give two "
            "positive numbers, the smaller one first."
        )

    def ask(x_t: Tensor, t: Tensor, label: Tensor | None, /) -> Tensor:
        sigma, k = to_ve(t, sigma_max)
        level = sigma.clamp(min=sigma_min).to(x_t)
        x = per_image(k, x_t) * x_t
        if label is None:
            return net(x, level)
        # The null label is one more class, whose column is left out.
        one_hot = functional.one_hot(label, classes + 1)[:, :classes].to(x_t)
        return net(x, level, one_hot)

    settings = ("edm", sigma_min, sigma_max, classes, null)
    return _adapter(ask, net, settings, channels, classes, classes if null else None, options)


def guided_diffusion(
    net: Callable[..., Tensor],
    alphas_cumprod: Tensor,
    *,
    channels: int,
    prediction: Prediction = "epsilon",
    classes: int = 0,
    null: int | None = None,
    **options: Any,
) -> CallableAdapter:
    """A network net(z, tau), or net(z, tau, y=label) for a model of classes.

    z [b, c, h, w] is variance preserving, tau [b] a real timestep.

    Args:
        alphas_cumprod: alpha^2 at timesteps 0, 1, ... [n].
        prediction: what the network says.
        null: the label that training showed in place of a dropped one; may be `classes`.
        options: `name`, `grain`, `device` and `factors` of the adapter.

    Raises:
        InputError: the prediction is unknown.
    """
    if prediction not in X_0:
        raise InputError(
            f"Prediction {prediction!r} is not supported. Choose one of {', '.join(X_0)}."
        )
    schedule = Schedule.of(alphas_cumprod)

    def ask(x_t: Tensor, t: Tensor, label: Tensor | None, /) -> Tensor:
        alpha, sigma, k = (per_image(each, x_t) for each in schedule.scaled(t))
        tau, z = schedule.timestep(t).to(x_t), k * x_t
        said = net(z, tau) if label is None else net(z, tau, y=label)
        return X_0[prediction](z, said[:, :channels].to(x_t), alpha, sigma)

    log_snr = [f"{each:.6f}" for each in schedule.log_snr.tolist()]
    settings = ("guided-diffusion", prediction, classes, null, log_snr)
    return _adapter(ask, net, settings, channels, classes, null, options)


def _adapter(
    ask: Question,
    net: Callable[..., Tensor],
    settings: object,
    channels: int,
    classes: int,
    null: int | None,
    options: dict[str, Any],
) -> CallableAdapter:
    """Named after its weights and settings, unless a name is given."""
    if isinstance(net, torch.nn.Module):
        digest = hashlib.sha256(repr(settings).encode())
        weigh(digest, net.state_dict())
        options = {"name": f"callable:{digest.hexdigest()[:12]}", **options}
    elif "name" not in options:
        raise InputError(
            "A network that is a plain function has no weights to be named after, and plans are "
            "kept by the name of their model. Give it one: name='mine-1'."
        )
    return CallableAdapter(ask, channels=channels, classes=classes, null=null, **options)
