"""Build what is handed out: wheels, and a pack for ComfyUI that needs no index for asymflow.

    scripts/release wheels --out DIR
    scripts/release comfyui --out DIR [--pack FOLDER]

`wheels` writes the code and the weights of the embedded model as two wheels, and their SHA256SUMS.
`comfyui` writes a folder of nodes with a wheel of the code in it, as it is and zipped.

The same commit makes the same bytes: times are those of SOURCE_DATE_EPOCH, which is the time of the
commit unless it is set.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hatchling.builders.wheel import WheelBuilder
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager

ROOT = Path(__file__).resolve().parents[1]
EMBEDDED = ROOT / "packages/embedded"
PACK = ROOT / "integrations/comfyui"
LARGE = ("embedded.safetensors", "library.zip", "annotations.zip")
"""What the wheel of the code leaves out of the folder of weights."""
COMFYUI_HAS = ("torch", "numpy")
"""What the wheel in a pack does not require: pip would replace the builds that ComfyUI has."""
LABEL = "comfyui"
"""Local version label of that wheel, since its requirements differ."""
MOST_BYTES = 12_000_000
"""Of a zipped pack."""
NAME = "asymflow-comfyui"
LEFT_OUT = ("__pycache__", "*.pyc", ".*", "tests", "wheels", "requirements.txt")
"""Of the folder of nodes; the last two are written here."""


class ReleaseError(Exception):
    """Something cannot be built; the message says why."""


def wheels(out: Path) -> list[Path]:
    """The wheels of the code and of the weights, and their checksums."""
    out.mkdir(parents=True, exist_ok=True)
    made = [code(out), weights(out)]
    sums = "".join(f"{digest(path)}  {path.name}\n" for path in made)
    path = out / "SHA256SUMS"
    path.write_text(sums, "utf-8")
    return [*made, path]


def code(out: Path, *, label: str | None = None, without: Sequence[str] = ()) -> Path:
    """The wheel of the code, without the large files of the embedded model.

    Args:
        out: folder.
        label: local version label.
        without: packages that it does not require.
    """
    config = copy.deepcopy(project(ROOT))
    target = config["tool"]["hatch"]["build"]["targets"]["wheel"]
    target["exclude"] = [f"src/asymflow/models/embedded/weights/{name}" for name in LARGE]
    if label is not None:
        config["project"]["dynamic"].remove("version")
        config["project"]["version"] = f"{version()}+{label}"
    required = config["project"]["dependencies"]
    config["project"]["dependencies"] = [
        each for each in required if re.split(r"[^\w.-]", each)[0] not in without
    ]
    return build(ROOT, config, out)


def weights(out: Path) -> Path:
    """The wheel of the embedded model."""
    folder = ROOT / "src/asymflow/models/embedded/weights"
    missing = [name for name in LARGE if not (folder / name).is_file()]
    if missing:
        raise ReleaseError(f"{folder} has no {' and no '.join(missing)}. Take a whole clone.")
    return build(EMBEDDED, project(EMBEDDED), out)


def comfyui(out: Path, pack: Path) -> list[Path]:
    """A folder of nodes with the wheel that they need, as it is and zipped.

    Raises:
        ReleaseError: there are no nodes, or the pack is too large.
    """
    if not (pack / "__init__.py").is_file():
        raise ReleaseError(
            f"{pack} has no __init__.py, so it is no folder of nodes. Name the right one as --pack."
        )
    out.mkdir(parents=True, exist_ok=True)
    folder = out / NAME
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(pack, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    inside = folder / "wheels"
    inside.mkdir()
    wheel = code(inside, label=LABEL, without=COMFYUI_HAS)
    (folder / "requirements.txt").write_text(f"./wheels/{wheel.name}\n", "utf-8")
    zipped = out / f"{NAME}-{version()}.zip"
    pack_up(folder, zipped)
    if (size := zipped.stat().st_size) > MOST_BYTES:
        raise ReleaseError(
            f"{zipped} has {size / 1e6:.1f} MB, more than the {MOST_BYTES / 1e6:.0f} MB of a pack. "
            f"Take large files out of {pack}."
        )
    return [folder, zipped]


def build(root: Path, config: dict[str, Any], out: Path) -> Path:
    """Build a wheel of a project with this configuration in place of its pyproject.toml."""
    plugins = PluginManager()
    metadata = ProjectMetadata(str(root), plugins, config)
    builder = WheelBuilder(str(root), plugin_manager=plugins, metadata=metadata)
    return Path(next(builder.build(directory=str(out.resolve()), versions=["standard"])))


def project(root: Path) -> dict[str, Any]:
    """The configuration of a project."""
    return tomllib.loads((root / "pyproject.toml").read_text("utf-8"))


def version() -> str:
    """The version of asymflow."""
    text = (ROOT / "src/asymflow/_version.py").read_text("utf-8")
    [found] = re.findall(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    return found


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pack_up(folder: Path, path: Path) -> None:
    """Zip a folder; the bytes depend on what is in it, and on SOURCE_DATE_EPOCH."""
    moment = time.gmtime(int(os.environ["SOURCE_DATE_EPOCH"]))[:6]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for each in files_of(folder):
            name = f"{folder.name}/{each.relative_to(folder).as_posix()}"
            info = zipfile.ZipInfo(name, moment)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # Unix, on every system
            info.external_attr = 0o100644 << 16
            archive.writestr(info, each.read_bytes())


def files_of(folder: Path) -> Iterator[Path]:
    """The files of a folder in one order."""
    return iter(sorted(each for each in folder.rglob("*") if each.is_file()))


def set_date() -> None:
    """Set SOURCE_DATE_EPOCH to the time of the commit, unless it is set."""
    if "SOURCE_DATE_EPOCH" not in os.environ:
        asked = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        # A tree without its history has one fixed time: 1 February 2020, as hatchling's default.
        os.environ["SOURCE_DATE_EPOCH"] = done.stdout.strip() or "1580601600"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/release", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("wheels", "comfyui"):
        command = commands.add_parser(name)
        command.add_argument("--out", type=Path, required=True, metavar="DIR")
        if name == "comfyui":
            command.add_argument("--pack", type=Path, default=PACK, metavar="FOLDER")
    given = parser.parse_args(arguments)
    set_date()
    try:
        pack = given.command == "comfyui"
        made = comfyui(given.out, given.pack) if pack else wheels(given.out)
    except ReleaseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for path in made:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
