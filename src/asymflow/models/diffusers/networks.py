"""Pixel-space models of the library diffusers: a `UNet2DModel` and the noise it was trained with.

Their states are variance preserving, z = alpha x_0 + sigma eps with alpha^2 + sigma^2 = 1, at one
of some thousand noise levels that are numbered by timesteps tau. States of asymflow differ in scale
(`asymflow.core.flow.from_vp`),

    t = sigma / (alpha + sigma)        x_t = z / (alpha + sigma)

so plans, solvers and profiles apply unchanged. Between two timesteps tau is interpolated in the
log-SNR; networks embed it as a real number. DDIM without noise is our `euler` over the same nodes.

Training stops short of both ends. Plans begin at t = 1, where the linear schedule of DDPM has only
reached 0.994: there the network is evaluated at its largest trained noise, with the state scaled so
that its *noise* is what that timestep expects; the signal is weaker. Below its smallest noise the
*signal* is matched, and the noise is weaker than expected. Both are approximations outside of the
training range.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor

from asymflow.core.adapter import Context
from asymflow.core.checks import as_path, whole
from asymflow.core.errors import FileFormatError, InputError, MissingExtra
from asymflow.core.flow import log_snr, per_image, time_of_log_snr, to_vp
from asymflow.core.types import Picture, Request
from asymflow.models.gaussian import to_picture, to_state

Prediction = Literal["epsilon", "v_prediction", "sample"]
"""What the network predicts: eps, v = alpha eps - sigma x_0, or x_0."""

_LATENT = ("vae", "vqvae", "vqgan", "movq", "text_encoder", "prior")  # parts of pipelines
_SMALLEST_SNR = 1e-12  # instead of 0, so that the logarithm can be interpolated

# x_0 from the state z, the network output, alpha and sigma.
X_0: Mapping[str, Callable[[Tensor, Tensor, Any, Any], Tensor]] = {
    "epsilon": lambda z, eps, alpha, sigma: (z - sigma * eps) / alpha,
    "v_prediction": lambda z, v, alpha, sigma: alpha * z - sigma * v,
    "sample": lambda z, x_0, alpha, sigma: x_0,
}


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """The noise levels of a variance-preserving model.

    Attributes:
        log_snr: log(alpha / sigma) at timesteps 0, 1, ... [n], falling; float64, on the CPU.
    """

    log_snr: Tensor

    @classmethod
    def of(cls, alphas_cumprod: Tensor) -> Schedule:
        """From the alpha^2 [n] that schedulers of diffusers keep.

        Raises:
            InputError: they do not fall from nearly 1 to nearly 0.
        """
        try:
            squares = torch.as_tensor(alphas_cumprod).detach().cpu().double()
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"alphas_cumprod is a {type(alphas_cumprod).__name__}, which holds no numbers "
                f"({error}). Pass alpha^2 at timesteps 0, 1, ... as a tensor."
            ) from error
        falling = squares.ndim == 1 and len(squares) > 0 and bool((squares.diff() <= 0).all())
        if not falling or not bool(((squares >= 0) & (squares <= 1)).all()):
            ends = f"{float(squares.view(-1)[0]):.4g} to {float(squares.view(-1)[-1]):.4g}"
            raise InputError(
                f"alphas_cumprod of shape {tuple(squares.shape)}, from {ends}, is no schedule: "
                "alpha^2 falls with the timestep, within [0, 1]. Of betas, which rise, make it by "
                "(1 - betas).cumprod(0)."
            )
        squares = squares.clamp(_SMALLEST_SNR, 1 - _SMALLEST_SNR)
        return cls(torch.logit(squares) / 2)

    @property
    def limits(self) -> tuple[float, float]:
        """The smallest and largest trained noise, as times t."""
        low, high = time_of_log_snr(self.log_snr[[0, -1]]).tolist()
        return low, high

    def times(self, count: int) -> tuple[float, ...]:
        """`count` moves with equal steps in tau from the most trained noise, the last to 0.

        Diffusers' "trailing" grid. As candidates for a profile it is dense where a network that
        predicts eps needs it to be: near noise, where small errors in eps are large ones in x_0.

        Raises:
            InputError: there are not so many timesteps.
        """
        total = len(self.log_snr)
        if not 1 <= count <= total:
            raise InputError(
                f"{count} moves do not fit into a schedule of {total} timesteps. "
                f"Choose 1 to {total}."
            )
        tau = np.array([total * (1 - i / count) - 1 for i in range(count)])
        lam = np.interp(tau, np.arange(total), self.log_snr.numpy())
        return (*time_of_log_snr(torch.from_numpy(lam)).tolist(), 0.0)

    def time(self, tau: Tensor) -> Tensor:
        """t [b] at timesteps tau [b], which may lie between whole ones."""
        lam = np.interp(
            tau.cpu().double().numpy(), np.arange(len(self.log_snr)), self.log_snr.numpy()
        )
        return time_of_log_snr(torch.from_numpy(np.atleast_1d(lam)))

    def timestep(self, t: Tensor) -> Tensor:
        """tau [b] at times t [b], a real number from 0 to n - 1."""
        if len(self.log_snr) == 1:
            return torch.zeros_like(t, dtype=torch.float64)
        rising = self.log_snr.flip(0)
        lam = log_snr(t.double()).clamp(rising[0], rising[-1])
        above = torch.searchsorted(rising, lam).clamp(1, len(rising) - 1)
        low, high = rising[above - 1], rising[above]
        return len(rising) - above - (lam - low) / (high - low)

    def beginning(self, t: float) -> float:
        """The factor of the noise draw eps in the initial state at time t.

        Pipelines begin with z = eps at any timestep, instead of sigma eps.
        """
        return 1 / float(self.scaled(torch.tensor([t], dtype=torch.float64))[2])

    def scaled(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(alpha, sigma, k) [b] of the network's input k x_t at times t [b].

        Outside of the trained noise range, alpha and sigma are those of the limit.
        """
        t = t.double()
        alpha, sigma, _ = to_vp(t.clamp(*self.limits))
        # Inside the limits the two are equal. Outside, the stronger component is matched.
        return alpha, sigma, torch.minimum(alpha / (1 - t), sigma / t)


@dataclass(frozen=True, slots=True, eq=False)
class DiffusersAdapter:
    """A `UNet2DModel`. The inputs are {"label": k} for a model of classes, and else none.

    The state is in [-1, 1] and float32; the network may run in another dtype. Sides other than the
    trained one are served, as far as the network can be evaluated on them.

    Attributes:
        clip: `clip_sample_range` of diffusers' DDPM and DDIM schedulers: x_0 is clipped to
            [-clip, clip]. With guidance both estimates are clipped before they are combined,
            not after. None does not clip.
        null: the class that means "no class"; guidance needs it.
        factors: by which pictures may be pooled; the network was trained on these sizes, too.
    """

    model: Any
    schedule: Schedule
    prediction: Prediction
    weights_hash: str
    clip: float | None = None
    null: int | None = None
    factors: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        return f"diffusers:{self.weights_hash[:12]}"

    @property
    def channels(self) -> int:
        return int(self.model.config.in_channels)

    @property
    def classes(self) -> int:
        """Classes that the network was trained on, the null one included; 0 for none."""
        return int(self.model.config.num_class_embeds or 0)

    @property
    def template(self) -> Tensor:
        return torch.empty(0, dtype=torch.float32, device=self.model.device)

    @property
    def batch(self) -> int | None:
        # CPU kernels choose their summation order by the size of the batch: see the protocol.
        return 1 if self.model.device.type == "cpu" else None

    def pool_factors(self, size: tuple[int, int]) -> tuple[int, ...]:
        grain = self._grain
        return tuple(f for f in self.factors if all(side % (f * grain) == 0 for side in size))

    def check(self, request: Request) -> None:
        if any(side < 1 or side % self._grain for side in request.size):
            height, width = request.size
            raise InputError(
                f"Size {width}x{height} is not possible: this network halves both sides "
                f"{self._grain.bit_length() - 1} times. Choose multiples of {self._grain}."
            )
        if request.guidance_scale != 1 and self.null is None:
            raise InputError(
                f"Guidance scale {request.guidance_scale} needs a class that stands for none, and "
                "this model was loaded without one. Ask for 1, or say which class it is: null=..."
            )
        self._label(request)

    def encode(self, requests: Sequence[Request]) -> tuple[Context, Context]:
        if not self.classes:
            return {}, {}
        labels = torch.tensor([self._label(request) for request in requests]).to(
            self.template.device
        )
        # Without a null class there is no guidance, and the second context is not used.
        return {"label": labels}, {"label": torch.full_like(labels, self.null or 0)}

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        # A few numbers per call: on the CPU, where there is always float64.
        time = t.cpu()
        alpha, sigma, k = (per_image(each, x_t) for each in self.schedule.scaled(time))
        tau = self.schedule.timestep(time).to(x_t)
        z = k * x_t
        answer: Tensor = self.model(
            z.to(self.model.dtype), tau, class_labels=context.get("label"), return_dict=False
        )[0]
        # Models with a learned variance append it.
        x_0 = X_0[self.prediction](z, answer[:, : self.channels].to(x_t), alpha, sigma)
        return x_0 if self.clip is None else x_0.clamp(-self.clip, self.clip)

    def begin(self, eps: Tensor, t: float) -> Tensor:
        return self.schedule.beginning(t) * eps

    def to_state(self, picture: Picture) -> Tensor:
        return to_state(picture).to(self.template)

    def to_picture(self, x_0: Tensor) -> Picture:
        return to_picture(x_0)

    @property
    def _grain(self) -> int:
        """The number that sides must be multiples of."""
        return 2 ** (len(self.model.config.block_out_channels) - 1)

    def _label(self, request: Request) -> int:
        label = request.inputs.get("label", self.null)
        if not self.classes:
            if label is not None:
                raise InputError(
                    f"Label {label!r} cannot be served: this model was trained without classes. "
                    "Leave the label out."
                )
            return 0
        return label_of(label, self.classes)


def label_of(label: object, classes: int, null: int | None = None) -> int:
    """Check the class label of a request, an integer of Python, numpy or torch.

    Args:
        label: of the request.
        classes: number of classes.
        null: one more number that is allowed.

    Raises:
        InputError: it is not a class.
    """
    try:
        found = whole("label", label, 0)
    except InputError:
        found = -1
    if found in range(classes) or (null is not None and found == null):
        return found
    raise InputError(
        f"Label {label!r} is not a class of this model. Choose an integer from 0 to {classes - 1}."
    )


def adapt(
    model: Any, scheduler: Any, *, null: int | None = None, pool_factors: Sequence[int] = ()
) -> DiffusersAdapter:
    """Make an adapter of a `UNet2DModel` in memory and a diffusers scheduler.

    Of the scheduler, only the training schedule and the prediction type are used, not its sampling
    steps. The model is put into evaluation mode and its weights are frozen.

    Args:
        model: the network.
        scheduler: that the model was trained with.
        null: the class used in training for dropped labels, for guidance.
        pool_factors: factors by which pictures may be pooled. A convolutional network runs at any
            size, but gives useful results at trained sizes only: leave them out otherwise.

    Raises:
        InputError: the model or the scheduler is of a kind that cannot be translated.
    """
    config = getattr(model, "config", None)
    if not hasattr(config, "block_out_channels") or not hasattr(config, "num_class_embeds"):
        raise InputError(f"{type(model).__name__} is not supported. Pass a diffusers UNet2DModel.")
    assert config is not None
    if config.time_embedding_type != "positional" or config.class_embed_type is not None:
        raise InputError(
            f"A UNet2DModel with time embedding {config.time_embedding_type!r} and class embedding "
            f"{config.class_embed_type!r} is not supported: timesteps must be embedded by position "
            "and classes by number. Write an adapter of your own for it (asymflow.core.adapter)."
        )
    if not hasattr(scheduler, "config"):
        raise InputError(
            f"A {type(scheduler).__name__} is no scheduler. Pass the one that the model was "
            "trained with, such as DDPMScheduler: adapt(network, scheduler)."
        )
    if null is not None and whole("null", null, 0) >= (config.num_class_embeds or 0):
        raise InputError(
            f"null={null} is not one of the {config.num_class_embeds or 0} classes of this model. "
            "Name the class that stands for none, or leave it out."
        )
    schedule, prediction, clip = _read(scheduler)
    model.eval().requires_grad_(False)
    digest = _digest(model, schedule, (prediction, clip, null))
    factors = tuple(whole("each of shrinks", factor, 2) for factor in pool_factors)
    return DiffusersAdapter(model, schedule, prediction, digest, clip, null, factors)


def load(
    folder: Path | str,
    *,
    null: int | None = None,
    pool_factors: Sequence[int] = (),
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> DiffusersAdapter:
    """Load what `save_pretrained` wrote: a `DDPMPipeline` or `DDIMPipeline`, or its two parts.

    `folder` holds `unet/` and `scheduler/`, or the files of a `UNet2DModel` itself beside a
    `scheduler_config.json`. Nothing is downloaded, and weights are read from safetensors only.
    `null` and `pool_factors` are those of `adapt`.

    Raises:
        MissingExtra: diffusers is not installed.
        FileFormatError: the folder is incomplete, damaged or holds another kind of model.
        InputError: the model is one that `adapt` refuses.
    """
    try:
        diffusers: Any = importlib.import_module("diffusers")
    except ImportError as error:
        raise MissingExtra("diffusers", "diffusers") from error
    folder = as_path("folder", folder)
    index = folder / "model_index.json"
    if index.exists():
        _check_parts(index)
    network = folder / "unet" if (folder / "unet").is_dir() else folder
    noise = folder / "scheduler" if (folder / "scheduler").is_dir() else folder
    kinds = [
        _kind(network / "config.json", ("UNet2DModel",)),
        _kind(noise / "scheduler_config.json", None),
    ]
    try:
        model, scheduler = (
            getattr(diffusers, kind).from_pretrained(part, **options)
            for kind, part, options in (
                (kinds[0], network, {"use_safetensors": True, "low_cpu_mem_usage": False}),
                (kinds[1], noise, {}),
            )
        )
    except (OSError, AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise FileFormatError(
            f"Cannot read the model in {folder}: {error}. Save it again with diffusers' "
            "save_pretrained, which writes safetensors."
        ) from error
    adapter = adapt(model, scheduler, null=null, pool_factors=pool_factors)
    model.to(device=device, dtype=dtype)
    return adapter


def _read(scheduler: Any) -> tuple[Schedule, Prediction, float | None]:
    """The settings of a scheduler that matter here."""
    kind, config = type(scheduler).__name__, scheduler.config
    alphas_cumprod = getattr(scheduler, "alphas_cumprod", None)
    prediction = config.get("prediction_type")
    if not isinstance(alphas_cumprod, Tensor):
        raise InputError(
            f"{kind} has no alphas_cumprod, so its model is not variance preserving. Pass the "
            "scheduler that the model was trained with, such as DDPMScheduler."
        )
    if prediction not in get_args(Prediction):
        raise InputError(
            f"{kind} says that the network predicts {prediction!r}, which is not supported. "
            f"Supported are {', '.join(get_args(Prediction))}. Wrap the network in a function that "
            "says one of them (asymflow.models.edm)."
        )
    if config.get("thresholding"):
        raise InputError(
            f"{kind} uses dynamic thresholding, which no plan can account for. Set thresholding to "
            "False in its configuration; clip_sample is supported."
        )
    clip = float(config["clip_sample_range"]) if config.get("clip_sample") else None
    return Schedule.of(alphas_cumprod), cast("Prediction", prediction), clip


def _check_parts(index: Path) -> None:
    """Check that a pipeline consists of a network and a scheduler in pixel space.

    Raises:
        FileFormatError: it has other parts.
    """
    parts = _json(index)
    latent = sorted(name for name in parts if name.startswith(_LATENT) and parts[name] is not None)
    if latent:
        raise FileFormatError(
            f"{index} describes a {parts.get('_class_name')} with {', '.join(latent)}: a model "
            "that works on latents or is conditioned on text. This adapter serves pixel-space "
            "models, such as a DDPMPipeline with a UNet2DModel."
        )


def _kind(path: Path, known: tuple[str, ...] | None) -> str:
    """The name of the class that a configuration file is for."""
    kind = str(_json(path).get("_class_name"))
    if known is not None and kind not in known:
        raise FileFormatError(
            f"{path} describes a {kind}, but only {' and '.join(known)} can be loaded. Write an "
            "adapter of your own for it (asymflow.core.adapter)."
        )
    return kind


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise FileFormatError(
            f"Cannot read {path}: {error}. Give a folder that a pipeline's save_pretrained wrote."
        ) from error
    if not isinstance(found, dict):
        raise FileFormatError(f"{path} is not the configuration of a model. Save the model again.")
    return cast("dict[str, Any]", found)


def _digest(model: Any, schedule: Schedule, settings: object) -> str:
    """SHA-256 of the weights and all settings of the estimates."""
    digest = hashlib.sha256(repr(settings).encode())
    state: dict[str, Tensor] = model.state_dict()
    for name, value in sorted({**state, "log_snr": schedule.log_snr}.items()):
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().double().numpy().tobytes())
    return digest.hexdigest()
