"""ComfyUI's own networks of pixel-space models, small and of random weights, sampled by a plan.

The default plan of each, by Load plan and SamplerCustomAdvanced, and by the engine of asymflow with
the model as the node Measure model sees it.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from asymflow.core import engine
from asymflow.core.types import Request
from benchmarks.comfyui import host
from benchmarks.comfyui.host import Noise
from benchmarks.comfyui.real import Real

SIZE = (64, 96)
CFG = 3.0
TOKENS = 5
TOLERANCE = 1e-4
"""ComfyUI asks for both passes of guidance in one batch, and the engine here for one at a time,
which rounds differently."""


@dataclass(frozen=True, slots=True)
class Small:
    """A family with a small network.

    Attributes:
        kind: of ComfyUI's supported models.
        config: of its network.
        text: width of a token; None for models that read token numbers.
    """

    kind: str
    config: Mapping[str, Any]
    text: int | None


RADIANCE = {
    "axes_dim": [4, 6, 6], "num_heads": 2, "mlp_ratio": 4.0, "theta": 10000, "out_channels": 3,
    "qkv_bias": True, "in_channels": 3, "hidden_size": 32, "context_in_dim": 16, "patch_size": 16,
    "depth": 1, "depth_single_blocks": 1, "in_dim": 64, "out_dim": 32, "hidden_dim": 32,
    "n_layers": 1, "nerf_hidden_size": 16, "nerf_mlp_ratio": 2, "nerf_depth": 1,
    "nerf_max_freqs": 4, "nerf_tile_size": 512, "nerf_final_head_type": "conv",
    "nerf_embedder_dtype": torch.float32, "use_x0": True, "use_sequential_txt_ids": False,
    "txt_ids_dims": [], "vec_in_dim": None,
}  # fmt: skip
ZETA = {
    "patch_size": 16, "in_channels": 3, "dim": 256, "n_layers": 1, "n_refiner_layers": 1,
    "n_heads": 2, "n_kv_heads": 2, "axes_dims": [32, 48, 48], "axes_lens": [64, 64, 64],
    "cap_feat_dim": 16, "qk_norm": True, "z_image_modulation": True, "time_scale": 1000.0,
    "decoder_hidden_size": 32, "decoder_num_res_blocks": 1, "use_x0": True,
}  # fmt: skip
HIDREAM = {
    "text_config_overrides": {
        "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32,
        "rope_dims": [6, 5, 5],
    },
    "vision_config_overrides": {
        "hidden_size": 32, "num_heads": 2, "intermediate_size": 32, "depth": 1,
        "num_position_embeddings": 16, "deepstack_visual_indexes": (),
    },
}  # fmt: skip
PIXELDIT = {
    "num_groups": 2, "hidden_size": 48, "pixel_attn_hidden_size": 48, "pixel_num_groups": 2,
    "patch_depth": 2, "pixel_depth": 1, "txt_embed_dim": 16, "txt_max_length": 8,
}  # fmt: skip
"""As in `nodes`, which ComfyUI imports and so is a file of its own."""
SMALL: Mapping[str, Small] = {
    "chroma_radiance": Small("ChromaRadiance", RADIANCE, 16),
    "zimage_pixel": Small("ZImagePixelSpace", ZETA, 16),
    "pixeldit_t2i": Small("PixelDiTT2I", PIXELDIT, PIXELDIT["txt_embed_dim"]),
    "hidream_o1": Small("HiDreamO1", HIDREAM, None),
}


def differences(real: Real) -> dict[str, float]:
    """Of every family that this ComfyUI has: in parts of the largest number of the picture."""
    return {
        name: difference(real, name, small) for name, small in SMALL.items() if real.has(small.kind)
    }


def difference(real: Real, name: str, small: Small) -> float:
    """Of one family.

    Raises:
        ArithmeticError: the picture is not finite.
    """
    pack = host.load_pack()
    model = _model(name, small)
    positive, negative = (_prompt(seed, small.text) for seed in (1, 2))
    latent = {"samples": torch.zeros(1, 3, *SIZE)}
    with torch.inference_mode():
        guider, sampler, sigmas, _ = host.execute(
            pack.LoadPlan,
            model=model,
            positive=positive,
            negative=negative,
            latent_image=latent,
            plan="default",
            cfg=CFG,
            denoise=1.0,
        )
        noise = engine.noise(0, (1, 3, *SIZE))
        theirs = real.sample(Noise(noise), guider, sampler, sigmas, latent)
        ours = _by_engine(pack, guider, model, sampler.extra_options["plan"], sigmas)
    if not theirs.isfinite().all():
        raise ArithmeticError(f"The picture of {name} is not finite.")
    return float((theirs - ours).abs().max() / ours.abs().max())


def _by_engine(pack: Any, guider: Any, model: Any, plan: Any, sigmas: Tensor) -> Tensor:
    measuring, models = (
        sys.modules[f"{pack.__name__}.nodes.{each}"] for each in ("measuring", "models")
    )
    described = models.model_of(model, SIZE)

    class Engine(measuring.Measuring):
        def sample(self, model_wrap: Any, sigmas: Any, extra_args: Any, *rest: Any) -> Tensor:
            loaded = measuring.Loaded(
                model_wrap, described, SIZE, CFG, ("positive",), "negative",
                extra_args["model_options"], torch.device("cpu"),
            )  # fmt: skip
            [end] = engine.rollout(loaded, plan, [Request({"prompt": "positive"}, SIZE, 0, CFG)])
            return end.x_0[None] * described.noise_scale

    empty = torch.zeros(1, 3, *SIZE)
    return guider.sample(empty, empty, Engine(described, SIZE, "quick", print), sigmas)


def _model(name: str, small: Small) -> Any:
    kinds: Any = importlib.import_module("comfy.supported_models")
    patchers: Any = importlib.import_module("comfy.model_patcher")
    config = getattr(kinds, small.kind)({"image_model": name})
    options = dict(small.config)
    if name == "chroma_radiance":  # whose first version had fewer options
        radiance: Any = importlib.import_module("comfy.ldm.chroma_radiance.model")
        known = {each.name for each in fields(radiance.ChromaRadianceParams)}
        options = {key: value for key, value in options.items() if key in known}
    config.unet_config = {"image_model": name, "dtype": torch.float32, **options}
    model = config.get_model({}, "")
    generator = torch.Generator().manual_seed(0)
    for each, parameter in model.diffusion_model.named_parameters():
        parameter.data = _drawn(each, tuple(parameter.shape), generator)
    device = torch.device("cpu")
    return patchers.ModelPatcher(model, device, device)


def _drawn(name: str, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    if len(shape) > 1:
        fan = math.prod(shape[1:])
        return torch.randn(tuple(shape), generator=generator) / (2 * math.sqrt(fan))
    return torch.ones(tuple(shape)) if "norm" in name else torch.zeros(tuple(shape))


def _prompt(seed: int, width: int | None) -> list[list[Any]]:
    generator = torch.Generator().manual_seed(seed)
    if width is not None:
        tokens = torch.randn(1, TOKENS, width, generator=generator)
        return [[tokens, {"pooled_output": torch.zeros(1, width)}]]
    tokens = torch.randint(100, 1000, (1, TOKENS), generator=generator)
    return [[torch.zeros(1, TOKENS, 1), {"text_input_ids": tokens}]]
