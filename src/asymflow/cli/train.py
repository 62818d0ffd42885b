"""`asymflow train`: train a recipe, with progress in the terminal."""

from __future__ import annotations

import dataclasses
import math
import shutil
from pathlib import Path

from asymflow.cli.outputs import require_writable
from asymflow.cli.report import print_note, print_result
from asymflow.core.errors import InputError
from asymflow.io.files import replacing
from asymflow.io.progress import bars
from asymflow.training import loop, recipes
from asymflow.training.run import finishing, run


def train(
    recipe_name: str,
    data: Path,
    out: Path,
    *,
    device: str | None,
    start: Path | None,
    minutes: float | None,
    finish: int | None,
    seed: int,
    blend: float,
    export: Path | None,
) -> None:
    """Train a recipe in the folder `out`, and print the path of the model file.

    Raises:
        InputError: the recipe is unknown, the duration, the end or the blend is invalid, or
            `export` cannot be written.
        FileFormatError: the dataset, the start or the checkpoint is invalid.
    """
    recipe = dataclasses.replace(recipes.recipe(recipe_name), seed=seed)
    if minutes is not None:
        if not 0 < minutes < math.inf:
            raise InputError(f"--minutes {minutes:g} is no duration. Give a number above 0.")
        recipe = dataclasses.replace(recipe, minutes=minutes, steps=None)
    if finish is not None:
        if finish < 1 or minutes is not None or start is not None:
            raise InputError(
                f"--finish {finish} is not possible. Give a number of steps above 0, and neither "
                "--minutes nor --start: it goes on from the run in --out."
            )
        recipe, out = finishing(recipe, out, finish)
    if not 0 < blend <= 1 or (blend < 1 and start is None):
        raise InputError(
            f"--blend {blend:g} is not possible. Give a share above 0 and up to 1, and below 1 the "
            "--start that the rest comes from."
        )
    for path in (out / "log.jsonl", export):
        if path is not None:
            require_writable(path, "Choose another place.")
    with bars(percent=True) as bar:
        task = bar.add_task(f"training {recipe.name}", total=1.0)

        def show(row: loop.Progress) -> None:
            text = f"step {row.step}, loss {row.loss:.4f}, {row.pictures_per_second:.0f} pictures/s"
            bar.update(task, completed=row.progress, description=text)

        model = run(recipe, data, out, device=device, start=start, blend=blend, on_progress=show)
    if export is not None:
        with model.open("rb") as source, replacing(export) as target:
            shutil.copyfileobj(source, target)
        model = export
    print_result(str(model))
    print_note(f"Draw with it: asymflow generate 'a fox' --weights {model}")
