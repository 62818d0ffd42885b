"""Ideas in the languages of the page: shown as CLDR spells them, and drawn as the English ones."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import pytest

from asymflow.bench.ideas import Candidate, candidates
from asymflow.core.errors import FileFormatError
from asymflow.models.embedded import ideas
from asymflow.models.embedded.languages import annotations
from asymflow.models.embedded.languages.scripts import folded
from asymflow.models.embedded.library import shipped
from asymflow.models.embedded.reading import Reader
from asymflow.models.embedded.vocabulary import Vocabulary

ROOT = Path(__file__).parents[2]


def _no_meaning(texts: Sequence[str]) -> NoReturn:
    raise AssertionError(f"{texts} are compared by meaning, so they are not read as names")


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(Vocabulary(shipped(), _no_meaning), annotations.shipped())


@pytest.fixture(scope="module")
def wanted() -> dict[str, Candidate]:
    return {each.prompt: each for each in candidates(shipped(), 10_000)}


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("_annotations", ROOT / "scripts/annotations.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "_annotations", module)  # its dataclasses look there
        spec.loader.exec_module(module)
        yield module


def stored() -> ideas.Names:
    return ideas.read_names(ideas.names_path())


def test_every_name_is_read_as_what_its_idea_names_and_nothing_else(
    reader: Reader, wanted: dict[str, Candidate]
) -> None:
    for language, names in stored().items():
        for prompt, name in names.items():
            said = reader.understand(name, (language,))
            match = shipped().find(said.drawn)
            assert match is not None, (language, name)
            assert match.concepts == (wanted[prompt].concept,), (language, prompt, name)
            assert [word.text for word in said.words] == [name]


def test_the_languages_are_those_of_the_page(script: ModuleType) -> None:
    spoken = {path.stem for path in (ROOT / "web/src/messages").glob("*.json")}
    assert set(stored()) == set(script.PAGE) == spoken - {"en"}


def test_nearly_everything_that_may_be_chosen_has_a_name(wanted: dict[str, Candidate]) -> None:
    for language, names in stored().items():
        assert names.keys() <= wanted.keys()
        assert len(names) > 0.9 * len(wanted), language


def test_names_are_spelt_to_be_shown() -> None:
    found = stored()
    for own in found.values():
        assert [name for name in own.values() if name != " ".join(name.split())] == []
    nouns = [name for name in found["de"].values() if any(map(str.isupper, name))]
    assert len(nouns) == len(found["de"])
    for language in ("de", "es", "fr"):  # the table of words is without accents
        assert [name for name in found[language].values() if folded(name) != name.casefold()]


def test_a_name_that_says_something_else_or_more_is_left_out(
    script: ModuleType, reader: Reader, wanted: dict[str, Candidate]
) -> None:
    names = {"a fox": "Hund", "a bell": "rote Glocke", "a wolf": "Wolf", "a dog": "Hund und Katze"}
    locale = {wanted[prompt].concept.key: script.Annotation(names[prompt], ()) for prompt in names}
    asked = [wanted[prompt] for prompt in (*names, "a chair")]  # of which it has no name
    found = script.names_of("de", locale, asked, shipped(), reader.understand)
    assert found == {"a wolf": "Wolf"}


def test_names_are_read_as_they_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = tmp_path / "names.json"
    monkeypatch.setattr(ideas, "names_path", lambda: names)
    monkeypatch.setattr(ideas, "load", lambda: ("a fox", "an egg"))
    full = {"de": {"a fox": "Fuchs", "a dog": "Hund"}, "ja": {"an egg": "卵"}}
    ideas.save_names(names, full)
    assert ideas.read_names(names) == full
    # Only what is offered, and an idea without a name has none.
    assert ideas.names.__wrapped__() == {"de": {"a fox": "Fuchs"}, "ja": {"an egg": "卵"}}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"format": "asymflow ideas"}, "scripts/annotations.py"),
        ({"schema": 2}, "schema 2"),
        ({"names": ["Fuchs"]}, "must be an object"),
        ({"names": {"de": "Fuchs"}}, "must be an object"),
        ({"names": {"de": {"a fox": 7}}}, "must be a text"),
        ({"more": 1}, "unknown entries: more"),
    ],
)
def test_a_damaged_file_of_names_is_refused(
    change: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    file = tmp_path / "names.json"
    ideas.save_names(file, {"de": {"a fox": "Fuchs"}})
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **change}), "utf-8")
    with pytest.raises(FileFormatError, match=complaint) as raised:
        ideas.read_names(file)
    assert str(file) in str(raised.value)


@pytest.mark.parametrize("data", [b"", b'{"format": "asymf', b"\xff\xfe\x00"])
def test_a_file_of_names_that_was_cut_or_is_no_text_is_refused(data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "names.json"
    file.write_bytes(data)
    with pytest.raises(FileFormatError, match=r"names\.json is not a JSON file"):
        ideas.read_names(file)
    with pytest.raises(FileFormatError, match="Install asymflow again"):
        ideas.read_names(tmp_path / "none.json")
