"""Read a prompt in every locale that has words of it, and choose the locale that has most.

No language is detected: every word is looked up in all locales at once, as a part of the longest
phrase, then by forms that begin alike. Scripts without spaces are cut into the longest words.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Literal

from asymflow.models.embedded.languages import functions
from asymflow.models.embedded.languages.annotations import COLOURS, Annotations, Meaning, Rank
from asymflow.models.embedded.languages.scripts import (
    UNSPACED,
    accented,
    folded,
    script_in,
    script_of,
)

Name = Callable[[Sequence[tuple[str, Rank]]], str]
"""The English name of what a word means: the keys of concepts, best first, with their ranks."""
Role = Literal["thing", "colour", "other"]

_LONGEST = 5  # words of a phrase
_LETTERS = 20  # of a word of a script without spaces
_SCORES = {Rank.NAME: 1.0, Rank.PART: 0.9, Rank.KEYWORD: 0.7}
_SMALL = 0.8
"""Score of a small word, such as an article."""
_SHORT = 0.7
"""Factor for words of one or two letters, which mean something in some language or other."""
_BENT = 0.8
"""Factor for words that only begin like a known one: inflected forms."""
_UNLIKE = 0.8
"""Factor for words with accents where the known one has none, or without where it has some."""
_ALIKE = 0.6
"""Least share of letters that such words begin with alike."""
_ENDING = 3
"""Letters of an ending, at most."""
_PREFIXES: Mapping[str, tuple[str, ...]] = {"ARABIC": ("ال", "و", "وال"), "HEBREW": ("ה", "ו")}
_SUFFIXES: Mapping[str, tuple[str, ...]] = {"HANGUL": tuple("와과이가은는을를의")}
"""Articles, conjunctions and particles that are written as one word with what they belong to."""
_AND = {"و": "and", "وال": "and", "ו": "and", "와": "and", "과": "and"}
_HINT, _SPOKEN = 0.5, 0.3
"""What a locale that is probable is ahead by, and one of those that most people speak."""
_COMMON = (
    "zh", "es", "hi", "ar", "fr", "bn", "pt", "ru", "ur", "id", "de", "ja", "tr", "ko", "vi", "it",
    "fa", "th", "pl", "nl", "uk", "ro", "el", "hu", "cs", "sv",
)  # fmt: skip
"""Locales that most people speak, and the order where several have equally much."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a prompt that a locale has a word for.

    Attributes:
        start, end: its characters in the prompt.
        role: what it is.
        english: what it becomes; empty for what is left out.
        score: how sure that is.
        rank: how the word names the thing, see `annotations`.
        alike: 1 for a known form, less for one that only begins alike.
    """

    start: int
    end: int
    role: Role
    english: str
    score: float
    rank: Rank = Rank.NAME
    alike: float = 1.0


@dataclass(frozen=True, slots=True)
class Reading:
    """A prompt as one locale reads it."""

    locale: str
    parts: tuple[Part, ...]
    score: float

    @property
    def says(self) -> bool:
        """Whether it has something to draw."""
        return any(part.role == "thing" for part in self.parts)

    @property
    def coloured(self) -> bool:
        """Whether it has a colour."""
        return any(part.role == "colour" for part in self.parts)

    @property
    def small(self) -> bool:
        """Whether it has small words, such as articles."""
        return any(part.role == "other" for part in self.parts)

    @property
    def spoken(self) -> bool:
        """Whether the locale is one of those that most people speak."""
        return self.locale in _COMMON


@dataclass(frozen=True, slots=True)
class _Span:
    """A word of the prompt, or a run of letters of a script without spaces."""

    text: str
    start: int
    end: int
    script: str


@dataclass(frozen=True, slots=True)
class _Hit:
    """What a locale has for some words, or letters, from a place on."""

    count: int
    meanings: tuple[Meaning, ...]
    factor: float = 1.0
    alike: float = 1.0
    before: str = ""
    after: str = ""

    @property
    def rank(self) -> Rank:
        return min(meaning.rank for meaning in self.meanings)


class Lookup:
    """Reads prompts by a table of annotations.

    Args:
        table: the words.
        name: gives the concepts of a word their English name.
    """

    def __init__(self, table: Annotations, name: Name) -> None:
        self._table = table
        self._name = name
        self._numbers = {locale: number for number, locale in enumerate(table.locales)}

    def read(self, words: Sequence[tuple[str, int, int]], locales: Sequence[str]) -> list[Reading]:
        """The readings of a prompt, the best one first.

        Args:
            words: of the prompt, as (text, start, end).
            locales: that are probable, the most probable first.
        """
        small = functions.words()
        any_small = {word for own in small.values() for word in own}
        spans: list[_Span] = []
        for text, start, end in words:
            if (script := script_in(text)) is not None:
                span = _Span(text, start, end, script)
                spans += self._cut(span, any_small) if script in UNSPACED else [span]
        hits = [self._hits(spans, at) for at in range(len(spans))]
        hinted = [found for hint in locales if (found := self.matching(hint)) is not None]
        named = {number for per in hits for number in per}
        texts = {folded(span.text) for span in spans}
        named |= {
            self._numbers[locale]
            for locale, own in small.items()
            if locale in self._numbers and not texts.isdisjoint(own)
        }
        readings = [
            self._reading(number, spans, hits, hinted, small.get(self._table.locales[number], {}))
            for number in sorted(named)
        ]
        found = [
            reading
            for reading in readings
            if reading.says or (reading.coloured and reading.locale in hinted)
        ]
        return sorted(
            found, key=lambda each: (not each.says, -each.score, self._order(each, hinted))
        )

    def matching(self, hint: str) -> str | None:
        """The locale of the table that a language tag such as "de-DE" or "zh-TW" means."""
        plain = hint.replace("_", "-").partition(".")[0]
        language, _, rest = plain.partition("-")
        language = {"nb": "no", "tl": "fil", "iw": "he"}.get(language.lower(), language.lower())
        if language == "zh" and rest.lower() in ("tw", "hk", "mo", "hant-tw", "hant-hk"):
            rest = "Hant"
        tag = f"{language}-{rest}" if rest else language
        return next((each for each in (tag, language) if each in self._numbers), None)

    def _order(self, reading: Reading, hinted: Sequence[str]) -> tuple[int, int]:
        own = hinted.index(reading.locale) if reading.locale in hinted else len(hinted)
        common = _COMMON.index(reading.locale) if reading.locale in _COMMON else len(_COMMON)
        return own, common

    def _hits(self, spans: Sequence[_Span], at: int) -> dict[int, list[_Hit]]:
        """What every locale has for the words from a place on, longest first."""
        found: defaultdict[int, list[_Hit]] = defaultdict(list)
        span = spans[at]
        words = self._table.script(span.script)
        for count in range(min(_LONGEST, len(spans) - at), 0, -1):
            part = spans[at : at + count]
            if any(each.script != span.script for each in part):
                continue
            phrase = " ".join(each.text for each in part)
            for locale, own in _by_locale(words.find(folded(phrase))).items():
                found[locale].append(_Hit(count, own, _factor(phrase, own)))
        for locale, hit in self._bent(span).items():
            known = found[locale]
            # A form of a colour is that colour, though the word may be a keyword of red things, and
            # a name with an article is that name, though both may be a part of another.
            better = self._is_colour(hit) and not (known and self._is_colour(known[0]))
            whole = hit.alike == 1 and hit.rank is Rank.NAME
            if known and (better or (whole and known[0].rank is not Rank.NAME)):
                known.insert(0, hit)
            else:
                known.append(hit)
        return found

    def _is_colour(self, hit: _Hit) -> bool:
        return any(meaning.row >= len(self._table.rows) for meaning in hit.meanings)

    def _bent(self, span: _Span) -> dict[int, _Hit]:
        """Words that begin like a word: its other forms, the most similar one of each locale.

        Colours go first: they have many forms, and are in few names.
        """
        word = folded(span.text)
        words = self._table.script(span.script)
        likeness: dict[tuple[str, str, str], float] = {}

        def offer(known: str, stem: str, around: tuple[str, str]) -> None:
            alike = _alike(known, stem)
            if alike >= _ALIKE and known != word:
                key = (known, *around)
                likeness[key] = max(alike, likeness.get(key, 0.0))

        least = 1 if span.script == "HANGUL" else 3
        for before, stem, after in _stems(word, span.script):
            around = before, after
            offer(stem, stem, around)
            for cut in range(1, _ENDING + 1):
                if len(stem) - cut >= least:
                    offer(stem[:-cut], stem, around)
            for cut in range(_ENDING):
                if len(stem) - cut >= least + 1:
                    for known in words.beginning(stem[: len(stem) - cut]):
                        if " " not in known and abs(len(known) - len(stem)) < _ENDING:
                            offer(known, stem, around)
        best: dict[int, _Hit] = {}
        for (known, *around), alike in sorted(likeness.items(), key=lambda each: -each[1]):
            for locale, own in _by_locale(words.find(known)).items():
                hit = _Hit(1, own, _BENT * alike, alike, *around)
                known_best = best.get(locale)
                if known_best is None or self._is_colour(hit) > self._is_colour(known_best):
                    best[locale] = hit
        return best

    def _reading(
        self,
        number: int,
        spans: Sequence[_Span],
        hits: Sequence[Mapping[int, Sequence[_Hit]]],
        hinted: Sequence[str],
        small: Mapping[str, str],
    ) -> Reading:
        """The prompt in one locale: from left to right, the longest phrases first."""
        parts: list[Part] = []
        at = 0
        while at < len(spans):
            span = spans[at]
            own = hits[at].get(number, ())
            word = folded(span.text)
            if word in small and not (own and own[0].count > 1):
                parts.append(Part(span.start, span.end, "other", small[word], _SMALL))
                at += 1
                continue
            if not own:
                at += 1
                continue
            hit = own[0]
            if hit.before:
                parts.append(Part(span.start, span.start, "other", hit.before, 0.0))
            end = spans[at + hit.count - 1].end
            parts.append(self._part(span.start, end, hit))
            if hit.after:
                parts.append(Part(end, end, "other", hit.after, 0.0))
            at += hit.count
        locale = self._table.locales[number]
        kept = _without_attributes(parts)
        score = sum(part.score for part in parts)
        score += (_HINT if locale in hinted else 0) + (_SPOKEN if locale in _COMMON else 0)
        return Reading(locale, kept, score)

    def _cut(self, span: _Span, small: Set[str]) -> list[_Span]:
        """A run of letters without spaces as the longest words that any locale has.

        Letters that are in no word are left out.
        """
        found: list[_Span] = []
        at = 0
        while at < len(span.text):
            shortest = 0 if span.script == "HAN" else 1  # a letter is no word, but a sign may be
            for length in range(min(_LETTERS, len(span.text) - at), shortest, -1):
                text = span.text[at : at + length]
                word = folded(text)
                script = next((s for c in word if (s := script_of(c)) is not None), None)
                if script is not None and (word in small or self._table.script(script).find(word)):
                    start = span.start + at
                    found.append(_Span(text, start, start + length, script))
                    at += length
                    break
            else:
                at += 1
        return found

    def _part(self, start: int, end: int, hit: _Hit) -> Part:
        """A hit as a part of the prompt, by its best meaning: a colour, or a concept."""
        count = len(self._table.rows)
        colour = next((m for m in hit.meanings if m.row >= count), None)
        score = _SCORES[hit.rank] * hit.factor * hit.count
        if colour is not None:
            name = COLOURS[colour.row - count]
            return Part(start, end, "colour", name, score, Rank.NAME, hit.alike)
        concepts = [(self._table.rows[m.row], m.rank) for m in hit.meanings]
        name = self._name(sorted(concepts, key=lambda each: each[1]))
        return Part(start, end, "thing", name, score, hit.rank, hit.alike)


def _without_attributes(parts: Sequence[Part]) -> tuple[Part, ...]:
    """The parts without those that only describe a thing: in "golden crown", "golden" is no coin.

    Of neighbours, names go before parts of names and keywords, and these before keywords.
    """
    kept: list[Part] = []
    run: list[Part] = []
    for part in parts:
        if part.role == "other" and part.english:
            kept += [*_named(run), part]
            run = []
        else:
            run.append(part)
    return (*kept, *_named(run))


def _named(run: Sequence[Part]) -> list[Part]:
    """Neighbours without the things that are named less well than others."""
    best = min((each.rank for each in run if each.role == "thing"), default=Rank.KEYWORD)
    following = (*run[1:], None)[: len(run)]
    return [
        each
        for each, after in zip(run, following, strict=True)
        if each.role != "thing" or (each.rank == best and not _touching(each, after))
    ]


def _touching(part: Part, after: Part | None) -> bool:
    """Whether a thing goes on in the next one: a word without spaces that was cut."""
    return after is not None and after.role == "thing" and part.end == after.start


def _stems(word: str, script: str) -> list[tuple[str, str, str]]:
    """A word, and what is left of it without an article, "and" or a particle.

    Each with what stands for that in English, before and after the word: (before, word, after).
    """
    found = [("", word, "")]
    for prefix in _PREFIXES.get(script, ()):
        if word.startswith(prefix) and len(word) > len(prefix) + 1:
            found.append((_AND.get(prefix, ""), word.removeprefix(prefix), ""))
    for suffix in _SUFFIXES.get(script, ()):
        if word.endswith(suffix) and len(word) > len(suffix):
            found.append(("", word.removesuffix(suffix), _AND.get(suffix, "")))
    return found


def _alike(a: str, b: str) -> float:
    """The share of letters with which two words begin alike."""
    pairs = zip(a, b, strict=False)
    shorter = min(len(a), len(b))
    shared = next((i for i, (x, y) in enumerate(pairs) if x != y), shorter)
    return 2 * shared / (len(a) + len(b))


def _factor(text: str, meanings: Sequence[Meaning]) -> float:
    """How much a known word counts: less if it is very short, or has other accents."""
    spaced = script_in(text) not in (*UNSPACED, "HANGUL")
    own = accented(text)
    same = any(own == meaning.accented for meaning in meanings)
    return (_SHORT if spaced and len(text) < 3 else 1.0) * (1.0 if same else _UNLIKE)


def _by_locale(meanings: Sequence[Meaning]) -> dict[int, tuple[Meaning, ...]]:
    found: defaultdict[int, list[Meaning]] = defaultdict(list)
    for meaning in meanings:
        found[meaning.locale].append(meaning)
    return {locale: tuple(own) for locale, own in found.items()}


def shared_word(names: Sequence[str], without: Set[str]) -> tuple[str, float]:
    """The word that most names have, of all but some, and the share that have it."""
    counted = Counter(word for name in names for word in set(name.split()) - without)
    if not counted:
        return "", 0.0
    word, count = max(counted.items(), key=lambda each: (each[1], -len(each[0])))
    return word, count / len(names) if count > 1 else 0.0
