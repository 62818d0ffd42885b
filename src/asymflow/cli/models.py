"""`asymflow models`: what is at hand, what it is asked with, and the plans that it has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from asymflow.cli.report import print_json, print_note
from asymflow.core.card import Card
from asymflow.core.types import Request
from asymflow.generation import pipeline
from asymflow.generation.pipeline import Model
from asymflow.models import loading
from asymflow.planning import memory
from asymflow.planning.memory import Memory
from asymflow.planning.shelf import NAMES

_SHOWN = 12
"""Classes and styles that are named in a table."""


def models(refs: Sequence[str], *, as_json: bool) -> None:
    """List the models that can be named without a path; or show some in full.

    Raises:
        InputError, FileFormatError, MissingExtra: one of `refs` cannot be loaded.
    """
    if refs:
        loaded = [(ref, pipeline.load(ref)) for ref in refs]
        if as_json:
            print_json({"models": [{"ref": ref, **_json(model)} for ref, model in loaded]})
            return
        for ref, model in loaded:
            _show(ref, model)
        return
    found = list(_at_hand())
    if as_json:
        print_json({"models": [{"ref": ref, "kind": kind} for ref, kind in found]})
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("model", style="cyan", overflow="fold")
    table.add_column("what it is")
    for row in found:
        table.add_row(*row)
    Console().print(table)
    print_note("Any file, folder or owner/name will do as well; asymflow models REF shows one.")


def _at_hand() -> Iterator[tuple[str, str]]:
    yield loading.EMBEDDED, "comes with asymflow"
    for offer in loading.offered():
        yield offer.name, f"offered by the package {offer.value.partition(':')[0]}"
    for folder in sorted(Path().iterdir()):
        if folder.is_dir() and (folder / loading.INDEX).is_file():
            yield f"./{folder.name}", "a pipeline of diffusers, in this folder"
    yield from ((name, "on the hub, in the cache here") for name in loading.cached())


def _json(model: Model) -> dict[str, Any]:
    size = model.card.sizes.native
    plans = {
        name: {"steps": len(plan.steps), "forwards": pipeline.nfe(model.card, plan)}
        for name, plan in pipeline.plans_of(model, size).items()
    }
    card = {key: value for key, value in asdict(model.card).items() if key != "calibration"}
    return {
        "name": model.adapter.name,
        "weights": model.weights,
        "card": card,
        "plans": plans,
        "memory": asdict(_memory(model)),
    }


def _memory(model: Model) -> Memory:
    """For one picture of the model's own size."""
    card = model.card
    request = Request(card.calibration[0], card.sizes.native, 0, card.guidance)
    return memory.needed(model.adapter, request)


def _show(ref: str, model: Model) -> None:
    card = model.card
    table = Table(box=None, show_header=False, pad_edge=False, title=f"[bold]{ref}[/]")
    table.title_justify = "left"
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in _rows(model, card):
        table.add_row(name, value)
    console = Console(highlight=False)
    console.print(table)
    for note in card.notes:
        console.print(note)


def _rows(model: Model, card: Card) -> Iterator[tuple[str, str]]:
    asked = {"prompt": "a prompt", "class": "a class", "nothing": "nothing"}[card.asks]
    sizes, (height, width) = card.sizes, card.sizes.native
    yield "model", f"{card.title} ({model.adapter.name})"
    yield "draws", card.draws
    yield "asked with", f"{asked}{' and a negative prompt' if card.negative else ''}"
    if card.classes:
        yield "classes", _few(card.classes)
    if card.styles:
        yield "styles", _few([style.id for style in card.styles])
    around = f"{width}x{height}"
    if not sizes.fixed:
        around += f"; sides from {sizes.smallest} to {sizes.largest}, multiples of {sizes.multiple}"
    yield "sizes", around
    yield "channels", f"{card.channels}{', transparent' if card.alpha else ''}"
    if card.guided:
        low, high = card.guidance_interval
        yield "guidance", f"{card.guidance:g}, for t from {low:g} to {high:g}"
    begin = [
        *(["another picture"] if card.image else []),
        *(["a part of one (mask)"] if card.inpaint else []),
    ]
    yield "can begin with", ", ".join(begin) or "noise only"
    yield "cheaper estimates", ", ".join(card.tiers) or "none"
    yield "memory", str(_memory(model))
    yield "weights", f"{model.weights[:12]}, licence {card.licence or 'not known'}"
    found = pipeline.plans_of(model, sizes.native)
    yield (
        "plans",
        ", ".join(f"{name} ({pipeline.nfe(model.card, plan)} NFE)" for name, plan in found.items()),
    )
    missing = [name for name in NAMES if name not in found]
    if missing:
        how = "" if model.ref is None else f" --model {model.ref}"
        yield "", f"asymflow plan{how} measures {', '.join(missing)}"


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)}: {', '.join(names[:_SHOWN])}{more}"
