"""The queue and the prompt matrix on their own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asymflow.core.errors import InputError
from asymflow.server.prompt_matrix import escaped, variants
from asymflow.server.queue import FairQueue


def order(queue: FairQueue[str]) -> list[str]:
    found: list[str] = []
    while taken := queue.pop(1):
        found += taken
    return found


def test_turns_go_by_cost_and_not_by_number() -> None:
    queue: FairQueue[str] = FairQueue()
    for i in range(4):
        queue.push(f"a{i}", "a", 1)
    queue.push("b0", "b", 3)
    queue.push("b1", "b", 3)
    assert order(queue) == ["a0", "b0", "a1", "a2", "a3", "b1"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 5)), max_size=20))
def test_nothing_is_lost_and_each_client_keeps_its_order(items: list[tuple[str, int]]) -> None:
    queue: FairQueue[str] = FairQueue()
    for i, (client, cost) in enumerate(items):
        queue.push(f"{client}{i:02d}", client, cost)
    found = order(queue)
    assert sorted(found) == sorted(f"{client}{i:02d}" for i, (client, _) in enumerate(items))
    for client in "abc":
        own = [item for item in found if item[0] == client]
        assert own == sorted(own)


def test_what_is_removed_does_not_count_against_its_client() -> None:
    queue: FairQueue[str] = FairQueue()
    for item in ("a0", "a1", "a2"):
        queue.push(item, "a", 10)
    queue.push("b0", "b", 1)
    assert queue.remove(lambda item: item in ("a1", "a2")) == ["a1", "a2"]
    queue.push("a3", "a", 1)
    assert order(queue) == ["a0", "b0", "a3"]


def test_items_leave_in_their_order_up_to_a_limit() -> None:
    queue: FairQueue[str] = FairQueue()
    for i, item in enumerate(("x0", "y0", "x1", "x2")):
        queue.push(item, str(i), 1)
    assert queue.pop(3) == ["x0", "y0", "x1"]
    assert queue.pop(3) == ["x2"]
    assert queue.pop(3) == []


def test_choices_make_every_combination() -> None:
    found = variants("a {red|blue} {cat|dog}, {big} {}", 4)
    assert [(v.prompt, v.label) for v in found] == [
        ("a red cat, {big} {}", "red, cat"),
        ("a red dog, {big} {}", "red, dog"),
        ("a blue cat, {big} {}", "blue, cat"),
        ("a blue dog, {big} {}", "blue, dog"),
    ]
    assert [v.label for v in variants("a cat", 1)] == [None]
    assert [v.prompt for v in variants("a {red|} cat", 2)] == ["a red cat", "a cat"]
    with pytest.raises(InputError, match="8 combinations"):
        variants("{a|b}{a|b}{a|b}", 7)


@pytest.mark.parametrize(
    ("prompt", "meant"),
    [
        (r"a \{red|blue} apple", ["a {red|blue} apple"]),
        (r"a {red\|pink|blue} apple", ["a red|pink apple", "a blue apple"]),
        (r"{\{a\}|b}", ["{a}", "b"]),
        (r"C:\\{a|b}", ["C:\\a", "C:\\b"]),
        (r"{a\\|b}", ["a\\", "b"]),
        (r"a \_/ cup", [r"a \_/ cup"]),
        ("{a|b", ["{a|b"]),
    ],
)
def test_a_backslash_takes_a_sign_as_it_is(prompt: str, meant: list[str]) -> None:
    assert [variant.prompt for variant in variants(prompt, 4)] == meant


@given(st.text("ab\\{}|"))
def test_every_prompt_can_be_written_as_it_stands(prompt: str) -> None:
    [variant] = variants(escaped(prompt), 1)
    assert variant.prompt == prompt
    assert variant.label is None
