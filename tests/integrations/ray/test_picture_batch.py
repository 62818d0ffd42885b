"""`PictureBatch`: the same pictures as a local job, from columns that are not changed."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from asymflow.bulk import run as runs
from asymflow.bulk.manifest import manifest
from asymflow.core.errors import InputError
from asymflow.integrations.ray import PictureBatch
from tests.bulk.conftest import hashes, some, write
from tests.bulk.conftest import here as here


def columns(rows: list[dict[str, Any]]) -> dict[str, Any]:
    names = {name for row in rows for name in row}
    found = {name: np.array([row.get(name) for row in rows]) for name in sorted(names)}
    for column in found.values():
        column.flags.writeable = False
    return found


def test_the_same_pixels_as_a_local_job_in_any_batch(here: Path) -> None:
    rows = some(12, tag=1.5)
    write(here / "m.jsonl", rows)
    maker = PictureBatch("free", steps=3)
    order = runs.Order(manifest("m.jsonl"), maker.settings, here / "out", "imagefolder", 1)
    runs.run(order, note=print, advance=lambda progress: None)
    expected = hashes(here / "out")
    for part in (rows, rows[3:7], rows[::-1]):
        batch = columns(part)
        found = maker(batch)
        assert found["id"].tolist() == [row["id"] for row in part]
        assert found["sha256"].tolist() == [expected[str(row["id"])] for row in part]
        assert found["error"].tolist() == [None] * len(part)
        assert found["tag"].tolist() == [1.5] * len(part)
    with Image.open(io.BytesIO(found["image"][0])) as image:
        assert image.size == (32, 32)
    assert maker.metrics.rows == 28
    assert maker.metrics.nfe == 28 * found["nfe"][0]
    assert maker.metrics.peak_bytes > 10**7


def test_a_pickle_has_no_model_and_makes_the_same(here: Path) -> None:
    maker = PictureBatch("free", steps=2, size="32")
    batch = {"prompt": np.array(["fox", "hen"])}
    found = maker(batch)
    assert len(set(found["id"])) == 2
    sent = pickle.dumps(maker)
    assert len(sent) < 2000
    again = pickle.loads(sent)
    assert again.metrics.rows == 0
    assert again(batch)["sha256"].tolist() == found["sha256"].tolist()


def test_a_row_that_fails_says_why_and_keeps_its_place(here: Path) -> None:
    maker = PictureBatch("free", steps=2, size="32")
    batch = {
        "id": np.array([1, 2, 3, 4, 4]),
        "prompt": np.array(["a", None, "raise", "b", "b"], object),
        "seed": np.array([5, 5, np.nan, np.nan, 2.5]),
        "nfe": np.array([0, 1, 2, 3, 4]),
    }
    found = maker(batch)
    assert [error is None for error in found["error"]] == [True, False, False, True, False]
    assert [png is None for png in found["image"]] == [False, True, True, False, True]
    assert found["id"].tolist() == [1, 2, 3, 4, 4]
    assert found["manifest_nfe"].tolist() == [0, 1, 2, 3, 4]
    assert (found["nfe"] > 0).tolist() == [True, False, False, True, False]
    assert found["seed"][0] == 5
    assert (maker.metrics.rows, maker.metrics.failed) == (2, 3)
    assert maker({"prompt": np.array([], object)})["image"].shape == (0,)


def test_prices_and_warm_up(here: Path) -> None:
    maker = PictureBatch("free", steps=3)
    maker.warm_up({"prompt": "x", "size": 32})
    assert maker.metrics.load_seconds > 0
    small, large = (maker.price({"prompt": "x", "size": size}) for size in (32, 64))
    assert large.work == 4 * small.work
    with pytest.raises(InputError, match="Unknown style"):
        maker.warm_up({"prompt": "x", "style": "cubism"})
    with pytest.raises(InputError, match="no option 'stile'"):
        PictureBatch(stile="noto")


def test_ray_is_not_imported() -> None:
    code = "import sys; import asymflow.integrations.ray; assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
