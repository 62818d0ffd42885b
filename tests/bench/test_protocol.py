"""Requests of the experimental protocol."""

from __future__ import annotations

import itertools

import pytest

from asymflow.bench import protocol
from asymflow.core.card import Card, Sizes
from asymflow.models.embedded import prompts
from asymflow.planning import calibration


def card(*styles: str) -> Card:
    """Of a model that is measured with the prompts of the embedded one."""
    inputs = zip(prompts.calibration(), itertools.cycle(styles), strict=False)
    calls = tuple({"prompt": prompt, "style": style} for prompt, style in inputs)
    return Card("test", "prompt", Sizes.only(64, 64), calibration=calls)


def test_no_prompt_or_seed_serves_two_purposes() -> None:
    most = calibration.MOST
    purposes = (
        (calibration.PROFILED, most),
        (calibration.VERIFIED, most),
        (calibration.PROVED, most),
        (protocol.EVIDENCE_CHECKED, most),
        (protocol.SOLVERS_MEASURED, 96),
    )
    found = [
        request
        for purpose, count in purposes
        for request in calibration.requests(card("noto"), (32, 32), 3.0, count, purpose)
    ]
    assert len(found) == 4 * most + 96
    assert len({request.seed for request in found}) == len(found)
    assert len({request.inputs["prompt"] for request in found}) == len(found)


@pytest.mark.parametrize("purpose", [calibration.PROVED, protocol.EVIDENCE_CHECKED])
def test_more_requests_begin_with_the_same(purpose: int) -> None:
    def asked(count: int) -> list[tuple[object, int]]:
        found = calibration.requests(card("noto", "twemoji"), (64, 64), 5.0, count, purpose)
        return [(each.inputs, each.seed) for each in found]

    assert asked(200)[:24] == asked(24)


def test_styles_take_turns() -> None:
    found = calibration.requests(card("noto", "twemoji"), (64, 64), 5.0, 4, calibration.PROFILED)
    assert [each.inputs["style"] for each in found] == ["noto", "twemoji"] * 2
