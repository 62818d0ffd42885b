"""What a search has measured, in a folder, so that it resumes where it was interrupted.

A search asks for the same plans in the same order every time, so it keeps no position: what it asks
for again is known. Kept are the errors of plans, which are small, and the few states that they are
compared with, and not the pictures of plans.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from asymflow.core.errors import FileFormatError
from asymflow.core.types import Plan, Profile, Step
from asymflow.io.files import replacing, write_text
from asymflow.planning import plan_files, plan_json
from asymflow.planning.fitting import Fit
from asymflow.planning.proof import Errors
from asymflow.planning.verifier import Known

_log = logging.getLogger("asymflow")


class Journal:
    """Measurements of one job in a folder; of several, each has its own folder.

    Without a folder, or where it cannot be written to, nothing is kept.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                _log.info("Measurements cannot be kept in %s (%s).", folder, error.strerror)
                self._folder = None

    @contextmanager
    def kept_on_interruption(self, say: Callable[[str], None]) -> Generator[None]:
        """Say where measurements are kept, where the block is interrupted."""
        try:
            yield
        except KeyboardInterrupt:
            if self._folder is not None:
                say(f"Measurements are kept in {self._folder}: the next try resumes.")
            raise

    def path(self, name: str) -> Path | None:
        """Where something is kept under a name; None if nothing is."""
        return None if self._folder is None else self._folder / name

    def errors(self, name: str) -> Known:
        """Errors of plans, to be kept as they are measured."""
        path = self.path(f"{name}.jsonl")
        return dict[tuple[Step, ...], Errors]() if path is None else _Errors(path)

    def states(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """States [b, c, h, w] that are known, or else made and kept."""
        if (known := self._states(name)) is not None:
            return known
        made = make()
        self._keep_states(name, made)
        return made

    def profile(self, make: Callable[[], tuple[Profile, Tensor]]) -> tuple[Profile, Tensor]:
        """A profile and where its reference leads, that are known, or else made and kept."""
        path, known = self.path("profile.safetensors"), self._states("reference")
        if path is not None and known is not None and path.exists():
            with suppress(FileFormatError):  # it is made again
                return plan_files.load_profile(path), known
        profile, ends = make()
        if path is not None:
            with _kept_if_possible(path):
                plan_files.save_profile(profile, path)
        self._keep_states("reference", ends)
        return profile, ends

    def fit(self, name: str, make: Callable[[], Fit | None]) -> Fit | None:
        """A fitted plan that is known, or else made and kept; None where there is none."""
        path = self.path(f"fit-{name}.json")
        if path is not None and path.exists():
            with suppress(FileFormatError, ValueError, KeyError, TypeError):  # it is made again
                kept = json.loads(path.read_text("utf-8"))
                plan = plan_json.plan_from_json(kept["plan"], str(path))
                return Fit(plan, tuple(kept["bends"]), float(kept["error"]))
        made = make()
        if path is not None and made is not None:
            kept = {
                "plan": plan_json.plan_to_json(made.plan),
                "bends": made.bends,
                "error": made.error,
            }
            with _kept_if_possible(path):
                write_text(path, json.dumps(kept))
        return made

    def _states(self, name: str) -> Tensor | None:
        path = self.path(f"{name}.safetensors")
        if path is None or not path.exists():
            return None
        try:
            return load_file(path)["states"]
        except (SafetensorError, KeyError, OSError):
            _log.info("%s is damaged and is made again.", path)
            return None

    def _keep_states(self, name: str, states: Tensor) -> None:
        path = self.path(f"{name}.safetensors")
        if path is not None:
            with _kept_if_possible(path), replacing(path) as file:
                file.write(save({"states": states.contiguous()}))

    def remove(self) -> None:
        """Forget everything: the job is done."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


class _Errors:
    """Errors of plans, appended to a file of one JSON object per line. The last one counts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, Errors] = {}
        text = path.read_text("utf-8", "replace") if path.exists() else ""
        for line in text.splitlines():
            with suppress(ValueError, KeyError, TypeError):  # stopped while it wrote
                row = json.loads(line)
                self._known[row["plan"]] = np.array(row["errors"], np.float64)
        self._begin = "\n" if text and not text.endswith("\n") else ""

    def get(self, steps: tuple[Step, ...], /) -> Errors | None:
        return self._known.get(_name(steps))

    def __setitem__(self, steps: tuple[Step, ...], errors: Errors, /) -> None:
        self._known[_name(steps)] = errors
        with _kept_if_possible(self._path), self._path.open("a", encoding="utf-8") as file:
            row = json.dumps({"plan": _name(steps), "errors": errors.tolist()})
            file.write(f"{self._begin}{row}\n")
            self._begin = ""


@contextmanager
def _kept_if_possible(path: Path) -> Generator[None]:
    """Continue without what cannot be written: it is measured, and would be so again."""
    try:
        yield
    except OSError as error:
        _log.warning("%s cannot be kept (%s).", path, error.strerror)


def _name(steps: tuple[Step, ...]) -> str:
    return plan_files.plan_hash(Plan("any", steps))
