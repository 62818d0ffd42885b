"""What the checks of the node pack need of ComfyUI, or of what stands in for it."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

PACK = Path(__file__).parents[2] / "integrations/comfyui"
NAME = "asymflow_pack"
"""Of the pack as a module, as ComfyUI gives names to folders of custom_nodes."""
WIDTH = 8
"""Numbers of a token of the tiny network's prompts."""


class Host(Protocol):
    """ComfyUI, or a stand-in."""

    version: str

    @property
    def scales_noise(self) -> bool:
        """Whether models may have another scale of noise than 1."""
        ...

    def patcher(self, network: Callable[..., nn.Module], settings: Mapping[str, Any]) -> Any:
        """A MODEL of a flow network on pixels, with settings of its sampling."""
        ...

    def sample(self, noise: Any, guider: Any, sampler: Any, sigmas: Tensor, latent: Any) -> Tensor:
        """What SamplerCustomAdvanced makes."""
        ...

    def ksampler(
        self,
        model: Any,
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
        """What KSampler makes with Euler's method, if nothing replaces it."""
        ...


@dataclass(frozen=True, slots=True)
class Noise:
    """NOISE of a graph: known numbers."""

    values: Tensor
    seed: int = 0

    def generate_noise(self, latent: Mapping[str, Any]) -> Tensor:
        assert latent["samples"].shape == self.values.shape
        return self.values


class Tiny(nn.Module):
    """A network from state, time and prompt to a velocity; of random weights."""

    def __init__(
        self, dtype: Any = None, device: Any = None, operations: Any = None, **_: Any
    ) -> None:
        super().__init__()
        self.dtype = dtype or torch.float32
        generator = torch.Generator().manual_seed(5)

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator).to(device, self.dtype))

        self.kernel = drawn(3, 3, 3, 3)
        self.prompt = drawn(3, WIDTH)
        self.time = drawn(3)

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor, **_: Any) -> Tensor:
        seen = torch.nn.functional.conv2d(x / (1 + x.abs()), self.kernel, padding=1) / 3
        asked = context.mean(1) @ self.prompt.T + timesteps[:, None] / 1000 * self.time
        return torch.tanh(seen + asked[..., None, None]) + 0.5 * x


def conditioning(seed: int, tokens: int = 4) -> list[list[Any]]:
    """A CONDITIONING with a prompt of its own."""
    generator = torch.Generator().manual_seed(1000 + seed)
    return [[torch.randn(1, tokens, WIDTH, generator=generator), {}]]


def load_pack() -> Any:
    """The pack as a module, as ComfyUI loads it."""
    for name in [each for each in sys.modules if each.split(".")[0] == NAME]:
        del sys.modules[name]
    spec = importlib.util.spec_from_file_location(
        NAME, PACK / "__init__.py", submodule_search_locations=[str(PACK)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
    return module


def nodes(pack: Any) -> list[Any]:
    """The nodes of the pack, as ComfyUI asks for them."""

    async def found() -> list[Any]:
        extension = await pack.comfy_entrypoint()
        return await extension.get_node_list()

    return asyncio.run(found())


def files_in(folder: Path) -> None:
    """Let the pack find plan files in a folder."""
    import folder_paths  # pyright: ignore[reportMissingImports]: of ComfyUI

    paths: Any = folder_paths
    paths.folder_names_and_paths["asymflow_plans"] = ([str(folder)], {".json"})


def execute(node: Any, **inputs: Any) -> Sequence[Any]:
    """The outputs of a node."""
    return node.execute(**inputs).result
