"""Measured numbers of the documents come from results: see benchmarks/claims.py."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from benchmarks import claims, documents
from benchmarks.claims import Definitions, Passages, bare, figures, fixed, number, part, share
from benchmarks.results import RESULTS, ROOT, folder_of, shipped

PAGES = (
    "README.md",
    "benchmarks/README.md",
    documents.CARD,
    *(
        path.relative_to(ROOT).as_posix()
        for path in sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / "docs/guide").glob("*.md")])
        if path.name != "faults.md"  # faults, with the numbers of the day they were found
    ),
)
TEXT = """# A page

`draft` takes
2.11 times less, with a KID of 107 against 101 (95% intervals).

| plan | NFE | error |
| --- | --- | --- |
| `draft`, 5 steps | 9 | .403 ±.021 |

    asymflow generate "a fox"   # in 0.07 s

<!-- written by scripts/docs.py: shipped -->
| `fast` | 17 | 3.7 |
<!-- end -->
"""
WRITTEN = [
    f"takes {number('2.11')} times less, with a KID of {number(107)} against {number(101)}",
    f"| `draft`, 5 steps | {number(9)} | {number('.403')} ±{number('.021')} |",
]


@pytest.mark.parametrize("page", PAGES)
def test_measured_numbers_come_from_results(page: str) -> None:
    assert claims.check(page) == []


def test_every_claim_is_about_a_page_that_is_checked() -> None:
    assert documents.PLANNING in PAGES
    assert {each.page for each in (*claims.WRITTEN, *claims.DEFINED)} <= set(PAGES)


def test_a_page_of_computed_numbers_passes() -> None:
    assert claims.wrong("page", TEXT, WRITTEN) == []
    assert claims.unclaimed("page", TEXT, WRITTEN) == []


@pytest.mark.parametrize(
    ("old", "new"), [("2.11", "2.12"), ("107", "99"), ("| 9 |", "| 8 |"), ("±.021", "±.02")]
)
def test_a_wrong_number_is_found(old: str, new: str) -> None:
    [error] = claims.wrong("page", TEXT.replace(old, new), WRITTEN)
    assert error.startswith("page: does not have exactly once")


def test_a_real_page_with_another_number_fails() -> None:
    text = (ROOT / documents.COMPARISON).read_text("utf-8")
    written = [each for each in claims.WRITTEN if each.page == documents.COMPARISON]
    texts = [passage for each in written for passage in each.texts()]
    assert claims.wrong("page", text, texts) == []
    assert len(claims.wrong("page", text.replace("1.30 times", "1.4 times"), texts)) == 1


def test_mending_puts_computed_numbers_where_the_page_has_others() -> None:
    old = TEXT.replace("2.11", "12.5").replace("107", "1,200").replace(".403 ±.021", "1.4 ±.1")
    assert old.count("2.11") == 0
    assert claims.mended(old, WRITTEN) == TEXT
    assert claims.mended(TEXT, WRITTEN) == TEXT
    assert claims.mended("in 1,200, and more", [f"in {number(3)}"]) == "in 3, and more"


def test_mending_tells_passages_with_the_same_words_apart_by_their_order() -> None:
    rows = [f"| all | {number(n)} | {number('.5')} |" for n in (3, 4)]
    assert claims.mended("| all | 1 | .7 |\n| all | 2 | .8 |\n", rows) == (
        "| all | 3 | .5 |\n| all | 4 | .5 |\n"
    )
    text = "| all | 1 | .7 |\n"
    assert claims.mended(text, rows) == text
    part_of_a_row = "| of | all | 1 | .7 |\n"
    assert claims.mended(part_of_a_row, rows[:1]) == part_of_a_row


def test_mending_changes_words_that_are_numbers_and_no_others() -> None:
    passage = f"a {part(43)} of the time"
    assert claims.mended("takes a third of the\ntime", [passage]) == (
        "takes a forty-third of the\ntime"
    )
    assert claims.mended("a third of all time", [passage]) == "a third of all time"


@pytest.mark.parametrize(
    ("added", "numbers"),
    [
        ("It takes 3 ms, or 1.5 times as long.", ["3", "1.5"]),
        ("It saves 12% of 20 MB, 9 to 11 seconds.", ["12", "20", "9", "11"]),
        ("An RMSE of about 4/255, and KIDs near 90.", ["4", "90"]),
        ("A twenty-sixth of the time, and a fifth of the rest.", ["twenty-sixth", "fifth"]),
        ("With 8 steps at 64 px, in Python 3.11 (arXiv 2605.12964).", []),
        ("`9 ms`, <b style='width: 4%'>[bold](x-2.5.md)</b>", []),
        ("| a | b |\n|---|---|\n| 8 steps | 17 (of 20) |", ["17", "20"]),
        ("```text\n9 ms\n```", []),
    ],
)
def test_a_number_without_a_source_is_found(added: str, numbers: list[str]) -> None:
    errors = claims.unclaimed("page", f"{TEXT}\n{added}\n", WRITTEN)
    found = [re.sub(r"^page:\d+: (.*?) has no source: .*", r"\1", error) for error in errors]
    assert found == numbers


def test_a_number_in_another_place_is_not_covered_by_its_claim() -> None:
    [error] = claims.unclaimed("page", f"{TEXT}\nAgain 2.11 times.\n", WRITTEN)
    assert error.startswith("page:16: 2.11 has no source")


def test_definitions_cover_numbers_and_may_not_outlive_them() -> None:
    text = f"{TEXT}\nAt most 10 seconds.\n"
    limit = Definitions("page", "a limit", ("At most 10 seconds",))
    assert claims.unclaimed("page", text, WRITTEN, [limit]) == []
    [error] = claims.unclaimed("page", TEXT, WRITTEN, [limit])
    assert error == "page: defines no number any more: At most 10 seconds"


def test_results_of_other_weights_need_a_note_on_the_page() -> None:
    older, superseded = "12fd6e59/guidance.json", "e11a8aad/denoising.json"
    current = f"{folder_of(shipped()).name}/lookup.json"
    assert all((RESULTS / name).exists() for name in (older, superseded, current))

    def none(result: object) -> Iterator[str]:
        yield from ()

    def errors(name: str, note: str = "") -> list[str]:
        each = Passages("page", (name,), note, none)
        return claims.misplaced(each, "Of old weights.")

    assert errors(current) == errors("server/server.json") == []
    for name in (older, superseded, "trained/networks.json"):
        assert errors(name) == [f"page: does not say what {name} was measured on"]
        assert errors(name, "weights that are not there")
        assert errors(name, "old weights") == []


def test_numbers_stand_as_documents_write_them() -> None:
    written = (
        *(fixed(0.4, 2), fixed(-0.2), fixed(6233), bare(0.0576, 3), bare(0.01, 2, "+")),
        *(figures(43.49, 3), figures(11498.5, 3), figures(8.3676, 3), share(0.061, 1)),
        *map(part, (43.4, 2.1, 9.8, 12.3, 13.2, 20.1, 40.0)),
    )
    assert [re.sub("[\ue000\ue001]", "", text) for text in written] == [
        *("0.40", "0", "6,233", ".058", "+.01"),
        *("43.5", "11,500", "8.37", "6.1%"),
        *("forty-third", "half", "tenth", "twelfth", "thirteenth", "twentieth", "fortieth"),
    ]


def test_a_number_that_is_part_of_another_is_not_a_match() -> None:
    assert claims.wrong("page", "It takes 12.11 times as long.", [f"{number('2.11')} times"])
    assert claims.wrong("page", "A KID of 107.5 here.", [f"KID of {number(107)}"])
