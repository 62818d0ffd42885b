"""Where automatic plans are kept: beside the model, or in the user's cache."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from asymflow._version import __version__
from asymflow.core.binding import ModelDescription
from asymflow.core.types import Plan
from asymflow.integrations.diffusers.hub import FOLDER
from asymflow.integrations.diffusers.uses import Use
from asymflow.io import folders
from asymflow.io.files import key_name
from asymflow.planning import binding
from asymflow.planning.plan_files import load_plan, save_plan

_log = logging.getLogger("asymflow")


@dataclass(frozen=True, slots=True)
class Shelf:
    """The plans that are kept of a model, for one use.

    Attributes:
        model: that a plan has to be bound to.
        name: of the model's adapter, which plans of version 0.1 are bound by.
        use: that a plan has to be made for.
        folder: of the model; None where it has none.
    """

    model: ModelDescription
    name: str
    use: Use
    folder: Path | None

    def find(self) -> Plan | None:
        """The plan that was made for this model and use.

        Where nobody said what the pipeline is called with, one that was measured with other calls
        serves, and that is said.
        """
        fitting = [
            (path, plan)
            for path in self._candidates()
            if self._exact(plan := load_plan(path)) and self.use.fits(_made(plan))
        ]
        for _, plan in fitting:
            if _made(plan).get("examples", self.use.examples) == self.use.examples:
                return plan
        if self.use.given or not fitting:
            return None
        path, plan = fitting[0]
        _log.warning("%s was measured with examples that were given then, and serves.", path)
        return plan

    def keep(self, plan: Plan) -> Plan:
        """Write a plan that was made for this model and use.

        Plans for other uses of the same weights stay. One for other weights is of no more use.

        Returns:
            The plan, with the use in its evidence, bound to the model.
        """
        if plan.evidence is not None:
            made = {**plan.evidence.made, **self.use.made}
            plan = replace(plan, evidence=replace(plan.evidence, made=made))
        plan = binding.bound(plan, self.model)
        places = self._places()
        for path in places:
            if path is not places[-1] and path.exists() and self._same_weights(load_plan(path)):
                continue
            try:
                save_plan(plan, path)
            except OSError as error:
                _log.info("Cannot keep the plan as %s (%s).", path, error.strerror)
            else:
                _log.info("Kept as %s.", path)
                return plan
        _log.warning("The plan is not kept: cannot write any of %s.", ", ".join(map(str, places)))
        return plan

    def unfinished(self, dtype: object, device: object) -> Path:
        """Folder of what was measured for a plan that is not made yet, in a precision there."""
        facts = {
            "dtype": str(dtype),
            "device": str(device),
            "model": self.name,
            "settings": repr(sorted(self.model.settings.items())),
            "asymflow": __version__,
            **self.use.made,
        }
        return folders.cache() / "measuring" / key_name(facts)

    def _candidates(self) -> Iterator[Path]:
        """Files that may hold the plan; those in the cache have the names of all models."""
        if self.folder is not None:
            if (first := self.folder / FOLDER / "plan.json").exists():
                yield first
            yield from sorted((self.folder / FOLDER).glob(f"plan-{self.use.label}*.json"))
        yield from sorted(_cache().glob(f"*-{self.use.label}*.json"))

    def _places(self) -> list[Path]:
        """Where the plan may be written, the best place first."""
        label, name = self.use.label, self.name.replace(":", "-")
        facts = repr((sorted(self.use.made.items()), sorted(self.model.settings.items())))
        detail = f"{label}-{hashlib.sha256(facts.encode()).hexdigest()[:8]}"
        own = _cache() / f"{name}-{detail}.json"
        if self.folder is None:
            return [own]
        names = ("plan", f"plan-{label}", f"plan-{detail}")
        return [*(self.folder / FOLDER / f"{each}.json" for each in names), own]

    def _exact(self, plan: Plan) -> bool:
        """Whether a plan was measured on this model, settings included."""
        if plan.binding is None:
            return _made(plan).get("adapter") == self.name
        return binding.match(plan, self.model).level == "exact"

    def _same_weights(self, plan: Plan) -> bool:
        if plan.binding is None:
            return _made(plan).get("adapter") == self.name
        return binding.same_weights(plan.binding, self.model)


def _cache() -> Path:
    return folders.cache() / "plans"


def _made(plan: Plan) -> dict[str, str]:
    return {} if plan.evidence is None else dict(plan.evidence.made)
