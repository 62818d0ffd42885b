"""Requests of the experimental protocol."""

from __future__ import annotations

import pytest

from asymflow.bench import protocol


def test_no_prompt_or_seed_serves_two_purposes() -> None:
    most = protocol.MOST
    purposes = (
        (protocol.PROFILED, most),
        (protocol.VERIFIED, most),
        (protocol.PROVED, most),
        (protocol.RULES_CHOSEN, most),
        (protocol.RULES_MEASURED, most),
        (protocol.EVIDENCE_CHECKED, most),
        (protocol.SOLVERS_MEASURED, 96),
    )
    found = [
        request
        for purpose, count in purposes
        for request in protocol.requests(("noto",), (32, 32), 3.0, count, purpose)
    ]
    assert len(found) == 6 * most + 96
    assert len({request.seed for request in found}) == len(found)
    assert len({request.inputs["prompt"] for request in found}) == len(found)


@pytest.mark.parametrize("purpose", [protocol.PROVED, protocol.EVIDENCE_CHECKED])
def test_more_requests_begin_with_the_same(purpose: int) -> None:
    def asked(count: int) -> list[tuple[object, int]]:
        found = protocol.requests(("noto", "twemoji"), (64, 64), 5.0, count, purpose)
        return [(each.inputs, each.seed) for each in found]

    assert asked(200)[:24] == asked(24)


def test_styles_take_turns() -> None:
    found = protocol.requests(("noto", "twemoji"), (64, 64), 5.0, 4, protocol.PROFILED)
    assert [each.inputs["style"] for each in found] == ["noto", "twemoji"] * 2
