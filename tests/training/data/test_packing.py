"""A dataset in one file, and back."""

from __future__ import annotations

import filecmp
from pathlib import Path

import pytest

from asymflow.core.errors import FileFormatError
from asymflow.training.data.builder import BuildReport
from asymflow.training.data.dataset import Dataset
from asymflow.training.data.packing import pack, unpack


def test_a_dataset_comes_back_byte_for_byte(built: BuildReport, tmp_path: Path) -> None:
    packed = tmp_path / "data.zip"
    pack(built.out, packed)
    unpack(packed, tmp_path / "data")
    names = ["manifest.jsonl", "build.json", *(f"images-{size}.npy" for size in (32, 64, 128))]
    same, differing, missing = filecmp.cmpfiles(built.out, tmp_path / "data", names, shallow=False)
    assert (sorted(same), differing, missing) == (sorted(names), [], [])
    assert len(Dataset(tmp_path / "data")) == len(Dataset(built.out))


def test_a_damaged_file_is_refused(built: BuildReport, tmp_path: Path) -> None:
    packed = tmp_path / "data.zip"
    pack(built.out, packed)
    packed.write_bytes(packed.read_bytes()[:-300])
    with pytest.raises(FileFormatError, match="asymflow data pack"):
        unpack(packed, tmp_path / "data")
