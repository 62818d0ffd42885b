"""What a job is: a folder continues one job only, and says what differs from another.

Everything that decides a picture beside its row is in `job.json` of the folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Literal

from filelock import FileLock

from asymflow.bulk.pictures import Identity, Settings
from asymflow.core.errors import FileFormatError, InputError
from asymflow.generation.resolve import GenerateOptions
from asymflow.io.files import key_name, write_text
from asymflow.io.json_reader import Fields, parse
from asymflow.planning.shelf import DEFAULT, NAMES

NAME = "job.json"
FORMAT, SCHEMA = "asymflow batch", 1
Output = Literal["imagefolder", "parquet"]
OUTPUTS: tuple[Output, ...] = ("imagefolder", "parquet")
_MIXABLE = ("determinism", "asymflow")
"""What may differ between machines that share a job, if that is allowed."""
_TITLES = {
    "weights": "the weights of the model",
    "plan": "the plan",
    "determinism": "the machine",
    "asymflow": "the version of asymflow",
    "output": "the form of the output",
    "shards": "the number of shards",
}


def facts(
    settings: Settings, identity: Identity, output: Output, shards: int | None
) -> dict[str, str]:
    """Everything that decides pictures beside their rows, and where they go, as texts."""
    options = {
        each.name: str(value)
        for each in fields(GenerateOptions)
        if (value := getattr(settings.defaults, each.name)) != each.default and each.name != "model"
    }
    if options.get("plan") not in (None, DEFAULT, *NAMES):
        options["plan"] = "a file"  # wherever it lies: its hash counts
    return {
        "model": identity.model,
        "weights": identity.weights,
        "plan": str(identity.plan),
        "size": identity.size,
        "dtype": identity.dtype,
        "determinism": identity.determinism,
        "asymflow": identity.version,
        "options": json.dumps(options, sort_keys=True),
        "output": output,
        "shards": str(shards),
    }


def fingerprint(job: Mapping[str, str]) -> str:
    """16 hexadecimal digits that stand for a job."""
    return key_name(job)


def check_place(out: Path) -> None:
    """Raise `InputError` for a folder that holds something else than a job."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file, and pictures need a folder. Choose another with -o.")
    if not out.exists() or (out / NAME).exists():
        return
    other = next((each.name for each in out.iterdir() if not each.name.startswith(".")), None)
    if other is not None:
        raise InputError(
            f"{out} holds {other} and no {NAME}, so it is not the folder of a job. Choose an empty "
            "or a new one with -o."
        )


def join(out: Path, job: Mapping[str, str], *, allow_mixed: bool) -> None:
    """Begin a job in a folder, or make sure that the job in it is the same.

    Raises:
        InputError: it is another one.
        FileFormatError: its file is damaged.
    """
    path = out / NAME
    with FileLock(out / ".job.lock"):  # several shards may begin at once
        if not path.exists():
            data = {"format": FORMAT, "schema": SCHEMA, "fingerprint": fingerprint(job), **job}
            write_text(path, json.dumps(data, indent=1) + "\n")
            return
        before = _read(path)
    what = differences(before, job, allow_mixed=allow_mixed)
    if not what:
        return
    mixed = (
        ""
        if differences(before, job, allow_mixed=True)
        else " Or continue with --allow-mixed, if rounding may differ between pictures."
    )
    raise InputError(
        f"The job in {out} is another one: {what}. Repeat its command, or choose another folder "
        f"with -o.{mixed}"
    )


def differences(before: Mapping[str, str], job: Mapping[str, str], *, allow_mixed: bool) -> str:
    """What differs between two jobs, in words; empty if nothing does that counts."""
    return "; ".join(
        f"{_TITLES.get(name, name)} was {before.get(name)} and is {job[name]}"
        for name in job
        if job[name] != before.get(name) and not (allow_mixed and name in _MIXABLE)
    )


def _read(path: Path) -> dict[str, str]:
    try:
        read = Fields(parse(path.read_bytes(), str(path)), str(path))
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path} is damaged: {error}.") from error
    read.expect(FORMAT, SCHEMA, "Choose another folder with -o.")
    return {name: read.text(name) for name in read.names()}
