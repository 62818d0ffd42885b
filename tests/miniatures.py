"""Every kind of model that a reference can lead to, as small files and folders."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor, nn

from asymflow.models.edm.adm import AdmConfig, AdmNetwork
from asymflow.models.edm.networks import SongConfig
from asymflow.models.edm.preconditioning import EdmModel, EDMPrecond
from asymflow.models.embedded import adapter as embedded
from asymflow.models.embedded.network import PictureConfig, PictureModel
from asymflow.models.embedded.styles import style_ids
from asymflow.models.embedded.transformer import TransformerConfig
from asymflow.models.jit import checkpoint as jit
from asymflow.models.jit.network import JitConfig, JitModel
from asymflow.models.minit2i import checkpoint as minit2i
from asymflow.models.minit2i.network import MiniT2IConfig, MiniT2IModel

WORDS = ("<pad>", "</s>", "<unk>", "a", "red", "fox", "and", "two", "blue", "cats")


def shaken(network: Any, amount: float = 0.05) -> Any:
    """Away from the zeros that networks begin with."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(amount * torch.randn(parameter.shape, generator=generator))
    return network.eval().requires_grad_(False)


def words() -> Any:
    """A tokenizer of ten words."""
    tokenizer: Any = Tokenizer(WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    return tokenizer


def text_encoder(width: int) -> Any:
    """A T5 whose features are so wide."""
    library: Any = importlib.import_module("transformers")
    torch.manual_seed(0)
    shape = library.T5Config(
        vocab_size=len(WORDS), d_model=width, d_kv=4, d_ff=16, num_layers=1, num_heads=2,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    return library.T5EncoderModel(shape).eval()


# --- files -------------------------------------------------------------------------------------


def embedded_file(folder: Path) -> Path:
    """asymflow's own kind."""
    torch.manual_seed(0)
    shape = TransformerConfig(width=64, depth=1, head_dim=32, hidden=64)
    model = PictureModel(PictureConfig(style_ids(), shape, rank=8))
    path = folder / "own.safetensors"
    embedded.save(model, path, training={})
    return path


def jit_file(folder: Path) -> Path:
    """A checkpoint of JiT, 32 px, 1000 classes, as deep as JiT-B."""
    torch.manual_seed(0)
    shape = JitConfig(size=32, patch=8, width=32, depth=12, heads=2, hidden=64, class_start=4)
    state = shaken(JitModel(shape)).state_dict()
    named = {f"net.{jit.published_name(name)}": value.contiguous() for name, value in state.items()}
    path = folder / "jit.pth"
    sets = dict.fromkeys(("model", "model_ema1", "model_ema2"), named)
    torch.save(sets, path)
    return path


def minit2i_state() -> dict[str, Tensor]:
    """The tensors of a MiniT2I of 8 px, under their published names."""
    torch.manual_seed(0)
    shape = MiniT2IConfig(
        size=8, patch=2, width=24, depth=2, heads=2, head_dim=12, hidden=64, bottleneck=6,
        text_width=10, text_depth=2, text_tokens=7,
    )  # fmt: skip
    state = shaken(MiniT2IModel(shape)).state_dict()
    return {minit2i.published_name(name): value.contiguous() for name, value in state.items()}


def minit2i_file(folder: Path) -> Path:
    """The weights of MiniT2I, without the text encoder."""
    path = folder / "minit2i.safetensors"
    save_file(minit2i_state(), path)
    return path


def minit2i_folder(folder: Path) -> Path:
    """As published, with its text encoder."""
    path = folder / "minit2i"
    (path / "transformer").mkdir(parents=True)
    save_file(minit2i_state(), path / "transformer" / "diffusion_pytorch_model.safetensors")
    settings = {"image_size": 8, "prompt_length": 7, "prediction": "x"}
    (path / "transformer" / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    text_encoder(10).save_pretrained(path / "text_encoder")
    (path / "tokenizer").mkdir()
    words().save(str(path / "tokenizer" / "tokenizer.json"))
    return path


def edm_file(folder: Path) -> Path:
    """A DDPM++ of EDM, 8 px, 3 classes."""
    torch.manual_seed(0)
    shape = SongConfig(
        size=8, classes=3, width=16, widths=(16, 32), embedding=64, noise=16, blocks=1,
        attention=(4,),
    )  # fmt: skip
    state = EdmModel(shape, EDMPrecond()).state_dict()
    path = folder / "edm.safetensors"
    save_file(state, path, {"edm": '{"class_name": "EDMPrecond", "label_dropout": 0.1}'})
    return path


def adm_file(folder: Path) -> Path:
    """A network of guided-diffusion, 8 px, 4 classes."""
    torch.manual_seed(0)
    shape = AdmConfig(
        size=8, width=32, widths=(32, 64), blocks=1, attention=(1,), classes=4, head_width=16
    )
    path = folder / "adm.safetensors"
    flags = {"image_size": 8, "num_head_channels": 16, "noise_schedule": "cosine"}
    save_file(AdmNetwork(shape).state_dict(), path, {"guided_diffusion": json.dumps(flags)})
    return path


FILES = (embedded_file, jit_file, minit2i_file, edm_file, adm_file)


# --- folders of diffusers ----------------------------------------------------------------------


def unet(**options: Any) -> nn.Module:
    """A UNet2DModel of 8 px."""
    library: Any = importlib.import_module("diffusers")
    torch.manual_seed(0)
    network = library.UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        **options,
    )
    return shaken(network, 0.02)


def ddim_pipeline(*, clip_sample: bool = False, **options: Any) -> Any:
    """A DDIMPipeline of 8 px, whose network says x_0: of others, pictures would be black or white.

    Args:
        clip_sample: of its scheduler.
        options: of its network.
    """
    library: Any = importlib.import_module("diffusers")
    own = library.DDIMScheduler(clip_sample=clip_sample, prediction_type="sample")
    pipe = library.DDIMPipeline(unet(**options), own)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def ddim_folder(folder: Path, **options: Any) -> Path:
    """A DDIMPipeline, or with `num_class_embeds` one of a network of classes."""
    ddim_pipeline(**options).save_pretrained(folder / "ddim")
    return folder / "ddim"


def prx_pipeline() -> Any:
    """A PRXPixelPipeline of 16 px with a text encoder."""
    library: Any = importlib.import_module("diffusers")
    tokenizers: Any = importlib.import_module("transformers")
    torch.manual_seed(0)
    network = library.PRXTransformer2DModel(
        in_channels=3, patch_size=4, context_in_dim=8, hidden_size=32, num_heads=2, depth=2,
        axes_dim=[8, 8], bottleneck_size=16, resolution_embeds=True,
    )  # fmt: skip
    tokenizer = tokenizers.PreTrainedTokenizerFast(
        tokenizer_object=words(), pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    pipe = library.PRXPixelPipeline(
        shaken(network), library.FlowMatchEulerDiscreteScheduler(shift=3.0), text_encoder(8),
        tokenizer, default_sample_size=16, prompt_max_tokens=6,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


def without_ftfy(patch: Any) -> None:
    """Let PRX clean its prompts without the package ftfy, which it needs for nothing but that."""
    module: Any = importlib.import_module("diffusers.pipelines.prx.pipeline_prx_pixel")
    patch.setattr(module, "ftfy", SimpleNamespace(fix_text=str), raising=False)


def prx_folder(folder: Path) -> Path:
    """A PRXPixelPipeline."""
    prx_pipeline().save_pretrained(folder / "prx")
    return folder / "prx"


def if_pipeline() -> Any:
    """The first stage of a DeepFloyd IF, 16 px, with a text encoder; it learnt a variance."""
    library: Any = importlib.import_module("diffusers")
    tokenizers: Any = importlib.import_module("transformers")
    torch.manual_seed(0)
    network = library.UNet2DConditionModel(
        sample_size=16, out_channels=6, in_channels=3, block_out_channels=(8, 16),
        layers_per_block=1, norm_num_groups=4, cross_attention_dim=8, encoder_hid_dim=8,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        attention_head_dim=4, resnet_time_scale_shift="scale_shift",
    )  # fmt: skip
    scheduler = library.DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", variance_type="learned", prediction_type="sample",
        clip_sample=False,
    )  # fmt: skip
    tokenizer = tokenizers.PreTrainedTokenizerFast(
        tokenizer_object=words(), pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    pipe = library.IFPipeline(
        tokenizer=tokenizer, text_encoder=text_encoder(8), unet=shaken(network, 0.01),
        scheduler=scheduler, safety_checker=None, feature_extractor=None, watermarker=None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe
