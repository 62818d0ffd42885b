"""Which prompts are kept as ideas: those whose pictures are nearest to what they name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from asymflow.bench import ideas
from asymflow.bench.features import DIM
from asymflow.core.errors import FileFormatError
from asymflow.models.embedded import ideas as stored
from asymflow.models.embedded.library import COMMON, shipped

SIZE = (32, 32)


class Small:
    """Features of a picture: the picture itself, reduced."""

    digest = "small"

    def __call__(self, pictures: Tensor) -> Tensor:
        small = torch.nn.functional.adaptive_avg_pool2d(pictures, (16, 20))
        return small.flatten(1)


def test_candidates_are_single_words_for_different_things() -> None:
    found = ideas.candidates(shipped(), 50)
    assert len(found) == 50
    assert len({each.concept.key for each in found}) == 50
    assert all(each.concept.weight == COMMON for each in found)
    assert all(shipped().named(each.prompt.split()[-1]) is each.concept for each in found)


def test_what_is_drawn_as_it_is_comes_before_what_is_drawn_as_another_thing() -> None:
    library = shipped()
    wanted = ideas.candidates(library, 6)
    [*good, bad] = wanted
    seen: list[tuple[str, int]] = []

    def draw(prompt: str, seed: int) -> NDArray[np.float32]:
        seen.append((prompt, seed))
        asked = next(each for each in wanted if each.prompt == prompt)
        # The last one is right from the first seed only.
        shown = good[0] if asked is bad and seed == 1 else asked
        return library.examples(shown.concept, SIZE)[0] / np.float32(255)

    done: list[int] = []
    found = ideas.choose(wanted, draw, library, Small(), seeds=(0, 1), size=SIZE, step=done.append)
    assert len(found) == len(wanted)
    assert {each.candidate for each in found if each.margin > 0} == set(good)
    assert found[-1].candidate == bad
    assert [each.margin for each in found] == sorted((e.margin for e in found), reverse=True)
    assert sorted(seen) == sorted((each.prompt, seed) for each in wanted for seed in (0, 1))
    assert sum(done) == len(wanted) * 3
    assert Small()(torch.zeros(2, 4, 32, 32)).shape == (2, DIM)


def test_the_ideas_that_come_with_the_weights_name_things_that_the_model_knows() -> None:
    prompts = stored.load()
    assert len(set(prompts)) == len(prompts) >= 12
    assert all(shipped().find(prompt) is not None for prompt in prompts)


def test_ideas_are_read_as_they_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ideas.json"
    monkeypatch.setattr(stored, "path", lambda: file)
    stored.save(file, "ab" * 32, ["a fox", "a piñata"])
    assert stored.load.__wrapped__() == ("a fox", "a piñata")
    file.write_text(file.read_text("utf-8").replace("asymflow ideas", "others"), "utf-8")
    with pytest.raises(FileFormatError, match=r"ideas\.json"):
        stored.load.__wrapped__()
