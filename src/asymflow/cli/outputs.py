"""Output paths and file formats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from asymflow.core.errors import InputError
from asymflow.io.files import check_writable, slug
from asymflow.io.images import SUFFIXES, Format

AnyFormat = Format | Literal["svg"]
_FORMATS: tuple[AnyFormat, ...] = ("png", "webp", "jpeg", "svg")
_SUFFIXES: Mapping[str, AnyFormat] = {**SUFFIXES, ".svg": "svg"}


@dataclass(frozen=True, slots=True)
class Target:
    """A folder, and a file name in it unless pictures are named by prompt and seed.

    Attributes:
        stem: the file name without suffix; None to derive it from prompt and seed.
    """

    folder: Path
    stem: str | None
    suffix: str

    @property
    def format(self) -> AnyFormat:
        """The file format."""
        return _SUFFIXES[self.suffix]

    @property
    def pixels(self) -> Format:
        """The format of files of pixels; that of a picture before it is traced."""
        return "png" if self.format == "svg" else self.format

    def path(self, index: int, prompt: str, seed: int) -> Path:
        """The path of picture `index`, counted from 0.

        A given name may overwrite a file; a derived one never does.
        """
        if self.stem is not None:
            return self._numbered(self.stem, index + 1)
        stem = f"{slug(prompt)}-{seed}"
        number = 1
        while (path := self._numbered(stem, number)).exists():
            number += 1
        return path

    def check(self, prompt: str, seed: int) -> None:
        """Check the path of the first picture.

        Raises:
            InputError: it cannot be written.
        """
        require_writable(self.path(0, prompt, seed), "Choose another place with -o.")

    def _numbered(self, stem: str, number: int) -> Path:
        end = "" if number == 1 else f"-{number}"
        return self.folder / f"{stem}{end}{self.suffix}"


def target(output: str | None, format: str | None) -> Target:
    """Parse `-o` and `--format`: a file, or a folder that exists or ends in a slash.

    Raises:
        InputError: the format is unknown or contradicts the file name.
    """
    if format is not None and format not in _FORMATS:
        raise InputError(f"Unknown format {format!r}. Choose one of {', '.join(_FORMATS)}.")
    default = ".jpg" if format == "jpeg" else f".{format or 'png'}"
    if output is None:
        return Target(Path(), None, default)
    if output.endswith(("/", "\\")) or Path(output).is_dir():
        return Target(Path(output), None, default)
    path = Path(output)
    if not path.suffix:
        return Target(path.parent, path.name, default)
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise InputError(
            f"{path.name} ends in {path.suffix}, which is not a picture format that can be "
            f"written. Choose one of {', '.join(_SUFFIXES)}."
        )
    if format is not None and _SUFFIXES[suffix] != format:
        raise InputError(
            f"{path.name} is to be a {_SUFFIXES[suffix]} file, and --format says {format}. "
            "Drop one of the two."
        )
    return Target(path.parent, path.stem, path.suffix.lower())


def require_writable(path: Path, advice: str) -> None:
    """Check a path before the work that fills it.

    Raises:
        InputError: the path cannot be written.
    """
    try:
        check_writable(path)
    except OSError as error:
        raise InputError(f"Cannot write {path}: {error.strerror}. {advice}") from error
