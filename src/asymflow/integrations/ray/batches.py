"""A picklable class that makes the pictures of batches, as `Dataset.map_batches` calls it.

A row becomes the same picture here as by `asymflow batch`, by the same code, whatever the batch,
the actor and the time. Ray is not imported: any program that calls with columns will do.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asymflow.bulk.manifest import Line
from asymflow.bulk.pictures import ROWS, Failed, Made, Pictures, Price, Settings
from asymflow.bulk.pool import Metrics, peak_bytes
from asymflow.bulk.rows import FACTS, PREFIX, WRITTEN, Row, row_of
from asymflow.core.errors import InputError
from asymflow.generation.resolve import GenerateOptions

Columns = Mapping[str, NDArray[Any]]
_FILLS: Mapping[str, object] = {"string": None, "int64": 0, "float64": 0.0}
"""What a row that failed has in columns of these types."""
_TYPES: Mapping[str, type] = {"string": object, "int64": np.int64, "float64": np.float64}


class PictureBatch:
    """Makes pictures of rows. The model is loaded at the first call, or by `warm_up`.

    Pickling it carries its settings and not the model, so that it may be made anywhere.

    Args:
        model: as `asymflow.load` takes it; None for the embedded model.
        plan: name or file of a plan; None for the usual one.
        dtype: None for the fastest of the device.
        device: None for a GPU if there is one.
        threads: of a CPU; None leaves them as they are.
        rows: pictures of every network call on a GPU; calls are filled up to them, so that a
            picture does not depend on its neighbours.
        folder: paths in rows are relative to it.
        defaults: options of `asymflow generate` for rows that do not say otherwise, such as `size`
            or `style`. `seed` is mixed into the seeds of rows without one.

    Raises:
        InputError: there is no such option.
    """

    def __init__(
        self,
        model: str | None = None,
        plan: str | None = None,
        *,
        dtype: str | None = None,
        device: str | None = None,
        threads: int | None = 1,
        rows: int = ROWS,
        folder: Path | str = ".",
        **defaults: Any,
    ) -> None:
        known = {each.name for each in fields(GenerateOptions)} - {"model", "plan", "like"}
        if unknown := sorted(set(defaults) - known):
            raise InputError(
                f"There is no option {unknown[0]!r}. Options are {', '.join(sorted(known))}."
            )
        defaults.setdefault("seed", 0)
        options = GenerateOptions(model=model, plan=plan, **defaults)
        self.settings = Settings(model, dtype, device, threads, rows, options, Path(folder))
        self._pictures: Pictures | None = None
        self._metrics = Metrics()

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": self.settings, "_pictures": None, "_metrics": Metrics()}

    @property
    def metrics(self) -> Metrics:
        """Rows, passes, seconds and memory of this process so far."""
        return replace(self._metrics, peak_bytes=peak_bytes())

    def warm_up(self, row: Mapping[str, object] | None = None) -> None:
        """Load the model, and make a picture that is thrown away.

        Args:
            row: a usual one; None only loads.

        Raises:
            InputError: the model cannot be loaded, or the row not be made.
            FileFormatError: the model or the plan is a file that cannot be used.
        """
        pictures = self._loaded()
        if row is not None:
            for result in pictures.make([_row(row, 0)]):
                if isinstance(result, Failed):
                    raise InputError(result.error)

    def price(self, row: Mapping[str, object]) -> Price:
        """What a row costs: network passes and pixels.

        Raises:
            InputError: it cannot be made.
        """
        return self._loaded().price(_row(row, 0))

    def __call__(self, batch: Columns) -> dict[str, NDArray[Any]]:
        """Make a picture for every row, in their order.

        Args:
            batch: columns [n], called as the options of `asymflow generate`, and others that
                travel through. They are not changed. None and NaN stand for nothing.

        Returns:
            The columns [n] of the batch, those called as one of ours with "manifest_" before;
            "image", the bytes of a PNG file; those of `asymflow.bulk.rows.FACTS`; and "error",
            None where there is a picture.
        """
        pictures = self._loaded()
        count = len(next(iter(batch.values()), ()))
        values = {name: column.tolist() for name, column in batch.items()}
        found: dict[int, Made | str] = {}
        rows: list[Row] = []
        for i in range(count):
            try:
                rows.append(_row({name: column[i] for name, column in values.items()}, i))
            except ValueError as error:  # InputError, or text that is none
                found[i] = str(error)
        began = time.perf_counter()
        metrics = self._metrics
        for result in pictures.make(rows):
            metrics = metrics.after(result)
            found[result.row.line] = result if isinstance(result, Made) else result.error
        busy = metrics.busy_seconds + time.perf_counter() - began
        bad = count - len(rows)
        self._metrics = replace(metrics, busy_seconds=busy, failed=metrics.failed + bad)
        return _columns(batch, [found[i] for i in range(count)])

    def _loaded(self) -> Pictures:
        if self._pictures is None:
            began = time.perf_counter()
            self._pictures = Pictures.load(self.settings)
            self._metrics = Metrics(load_seconds=time.perf_counter() - began)
        return self._pictures


def _row(columns: Mapping[str, object], place: int) -> Row:
    data = {name: value for name, value in columns.items() if not _missing(value)}
    return row_of(Line(place, data), texts=False)


def _missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _columns(batch: Columns, found: list[Made | str]) -> dict[str, NDArray[Any]]:
    """The batch with what was found of every row."""
    columns = {
        PREFIX + name if name in WRITTEN else name: np.array(column)
        for name, column in batch.items()
    }
    facts: list[dict[str, Any]] = [
        {} if isinstance(each, str) else {**each.facts, "id": each.row.id, "row": each.row.contents}
        for each in found
    ]
    for name, kind in FACTS.items():
        if name == "id" and "id" in batch:
            continue  # as it was given
        fill = _FILLS[kind]
        columns[name] = _array([each.get(name, fill) for each in facts], _TYPES[kind])
    columns["image"] = _array([e.png if isinstance(e, Made) else None for e in found], object)
    columns["error"] = _array([e if isinstance(e, str) else None for e in found], object)
    return columns


def _array(values: list[Any], kind: type) -> NDArray[Any]:
    array = np.empty(len(values), kind)
    array[:] = values
    return array
