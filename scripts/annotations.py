"""Make the table of words of other languages, and names of ideas, from annotations of Unicode CLDR.

    python scripts/annotations.py [--cache DIR]

CLDR has a name and keywords of every emoji in more than a hundred languages. The table has them
for the concepts of the library, by script: for every word the concepts that it names, and in which
locales. Colours are what the names of a red circle, heart and square have in common, and those of
other colours have not. `asymflow.models.embedded.languages.annotations` reads it.

Words of the table are folded, and not fit to be shown. What may become an idea of the studio is
therefore also kept by its name as CLDR spells it, in the languages of the page, as long as the
model, reading by that table, draws that thing and nothing more (`asymflow.models.embedded.ideas`).
"""

from __future__ import annotations

import argparse
import json
import tarfile
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from asymflow.bench.ideas import Candidate, candidates
from asymflow.core.words import Understanding
from asymflow.models.embedded import adapter, ideas, installed
from asymflow.models.embedded.languages import annotations
from asymflow.models.embedded.languages.annotations import COLOURS, Rank
from asymflow.models.embedded.languages.scripts import UNSPACED, accented, folded, script_in
from asymflow.models.embedded.library import COMMON, Concept, Library
from asymflow.models.embedded.styles import Package
from asymflow.training.data.fetch import fetch

ANNOTATIONS = Package(
    "cldr-annotations-full",
    "48.2.0",
    "sha512-DV7A+rEcgUSNTRsVGNGqBZRmAkGfwhGHO5Q1dRwzBoBnVrHWp804JP7/QJdEc66iHmx3+zLWVIMCFLm0lW7PUQ==",
)
DERIVED = Package(
    "cldr-annotations-derived-full",
    "48.2.0",
    "sha512-log62km+AOzI7n/NEuNNFV0mg9DWnt67EYCh1RwxZq9dyRuyteB586LT83Ke8TchEfnwI9cIk2P31zO4nTvZmw==",
)
WEIGHTS = Path(__file__).resolve().parents[1] / "src/asymflow/models/embedded/weights"
COMPLETE = 0.95
"""Share of the concepts that a locale must name; the others are drafts, or differ in few words."""
PAGE = ("de", "es", "fr", "ja", "zh")
"""Languages of the studio's page besides English, `web/src/messages`."""
LEFT_OUT = ("en", "pcm")
"""English is the model's own, and Nigerian Pidgin is spelt like it."""
SOME = 0.3
"""Least weight of concepts in the table: no signs, letters, flags."""
GENERIC = 8
"""Concepts that a keyword has at most; "animal" says nothing of what to draw."""
LETTERS, WORDS = 30, 3
"""Of a keyword, at most."""
SHAPES: Mapping[str, tuple[str, ...]] = {
    "red": ("1f534", "2764", "1f7e5"),
    "orange": ("1f7e0", "1f9e1", "1f7e7"),
    "yellow": ("1f7e1", "1f49b", "1f7e8"),
    "green": ("1f7e2", "1f49a", "1f7e9"),
    "blue": ("1f535", "1f499", "1f7e6"),
    "purple": ("1f7e3", "1f49c", "1f7ea"),
    "brown": ("1f7e4", "1f90e", "1f7eb"),
    "black": ("26ab", "1f5a4", "2b1b"),
    "white": ("26aa", "1f90d", "2b1c"),
    "pink": ("1fa77",),
    "grey": ("1fa76",),
}
"""A circle, a heart and a square of every colour, where there are."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """What a locale calls an emoji."""

    name: str
    keywords: tuple[str, ...]


Locale = Mapping[str, Annotation]
"""The annotations of a locale, by the code points of the emoji."""
Read = Callable[[str, Sequence[str]], Understanding]
"""How a model reads a prompt that is probably of some locales."""


@dataclass(slots=True)
class Table:
    """Words of one script: the best rank of every (concept or colour, locale) that they name."""

    words: dict[str, dict[tuple[int, int], tuple[Rank, bool]]] = field(
        default_factory=lambda: defaultdict[str, dict[tuple[int, int], tuple[Rank, bool]]](dict)
    )

    def add(self, word: str, row: int, locale: int, rank: Rank) -> None:
        found, new = self.words[folded(word)], (rank, accented(word))
        found[row, locale] = min(new, found.get((row, locale), new))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("data"), metavar="DIR")
    given = parser.parse_args()
    library = Library()
    concepts = [each for each in library.concepts if each.weight >= SOME and not _variant(each)]
    rows = {each.key: row for row, each in enumerate(concepts)}
    known = read(given.cache)
    locales = {
        name: found
        for name, found in known.items()
        if name not in LEFT_OUT and sum(key in found for key in rows) >= COMPLETE * len(rows)
    }
    tables: defaultdict[str, Table] = defaultdict(Table)
    for number, (name, locale) in enumerate(locales.items()):
        for word, row, rank in words_of(name, locale, concepts):
            script = script_in(word)
            if script is not None:
                tables[script].add(word, row, number, rank)
    path = WEIGHTS / installed.ANNOTATIONS
    keys = [each.key for each in concepts]
    annotations.write(path, tuple(locales), keys, {s: t.words for s, t in tables.items()})
    count = sum(len(table.words) for table in tables.values())
    print(f"{path}: {len(locales)} locales, {count} words, {path.stat().st_size} bytes")
    wanted = candidates(library, len(concepts))
    model = adapter.load()  # it reads by the table that was just written
    names = {name: names_of(name, known[name], wanted, library, model.understand) for name in PAGE}
    ideas.save_names(WEIGHTS / ideas.NAMES, names)
    counts = ", ".join(f"{name} {len(own)}" for name, own in names.items())
    print(f"{WEIGHTS / ideas.NAMES}: of {len(wanted)} names {counts}")


def names_of(
    name: str, locale: Locale, wanted: Sequence[Candidate], library: Library, read: Read
) -> dict[str, str]:
    """The names of a locale by prompt, where the model reads them as what the prompt names."""
    found: dict[str, str] = {}
    for each in wanted:
        if (own := locale.get(each.concept.key)) is None:
            continue
        said = read(own.name, (name,))
        match = library.find(said.drawn)
        # Nothing beside the thing: a name such as "white star" asks for more than the prompt.
        alone = [word.kind for word in said.words] == ["thing"]
        if alone and match is not None and match.concepts == (each.concept,):
            found[each.prompt] = own.name
    return found


def _variant(concept: Concept) -> bool:
    """Whether it is one of many variants of a person, whose names are long."""
    return "200d" in concept.key.split("-") and concept.weight < COMMON


def read(cache: Path) -> dict[str, dict[str, Annotation]]:
    """The annotations of all locales: names of sequences are derived, and in another package."""
    found: defaultdict[str, dict[str, Annotation]] = defaultdict(dict)
    for package in (ANNOTATIONS, DERIVED):
        with tarfile.open(fetch(package, cache)) as archive:
            for member in sorted(archive.getmembers(), key=lambda each: each.name):
                if not member.name.endswith("/annotations.json"):
                    continue
                file = archive.extractfile(member)
                assert file is not None, "a file, by its name"
                [inside] = json.load(file).values()
                for sign, each in inside.get("annotations", {}).items():
                    name = each.get("tts", [""])[0]
                    found[member.name.split("/")[-2]][_key(sign)] = Annotation(
                        name, tuple(each.get("default", ()))
                    )
    return dict(sorted(found.items()))


def _key(sign: str) -> str:
    return "-".join(f"{ord(letter):04x}" for letter in sign if letter not in "\ufe0e\ufe0f")


def words_of(name: str, locale: Locale, concepts: list[Concept]) -> Iterator[tuple[str, int, Rank]]:
    """The words of a locale: (word in lower case, row of a concept or a colour, rank)."""
    colours = {colour: colour_words(colour, locale) for colour in COLOURS}
    for place, colour in enumerate(COLOURS):
        for word in colours[colour]:
            yield word, len(concepts) + place, Rank.NAME
    taken = {word for words in colours.values() for word in words}
    generic: Counter[str] = Counter()
    parts: list[tuple[int, str, Rank]] = []
    for row, concept in enumerate(concepts):
        if (found := locale.get(concept.key)) is None:
            continue
        whole = plain(found.name)
        yield whole, row, Rank.NAME
        if concept.weight < COMMON and not _coloured(concept):
            continue
        spaced = script_in(whole) not in UNSPACED
        inside = set(whole.split()) if spaced else {whole}
        for keyword in {plain(each) for each in found.keywords} | inside:
            if len(keyword) > LETTERS or len(keyword.split()) > WORDS:
                continue
            if keyword == whole or keyword in taken:
                continue
            part = keyword in (inside if spaced else whole) and len(inside) <= 2
            rank = Rank.PART if part else Rank.KEYWORD
            generic[keyword] += rank is Rank.KEYWORD
            parts.append((row, keyword, rank))
    for row, keyword, rank in parts:
        if rank is Rank.PART or generic[keyword] <= GENERIC:
            yield keyword, row, rank


def plain(text: str) -> str:
    """Lower case, composed, with single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text.casefold()).split())


def _coloured(concept: Concept) -> bool:
    return any(concept.key in keys for keys in SHAPES.values())


def colour_words(colour: str, locale: Locale) -> set[str]:
    """What the names of the shapes of a colour have that those of other colours have not."""
    own = [locale[key] for key in SHAPES[colour] if key in locale]
    others = [
        locale[key]
        for other, keys in SHAPES.items()
        if other != colour
        for key in keys
        if key in locale
    ]
    taken = {word for each in others for word in _words(each)}
    names = [plain(each.name) for each in own]
    elsewhere = [plain(each.name) for each in others]
    if any(script_in(each) in UNSPACED for each in names):
        # No spaces: what the names of two shapes begin or end with, such as 红色 of 红色方块.
        found = {_common(a, b) for a in names for b in names if a != b}
        found |= {
            word for each in own for word in map(plain, each.keywords) if len(word) <= 3
        } - taken
        # Pink may be a kind of red, and in its name: the longest word of a prompt counts.
        return {w for w in found - taken if w and sum(w in each for each in elsewhere) < 3}
    heart = own[1:2]  # keywords of hearts are about love
    shapes = [each for each in own if each not in heart]
    counted = Counter(word for each in shapes for word in _words(each) - taken)
    in_names = {word for each in names for word in each.split()} - taken
    return {
        word
        for word in in_names | {word for word, n in counted.items() if n > 1}
        if len(word) > 1 and script_in(word) is not None and " " not in word
    }


def _words(annotation: Annotation) -> set[str]:
    return {
        word
        for text in (annotation.name, *annotation.keywords)
        for word in (plain(text), *plain(text).split())
    }


def _common(a: str, b: str) -> str:
    """The longest beginning that two names share, or else the longest end."""
    for length in range(min(len(a), len(b)) - 1, 0, -1):
        if a[:length] == b[:length]:
            return a[:length]
    for length in range(min(len(a), len(b)) - 1, 0, -1):
        if a[-length:] == b[-length:]:
            return a[-length:]
    return ""


if __name__ == "__main__":
    main()
