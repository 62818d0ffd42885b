"""How the embedded model reads a prompt: emoji by their names, English as it is, others translated.

A prompt is in English if the model knows its words, and is then never changed. Else it is looked up
in all other languages at once (`asymflow.models.embedded.languages`), and what is found becomes a
prompt of the form that the captions of training had: "ein roter Fuchs" is drawn as "a red fox".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from asymflow.core.words import Understanding, Word
from asymflow.models.embedded.emoji import emoji_in, emoji_to_words
from asymflow.models.embedded.languages.annotations import Annotations, Rank
from asymflow.models.embedded.languages.lookup import Lookup, Part, Reading, shared_word
from asymflow.models.embedded.languages.scripts import runs
from asymflow.models.embedded.library import COLOURS, COMMON, COUNTS, STOP_WORDS, Concept
from asymflow.models.embedded.vocabulary import Token, Vocabulary, tokens
from asymflow.models.embedded.words import noun

_ENGLISH = frozenset("the with and of is wearing holding my his her style".split())
"""Words that make a prompt English, whatever the rest is."""
_SCORES = {"thing": 1.0, "colour": 0.9, "other": 0.8}
_ASSOCIATED, _OWN = 0.7, 0.5
"""Score of a keyword, and what English is ahead by if it has any of the words."""
_SURE, _LONG, _ALIKE = 3, 4, 0.8
"""Letters of a single word that is read in a language that nothing else speaks for, and those of an
inflected form with how like it has to be to the known one."""
_MOST = 0.35
"""Share of the concepts of a word whose names have a word in common that stands for all of them."""
_NO_NAMES = frozenset("face person man woman people hand button".split())
"""Words that many names have, and that stand for none of them."""


class Reader:
    """Reads prompts for a model of a vocabulary, by a table of words of other languages."""

    def __init__(self, vocabulary: Vocabulary, table: Annotations) -> None:
        self._vocabulary = vocabulary
        self._concepts = {each.key: each for each in vocabulary.library.concepts}
        self._lookup = Lookup(table, self._name)

    def understand(self, prompt: str, locales: Sequence[str] = ()) -> Understanding:
        """A prompt as the model reads it, see `asymflow.core.words.Understands`."""
        signs = [Word(prompt[a:b], a, b, "thing", name) for a, b, name in emoji_in(prompt)]
        found = _outside(tokens(prompt), signs)
        plain = self._vocabulary.read(prompt, found)
        words = tuple(sorted((*plain, *signs), key=lambda word: word.start))
        reading = None if self._is_english(plain) else self._best(prompt, plain, signs, locales)
        if reading is None:
            known = self._vocabulary.with_near(words)
            return Understanding(prompt, _named(prompt, signs), None, known)
        translated = _merged(prompt, reading, words)
        return Understanding(prompt, _composed(prompt, translated), reading.locale, translated)

    def _is_english(self, words: Sequence[Word]) -> bool:
        texts = {word.drawn for word in words}
        return not texts.isdisjoint(_ENGLISH) or all(
            word.kind != "unknown" or self._vocabulary.associated(word.drawn) for word in words
        )

    def _best(
        self, prompt: str, plain: Sequence[Word], signs: Sequence[Word], locales: Sequence[str]
    ) -> Reading | None:
        """The reading in another language that has more of the prompt than English has."""
        taken = [(sign.start, sign.end) for sign in signs]
        spans = [
            (prompt[a:b], a, b)
            for a, b in runs(prompt)
            if not any(start < b and a < end for start, end in taken)
        ]
        readings = self._lookup.read(spans, locales)
        english = sum(self._score(word) for word in plain)
        english += _OWN if english else 0.0
        hinted = {self._lookup.matching(hint) for hint in locales}
        latin = all(letter < "\u0250" for letter in prompt if letter.isalpha())
        for reading in readings:
            if reading.score <= english:
                return None
            if reading.locale in hinted or not latin:
                return reading
            if _sure(reading, expected=not locales):
                return reading
        return None

    def _score(self, word: Word) -> float:
        if word.kind == "unknown":
            return _ASSOCIATED if self._vocabulary.associated(word.drawn) else 0.0
        return _SCORES[word.kind] * len(word.text.split())

    def _name(self, meanings: Sequence[tuple[str, Rank]]) -> str:
        """One English name for the concepts that a word names, best first.

        A word of many things is the word that their names share: what is in "red apple" and "green
        apple" is an apple.
        """
        concepts = [(self._concepts[key], rank) for key, rank in meanings]
        best, rank = min(concepts, key=_preference)
        if rank is Rank.NAME and best.weight == COMMON:
            return best.names[0]
        for least in (Rank.PART, Rank.KEYWORD):
            names = [each.names[0] for each, own in concepts if own <= least]
            word, share = shared_word(names, without=COLOURS | _NO_NAMES | STOP_WORDS)
            if share >= _MOST and self._vocabulary.library.named(word):
                return word
        return best.names[0] if rank is Rank.NAME else self._without_colour(best.names[0])

    def _without_colour(self, name: str) -> str:
        first, _, rest = name.partition(" ")
        return rest if first in COLOURS and self._vocabulary.library.named(rest) else name


def _preference(each: tuple[Concept, Rank]) -> tuple[int, bool, int]:
    concept, rank = each
    return rank, concept.weight < COMMON, len(concept.names[0].split())


def _sure(reading: Reading, *, expected: bool) -> bool:
    """Whether a reading of Latin letters is more than chance.

    Args:
        reading: in a language that was not hinted.
        expected: whether no other language was hinted.
    """
    content = [part for part in reading.parts if part.role != "other"]
    exact = [part for part in content if part.alike == 1]
    if (reading.small and exact) or len(exact) > 1:
        return True
    if any(part.end - part.start >= (_SURE if reading.spoken else _LONG) for part in exact):
        return expected or any(part.rank is Rank.NAME for part in exact)
    long = any(part.end - part.start >= _LONG and part.alike >= _ALIKE for part in content)
    return expected and reading.spoken and long


def _outside(found: Sequence[Token], signs: Sequence[Word]) -> list[Token]:
    """The words that are no part of an emoji, as the digits of keycaps are."""
    return [
        word
        for word in found
        if not any(sign.start < word.end and word.start < sign.end for sign in signs)
    ]


def _named(prompt: str, signs: Sequence[Word]) -> str:
    """A prompt with the names of its emoji; those side by side are joined by "and"."""
    joined = list(prompt)
    for before, after in pairwise(signs):
        if not prompt[before.end : after.start].strip():
            joined[before.end - 1] += " and "
    return emoji_to_words("".join(joined))


def _merged(prompt: str, reading: Reading, words: Sequence[Word]) -> tuple[Word, ...]:
    """The words of a reading, and those that only English has, such as the names of styles."""
    found = [_word(prompt, part) for part in reading.parts]
    for word in words:
        if any(each.start < word.end and word.start < each.end for each in found):
            continue
        found.append(
            word if word.kind != "unknown" else Word(word.text, word.start, word.end, "unknown")
        )
    return tuple(sorted(found, key=lambda word: (word.start, word.end)))


def _word(prompt: str, part: Part) -> Word:
    text = prompt[part.start : part.end]
    return Word(text, part.start, part.end, part.role, part.english)


@dataclass(frozen=True, slots=True)
class _Item:
    """A part of the prompt that is made: a thing with its colour and number, or other words."""

    text: str
    thing: bool
    colour: str = ""
    before: str = ""


def _composed(prompt: str, words: Sequence[Word]) -> str:
    """A prompt in English: colours before what they describe, articles, and the commas."""
    items: list[_Item] = []
    colour = size = number = ""
    last = 0
    for word in words:
        if "," in prompt[last : word.start] and items:
            items.append(_Item(",", thing=False))
        last = word.end
        if word.kind == "colour":
            after = items[-1] if items else None
            if after is not None and after.thing and not after.colour and not _ahead(words, word):
                items[-1] = _Item(after.text, True, word.drawn, after.before)
            else:
                colour = word.drawn
        elif word.kind == "thing":
            items.append(_Item(word.drawn, True, colour, f"{number} {size}".strip()))
            colour = size = number = ""
        elif word.drawn in COUNTS:
            number = word.drawn
        elif word.drawn in ("small", "big"):
            size = word.drawn
        elif word.drawn:
            items.append(_Item(word.drawn, thing=False))
    if colour and not items:
        return colour
    while items and not items[-1].thing and items[-1].text in (",", "and", "with", "in", "on"):
        items.pop()
    text = " ".join(_phrase(item) if item.thing else item.text for item in items)
    return text.replace(" ,", ",")


def _ahead(words: Sequence[Word], colour: Word) -> bool:
    """Whether a thing follows a colour at once."""
    following = next((word for word in words if word.start >= colour.end and word.drawn), None)
    return following is not None and following.kind == "thing"


def _phrase(item: _Item) -> str:
    """A thing with its article, as in captions: "a red fox", "two cats"."""
    first, _, rest = item.text.partition(" ")
    name = rest if item.colour and rest and first in COLOURS else item.text
    number = next((word for word in item.before.split() if word in COUNTS), "")
    size = " ".join(word for word in item.before.split() if word not in COUNTS)
    bare = " ".join(filter(None, (size, item.colour, name)))
    if number:
        return f"{number} {noun(bare).plural or bare}"
    if noun(name).single == name:  # stuff, names and phrases have no article
        return bare
    return noun(bare).single
