"""Stands in for ComfyUI in tests: as much of its interface as the node pack uses.

What is here was written from what the interface promises. `test_real.py` compares names and
signatures with a real ComfyUI, and pictures too, where there is one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

OUTER_SAMPLE = "outer_sample"


class InterruptedByUser(Exception):
    """What ComfyUI raises in the middle of its work when the user stops it."""


@dataclass(slots=True)
class Seen:
    """What the program was told, and whether the user has stopped it."""

    interrupted: bool = False
    free: int = 2**40
    progress: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])


SEEN = Seen()


def throw_exception_if_processing_interrupted() -> None:
    if SEEN.interrupted:
        SEEN.interrupted = False
        raise InterruptedByUser


def get_free_memory(dev: torch.device | None = None) -> int:
    return SEEN.free


def get_torch_device_name(device: torch.device) -> str:
    return f"{device} of the stand-in"


class ProgressBar:
    def __init__(self, total: int) -> None:
        self.total = total

    def update_absolute(self, value: int, total: int | None = None) -> None:
        throw_exception_if_processing_interrupted()
        SEEN.progress.append((value, total or self.total))


# Sampling of models.


class CONST:
    """A flow: the network predicts a velocity."""

    noise_scale: float

    def calculate_denoised(
        self, sigma: Tensor, model_output: Tensor, model_input: Tensor
    ) -> Tensor:
        return model_input - sigma.view(-1, 1, 1, 1) * model_output

    def noise_scaling(
        self, sigma: Tensor, noise: Tensor, latent_image: Tensor, max_denoise: bool = False
    ) -> Tensor:
        u = sigma.view(-1, 1, 1, 1)
        return u * self.noise_scale * noise + (1 - u) * latent_image

    def inverse_noise_scaling(self, sigma: Tensor, latent: Tensor) -> Tensor:
        return latent / (1 - sigma)


class EPS(CONST):
    """Another kind of model, which the pack refuses."""

    def calculate_denoised(
        self, sigma: Tensor, model_output: Tensor, model_input: Tensor
    ) -> Tensor:
        raise NotImplementedError


class Sampling(CONST):
    """The schedule of a flow model."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.shift = float(settings.get("shift", 1.0))
        self.noise_scale = float(settings.get("noise_scale", 1.0))

    @property
    def sigma_max(self) -> float:
        return 1.0

    def percent_to_sigma(self, percent: float) -> float:
        left = 1 - percent
        return self.shift * left / (1 + (self.shift - 1) * left)


@dataclass
class LatentFormat:
    latent_channels: int = 3
    spacial_downscale_ratio: int = 1


class Network(nn.Module):
    """What ComfyUI calls a model: network, schedule, format of latents."""

    def __init__(self, network: nn.Module, settings: Mapping[str, Any], image_model: str) -> None:
        super().__init__()
        self.diffusion_model = network
        self.model_sampling = Sampling(settings)
        self.latent_format = LatentFormat()
        self.model_config = SimpleNamespace(unet_config={"image_model": image_model})

    def get_dtype(self) -> torch.dtype:
        return torch.float32

    def apply_model(self, x: Tensor, sigma: Tensor, context: Tensor) -> Tensor:
        velocity = self.diffusion_model(x, sigma * 1000, context=context)
        return self.model_sampling.calculate_denoised(sigma, velocity, x)


def _unconverted(value: Tensor, **_: Any) -> Tensor:
    return value


class Patcher:
    """A MODEL: a network, and what a graph has put on it."""

    def __init__(
        self,
        network: Callable[..., nn.Module],
        settings: Mapping[str, Any],
        image_model: str = "pixeldit_t2i",
    ) -> None:
        self.model = Network(network(), settings, image_model)
        self.patches: dict[str, list[tuple[Any, ...]]] = {}
        self.wrappers: dict[str, dict[str, list[Any]]] = {}
        self.model_options: dict[str, Any] = {"transformer_options": {}}
        self.load_device = torch.device("cpu")
        self.objects: dict[str, Any] = {}

    def clone(self) -> Patcher:
        other = object.__new__(Patcher)
        vars(other).update(vars(self))
        other.patches, other.objects = dict(self.patches), dict(self.objects)
        other.wrappers = {
            kind: {key: list(each) for key, each in keys.items()}
            for kind, keys in self.wrappers.items()
        }
        return other

    def get_model_object(self, name: str) -> Any:
        return self.objects.get(name, getattr(self.model, name))

    def add_object_patch(self, name: str, obj: Any) -> None:
        self.objects[name] = obj

    def get_key_patches(self, filter_prefix: str | None = None) -> dict[str, Any]:
        return {
            name: [(weight, _unconverted), *self.patches.get(name, [])]
            for name, weight in self.model.state_dict().items()
            if filter_prefix is None or name.startswith(filter_prefix)
        }

    def add_wrapper_with_key(self, wrapper_type: str, key: str, wrapper: Any) -> None:
        self.wrappers.setdefault(wrapper_type, {}).setdefault(key, []).append(wrapper)

    def remove_wrappers_with_key(self, wrapper_type: str, key: str) -> None:
        self.wrappers.get(wrapper_type, {}).pop(key, None)


# Samplers.


class Sampler:
    def sample(self) -> None: ...

    def max_denoise(self, model_wrap: Any, sigmas: Tensor) -> bool:
        return float(sigmas[0]) >= model_wrap.inner_model.model_sampling.sigma_max


class KSampler0Inpaint:
    """What samplers call: keeps what a mask does not cover."""

    def __init__(self, guider: Any, sigmas: Tensor, noise: Tensor, latent_image: Tensor) -> None:
        self.inner_model = guider
        self.sigmas = sigmas
        self.noise = noise
        self.latent_image = latent_image

    def __call__(
        self,
        x: Tensor,
        sigma: Tensor,
        denoise_mask: Tensor | None,
        model_options: Any,
        seed: int | None = None,
    ) -> Tensor:
        if denoise_mask is None:
            return self.inner_model(x, sigma, model_options=model_options, seed=seed)
        sampling = self.inner_model.inner_model.model_sampling
        known = sampling.noise_scaling(sigma, self.noise, self.latent_image)
        x = torch.where(denoise_mask > 0, x, known)
        x_0 = self.inner_model(x, sigma, model_options=model_options, seed=seed)
        return torch.where(denoise_mask > 0, x_0, self.latent_image)


class KSAMPLER(Sampler):
    def __init__(
        self,
        sampler_function: Any,
        extra_options: Mapping[str, Any] = {},
        inpaint_options: Mapping[str, Any] = {},
    ) -> None:
        self.sampler_function = sampler_function
        self.extra_options = extra_options
        self.inpaint_options = inpaint_options

    def sample(  # pyright: ignore[reportIncompatibleMethodOverride]: as ComfyUI has it
        self,
        model_wrap: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        noise: Tensor,
        latent_image: Tensor,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        sampling = model_wrap.inner_model.model_sampling
        x = sampling.noise_scaling(sigmas[:1], noise, latent_image)
        wrapped = KSampler0Inpaint(model_wrap, sigmas, noise, latent_image)

        def told(seen: Mapping[str, Any]) -> None:
            callback(seen["i"], seen["denoised"], seen["x"], len(sigmas) - 1)

        extra_args["denoise_mask"] = denoise_mask
        made = self.sampler_function(
            wrapped,
            x,
            sigmas,
            extra_args=extra_args,
            callback=None if callback is None else told,
            disable=disable_pbar,
            **self.extra_options,
        )
        return sampling.inverse_noise_scaling(sigmas[-1], made)


def calc_cond_batch(
    model: Network, conds: list[Any], x_in: Tensor, timestep: Tensor, model_options: Any
) -> list[Tensor]:
    """The estimate of every list of conditionings; of several in one, their mean."""
    found: list[Tensor] = []
    for rows in conds:
        answers = [
            model.apply_model(x_in, timestep, each["cross_attn"].expand(len(x_in), -1, -1))
            for each in rows or ()
        ]
        found.append(torch.stack(answers).mean(0) if answers else torch.zeros_like(x_in))
    return found


class Executor:
    """Calls wrappers, the first one outermost, and what they wrap."""

    def __init__(self, original: Any, class_obj: Any, wrappers: list[Any]) -> None:
        self.original, self.class_obj, self.wrappers = original, class_obj, wrappers

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.wrappers:
            return self.original(*args, **kwargs)
        first, *rest = self.wrappers
        return first(Executor(self.original, self.class_obj, rest), *args, **kwargs)


class CFGGuider:
    def __init__(self, model_patcher: Patcher) -> None:
        self.model_patcher = model_patcher
        self.model_options = model_patcher.model_options
        self.original_conds: dict[str, Any] = {}
        self.cfg = 1.0

    def set_conds(self, positive: Any, negative: Any) -> None:
        self.inner_set_conds({"positive": positive, "negative": negative})

    def inner_set_conds(self, conds: Mapping[str, Any]) -> None:
        for name, rows in conds.items():
            self.original_conds[name] = [
                {**more, "cross_attn": text, "uuid": object()} for text, more in rows
            ]

    def set_cfg(self, cfg: float) -> None:
        self.cfg = cfg

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.predict_noise(*args, **kwargs)

    def predict_noise(
        self, x: Tensor, timestep: Tensor, model_options: Any = None, seed: int | None = None
    ) -> Tensor:
        options = model_options or {}
        cond, null = self.conds["positive"], self.conds.get("negative")
        one = self.cfg == 1 and not options.get("disable_cfg1_optimization")
        batch = [cond, None if one else null]
        cond_out, null_out = calc_cond_batch(self.inner_model, batch, x, timestep, options)
        found = null_out + self.cfg * (cond_out - null_out)
        for change in options.get("sampler_post_cfg_function", []):
            found = change({"denoised": found, "cond_denoised": cond_out, "input": x})
        return found

    def outer_sample(
        self,
        noise: Tensor,
        latent_image: Tensor,
        sampler: Any,
        sigmas: Tensor,
        denoise_mask: Tensor | None = None,
        callback: Any = None,
        disable_pbar: bool = False,
        seed: int | None = None,
        latent_shapes: Any = None,
    ) -> Tensor:
        self.inner_model = self.model_patcher.model
        sampling = self.model_patcher.get_model_object("model_sampling")
        before, self.inner_model.model_sampling = self.inner_model.model_sampling, sampling
        options = {**self.model_options, "transformer_options": {"sample_sigmas": sigmas}}
        extra = {"model_options": options, "seed": seed}
        try:
            return sampler.sample(
                self, sigmas, extra, callback, noise, latent_image, denoise_mask, disable_pbar
            )
        finally:
            self.inner_model.model_sampling = before

    def sample(
        self,
        noise: Tensor,
        latent_image: Tensor,
        sampler: Any,
        sigmas: Tensor,
        denoise_mask: Tensor | None = None,
        callback: Any = None,
        disable_pbar: bool = False,
        seed: int | None = None,
    ) -> Tensor:
        self.conds = {
            name: [each.copy() for each in rows] for name, rows in self.original_conds.items()
        }
        keys = self.model_patcher.wrappers.get(OUTER_SAMPLE, {})
        wrappers = [each for several in keys.values() for each in several]
        return Executor(self.outer_sample, self, wrappers)(
            noise,
            latent_image,
            sampler,
            sigmas,
            denoise_mask,
            callback,
            disable_pbar,
            seed,
            latent_shapes=[latent_image.shape],
        )


class OwnGuider(CFGGuider):
    """A guider that decides by itself what guidance is, as DualCFGGuider does."""

    def predict_noise(
        self, x: Tensor, timestep: Tensor, model_options: Any = None, seed: int | None = None
    ) -> Tensor:
        return super().predict_noise(x, timestep, model_options, seed)


def euler(
    model: Any, x: Tensor, sigmas: Tensor, extra_args: Any, callback: Any, disable: Any
) -> Tensor:
    """Another sampler."""
    for i in range(len(sigmas) - 1):
        x_0 = model(x, sigmas[i].expand(len(x)), **extra_args)
        x = x_0 + (x - x_0) * sigmas[i + 1] / sigmas[i]
        if callback is not None:
            callback({"i": i, "denoised": x_0, "x": x})
    return x


# Nodes.


@dataclass
class Port:
    """An input or an output of a node."""

    kind: str
    id: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])


def _type(kind: str) -> Any:
    class Kind:
        @staticmethod
        def Input(id: str, **options: Any) -> Port:
            return Port(kind, id, options)

        @staticmethod
        def Output(id: str | None = None, **options: Any) -> Port:
            return Port(kind, id, options)

    return Kind


@dataclass
class Schema:
    node_id: str
    display_name: str | None = None
    category: str = "sd"
    inputs: list[Port] | None = None
    outputs: list[Port] | None = None
    description: str = ""
    is_output_node: bool = False


class ComfyNode:
    @classmethod
    def define_schema(cls) -> Schema:
        raise NotImplementedError

    @classmethod
    def execute(cls, **inputs: Any) -> NodeOutput:
        raise NotImplementedError


class NodeOutput:
    def __init__(self, *args: Any) -> None:
        self.args = args

    @property
    def result(self) -> tuple[Any, ...]:
        return self.args


class ComfyExtension:
    async def get_node_list(self) -> list[type[ComfyNode]]:
        raise NotImplementedError


IO = (
    "Model", "Conditioning", "Latent", "Combo", "Float", "Boolean", "String", "Guider", "Sampler",
    "Sigmas",
)  # fmt: skip


def modules(models: Path) -> dict[str, Any]:
    """The modules that the pack imports, by name.

    Args:
        models: the folder of models.
    """
    paths: dict[str, tuple[list[str], set[str]]] = {}

    def add_model_folder_path(
        folder_name: str, full_folder_path: str, is_default: bool = False
    ) -> None:
        paths.setdefault(folder_name, ([], set()))[0].append(full_folder_path)

    def get_folder_paths(folder_name: str) -> list[str]:
        return paths[folder_name][0]

    def get_filename_list(folder_name: str) -> list[str]:
        places, endings = paths[folder_name]
        files = (path for place in places for path in Path(place).glob("*"))
        return sorted(path.name for path in files if path.suffix in endings)

    def get_full_path(folder_name: str, filename: str) -> str | None:
        found = (Path(place) / filename for place in get_folder_paths(folder_name))
        return next((str(path) for path in found if path.is_file()), None)

    io = SimpleNamespace(
        Schema=Schema,
        ComfyNode=ComfyNode,
        NodeOutput=NodeOutput,
        **{name: _type(name.upper()) for name in IO},
    )
    contents: dict[str, dict[str, Any]] = {
        "comfy": {},
        "comfy.model_management": {
            "throw_exception_if_processing_interrupted": throw_exception_if_processing_interrupted,
            "get_free_memory": get_free_memory,
            "get_torch_device_name": get_torch_device_name,
        },
        "comfy.model_sampling": {"CONST": CONST},
        "comfy.patcher_extension": {"WrappersMP": SimpleNamespace(OUTER_SAMPLE=OUTER_SAMPLE)},
        "comfy.samplers": {
            "CFGGuider": CFGGuider,
            "KSAMPLER": KSAMPLER,
            "Sampler": Sampler,
            "calc_cond_batch": calc_cond_batch,
        },
        "comfy.utils": {"ProgressBar": ProgressBar},
        "comfy_api": {},
        "comfy_api.v0_0_2": {"ComfyExtension": ComfyExtension, "io": io},
        "folder_paths": {
            "models_dir": str(models),
            "folder_names_and_paths": paths,
            "add_model_folder_path": add_model_folder_path,
            "get_folder_paths": get_folder_paths,
            "get_filename_list": get_filename_list,
            "get_full_path": get_full_path,
        },
    }
    found: dict[str, Any] = {}
    for name, values in contents.items():
        found[name] = ModuleType(name)
        vars(found[name]).update(values)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(found[parent], child, found[name])
    return found


@contextmanager
def installed(models: Path) -> Generator[None]:
    """While the modules can be imported."""
    ours = modules(models)
    before = {name: sys.modules.get(name) for name in ours}
    sys.modules.update(ours)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module


class StandIn:
    """The stand-in as the host of the checks in `benchmarks.comfyui`."""

    version = "stand-in"
    scales_noise = True

    def patcher(self, network: Callable[..., nn.Module], settings: Mapping[str, Any]) -> Patcher:
        return Patcher(network, settings)

    def sample(self, noise: Any, guider: Any, sampler: Any, sigmas: Tensor, latent: Any) -> Tensor:
        return guider.sample(
            noise.generate_noise(latent),
            latent["samples"],
            sampler,
            sigmas,
            denoise_mask=latent.get("noise_mask"),
            disable_pbar=True,
            seed=noise.seed,
        )

    def ksampler(
        self,
        model: Patcher,
        noise: Tensor,
        positive: Any,
        negative: Any,
        latent: Tensor,
        *,
        steps: int,
        cfg: float,
        denoise: float = 1.0,
        callback: Any = None,
    ) -> Tensor:
        begin = model.get_model_object("model_sampling").percent_to_sigma(1 - denoise)
        guider = CFGGuider(model)
        guider.set_conds(positive, negative)
        guider.set_cfg(cfg)
        sigmas = torch.linspace(begin, 0, steps + 1)
        return guider.sample(
            noise, latent, KSAMPLER(euler), sigmas, callback=callback, disable_pbar=True
        )
