"""Outputs of the official networks of EDM and guided-diffusion, to compare ours with.

Weights are drawn by a formula from the names of parameters, so both sides have the same ones and no
file has to hold them. `official.safetensors` has what the official code makes of them, and in its
metadata the commits, and a digest of the names and shapes of every published model. It was written
from clones of github.com/openai/guided-diffusion (MIT) and github.com/NVlabs/edm by

    python -m tests.models.edm.recording CLONE_OF_GUIDED_DIFFUSION CLONE_OF_EDM
"""

from __future__ import annotations

import hashlib
import importlib
import json
import subprocess
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

FILE = Path(__file__).with_name("official.safetensors")

ADM: Mapping[str, dict[str, Any]] = {
    # As for 64 px; 128 px; 512 px, whose first level is narrow; and with all options off.
    "new-order": {
        "image_size": 16, "model_channels": 32, "out_channels": 6, "num_res_blocks": 2,
        "attention_resolutions": (2, 4), "channel_mult": (1, 2, 3), "num_classes": 5,
        "num_head_channels": 16, "use_scale_shift_norm": True, "resblock_updown": True,
        "use_new_attention_order": True,
    },
    "legacy-order": {
        "image_size": 16, "model_channels": 32, "out_channels": 6, "num_res_blocks": 1,
        "attention_resolutions": (1, 2), "channel_mult": (1, 1, 2), "num_classes": 3,
        "num_heads": 4, "use_scale_shift_norm": True, "resblock_updown": True,
    },
    "narrow": {
        "image_size": 16, "model_channels": 64, "out_channels": 6, "num_res_blocks": 1,
        "attention_resolutions": (4,), "channel_mult": (0.5, 1, 1), "num_classes": None,
        "num_head_channels": 32, "use_scale_shift_norm": True, "resblock_updown": True,
    },
    "plain": {
        "image_size": 16, "model_channels": 32, "out_channels": 3, "num_res_blocks": 2,
        "attention_resolutions": (2,), "channel_mult": (1, 2), "num_classes": None,
        "num_heads": 2,
    },
}  # fmt: skip
"""Arguments of the official `UNetModel`."""

_SONG = {
    "model_type": "SongUNet", "img_resolution": 16, "img_channels": 3, "model_channels": 32,
    "num_blocks": 2, "attn_resolutions": [8],
}  # fmt: skip
_NCSN = {
    "embedding_type": "fourier", "encoder_type": "residual", "channel_mult_noise": 2,
    "resample_filter": [1, 3, 3, 1],
}  # fmt: skip
_DHARIWAL = {
    "model_type": "DhariwalUNet", "img_resolution": 16, "img_channels": 3, "model_channels": 64,
    "num_blocks": 1, "attn_resolutions": [8, 4],
}  # fmt: skip
EDM: Mapping[str, dict[str, Any]] = {
    "ddpmpp": {
        "class_name": "EDMPrecond", **_SONG, "channel_mult": [2, 2, 2], "label_dim": 4,
        "augment_dim": 9,
    },
    "ddpmpp-vp": {"class_name": "VPPrecond", **_SONG, "channel_mult": [1, 2], "beta_d": 15.0},
    "ncsnpp-ve": {"class_name": "VEPrecond", **_SONG, **_NCSN, "channel_mult": [1, 2, 2]},
    "ncsnpp": {
        "class_name": "EDMPrecond", **_SONG, **_NCSN, "channel_mult": [1, 2, 2], "sigma_data": 0.7,
    },
    "skips": {
        "class_name": "EDMPrecond", **_SONG, "channel_mult": [1, 2, 1], "encoder_type": "skip",
        "decoder_type": "skip", "resample_filter": [1, 3, 3, 1],
    },
    "adm": {
        "class_name": "EDMPrecond", **_DHARIWAL, "channel_mult": [1, 2, 2], "label_dim": 4,
        "augment_dim": 9,
    },
    "adm-iddpm": {
        "class_name": "iDDPMPrecond", **_DHARIWAL, "channel_mult": [1, 2], "label_dim": 4, "M": 200,
    },
}  # fmt: skip
"""Names of the official classes, and their arguments."""

_FLAGS = {
    "attention_resolutions": "32,16,8", "learn_sigma": True, "num_res_blocks": 2,
    "num_channels": 256, "resblock_updown": True, "use_scale_shift_norm": True,
}  # fmt: skip
PUBLISHED_ADM: Mapping[str, dict[str, Any]] = {
    "64x64_diffusion": {
        **_FLAGS, "image_size": 64, "num_channels": 192, "num_res_blocks": 3, "class_cond": True,
        "num_head_channels": 64, "use_new_attention_order": True,
    },
    "128x128_diffusion": {**_FLAGS, "image_size": 128, "class_cond": True, "num_heads": 4},
    "256x256_diffusion": {**_FLAGS, "image_size": 256, "class_cond": True, "num_head_channels": 64},
    "256x256_diffusion_uncond": {**_FLAGS, "image_size": 256, "num_head_channels": 64},
    "512x512_diffusion": {**_FLAGS, "image_size": 512, "class_cond": True, "num_head_channels": 64},
}  # fmt: skip
"""The flags of README.md of guided-diffusion; lsun_*.pt have those of 256 px without classes."""

_DDPMPP = {
    "model_type": "SongUNet", "img_channels": 3, "embedding_type": "positional",
    "encoder_type": "standard", "decoder_type": "standard", "channel_mult_noise": 1,
    "resample_filter": [1, 1], "model_channels": 128,
}  # fmt: skip
_NCSNPP = {**_DDPMPP, **_NCSN}
_CIFAR = {"img_resolution": 32, "channel_mult": [2, 2, 2], "augment_dim": 9}
_FACES = {"img_resolution": 64, "channel_mult": [1, 2, 2, 2], "augment_dim": 9}
_IMAGENET = {
    "model_type": "DhariwalUNet", "img_channels": 3, "img_resolution": 64, "model_channels": 192,
    "channel_mult": [1, 2, 3, 4], "label_dim": 1000,
}  # fmt: skip
PUBLISHED_EDM: Mapping[str, dict[str, Any]] = {
    "edm-cifar10-32x32-cond-vp": {
        "class_name": "EDMPrecond", **_DDPMPP, **_CIFAR, "label_dim": 10,
    },
    "edm-cifar10-32x32-cond-ve": {
        "class_name": "EDMPrecond", **_NCSNPP, **_CIFAR, "label_dim": 10,
    },
    "edm-cifar10-32x32-uncond-vp": {"class_name": "EDMPrecond", **_DDPMPP, **_CIFAR},
    "edm-cifar10-32x32-uncond-ve": {"class_name": "EDMPrecond", **_NCSNPP, **_CIFAR},
    "edm-ffhq-64x64-uncond-vp": {"class_name": "EDMPrecond", **_DDPMPP, **_FACES},
    "edm-ffhq-64x64-uncond-ve": {"class_name": "EDMPrecond", **_NCSNPP, **_FACES},
    "edm-imagenet-64x64-cond-adm": {"class_name": "EDMPrecond", **_IMAGENET},
    "baseline-imagenet-64x64-cond-adm": {"class_name": "iDDPMPrecond", **_IMAGENET},
}  # fmt: skip
"""The options of README.md and train.py of EDM; AFHQv2's networks are those of FFHQ."""

KEPT = ("resample_filter", "u")
"""Buffers that are computed, and no weights."""


def filled(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of the same names and shapes, with weights by the formula.

    The generator is numpy's legacy one, whose stream is frozen.
    """
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.rpartition(".")[2] in KEPT:
            found[name] = value
            continue
        draw = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(value.shape))
        if value.ndim > 1:  # so that numbers keep their size from layer to layer
            draw /= np.sqrt(value[0].numel())
        elif name.endswith("weight"):  # of a normalisation
            draw = 1 + 0.2 * draw
        else:
            draw *= 0.2
        found[name] = torch.from_numpy(draw).float()
    return found


def asked() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two pictures [2, 3, 16, 16], noise levels [2] of each kind, and labels [2]."""
    x = np.random.RandomState(7).standard_normal((2, 3, 16, 16))
    sigma, tau = torch.tensor([0.3, 5.0]), torch.tensor([3.0, 750.5])
    return torch.from_numpy(x).float(), sigma, tau, torch.tensor([2, 0])


def digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of the names and shapes of a state dict, and the number of its numbers."""
    lines = sorted(f"{name} {tuple(value.shape)}" for name, value in state.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def parameters(state: Mapping[str, Tensor]) -> int:
    """How many numbers are weights."""
    return sum(v.numel() for n, v in state.items() if n.rpartition(".")[2] not in (*KEPT, "freqs"))


def recorded() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Outputs by case, and the digests and numbers of parameters of the published models."""
    with safe_open(FILE, "pt") as file:
        outputs = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return outputs, json.loads(file.metadata()["published"])


def _record(adm: Path, edm: Path) -> None:
    sys.path[:0] = [str(adm), str(edm)]
    unet: Any = importlib.import_module("guided_diffusion.unet")
    script: Any = importlib.import_module("guided_diffusion.script_util")
    networks: Any = importlib.import_module("training.networks")
    x, sigma, tau, labels = asked()
    outputs: dict[str, Tensor] = {}
    for name, arguments in ADM.items():
        net = unet.UNetModel(in_channels=3, **arguments).eval()
        net.load_state_dict(filled(net.state_dict()))
        y = labels if arguments["num_classes"] else None
        with torch.no_grad():
            outputs[f"guided-diffusion/{name}"] = net(x, tau, y=y)
    for name, arguments in EDM.items():
        given = dict(arguments)
        net = getattr(networks, given.pop("class_name"))(**given).eval()
        net.load_state_dict(filled(net.state_dict()))
        classes = given.get("label_dim", 0)
        one_hot = torch.eye(classes)[labels] if classes else None
        z = x * sigma.view(-1, 1, 1, 1)
        with torch.no_grad():
            outputs[f"edm/{name}"] = net(z, net.round_sigma(sigma), one_hot)
    published: dict[str, Any] = {}
    with torch.device("meta"):
        for name, flags in PUBLISHED_ADM.items():
            state = script.create_model(**flags).state_dict()
            published[name] = {"digest": digest(state), "parameters": parameters(state)}
    for name, arguments in PUBLISHED_EDM.items():
        given = dict(arguments)
        state = getattr(networks, given.pop("class_name"))(**given).state_dict()
        published[name] = {"digest": digest(state), "parameters": parameters(state)}
    commits = {
        clone.name: subprocess.run(
            ["git", "-C", clone, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for clone in (adm, edm)
    }
    metadata = {
        "guided-diffusion": commits[adm.name],
        "edm": commits[edm.name],
        "torch": torch.__version__,
        "published": json.dumps(published),
    }
    kept = {name: value[..., ::2, ::2].contiguous() for name, value in outputs.items()}
    save_file(kept, FILE, metadata)


if __name__ == "__main__":
    _record(*(Path(argument).resolve() for argument in sys.argv[1:3]))
