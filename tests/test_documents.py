"""The documents say what is true: defaults, extras, links, modules, commands, messages."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

import asymflow
from asymflow.cli.main import app
from asymflow.core import presets

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SOURCE = ROOT / "src" / "asymflow"
PAGES = (
    *sorted(ROOT.glob("*.md")),
    *sorted(DOCS.rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
)
CODE = re.compile(r"^(?P<fence>`{3,})[^\n]*\n.*?^(?P=fence)$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^(?: {4}|\t).*\n?|^[ \t]*\n)+", re.MULTILINE)


def each(pages: tuple[Path, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", pages, ids=lambda page: str(page.relative_to(ROOT)))


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def code_of(page: Path) -> str:
    """Fenced and indented blocks, and what stands in backticks."""
    text = read(page)
    spans = re.findall(r"`([^`\n]+)`", CODE.sub("", text))
    blocks = [found[0] for found in CODE.finditer(text)]
    return "\n".join((*blocks, *INDENTED.findall(CODE.sub("", text)), *spans))


@cache
def commands() -> dict[str, Any]:
    """Every command that can be run, by what is typed."""

    def inside(group: Any, name: str) -> Iterator[tuple[str, Any]]:
        for word, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from inside(command, f"{name} {word}")
            elif word == getattr(group, "default", None):  # typed without its own name
                yield name, command
            else:
                yield f"{name} {word}", command

    return dict(inside(typer.main.get_command(app), "asymflow"))


# --- the reference of the commands -------------------------------------------------------------


def rows_of(command: str) -> dict[str, str]:
    """What the reference says of each argument (`PROMPT`) and option (`--size`)."""
    [section] = re.findall(
        rf"^## {re.escape(command)}\n(.*?)(?=^## |\Z)",
        read(DOCS / "cli.md"),
        re.MULTILINE | re.DOTALL,
    )
    found = re.findall(r"^\| `([^`]+)`.*? \| (.*) \|$", section, re.MULTILINE)
    return dict(found)


@pytest.mark.parametrize("name", commands())
def test_the_reference_prints_every_default_once(name: str) -> None:
    rows = rows_of(name)
    for parameter in commands()[name].params:
        is_argument = parameter.param_type_name == "argument"
        says = rows.pop(parameter.metavar if is_argument else parameter.opts[0])
        assert "[default" not in says
        in_words = re.search(r"\[default: (.+?)\]", parameter.help or "")
        value = parameter.default
        if in_words is not None:
            wanted = [in_words[1]]
            if value is not None:  # both are given, so they must agree
                assert str(value) == in_words[1], parameter.name
        elif parameter.required or value is None or value is False:
            wanted = []
        else:
            wanted = [str(value)]
        assert re.findall(r"[Dd]efault: (.+?)\.?$", says) == wanted, (parameter.name, says)
        assert says.lower().count("default:") == len(wanted), says
    assert rows == {}


def test_the_guide_has_the_default_guidance() -> None:
    assert f" {presets.GUIDANCE:g} is the default" in read(DOCS / "guide" / "pictures.md")


@each(PAGES)
def test_commands_and_options_in_examples_exist(page: Path) -> None:
    for line in re.findall(r"^ *(?:\.venv/bin/)?(asymflow [a-z].*)$", code_of(page), re.MULTILINE):
        typed = line.partition("#")[0].partition("|")[0]
        names = [name for name in commands() if f"{typed} ".startswith(f"{name} ")]
        assert names, line
        options = {
            spelled for p in commands()[max(names, key=len)].params for spelled in p.opts
        } | {"--help"}
        used = re.findall(r"(?<= )--?[a-z][a-z-]*", re.sub(r'"[^"]*"', "", typed))
        assert set(used) <= options, line


# --- installation ------------------------------------------------------------------------------

UNPUBLISHED = re.compile(
    r"pip install(?: -\S+)* ['\"]?asymflow(?:\[[^\]]*\])?(?!['\w\[-]* ?@ ?git\+)(?=['\"\s`,.]|$)",
    re.MULTILINE,
)


def test_nobody_is_sent_to_an_index_that_does_not_have_it() -> None:
    for path in (*PAGES, *SOURCE.rglob("*.py")):
        assert UNPUBLISHED.findall(read(path)) == [], path


def test_the_guide_lists_the_extras() -> None:
    project = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]
    listed = re.findall(r"^\| `\[(\w+)\]` \|", read(DOCS / "guide" / "install.md"), re.MULTILINE)
    assert sorted(listed) == sorted(project["optional-dependencies"])


def test_extras_that_are_named_exist() -> None:
    extras = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]["optional-dependencies"]
    for path in (*PAGES, *SOURCE.rglob("*.py")):
        for names in re.findall(r"pip install[^\n]*?(?:\.|asymflow)\[([a-z,]+)\]", read(path)):
            assert set(names.split(",")) <= set(extras), path


# --- links -------------------------------------------------------------------------------------


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors of a page: its headings, and what mkdocstrings writes for `::: module`."""
    text = CODE.sub("", read(page))
    found: set[str] = set(re.findall(r"\{ ?#([\w-]+) ?\}|id=\"([\w-]+)\"", text))
    for heading in re.findall(r"^#{1,6} +(.+?) *$", text, re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slug = re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", words).strip().lower())
        number = 0
        while (f"{slug}_{number}" if number else slug) in found:
            number += 1
        found.add(f"{slug}_{number}" if number else slug)
    return frozenset(found | set(re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE)))


def dead_links(page: Path, text: str) -> list[str]:
    """Local links and pictures of `text`, which stands in `page`, that lead nowhere."""
    plain = re.sub(r"`[^`\n]*`", "", CODE.sub("", text))
    found = re.findall(r"\]\(<?([^)\s>]+)>?(?: \"[^\"]*\")?\)|(?:src|href)=\"([^\"]+)\"", plain)
    found += [(target, "") for target in re.findall(r"^\[[^\]]+\]: (\S+)", plain, re.MULTILINE)]
    dead: list[str] = []
    for link in (one or other for one, other in found):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        known = target.exists() and (not anchor or anchor in anchors(target))
        # The site has the documents only: what else a page of it links to is missing there.
        if not known or (DOCS in page.parents and DOCS not in (target, *target.parents)):
            dead.append(link)
    return dead


@each(PAGES)
def test_local_links_lead_somewhere(page: Path) -> None:
    assert dead_links(page, read(page)) == []


def test_a_dead_link_is_found() -> None:
    text = "[a](concepts.md) [b](gone.md) [c](concepts.md#time) [d](concepts.md#gone) ![](x.png)"
    assert dead_links(DOCS / "index.md", text) == ["gone.md", "concepts.md#gone", "x.png"]
    assert dead_links(DOCS / "index.md", "[a](../README.md) [b](api.md#asymflow.core.engine)") == [
        "../README.md"
    ]


def test_every_page_is_in_the_navigation() -> None:
    navigation = read(ROOT / "mkdocs.yml").partition("\nnav:")[2].partition("\nmarkdown_")[0]
    listed = re.findall(r"([\w/-]+\.md)$", navigation, re.MULTILINE)
    records = set((DOCS / "decisions").glob("[0-9]*.md"))  # their index lists these
    pages = {str(path.relative_to(DOCS)) for path in set(DOCS.rglob("*.md")) - records}
    assert sorted(listed) == sorted(pages)


# --- what code is called -----------------------------------------------------------------------

NOT_MODULES = {
    "asymflow.adapters": "a group of entry points",
    "asymflow.service": "a unit of systemd",
    "asymflow.json": "the file beside a model",
    "asymflow.notes": "a field of the answers of the web UI's API",
}


def leads_somewhere(name: str) -> bool:
    """Whether a dotted name can be imported, or is an attribute of something that can."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError as error:
            if error.name is None or not error.name.startswith("asymflow"):
                raise
            continue
        for attribute in parts[length:]:
            if not hasattr(found, attribute):
                return False
            found = getattr(found, attribute)
        return True
    return False


@each(tuple(page for page in PAGES if page.name != "CHANGELOG.md"))
def test_modules_that_are_named_can_be_imported(page: Path) -> None:
    named = [name for name in anchors(page) if name.startswith("asymflow.")]
    check_modules("\n".join((code_of(page), *named)))


def test_modules_of_the_next_version_can_be_imported() -> None:
    text = read(ROOT / "CHANGELOG.md").partition("\n## Unreleased\n")[2].partition("\n## ")[0]
    check_modules("\n".join(re.findall(r"`([^`]+)`", text)))


def test_modules_that_shell_scripts_name_can_be_imported() -> None:
    scripts = [path for path in (ROOT / "scripts").iterdir() if path.is_file() and not path.suffix]
    assert scripts
    for path in scripts:
        check_modules(path.read_text("utf-8"))


def check_modules(code: str) -> None:
    names = set(re.findall(r"(?<![\w./@-])asymflow(?:\.[a-zA-Z_]\w*)+(?![\w/-])", code))
    for module, what in re.findall(r"from (asymflow[\w.]*) import ([\w, ]+)", code):
        names |= {f"{module}.{name.split()[0]}" for name in what.split(",") if name.strip()}
    wrong = {name for name in names - set(NOT_MODULES) if not leads_somewhere(name)}
    assert wrong == set()


def test_modules_of_examples_are_in_the_reference() -> None:
    reference = {name for name in anchors(DOCS / "api.md") if name.startswith("asymflow.")}
    for page in PAGES:
        for module, what in re.findall(
            r"^from (asymflow[\w.]*) import ([\w, ]+)", read(page), re.M
        ):
            for name in what.split(", "):
                path = f"{module}.{name}"
                found = importlib.import_module(module)
                if module != "asymflow" and not hasattr(found, "__path__"):
                    path = module  # and the name is a class or a function
                elif isinstance(value := getattr(found, name, None), type):
                    path = value.__module__  # of a package that offers it
                known = any(each == path or each.startswith(f"{path}.") for each in reference)
                assert known or path in {f"asymflow.{each}" for each in asymflow.__all__}, page


BY_NAME = re.compile(
    r"from asymflow[\w.]* import (?:\([^)]*|[^\n(]*)(?<![.\w])accelerate\b(?! as)"
    r"|(?<![.\w])accelerate\((?!\))"
)


def test_accelerate_is_not_imported_by_its_name() -> None:
    """It would hide the package of that name, which most users of diffusers have."""
    sources = [path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py"]
    scripts = [*(ROOT / "examples").rglob("*.py"), *DOCS.rglob("*.ipynb")]
    for path in (*PAGES, *sources, *scripts):
        text = re.sub(r"^ *def accelerate\(", "", read(path), flags=re.MULTILINE)
        assert BY_NAME.findall(text) == [], path


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("from asymflow import accelerate", True),
        ("from asymflow import Plan, accelerate", True),
        ("from asymflow import (\n    Plan,\n    accelerate,\n)", True),
        ("from asymflow.integrations.diffusers.pipeline import accelerate", True),
        ("fast = accelerate(pipe)", True),
        ("import asymflow\nfast = asymflow.accelerate(pipe)", False),
        ("from asymflow.integrations.diffusers import cascade\ncascade.accelerate(a, b)", False),
        ("from asymflow import Plan\nimport accelerate", False),
    ],
)
def test_an_import_of_accelerate_is_found(text: str, wrong: bool) -> None:
    assert bool(BY_NAME.search(text)) is wrong


@each(PAGES)
def test_files_that_are_named_exist(page: Path) -> None:
    named = re.findall(
        r"(?<![\w/.-])((?:benchmarks|docs|examples|scripts|src|tests|web)/[\w./-]*\w)",
        code_of(page),
    )
    assert [path for path in named if not (ROOT / path).exists()] == []


# --- decisions, messages, versions -------------------------------------------------------------


def test_decisions_are_numbered_in_order() -> None:
    records = sorted((DOCS / "decisions").glob("[0-9]*.md"))
    assert [int(path.name[:3]) for path in records] == list(range(1, len(records) + 1))
    for path in records:
        lines = read(path).splitlines()
        assert lines[0].startswith(f"# {path.name[:3]}. ")
        assert re.match(r"Status: (accepted|superseded by \[\d{3}\]|open)", lines[2]), path.name


@cache
def texts() -> tuple[str, ...]:
    """Every text in the source; what is put into it stands as `...`."""
    found: list[str] = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(read(path))):
            if isinstance(node, ast.JoinedStr):
                parts = (v.value if isinstance(v, ast.Constant) else "..." for v in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return tuple(found)


def test_messages_that_are_explained_are_messages() -> None:
    explained = re.findall(r"^### (.+)$", read(DOCS / "guide" / "troubleshooting.md"), re.MULTILINE)
    assert len(explained) > 10
    for message in explained:
        pieces = [piece.strip(" `") for piece in message.split("...")]
        assert any(all(piece in text for piece in pieces) for text in texts()), message


def test_the_citation_has_this_version() -> None:
    citation = dict(re.findall(r"^([\w-]+): (.+)$", read(ROOT / "CITATION.cff"), re.MULTILINE))
    project = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]
    assert citation["version"].strip("'\"") == asymflow.__version__
    assert citation["license"] == project["license"]
    assert citation["title"] == project["name"]


def test_the_version_is_supported() -> None:
    supported = asymflow.__version__.rpartition(".")[0]
    assert f"| {supported} | yes |" in read(ROOT / "SECURITY.md")
