"""The suites of `benchmarks` start, and every committed result says where it comes from."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks import index, results
from benchmarks.__main__ import parser_of
from benchmarks.registry import SUITES, Suite

from asymflow.bench import provenance

OWN = [pytest.param(suite, id=suite.name) for suite in SUITES if suite.own]
FILES = sorted(results.RESULTS.rglob("*.json"))
POSITIONAL = {
    "consistency": ["data"],
    "guidance": ["data"],
    "denoising": ["data"],
    "parameterisation": ["data"],
    "designs": ["data", "out.json"],
    "embedded": ["data", "out", "--weights", "shipped"],
    "own_pictures": ["out", "--weights", "file"],
    "panel": ["data", "out"],
    "training": ["run"],
    "rendering": ["data", "out"],
    "versions": ["former"],
    "families train": ["jit", "data", "--out", "out"],
    "families accelerate": ["jit", "weights", "data"],
    "families networks": ["model", "data"],
    "fashion train": ["jit"],
    "fashion judge": ["score"],
}
"""What suites cannot do without."""


def header_of(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")).get(provenance.KEY, {})


@pytest.mark.parametrize("suite", OWN)
def test_every_suite_starts_and_reads_its_options(suite: Suite) -> None:
    needed = POSITIONAL.get(suite.name, [])
    given = vars(parser_of(suite).parse_args(needed))
    text = parser_of(suite).format_help()
    assert f"python -m benchmarks {suite.name}" in text
    if "--quick" in text and suite.name != "server":
        quick = vars(parser_of(suite, quick=True).parse_args([*needed, "--quick"]))
        assert quick.keys() == given.keys()
        assert any(quick[name] != given[name] for name in given.keys() - {"out", "quick"})
        if needed == [] or "out" not in needed:
            assert not str(quick.get("out")).startswith(str(results.RESULTS))


def test_what_is_given_counts_more_than_quick() -> None:
    [suite] = [suite for suite in SUITES if suite.name == "oracle"]
    parser = parser_of(suite, quick=True)
    assert parser.parse_args(["--quick", "--pictures", "7"]).pictures == 7
    assert parser.parse_args(["--quick"]).out == results.QUICK


def test_every_suite_is_a_module_and_every_module_a_suite() -> None:
    folder = Path(results.__file__).with_name("suites")
    modules = {
        path.relative_to(folder).with_suffix("").as_posix().replace("/", " ")
        for path in folder.rglob("*.py")
        if path.name != "__init__.py" and "def add_arguments(" in path.read_text("utf-8")
    }
    assert modules == {suite.name for suite in SUITES if suite.own}


def test_the_command_line_lists_suites_and_names_what_is_not_there() -> None:
    command = [sys.executable, "-m", "benchmarks"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=results.ROOT, check=True)
    assert all(suite.name in done.stdout for suite in SUITES if suite.own)
    wrong = subprocess.run(
        [*command, "nothing"], capture_output=True, text=True, cwd=results.ROOT, check=False
    )
    assert wrong.returncode == 1
    assert "There is no suite 'nothing'" in wrong.stderr


def test_every_result_is_of_a_suite_and_there() -> None:
    found = [path.relative_to(results.RESULTS).as_posix() for path in FILES]
    assert sorted(name for suite in SUITES for name in suite.results) == sorted(found)
    assert found


@pytest.mark.parametrize(
    "path", [pytest.param(path, id=str(path.relative_to(results.RESULTS))) for path in FILES]
)
def test_every_result_has_a_complete_header(path: Path) -> None:
    header = header_of(path)
    assert provenance.problems(header) == []
    assert header["commit"], "a result that is committed was measured in this repository"
    named = [name.rpartition(":")[2] for name in header["weights"] or ()]
    folder = path.relative_to(results.RESULTS).parts[0]
    if folder in (results.SERVER.name, results.TRAINED.name):
        return
    assert named, "the folder says which weights, and so does the header"
    assert named[-1].startswith(folder)
    if results.shipped() not in header["weights"]:
        assert header.get("superseded"), "it is not of the shipped weights"


def test_the_index_is_up_to_date() -> None:
    assert index.PATH.read_text("utf-8") == index.text(), "run python -m benchmarks index"


def test_the_index_finds_who_cites_a_suite() -> None:
    [plans] = [suite for suite in SUITES if suite.name == "plans evidence"]
    [baselines] = [suite for suite in SUITES if suite.name == "baselines"]
    pages = {
        "command.md": "run `python -m benchmarks plans\nevidence --dtype bfloat16`",
        "result.md": "(`benchmarks/results/649b2356/evidence.json`)",
        "folder.md": "see `benchmarks/results/649b2356/baselines` and the plot",
        "other.md": "`python -m benchmarks plans make`, "
        "`benchmarks/results/649b2356/baselines-128x`",
    }
    assert index.cited(plans, pages) == ["command.md", "result.md"]
    assert index.cited(baselines, pages) == ["folder.md"]


def test_a_result_of_another_program_is_stamped_once(tmp_path: Path) -> None:
    path = tmp_path / "page.json"
    path.write_text('{"first_paint_ms": 172}')
    results.stamp(path, "scripts/e2e --measure", ["embedded:abc"])
    first = header_of(path)
    assert (first["command"], first["weights"]) == ("scripts/e2e --measure", ["embedded:abc"])
    assert provenance.problems(first) == []
    results.stamp(path, "again")
    found = json.loads(path.read_text())
    assert list(found) == [provenance.KEY, "first_paint_ms"]
    assert found[provenance.KEY]["command"] == "again"


def test_superseding_changes_nothing_but_the_header(tmp_path: Path) -> None:
    header = provenance.header(weights=["embedded:0123456789ab"])
    provenance.save(tmp_path / "a/one.json", header, {"rows": [0.1, 1e-9]})
    old = provenance.save(tmp_path / "two.json", {**header, "superseded": "long ago"}, {})
    assert results.supersede(tmp_path, "of the first weights") == [tmp_path / "a/one.json"]
    found = json.loads((tmp_path / "a/one.json").read_text())
    assert found.pop(provenance.KEY) == {**header, "superseded": "of the first weights"}
    assert found == {"rows": [0.1, 1e-9]}
    assert json.loads((tmp_path / "two.json").read_text()) == old


def test_a_result_lies_with_its_weights() -> None:
    assert results.folder_of("embedded:e11a8aadabb0") == results.RESULTS / "e11a8aad"
