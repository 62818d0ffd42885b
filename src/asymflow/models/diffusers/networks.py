"""Pixel-space models of the library diffusers: a `UNet2DModel` and the noise it was trained with.

The scheduler says how to translate states, times and answers (`models.diffusers.conventions`). DDIM
without noise is our `euler` over the same nodes.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from asymflow.core.adapter import Context
from asymflow.core.binding import ModelDescription
from asymflow.core.card import Card, Sizes
from asymflow.core.checks import as_path, whole
from asymflow.core.errors import FileFormatError, InputError, MissingExtra
from asymflow.core.requests import refuse_others
from asymflow.core.schedules import plan_of
from asymflow.core.types import Picture, Plan, Request, part_name
from asymflow.models.calls import spread
from asymflow.models.diffusers.conventions import Convention, Diffusion, convention_of, estimated
from asymflow.models.diffusers.own import ENOUGH, LATE, default_of
from asymflow.models.diffusers.weights import FAILURES, complete, quiet
from asymflow.models.gaussian import to_picture, to_state
from asymflow.models.hashing import identity_of

SIDE = 32
"""Of pictures, where the configuration of a network does not say it."""
GUIDANCE = 3.0
"""Scale where nobody says another one."""
_LATENT = ("vae", "vqvae", "vqgan", "movq", "text_encoder", "prior")  # parts of pipelines


@dataclass(frozen=True, slots=True, eq=False)
class DiffusersAdapter:
    """A `UNet2DModel`. The inputs are {"label": k} for a model of classes, and else none.

    The state is in [-1, 1] and float32; the network may run in another dtype. Sides other than the
    trained one are served, as far as the network can be evaluated on them.

    Attributes:
        weights_hash: of the weights and of all settings of the estimates.
        null: the class that means "no class"; guidance needs it.
        factors: by which pictures may be pooled; the network was trained on these sizes, too.
    """

    model: Any
    convention: Convention
    weights_hash: str
    null: int | None = None
    factors: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        return f"diffusers:{self.weights_hash[:12]}"

    @property
    def description(self) -> ModelDescription:
        """What plans have to know of the model."""
        identity = identity_of(self.model)
        null = {} if self.null is None else {"null": str(self.null)}
        return ModelDescription(
            family=type(self.model).__name__,
            weights=identity.weights,
            parameterisation=self.convention.parameterisation,
            guidance="none" if self.null is None else "cfg",
            noise_scale=self.convention.noise,
            fingerprint=identity.fingerprint,
            settings={**self.convention.settings, **null},
        )

    @property
    def card(self) -> Card:
        """What the model is asked with, and what it can make."""
        # Classes are numbered from 0, so a null class is left out where it is the last one.
        count = self.classes - 1 if self.null == self.classes - 1 else self.classes
        labels = tuple(range(count))
        trained = self.model.config.sample_size
        height, width = (trained,) * 2 if isinstance(trained, int) else trained or (SIDE, SIDE)
        return Card(
            title=type(self.model).__name__,
            asks="class" if labels else "nothing",
            sizes=Sizes.only(height, width),
            channels=self.channels,
            classes=tuple(map(str, labels)),
            guidance=1.0 if self.null is None else GUIDANCE,
            guided=self.null is not None,
            guidance_interval=(0.0 if self.null is None else LATE, 1.0),
            calibration=tuple({"label": labels[i]} for i in spread(len(labels))) or ({},),
            tiers=(
                *(["conditional"] if self.null is not None else []),
                *map(part_name, self.pool_factors((height, width))),
            ),
            steps=ENOUGH,
        )

    def default_plan(self, size: tuple[int, int]) -> Plan:
        """Our best solver on a part of the steps of DDIM."""
        return default_of(self.convention, ENOUGH, guided=self.null is not None)

    def own_plan(self, size: tuple[int, int]) -> Plan:
        """DDIM without noise, in 50 steps."""
        steps = min(ENOUGH, self.convention.most or ENOUGH)
        return plan_of(self.convention.times(steps), solver="euler", name=f"ddim-{steps}")

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
        refuse_others(request, ("label",) if self.classes else (), type(self.model).__name__)
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
        def network(z: Tensor, tau: Tensor) -> Tensor:
            label = context.get("label")
            return self.model(z.to(self.model.dtype), tau, class_labels=label, return_dict=False)[0]

        return estimated(self.convention, network, x_t, t)

    def clip_estimate(self, x_0: Tensor) -> Tensor:
        return self.convention.clip_estimate(x_0)

    def begin(self, eps: Tensor, t: float) -> Tensor:
        return self.convention.beginning(t) * eps

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
    convention = convention_of(scheduler)
    model.eval().requires_grad_(False)
    factors = tuple(whole("each of shrinks", factor, 2) for factor in pool_factors)
    return DiffusersAdapter(model, convention, _digest(model, convention, null), null, factors)


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
        options = {"use_safetensors": True, "low_cpu_mem_usage": False}
        with quiet():
            model = complete(getattr(diffusers, kinds[0]), network, options)
            scheduler = getattr(diffusers, kinds[1]).from_pretrained(noise)
    except (*FAILURES, AttributeError) as error:
        raise FileFormatError(
            f"Cannot read the model in {folder}: {error}. Save it again with diffusers' "
            "save_pretrained, which writes safetensors."
        ) from error
    adapter = adapt(model, scheduler, null=null, pool_factors=pool_factors)
    with quiet():
        model.to(device=device, dtype=dtype)
    return adapter


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
            "models, such as a DDPMPipeline with a UNet2DModel. If it works on pixels, load its "
            "pipeline with diffusers in Python: asymflow.accelerate(pipe) returns it with a plan."
        )


def _kind(path: Path, known: tuple[str, ...] | None) -> str:
    """The name of the class that a configuration file is for."""
    kind = str(_json(path).get("_class_name"))
    if known is not None and kind not in known:
        raise FileFormatError(
            f"{path} describes a {kind}, but only {' and '.join(known)} can be loaded without a "
            "pipeline. Load its pipeline with diffusers in Python, asymflow.accelerate(pipe), or "
            "write an adapter of your own for it (asymflow.core.adapter)."
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


def _digest(model: Any, convention: Convention, null: int | None) -> str:
    """SHA-256 of the weights and all settings of the estimates."""
    state: dict[str, Tensor] = model.state_dict()
    settings: tuple[object, ...]
    if isinstance(convention, Diffusion):
        state = {**state, "log_snr": convention.schedule.log_snr}
        settings = (convention.prediction, convention.clip.limit, null)
        if convention.clip.threshold is not None:
            settings = (*settings, convention.clip.threshold)
    else:
        settings = (convention, null)
    digest = hashlib.sha256(repr(settings).encode())
    for name, value in sorted(state.items()):
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().double().numpy().tobytes())
    return digest.hexdigest()
