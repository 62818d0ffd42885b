"""`asymflow bench ideas`: choose the prompts that the embedded model draws well."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asymflow.bench import ideas as judged
from asymflow.bench.features import load_network
from asymflow.cli.outputs import require_writable
from asymflow.cli.report import print_json, print_note, print_result
from asymflow.core import engine, presets
from asymflow.core.errors import InputError
from asymflow.core.types import Request
from asymflow.generation import pipeline
from asymflow.generation.pixels import to_rgba
from asymflow.io.progress import bars
from asymflow.planning.shelf import DEFAULT


def ideas(
    output: Path | None,
    *,
    candidates: int,
    seeds: int,
    count: int,
    ref: str | None,
    dtype: str | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Draw candidates, and keep those that a judge recognises.

    Raises:
        InputError: it is no embedded model, the file cannot be written, or none will do.
        MissingExtra: the feature network is not installed.
    """
    path = output or judged.path()
    require_writable(path, "Choose another file with -o.")
    network = load_network()
    model = pipeline.load(ref, dtype=dtype, device=device)
    if model.card.asks != "prompt" or not model.card.styles:
        raise InputError(
            f"{model.card.title} draws other things than the drawings of the library, so it cannot "
            "be judged by them. Give weights of the embedded kind."
        )
    size = model.card.sizes.native
    library = judged.library()
    wanted = judged.candidates(library, candidates)
    plans = pipeline.plans_of(model, size)
    plan = plans.get(pipeline.usual_plan(model, size), plans[DEFAULT])

    def draw(prompt: str, seed: int) -> NDArray[np.float32]:
        request = Request({"prompt": prompt}, size, seed, presets.GUIDANCE)
        [made] = engine.run(model.adapter, plan, [request])
        return to_rgba(made.picture)

    with bars() as shown:
        task = shown.add_task("ideas", total=len(wanted) * (1 + seeds))
        found = judged.choose(
            wanted,
            draw,
            library,
            network,
            seeds=range(seeds),
            size=size,
            step=lambda more: shown.advance(task, more),
        )
    kept = [each for each in found if each.margin > 0][:count]
    if not kept:
        raise InputError(
            f"The judge recognises none of {len(wanted)} things in all of its pictures. Try more "
            "with --candidates, or fewer pictures of each with --seeds."
        )
    judged.save(path, model.weights, [each.candidate.prompt for each in kept])
    passed = sum(each.margin > 0 for each in found)
    if as_json:
        print_json(
            {
                "file": str(path),
                "plan": plan.name,
                "candidates": len(found),
                "passed": passed,
                "ideas": {each.candidate.prompt: round(each.margin, 4) for each in kept},
            }
        )
        return
    print_result(str(path))
    print_note(
        f"{passed} of {len(found)} things are recognised in each of {seeds} pictures by "
        f"{plan.name}; kept are {len(kept)}: {', '.join(each.candidate.prompt for each in kept)}."
    )
