from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from asymflow.bench.pairs import job, pick
from asymflow.training.data.dataset import Dataset
from asymflow.training.data.manifest import Entry


@pytest.fixture(scope="module")
def entries(dataset_root: Path) -> tuple[Entry, ...]:
    return Dataset(dataset_root).entries


def test_pick_ignores_order_and_nests(entries: tuple[Entry, ...]) -> None:
    chosen = pick(entries, 12, seed=0)
    assert pick(reversed(entries), 12, seed=0) == chosen
    assert pick(entries, 5, seed=0) == chosen[:5]
    assert pick(entries, 12, seed=1) != chosen


def test_pick_spreads_over_styles_and_asks_each_pair_once(entries: tuple[Entry, ...]) -> None:
    twice = [*entries, *(replace(entry, index=entry.index + 100) for entry in entries)]
    chosen = pick(twice, 12, seed=0)
    assert set(Counter(entry.style for entry in chosen).values()) == {4}
    assert len({(entry.key, entry.style) for entry in chosen}) == 12
    assert max(entry.index for entry in chosen) < 100  # the first of equal pairs
    assert len(pick(twice, 1000, seed=0)) == len(entries)


def test_a_style_that_runs_out_leaves_room_to_the_others(entries: tuple[Entry, ...]) -> None:
    few = [entry for entry in entries if entry.style == "noto"][:2]
    many = [entry for entry in entries if entry.style == "twemoji"]
    assert Counter(entry.style for entry in pick([*few, *many], 8, seed=0)) == {
        "noto": 2,
        "twemoji": 6,
    }


def test_job_is_plain_english_with_a_seed_of_its_own(entries: tuple[Entry, ...]) -> None:
    jobs = [job(entry, seed=0) for entry in entries]
    prompts = {prompt for prompt, _, _ in jobs}
    assert {"a fox", "an owl", "eyes", "an umbrella"} <= prompts
    assert len({seed for _, _, seed in jobs}) == len(jobs)
    assert all(0 <= seed < 2**31 for _, _, seed in jobs)
    assert job(entries[0], seed=0) == jobs[0]
    assert job(entries[0], seed=1)[2] != jobs[0][2]
