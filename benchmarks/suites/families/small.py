"""Four small networks in pipelines of diffusers, and what each says, told without asymflow.

- **velocity** and **noise**: a `UNet2DModel` that predicts v, and one that predicts eps, trained on
  coloured discs.
- **exact**: no network, but the posterior mean E[x_0 | z] of a mixture of Gaussians.
- **guided**: a `UNet2DConditionModel` in an `IFPipeline`, trained on discs of four kinds; with
  classifier-free guidance and dynamic thresholding.

Only torch and diffusers are imported here, so that earlier versions of asymflow can be measured
with the same networks.
"""

from __future__ import annotations

import hashlib
import importlib
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

diffusers: Any = importlib.import_module("diffusers")  # whose own types do not describe its calls
configuration: Any = importlib.import_module("diffusers.configuration_utils")

SIDE = 16
KINDS = 4
"""Of discs, by colour; the conditions of the guided network."""
STEPS, BATCH, RATE = 600, 32, 2e-3
DROP = 0.15
"""Share of pictures whose kind is dropped in training."""
SCALE = 4.0
"""Of guidance."""

Levels = NDArray[np.float64]
Call = Mapping[str, Any]
Estimate = Callable[[Tensor, float, Call], Tensor]
"""x_0 [b, c, h, w] at states z [b, c, h, w] of a log(alpha / sigma), for the arguments of a call.

It is clipped as the pipeline's scheduler clips."""


@dataclass(frozen=True, slots=True, eq=False)
class Small:
    """A network in its pipeline.

    Attributes:
        counted: the module that is called exactly once in every pass of the network, with as many
            rows. Replacing `forward` of the network is up to the library, and this is inside.
        examples: calls of the pipeline for one picture.
        unit: whether pictures of output_type="pt" fill [0, 1]; otherwise they are states.
        estimate: what the pipeline makes of the network.
    """

    name: str
    pipe: Any
    counted: nn.Module
    examples: tuple[Call, ...]
    unit: bool
    estimate: Estimate

    @property
    def shape(self) -> tuple[int, int, int]:
        config = self.pipe.unet.config
        return config["in_channels"], config["sample_size"], config["sample_size"]

    @property
    def log_snr(self) -> Levels:
        """log(alpha / sigma) at timesteps 0, 1, ... [n]."""
        return levels_of(self.pipe.scheduler)

    def call(self, numbers: Sequence[int]) -> dict[str, Any]:
        """Arguments for the pictures of these numbers, with all examples by turns."""
        if not self.examples:
            return {"batch_size": len(numbers)}
        chosen = [self.examples[number % len(self.examples)] for number in numbers]
        return {
            name: torch.cat([each[name] for each in chosen]) if isinstance(value, Tensor) else value
            for name, value in chosen[0].items()
        }


def levels_of(scheduler: Any) -> Levels:
    """log(alpha / sigma) at timesteps 0, 1, ... [n]."""
    return (torch.logit(scheduler.alphas_cumprod.double()) / 2).numpy()


def timestep(levels: Levels, lam: float) -> float:
    """The timestep of a log(alpha / sigma); a real number."""
    return float(np.interp(lam, levels[::-1], np.arange(len(levels))[::-1]))


def alpha_sigma(lam: float) -> tuple[float, float]:
    return 1 / math.sqrt(1 + math.exp(-2 * lam)), 1 / math.sqrt(1 + math.exp(2 * lam))


# --- what the networks learn -------------------------------------------------------------------


def discs(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pictures [n, 3, h, w] in [-1, 1] of one disc each, and the kinds [n] of their colours."""
    line = torch.linspace(-1, 1, SIDE)
    y, x = torch.meshgrid(line, line, indexing="ij")
    centre = torch.rand(count, 2, 1, 1, generator=generator) * 1.2 - 0.6
    radius = torch.rand(count, 1, 1, generator=generator) * 0.4 + 0.2
    inside = torch.sigmoid(12 * (radius - torch.hypot(x - centre[:, 0], y - centre[:, 1])))
    kinds = torch.randint(KINDS, (count,), generator=generator)
    pure = torch.tensor([[0.8, -0.6, -0.6], [-0.6, 0.8, -0.6], [-0.6, -0.6, 0.8], [0.8, 0.8, -0.6]])
    colour = pure[kinds] + 0.4 * torch.rand(count, 3, generator=generator) - 0.2
    ground = torch.rand(count, 3, generator=generator) * 2 - 1
    inside = inside[:, None]
    pictures = inside * colour[:, :, None, None] + (1 - inside) * ground[:, :, None, None]
    return pictures.clamp(-1, 1), kinds


def train(network: Any, scheduler: Any, told: Tensor | None, seed: int, steps: int) -> None:
    """Train a network on discs.

    Args:
        network: the network.
        scheduler: for its noise and what the network predicts.
        told: embeddings [kinds + 1, tokens, d] that it is conditioned on, the last for none.
        seed: of pictures and noise.
        steps: of the optimizer.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), RATE)
    network.train()
    for step in range(steps):
        x_0, kinds = discs(BATCH, generator)
        eps = torch.randn(x_0.shape, generator=generator)
        # Evenly over the batch, so that the loss is less noisy.
        share = (torch.arange(BATCH) + torch.rand(BATCH, generator=generator)) / BATCH
        tau = (share * scheduler.config.num_train_timesteps).long()
        z = scheduler.add_noise(x_0, eps, tau)
        wanted = eps
        if scheduler.config.prediction_type == "v_prediction":
            wanted = scheduler.get_velocity(x_0, eps, tau)
        if told is None:
            answer = network(z, tau).sample
        else:
            dropped = torch.rand(BATCH, generator=generator) < DROP
            answer = network(z, tau, told[torch.where(dropped, KINDS, kinds)]).sample
        loss = (answer[:, :3] - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        fallen = 0.02 + 0.98 * math.cos(step / steps * math.pi / 2)
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 50) * fallen
        optimizer.step()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1} of {steps}: loss {loss.item():.4f}", flush=True)


def trained(
    name: str, folder: Path, make: Callable[[], Any], fit: Callable[[Any], None], steps: int
) -> Any:
    """A network that was trained before, or is now and kept in a folder."""
    code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()  # whatever the weights depend on
    kept = folder / f"{name}-{steps}-{code[:8]}"
    if not kept.exists():
        network = make()
        fit(network)
        folder.mkdir(parents=True, exist_ok=True)
        writing = tempfile.mkdtemp(dir=folder, prefix=".")  # or a rerun would find half a network
        network.save_pretrained(writing)
        Path(writing).rename(kept)
    return type(make()).from_pretrained(kept).eval().requires_grad_(False)


# --- unconditional -----------------------------------------------------------------------------


def _unet() -> Any:
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        sample_size=SIDE,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=16,
    )


def _unconditional(name: str, prediction: str, seed: int) -> Callable[[Path, int], Small]:
    def load(folder: Path, steps: int) -> Small:
        scheduler = diffusers.DDIMScheduler(prediction_type=prediction, clip_sample=False)

        def fit(network: Any) -> None:
            train(network, _noising(scheduler), None, seed, steps)

        network = trained(name, folder, _unet, fit, steps)
        pipe = _quiet(diffusers.DDIMPipeline(network, scheduler))
        levels = levels_of(scheduler)

        def estimate(z: Tensor, lam: float, call: Call) -> Tensor:
            tau = torch.full((len(z),), timestep(levels, lam))
            return _x_0(network(z.float(), tau).sample, z, lam, prediction)

        return Small(name, pipe, network.conv_in, (), True, estimate)

    return load


def _noising(scheduler: Any) -> Any:
    """A scheduler's noise as `DDPMScheduler`, which also knows v."""
    return diffusers.DDPMScheduler.from_config(scheduler.config)


def _x_0(output: Tensor, z: Tensor, lam: float, prediction: str) -> Tensor:
    alpha, sigma = alpha_sigma(lam)
    if prediction == "v_prediction":
        return alpha * z - sigma * output
    return (z - sigma * output) / alpha


def _quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


# --- exact -------------------------------------------------------------------------------------

SPREAD = 0.15
COMPONENTS = 12


class Mixture(nn.Module):
    """Pictures N(mean, SPREAD^2) around one of several means, all equally likely."""

    def __init__(self, side: int, components: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        found, _ = discs(components, generator)
        found = nn.functional.interpolate(found, size=(side, side), mode="area")
        self.means = nn.Parameter(0.8 * found, requires_grad=False)

    def forward(self, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """E[x_0 | z] of states [b, c, h, w], by weights alpha, sigma [b, 1, 1, 1]; in float64."""
        z, means = z.double(), self.means.double()
        variance = alpha**2 * SPREAD**2 + sigma**2
        away = z[:, None] - alpha[:, None] * means[None]
        shares = torch.softmax(-away.square().sum((2, 3, 4)) / (2 * variance.view(-1, 1)), 1)
        mean = torch.einsum("bk,kchw->bchw", shares, means)
        return mean + alpha * SPREAD**2 / variance * (z - alpha * mean)


class ExactNet(diffusers.ModelMixin, diffusers.ConfigMixin):
    """The eps of that mixture, with the call of a `UNet2DModel`."""

    config_name = "config.json"

    @configuration.register_to_config
    def __init__(
        self, sample_size: int = SIDE, in_channels: int = 3, components: int = COMPONENTS
    ) -> None:
        super().__init__()
        self.mixture = Mixture(sample_size, components)
        self.levels = torch.logit(diffusers.DDIMScheduler().alphas_cumprod.double()) / 2

    def forward(
        self, sample: Tensor, timestep: Any, class_labels: None = None, return_dict: bool = True
    ) -> Any:
        tau = torch.as_tensor(timestep).double().reshape(-1)
        low = tau.floor().long().clamp(max=len(self.levels) - 2)
        lam = torch.lerp(self.levels[low], self.levels[low + 1], tau - low)
        alpha, sigma = (torch.sigmoid(sign * 2 * lam).sqrt().view(-1, 1, 1, 1) for sign in (1, -1))
        x_0 = self.mixture(sample, alpha, sigma)
        eps = ((sample.double() - alpha * x_0) / sigma).to(sample)
        return diffusers.models.unets.unet_2d.UNet2DOutput(eps) if return_dict else (eps,)


def exact(folder: Path, steps: int, side: int = SIDE, components: int = COMPONENTS) -> Small:
    """Nothing is trained or kept."""
    network = ExactNet(side, components=components).eval()
    pipe = _quiet(diffusers.DDIMPipeline(network, diffusers.DDIMScheduler(clip_sample=False)))

    def estimate(z: Tensor, lam: float, call: Call) -> Tensor:
        alpha, sigma = (torch.full((1, 1, 1, 1), each).double() for each in alpha_sigma(lam))
        return network.mixture(z, alpha, sigma)

    return Small("exact", pipe, network.mixture, (), True, estimate)


# --- guided ------------------------------------------------------------------------------------

TOKENS, WIDTH = 2, 8


def _conditional() -> Any:
    torch.manual_seed(0)
    return diffusers.UNet2DConditionModel(
        sample_size=SIDE,
        in_channels=3,
        out_channels=6,  # IFPipeline cuts off a variance
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        cross_attention_dim=16,
        encoder_hid_dim=WIDTH,
        attention_head_dim=8,
        resnet_time_scale_shift="scale_shift",
    )


def guided(folder: Path, steps: int) -> Small:
    scheduler = diffusers.DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=False,
        thresholding=True,
        dynamic_thresholding_ratio=0.95,
        sample_max_value=1.5,
    )
    scheduler.register_to_config(variance_type="fixed_small")  # which IFPipeline asks it for
    told = torch.randn(KINDS + 1, TOKENS, WIDTH, generator=torch.Generator().manual_seed(5))

    def fit(network: Any) -> None:
        train(network, _noising(scheduler), told, 2, steps)

    network = trained("guided", folder, _conditional, fit, steps)
    pipe = diffusers.IFPipeline(
        tokenizer=None,
        text_encoder=None,
        unet=network,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    )
    examples = tuple(
        {
            "prompt_embeds": told[kind, None],
            "negative_prompt_embeds": told[KINDS, None],
            "guidance_scale": SCALE,
        }
        for kind in range(KINDS)
    )
    levels = levels_of(scheduler)

    def estimate(z: Tensor, lam: float, call: Call) -> Tensor:
        tau = torch.full((2 * len(z),), timestep(levels, lam))
        conditions = torch.cat([call["negative_prompt_embeds"], call["prompt_embeds"]])
        null, cond = network(torch.cat([z, z]).float(), tau, conditions).sample[:, :3].chunk(2)
        output = null + call["guidance_scale"] * (cond - null)
        return scheduler._threshold_sample(_x_0(output, z, lam, "v_prediction"))

    return Small("guided", _quiet(pipe), network.conv_in, examples, False, estimate)


LOAD: Mapping[str, Callable[[Path, int], Small]] = {
    "velocity": _unconditional("velocity", "v_prediction", 0),
    "noise": _unconditional("noise", "epsilon", 1),
    "exact": exact,
    "guided": guided,
}
"""By name: the folder of trained networks, and the number of training steps."""
