"""How well prompts in other languages, and emoji, are read as what they name.

    python -m benchmarks languages [languages.json]

Prompts of `benchmarks/languages.tsv` are read as the model reads them, without a hint of the
language and with one: 30 in each of ten languages and 30 emoji, on whose misreadings rules were
changed, and ten in each of eight languages that were first read when the rules were made. A reading
is right if the library finds every thing in it, or one of its alternatives, and it has the colour.
English prompts of everyday things must not be changed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from asymflow.core.statistics import share_bound
from asymflow.models.embedded import adapter as embedded
from asymflow.models.embedded.languages import annotations
from asymflow.models.embedded.library import Library, shipped
from asymflow.models.embedded.prompts import calibration
from benchmarks import results

DATA = results.ROOT / "benchmarks/languages.tsv"
SEEN = ("de", "fr", "es", "pl", "ru", "tr", "ar", "zh", "ja", "th")
"""Languages whose misreadings were looked at."""
EMOJI = "emoji"
"""What the rows of emoji have in place of a language."""


@dataclass(frozen=True, slots=True)
class Row:
    """A prompt, and what it is to be read as: things with their alternatives, and a colour."""

    language: str
    prompt: str
    colour: str | None
    things: tuple[tuple[str, ...], ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, nargs="?", metavar="FILE")


def rows() -> Iterator[Row]:
    """The prompts of the file."""
    for line in DATA.read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            language, prompt, colour, *things = line.split("\t")
            alternatives = tuple(tuple(thing.split("|")) for thing in things)
            yield Row(language, prompt, None if colour == "-" else colour, alternatives)


def right(row: Row, drawn: str, library: Library) -> bool:
    """Whether a prompt of the model asks for what a row is about."""
    match = library.find(drawn)
    names = [concept.names[0] for concept in match.concepts] if match is not None else []
    things = all(any(name in names for name in thing) for thing in row.things)
    said = f"{drawn} {' '.join(names)}".split()
    return things and (row.colour is None or row.colour in said)


def run(given: argparse.Namespace) -> dict[str, Any]:
    model, library = embedded.load(), shipped()
    started = time.perf_counter()
    model.understand("ein roter Fuchs")
    cold = time.perf_counter() - started
    prompts = list(rows())
    table = annotations.shipped()
    report: dict[str, Any] = {
        "table": {
            "bytes": annotations.path().stat().st_size,
            "locales": len(table.locales),
            "concepts": len(table.rows),
        }
    }
    taken: list[float] = []
    for name, hinted in (("without hint", False), ("with hint", True)):
        found: defaultdict[str, list[bool]] = defaultdict(list)
        taken.clear()  # scripts are loaded in the first round
        wrong: dict[str, str] = {}
        for row in prompts:
            hint = (row.language,) if hinted and row.language != EMOJI else ()
            began = time.process_time()
            drawn = model.understand(row.prompt, hint).drawn
            taken.append(1000 * (time.process_time() - began))
            found[row.language].append(right(row, drawn, library))
            if not found[row.language][-1]:
                wrong[f"{row.language}: {row.prompt}"] = drawn
        report[name] = {
            "languages": _share([each for own in SEEN for each in found[own]]),
            "other languages": _share(
                [each for own in found if own not in (*SEEN, EMOJI) for each in found[own]]
            ),
            "emoji": _share(found[EMOJI]),
            "right": {language: sum(own) for language, own in found.items()},
            "of": {language: len(own) for language, own in found.items()},
            "wrong": wrong,
        }
    english = calibration()
    changed = [each for each in english if model.understand(each).drawn != each]
    report["english"] = {"prompts": len(english), "changed": changed}
    report["ms"] = {
        "first": round(1000 * cold, 1),
        "median": round(median(taken), 2),
        "most": round(max(taken), 2),
    }
    print(json.dumps(report, indent=1, ensure_ascii=False))
    path = given.out or results.folder_of(model.name) / "languages.json"
    return results.save(path, report, **results.on_adapters([model]))


def _share(found: Sequence[bool]) -> dict[str, Any]:
    """How many are right, and the lower bound of their share, one-sided with 95%."""
    wrong = len(found) - sum(found)
    least = 1 - share_bound(wrong, len(found))
    return {"right": sum(found), "of": len(found), "at least": round(least, 3)}
