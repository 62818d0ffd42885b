"""Write the parts of the documentation that come from code; `--check` only compares.

A part stands between `<!-- written by scripts/docs.py: NAME -->` and `<!-- end -->`. What running
a notebook has left in it is removed. Plots of results that pages show are copied.
"""

from __future__ import annotations

import json
import re
import runpy
import sys
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import typer

from asymflow.cli.main import app
from asymflow.core import presets
from asymflow.models.embedded import plans
from asymflow.models.embedded.styles import STYLES
from asymflow.server.problems import CODES
from asymflow.training.recipes import RECIPES

ROOT = Path(__file__).resolve().parent.parent
PART = re.compile(
    r"(?P<begin><!-- written by scripts/docs\.py: (?P<name>\w+) -->\n).*?(?=<!-- end -->)",
    re.DOTALL,
)
PLOTS = (
    "trained/adaptive-jit",
    "trained/campaign-jit",
    "trained/campaign-unet",
    "trained/ablation",
    "e11a8aad/campaign-embedded",
    "649b2356/own-pictures",
    "649b2356/panel",
)
"""Plots of results that pages show, as copies: the documentation has nothing from outside of its
folder."""
DECISION = re.compile(r"# (?P<number>\d{3})\. (?P<title>.+)\n\nStatus: (?P<status>.+)\n")


def commands() -> str:
    """One line per command."""
    return table(("command", "what it does"), ((f"`{name}`", says) for name, says, _ in walk()))


def options() -> str:
    """Every command with all its arguments and options."""
    return "\n".join(reference(name, command) for name, _, command in walk())


def styles() -> str:
    """Every style, its artist and licence."""
    rows = (
        (f"`{s.id}`", ", ".join(s.names), f"[{s.author}]({s.upstream})", s.licence) for s in STYLES
    )
    return table(("style", "called in prompts", "drawn by", "licence"), rows)


def codes() -> str:
    """Every code of a failed call."""
    return table(("code", "what it means"), ((f"`{name}`", says) for name, says in CODES.items()))


def recipes() -> str:
    """Every training recipe."""
    rows = (
        (
            f"`{recipe.name}`",
            f"{recipe.minutes:g} minutes" if recipe.steps is None else f"{recipe.steps} steps",
            f"{recipe.transformer.depth} x {recipe.transformer.width}",
            f"{recipe.tokens}",
        )
        for recipe in RECIPES.values()
    )
    return table(("recipe", "length", "layers x width", "patches in a batch"), rows)


def plan() -> str:
    """A plan, printed."""
    return f"```text\n{presets.Grid(steps=6).plan((64, 64))}\n```\n"


def shipped() -> str:
    """What the plans that come with the model were measured to cost and keep."""
    rows: list[tuple[str, ...]] = []
    for side in plans.SIDES:
        for name in plans.NAMES:
            found = plans.load(name, (side, side))
            evidence = found.evidence
            assert evidence is not None
            assert evidence.distance is not None
            rows.append(
                (
                    f"`{name}`",
                    f"{side}",
                    f"{len(found.steps)}",
                    f"{found.forwards}",
                    f"{sum(evidence.cost_ms) / evidence.full_ms:.1f}",
                    str(evidence.rms),
                    str(evidence.distance),
                )
            )
    head = ("plan", "side", "steps", "NFE", "full estimates", "RMSE", "feature distance")
    text = table(head, iter(rows))
    return f"{text}\n```text\n{plans.load(plans.DEFAULT, (64, 64))}\n```\n"


def decisions() -> str:
    """Every decision with its status, newest last."""
    rows: list[tuple[str, ...]] = []
    for path in sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md")):
        found = DECISION.match(path.read_text(encoding="utf-8"))
        assert found is not None, (
            f"{path.name} does not begin with `# NNN. Title` and `Status: ...`"
        )
        assert path.name.startswith(found["number"]), path.name
        title = f"[{found['title']}]({path.name})"
        rows.append((found["number"], title, found["status"]))
    return table(("number", "decision", "status"), iter(rows))


def comfyui() -> str:
    """The models of the node pack, and what has been tried of each in a real ComfyUI."""
    families = runpy.run_path(str(ROOT / "integrations/comfyui/nodes/families.py"))["FAMILIES"]
    result = ROOT / "benchmarks/results/server/comfyui-0.27.0.json"
    tried = json.loads(result.read_text(encoding="utf-8"))["families"]
    rows = (
        (
            family.title,
            f"ComfyUI, as `{kind}`",
            "nothing: distilled"
            if family.distilled
            else "times, solvers, weights, reuse; guidance by step, left out or carried",
            f"{family.steps}",
            "yes" if kind in tried else "no",
            "no",
        )
        for kind, family in families.items()
    )
    head = (
        "model",
        "where it runs",
        "what a plan can use of it",
        "own steps",
        "tried",
        "measured",
    )
    return table(head, rows)


PARTS = {
    part.__name__: part
    for part in (commands, options, styles, codes, recipes, plan, shipped, decisions, comfyui)
}


@cache
def walk() -> tuple[tuple[str, str, Any], ...]:
    """(name, first sentence, command) of every command that can be run."""

    def inside(group: Any, name: str) -> Iterator[tuple[str, str, Any]]:
        for word, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from inside(command, f"{name} {word}")
            elif word == getattr(group, "default", None):  # typed without its own name
                yield name, plain(command.help).partition("\n")[0], command
            else:
                yield f"{name} {word}", plain(command.help).partition("\n")[0], command

    return tuple(inside(typer.main.get_command(app), "asymflow"))


def reference(name: str, command: Any) -> str:
    """The section of one command."""
    arguments = [p.metavar for p in command.params if p.param_type_name == "argument"]
    usage = " ".join((name, *arguments, "[OPTIONS]"))
    parts = [f"## {name}\n", f"{plain(command.help)}\n", f"```text\n{usage}\n```\n"]
    for panel, params in groupby(command.params, lambda p: getattr(p, "rich_help_panel", None)):
        rows = ((spelling(p), explained(p)) for p in params)
        parts.append(table((panel or "argument or option", ""), rows))
    return "\n".join(parts)


def spelling(parameter: Any) -> str:
    """`--size N|WxH`."""
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar}`"
    names = ", ".join(f"`{name}`" for name in parameter.opts)
    return f"{names} {parameter.metavar or ''}".strip()


def explained(parameter: Any) -> str:
    """The help of an argument or option, and its default: the one in words, or the value itself."""
    says, _, words = plain(parameter.help).partition(r"\[default: ")
    default = words.removesuffix("]")
    if not default and not (
        parameter.required or parameter.default is None or parameter.default is False
    ):
        default = f"{parameter.default}"
    return f"{says.rstrip()} Default: {default}." if default else says


def plain(text: str | None) -> str:
    """Markdown of help with rich's markup."""
    text = re.sub(r"\[cyan\](.*?)\[/\]", r"`\1`", text or "")
    return re.sub(r"\[/?[a-z ]*\]", "", text)


def table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = (head, ("---",) * len(head), *rows)
    cells = ((cell.replace("|", "\\|").replace("\n", " ") for cell in line) for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def stripped(text: str) -> str:
    """A notebook as it was before it ran: without outputs, counts and what editors add."""
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        cell["metadata"] = {}
        if cell["cell_type"] == "code":
            cell |= {"execution_count": None, "outputs": []}
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook["metadata"] = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def renewed(path: Path, text: str) -> str:
    """A document as it should be."""
    if path.suffix == ".ipynb":
        return stripped(text)
    return PART.sub(lambda found: f"{found['begin']}\n{PARTS[found['name']]()}\n", text)


def main() -> int:
    """Write or compare; 1 when something was out of date and only compared."""
    check = "--check" in sys.argv
    outdated = False
    docs = ROOT / "docs"
    for path in (ROOT / "README.md", *sorted([*docs.rglob("*.md"), *docs.rglob("*.ipynb")])):
        text = path.read_text(encoding="utf-8")
        new = renewed(path, text)
        if new != text:
            outdated = True
            if check:
                print(f"{path.relative_to(ROOT)} is out of date: run python scripts/docs.py")
            else:
                path.write_text(new, encoding="utf-8")
                print(f"{path.relative_to(ROOT)} written")
    for result in PLOTS:
        name = f"docs/assets/{result.rpartition('/')[2]}.png"
        copy, plot = ROOT / name, (ROOT / f"benchmarks/results/{result}.png").read_bytes()
        if not copy.exists() or copy.read_bytes() != plot:
            outdated = True
            if check:
                print(f"{name} is out of date: run python scripts/docs.py")
            else:
                copy.write_bytes(plot)
                print(f"{name} written")
    return int(check and outdated)


if __name__ == "__main__":
    sys.exit(main())
