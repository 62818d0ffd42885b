"""Measured numbers of the documents, recomputed from results.

`documents.py` writes the passages of the documents that have measured numbers again, from result
files. A passage has to stand on its page as it was computed. What else on a page looks like a
measured number has to be listed as a definition, or is reported.
"""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from asymflow.bench.provenance import KEY
from benchmarks.results import RESULTS, ROOT, SERVER, folder_of, shipped

_BEGIN, _END = "\ue000", "\ue001"
"""Around every number that was computed: private characters of Unicode, which no page has."""


@dataclass(frozen=True, slots=True)
class Passages:
    """Passages of a page.

    Attributes:
        page: below the root of the repository.
        results: files below `benchmarks/results`.
        note: words of the page that say what was measured, where it was not the shipped weights.
        write: the passages, from the contents of the results.
    """

    page: str
    results: tuple[str, ...]
    note: str
    write: Callable[..., Iterator[str]]

    def texts(self) -> list[str]:
        return list(
            self.write(*(json.loads((RESULTS / r).read_text("utf-8")) for r in self.results))
        )


@dataclass(frozen=True, slots=True)
class Definitions:
    """Passages of a page whose numbers are not measured, and why."""

    page: str
    why: str
    texts: tuple[str, ...]


WRITTEN: list[Passages] = []
DEFINED: list[Definitions] = []


def passages(
    page: str, *results: str, note: str = ""
) -> Callable[[Callable[..., Iterator[str]]], Callable[..., Iterator[str]]]:
    """Declare that a function writes passages of `page` from `results`."""

    def declare(write: Callable[..., Iterator[str]]) -> Callable[..., Iterator[str]]:
        assert len(inspect.signature(write).parameters) == len(results)
        WRITTEN.append(Passages(page, results, note, write))
        return write

    return declare


def definitions(page: str, why: str, *texts: str) -> None:
    """Declare that the numbers in `texts`, which stand on `page`, are not measured."""
    DEFINED.append(Definitions(page, why, texts))


# --- numbers, as they stand in documents -------------------------------------------------------


def number(text: object) -> str:
    """A number that was computed, as it stands on the page."""
    return f"{_BEGIN}{text}{_END}"


def fixed(value: float, digits: int = 0) -> str:
    """`0.41`, with `digits` after the point."""
    return number(f"{round(value, digits) + 0.0:,.{digits}f}")  # no "-0"


def bare(value: float, digits: int, sign: str = "") -> str:
    """`.41`: below 1, without the 0 before the point."""
    return number(sign + f"{value:.{digits}f}".removeprefix("0"))


def figures(value: float, count: int) -> str:
    """`43.5` or `11,500`, with `count` significant digits."""
    digits = count - 1 - math.floor(math.log10(abs(value)))
    return number(f"{round(value, digits):,.{max(digits, 0)}f}")


def share(value: float, digits: int = 0) -> str:
    """`41%`."""
    return f"{fixed(100 * value, digits)}%"


def part(ratio: float) -> str:
    """`forty-third`, for what is 43 times less."""
    tens, ones = divmod(round(ratio), 10)
    if (known := _PARTS.get(round(ratio))) is not None:
        return number(known)
    if not ones:
        return number(f"{_TENS[tens - 2].removesuffix('y')}ieth")
    return number(f"{_TENS[tens - 2]}-{_ORDINALS[ones - 1]}")


def half(interval: Mapping[str, float]) -> float:
    """Half of the width of an interval in a result."""
    return (interval["high"] - interval["low"]) / 2


_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")
_TEENS = ("tenth", "eleventh", "twelfth", *(f"{each}teenth" for each in (
    "thir", "four", "fif", "six", "seven", "eigh", "nine"
)))  # fmt: skip
_PARTS = {2: "half", **dict(enumerate((*_ORDINALS[2:], *_TEENS), 3))}


# --- checks ------------------------------------------------------------------------------------


def wrong(page: str, text: str, texts: Sequence[str]) -> list[str]:
    """What is not on the page as it was computed."""
    return [
        f"{page}: does not have exactly once: {_plain(passage)}"
        for passage in texts
        if len(_found(passage, text)) != 1
    ]


def unclaimed(
    page: str, text: str, texts: Sequence[str], defined: Sequence[Definitions] = ()
) -> list[str]:
    """Numbers that look measured and are in no passage, and definitions that the page lacks."""
    claimed = [span for passage in texts for found in _found(passage, text) for span in found]
    numbers = list(looks_measured(text))
    errors: list[str] = []
    for each in defined:
        for passage in each.texts:
            spans = [found.span() for found in _pattern(passage).finditer(text)]
            if not any(_inside(one, spans) for one in numbers):
                errors.append(f"{page}: defines no number any more: {passage}")
            claimed += spans
    for begin, end in numbers:
        if not _inside((begin, end), claimed):
            line = text.count("\n", 0, begin) + 1
            around = " ".join(text[max(0, begin - 40) : end + 30].split())
            errors.append(f"{page}:{line}: {text[begin:end]} has no source: ... {around} ...")
    return errors


def misplaced(each: Passages, text: str) -> list[str]:
    """Results that are not of what is shipped, where the page does not say so."""
    foreign = [
        name
        for name in each.results
        if "superseded" in json.loads((RESULTS / name).read_text("utf-8"))[KEY]
        or (RESULTS / name).parent.relative_to(RESULTS).parts[0]
        not in (folder_of(shipped()).name, SERVER.name)
    ]
    if foreign and not (each.note and _pattern(each.note).search(text)):
        return [f"{each.page}: does not say what {name} was measured on" for name in foreign]
    return []


def texts(page: str) -> list[str]:
    """All passages of a page."""
    return [passage for each in WRITTEN if each.page == page for passage in each.texts()]


def check(page: str) -> list[str]:
    """What is wrong on a page."""
    text = (ROOT / page).read_text("utf-8")
    written = [each for each in WRITTEN if each.page == page]
    passages = texts(page)
    return [
        *wrong(page, text, passages),
        *unclaimed(page, text, passages, [each for each in DEFINED if each.page == page]),
        *(error for each in written for error in misplaced(each, text)),
    ]


def mended(text: str, texts: Sequence[str]) -> str:
    """A page with the numbers that were computed, where nothing else of a passage differs.

    Passages with the same words stand on the page in the order in which they are written. Where the
    page has more or fewer of them, nothing changes.
    """
    alike: dict[str, list[str]] = {}
    for passage in texts:
        words = re.sub(f"{_BEGIN}.*?{_END}", f"{_BEGIN}0{_END}", passage)
        alike.setdefault(words, []).append(passage)
    numbers: dict[tuple[int, int], str] = {}
    for words, written in alike.items():
        pattern = _pattern(words).pattern.replace("(0)", _ANY_NUMBER)
        whole_row = f"^{pattern}$" if words.startswith("|") else pattern
        found = list(re.finditer(whole_row, text, re.MULTILINE))
        if len(found) == len(written):
            for match, passage in zip(found, written, strict=True):
                computed = re.findall(f"{_BEGIN}(.*?){_END}", passage)
                numbers |= {match.span(i): each for i, each in enumerate(computed, start=1)}
    for (begin, end), computed in sorted(numbers.items(), reverse=True):
        text = text[:begin] + computed + text[end:]
    return text


# --- what looks measured -----------------------------------------------------------------------

_NOT_PROSE = (  # and what no result has to say
    r"<!-- written by .*?<!-- end -->",  # scripts/docs.py writes and compares these
    r"^(`{3,})[^\n]*\n.*?^\1$",
    r"(?<=\n\n)(?: {4}[^\n]*\n|[ \t]*\n)+",
    r"<[^>]*>",
    r"\]\([^)]*\)",  # the targets of links
    r"`[^`\n]*`",
    r"95%\s+intervals?",
    r"(?:arXiv|Python|[Vv]ersion|diffusers|azula)\s+\d[\d.]*\d",
)
_NUMBER = re.compile(
    r"(?<![\w.,/@#^=-])[-+]?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)(?![\d^_]|\.\d)"
    r"|\b(?:" + "|".join(_TENS) + ")-(?:" + "|".join(_ORDINALS) + r")\b"
    r"|(?<=\ba )(?:" + "|".join(_PARTS[each] for each in (3, *range(5, 20))) + r")\b"
)
_UNIT = re.compile(
    r"(?:\s+to\s+[-+]?[\d.,]*\d)?"  # 14 to 22 times
    r"(?:\s*(?:%|×|±|/255)"
    r"|(?:\s+|-)(?:[mµ]?s|seconds?|minutes?|hours?|[kMG]B|bytes|times|x(?!\s*\d)|NFE|passes|percent"
    r"|pictures per second|levels?)\b)"
)
_METRIC = re.compile(
    r"(?:±\s*|\b(?:KIDs?|FD|FID|RMSE|NFE|recall@\d|recall|correlation|amplification|speed-up)\b"
    r"[^.;:|\n]{0,30})$"
)
_ANY_NUMBER = r"([-+]?(?:\d(?:[\d,]*\d)?(?:\.\d+)?|\.\d+)|[a-z]+(?:-[a-z]+)?)"
_CELL = re.compile(r"[\s*_]*[-+]?[\d.]*\d(?!\w)")


def looks_measured(text: str) -> Iterator[tuple[int, int]]:
    """Where numbers stand in prose and tables that a unit, a metric or a point marks as measured.

    Of numbers in words: fractions with a hyphen, and those from a third to a nineteenth.
    """
    for pattern in _NOT_PROSE:
        text = re.sub(pattern, _blank, text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"(?<=[^\n|])\n(?=[^\n|])", " ", text)  # lines of one paragraph
    cells = list(_cells(text))
    for found in _NUMBER.finditer(text):
        before, after = text[max(0, found.start() - 60) : found.start()], text[found.end() :]
        if (
            "." in found[0]
            or found[0][-1].isalpha()
            or _UNIT.match(after)
            or _METRIC.search(before)
            or _inside(found.span(), cells)
        ):
            yield found.span()


def _cells(text: str) -> Iterator[tuple[int, int]]:
    """Cells of tables that begin with a number, below the head and right of the first column."""
    for row in re.finditer(r"^\|[^\n]*\|$(?!\n\|[ :|-]*\|$)", text, re.MULTILINE):
        for cell in list(re.finditer(r"(?<=\|)[^|]*(?=\|)", row[0]))[1:]:
            if _CELL.match(cell[0]):
                yield row.start() + cell.start(), row.start() + cell.end()


def _blank(found: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", found[0])


def _inside(span: tuple[int, int], spans: Sequence[tuple[int, int]]) -> bool:
    return any(begin <= span[0] and span[1] <= end for begin, end in spans)


def _found(passage: str, text: str) -> list[list[tuple[int, int]]]:
    """The spans of the numbers of a passage, for every place where it stands."""
    return [
        [found.span(group) for group in range(1, found.re.groups + 1)]
        for found in _pattern(passage).finditer(text)
    ]


def _pattern(passage: str) -> re.Pattern[str]:
    """Finds a passage, however its lines are broken; its numbers are groups."""
    escaped = r"\s+".join(re.escape(word) for word in passage.split())
    begins = r"(?<![\w.])" if re.match(rf"[\w.{_BEGIN}]", passage) else ""
    ends = r"(?!\w|\.\d)" if re.search(rf"[\w{_END}]$", passage) else ""
    return re.compile(begins + escaped.replace(_BEGIN, "(").replace(_END, ")") + ends)


def _plain(passage: str) -> str:
    return " ".join(passage.replace(_BEGIN, "").replace(_END, "").split())
