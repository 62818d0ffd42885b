"""INDEX.md: every suite, what it supports, who cites it, and where its results are from."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from asymflow.bench.provenance import KEY
from benchmarks.registry import SUITES, Suite
from benchmarks.results import RESULTS, ROOT

PATH = Path(__file__).with_name("INDEX.md")
HEAD = """# Suites and results

Made by `python -m benchmarks index` from `registry.py` and the headers of the results; do not edit.
Time is that of the run that wrote a result, where it is known. `*`: the header was recovered, and
the commit is the one that it named itself, or else the one that last changed its numbers.
"""


def text() -> str:
    """The page."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    pages += [ROOT / "src/asymflow/models/embedded/weights/card.md"]
    read = {page.relative_to(ROOT).as_posix(): page.read_text("utf-8") for page in pages}
    rows = [
        "| suite | claim | cited in | result | commit | time |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    notes: list[str] = []
    for suite in SUITES:
        cells = [f"**{suite.name}**", suite.claim, ", ".join(cited(suite, read)) or "-"]
        for result in suite.results or ("",):
            header = header_of(result) if result else {}
            rows.append("| " + " | ".join([*cells, *_result(result, header)]) + " |")
            cells = ["", "", ""]
            if "superseded" in header:
                notes.append(f"- `{result}`: {header['superseded']}")
    commands = [f"- **{suite.name}**: `{suite.command}`" for suite in SUITES]
    parts = [HEAD, "\n".join(rows), "\n## Superseded\n", "\n".join(notes)]
    return "\n".join([*parts, "\n## Commands\n", *commands]) + "\n"


def cited(suite: Suite, pages: dict[str, str]) -> list[str]:
    """Pages that name a result of a suite, its folder, or its command."""
    names = [re.escape(f"benchmarks/results/{result}") for result in suite.results]
    names += [
        re.escape(f"benchmarks/results/{result.rpartition('/')[0]}") + r"(?![\w/-])"
        for result in suite.results
        if result.count("/") > 1
    ]
    if suite.own:
        names.append(r"\s+".join(["-m", "benchmarks", *suite.name.split()]) + r"\b")
    return [page for page, content in pages.items() if re.search("|".join(names) or "$^", content)]


def header_of(result: str) -> dict[str, Any]:
    return json.loads((RESULTS / result).read_text("utf-8"))[KEY]


def _result(result: str, header: dict[str, Any]) -> list[str]:
    if not result:
        return ["-", "-", "-"]
    commit = (header["commit"] or "unknown")[:7] + ("*" if header.get("recovered") else "")
    seconds = header.get("seconds")
    took = "not recorded" if seconds is None else f"{seconds / 60:.0f} min"
    name = f"[{result}](results/{result})"
    return [name + (", superseded" if "superseded" in header else ""), commit, took]
