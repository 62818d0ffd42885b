"""How prompts are read: English, unknown words, emoji, and other languages."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from asymflow.core.errors import FileFormatError
from asymflow.models.embedded.emoji import emoji_in, emoji_names, emoji_to_words
from asymflow.models.embedded.languages import annotations, functions
from asymflow.models.embedded.languages.annotations import Annotations, Rank
from asymflow.models.embedded.languages.scripts import folded, runs, script_in
from asymflow.models.embedded.library import shipped
from asymflow.models.embedded.prompts import calibration
from asymflow.models.embedded.reading import Reader
from asymflow.models.embedded.vocabulary import Vocabulary

DIM = 64


def meaning(texts: Sequence[str]) -> NDArray[np.float32]:
    """Vectors by letters: similar spelling is similar meaning, which is enough here."""
    rows = np.zeros((len(texts), DIM), np.float32)
    for row, text in zip(rows, texts, strict=True):
        for a, b in pairwise(text):
            row[(31 * ord(a) + ord(b)) % DIM] += 1
    return rows


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(Vocabulary(shipped(), meaning), annotations.shipped())


@pytest.mark.parametrize(
    ("prompt", "locale", "drawn"),
    [
        ("ein roter Fuchs", "de", "a red fox"),
        ("Ein kleiner roter Fuchs mit einem Hut", "de", "a small red fox with a top hat"),
        ("un renard", "fr", "a fox"),
        ("le chat noir et le chien", "fr", "a black cat and a dog"),
        ("un perro negro", "es", "a black dog"),
        ("dos gatos", "es", "two cats"),
        ("czerwony lis", "pl", "a red fox"),
        ("кошка и собака", "ru", "a cat and a dog"),
        ("кошку", "ru", "a cat"),  # another case
        ("ثعلب أحمر", "ar", "a red fox"),
        ("قطة وكلب", "ar", "a cat and a dog"),  # "and" is a part of the word
        ("一只红色的狐狸", "zh", "a red fox"),
        ("猫和狗", "zh", "a cat and a dog"),
        ("赤いりんご", "ja", "a red apple"),
        ("赤いリンゴ", "ja", "a red apple"),
        ("แมวสีดำ", "th", "a black cat"),
        ("여우", "ko", "a fox"),
        ("여우와 고양이", "ko", "a fox and a cat"),  # particles follow the noun
        ("लोमड़ी", "hi", "a fox"),
        ("🦊 mit Hut", "de", "a fox with a top hat"),
        ("Fuchs, noto style", None, "Fuchs, noto style"),  # "style" is English
    ],
)
def test_other_languages_become_captions(
    reader: Reader, prompt: str, locale: str | None, drawn: str
) -> None:
    found = reader.understand(prompt)
    assert (found.locale, found.drawn) == (locale, drawn)
    assert found.prompt == prompt


def test_known_english_is_never_changed(reader: Reader) -> None:
    for prompt in (*calibration(), "a cat left of a dog", "three rockets", "a gift on blue"):
        for hint in ((), ("de",), ("zh",)):
            assert reader.understand(prompt, hint).drawn == prompt


@pytest.mark.parametrize("prompt", ["a cat wearing a hat", "the dragon of my dreams", "blorb"])
def test_english_with_unknown_words_is_not_changed(reader: Reader, prompt: str) -> None:
    assert reader.understand(prompt).drawn == prompt


def test_a_hint_decides_between_languages(reader: Reader) -> None:
    fil = {hint: reader.understand("fil", hint).drawn for hint in ((), ("tr-TR",), ("fr",))}
    assert fil["tr-TR",] == "an elephant"
    assert fil["fr",] != fil["tr-TR",]


def test_what_was_read_is_located_and_translated(reader: Reader) -> None:
    prompt = "ein schläfriger roter Fuchs"
    words = reader.understand(prompt).words
    assert [(prompt[w.start : w.end], w.kind, w.drawn) for w in words] == [
        ("ein", "other", ""),
        ("schläfriger", "unknown", ""),
        ("roter", "colour", "red"),
        ("Fuchs", "thing", "fox"),
    ]
    assert all(word.text == prompt[word.start : word.end] for word in words)


def test_known_and_unknown_words_are_told_apart(reader: Reader) -> None:
    found = reader.understand("a blue penguinn emoji")
    assert [(word.text, word.kind) for word in found.words] == [
        ("a", "other"), ("blue", "colour"), ("penguinn", "unknown"), ("emoji", "other"),
    ]  # fmt: skip
    assert not found.known
    assert found.near[0] == "penguin"
    assert reader.understand("a blue penguin").known


def test_names_of_several_words_are_one_word(reader: Reader) -> None:
    [article, cake] = reader.understand("a birthday cake").words
    assert (article.kind, cake.kind, cake.text) == ("other", "thing", "birthday cake")


def test_keywords_lead_to_what_has_them(reader: Reader) -> None:
    """ "Birthday" is no name, and its letters are not like those of "wrapped gift"."""
    assert "birthday cake" in reader.understand("birthday").near


def test_emoji_are_their_names(reader: Reader) -> None:
    for sign, name in list(emoji_names().items())[::7]:
        found = reader.understand(sign)
        assert found.drawn == emoji_to_words(sign), name
        assert found.known
        assert [word.text for word in found.words] == [sign]


def test_emoji_side_by_side_are_several_things(reader: Reader) -> None:
    assert reader.understand("🍓🍌").drawn == "strawberry and banana"
    assert reader.understand("🍓 🍌 on blue").drawn == "strawberry and banana on blue"


def test_signs_of_an_emoji_that_are_not_spelled_belong_to_it() -> None:
    text = "a 👩🏿‍🚀 and ❤️!"
    assert [text[a:b] for a, b, _ in emoji_in(text)] == ["👩🏿‍🚀", "❤️"]


@given(st.text(max_size=40), st.sampled_from(["", "de", "zh-TW", "xx", "en-US"]))
def test_any_text_is_read(reader: Reader, prompt: str, hint: str) -> None:
    found = reader.understand(prompt, (hint,))
    assert found.prompt == prompt
    assert all(prompt[word.start : word.end] == word.text for word in found.words)
    starts = [word.start for word in found.words]
    assert starts == sorted(starts)


def test_a_table_that_is_written_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "table.zip"
    words = {
        "LATIN": {
            "hund": {(0, 1): (Rank.NAME, False), (70, 0): (Rank.KEYWORD, True)},
            "hun": {(1, 1): (Rank.PART, False)},
            "hunde": {(4095, 2): (Rank.NAME, True)},
        }
    }
    annotations.write(file, ("aa", "bb", "cc"), ["1", "2"], words)
    table = Annotations(file)
    assert (table.locales, table.rows) == (("aa", "bb", "cc"), ("1", "2"))
    latin = table.script("LATIN")
    for word, named in words["LATIN"].items():
        found = {(m.row, m.locale): (m.rank, m.accented) for m in latin.find(word)}
        assert found == named
    assert list(latin.beginning("hund")) == ["hund", "hunde"]
    for missing in ("", "a", "hu", "hundt", "zzz"):
        assert latin.find(missing) == ()
    assert table.script("GREEK").find("σ") == ()


def test_every_word_of_the_table_is_found() -> None:
    table = annotations.shipped()
    with zipfile.ZipFile(annotations.path()) as archive:
        for script in ("GREEK", "HANGUL"):
            for line in archive.read(script).decode().split("\n"):
                word = line.partition("\t")[0]
                assert table.script(script).find(word), word


def test_the_table_is_small_and_about_the_library() -> None:
    table = annotations.shipped()
    assert annotations.path().stat().st_size < 3_000_000
    assert len(table.locales) >= 100
    keys = {concept.key for concept in shipped().concepts}
    assert set(table.rows) <= keys
    assert set(functions.words()) <= set(table.locales)


def test_a_damaged_table_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "table.zip"
    file.write_bytes(annotations.path().read_bytes()[:1000])
    with pytest.raises(FileFormatError, match="Install asymflow again"):
        Annotations(file)


@pytest.mark.parametrize(
    ("text", "same"),
    [("ÉCOLE", "ecole"), ("Straße", "strasse"), ("リンゴ", "りんご"), ("ё", "е"),
     ("تُفَّاح", "تفاح"), ("  a  b ", "a b"), ("हिंदी", "हिंदी")],
)  # fmt: skip
def test_forms_are_folded(text: str, same: str) -> None:
    assert folded(text) == same


def test_words_have_their_marks() -> None:
    text = "नीली लोमड़ी, l’été 'x'"
    assert [text[a:b] for a, b in runs(text)] == ["नीली", "लोमड़ी", "l’été", "x'"]
    scripts = [script_in(each) for each in ("123 狐", "ж", "!", "ン")]
    assert scripts == ["HAN", "CYRILLIC", None, "HAN"]
