"""Oklab against published values, and there and back."""

from __future__ import annotations

import pytest
import torch

from asymflow.models.asymflux.oklab import oklab_of, srgb_of

# By the CSS Color 4 specification's own table of sRGB primaries.
KNOWN = {
    (1.0, 1.0, 1.0): (1.0, 0.0, 0.0),
    (0.0, 0.0, 0.0): (0.0, 0.0, 0.0),
    (1.0, 0.0, 0.0): (0.62796, 0.22486, 0.12585),
    (0.0, 1.0, 0.0): (0.86644, -0.23389, 0.17950),
    (0.0, 0.0, 1.0): (0.45201, -0.03246, -0.31153),
}


@pytest.mark.parametrize(("srgb", "oklab"), KNOWN.items())
def test_known_colours(srgb: tuple[float, ...], oklab: tuple[float, ...]) -> None:
    found = oklab_of(torch.tensor(srgb, dtype=torch.float64).view(3, 1, 1)).flatten()
    assert found.tolist() == pytest.approx(oklab, abs=2e-5)


def test_there_and_back() -> None:
    colours = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    colours[:, :, :2] *= 0.04  # where sRGB is linear
    torch.testing.assert_close(srgb_of(oklab_of(colours)), colours, rtol=0, atol=2e-4)
    exact = colours.double()
    torch.testing.assert_close(srgb_of(oklab_of(exact)), exact, rtol=0, atol=2e-6)


def test_colours_beyond_srgb_are_cut_to_it() -> None:
    beyond = 3 * torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    cut = srgb_of(beyond)
    assert cut.isfinite().all()
    assert cut.min() >= 0
    assert cut.max() <= 1
