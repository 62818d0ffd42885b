"""Metadata of pictures: a record to reproduce them, and the mark that they are AI-generated.

Files contain it three times: as JSON for asymflow (`to_json`), as the parameter line of Stable
Diffusion tools, and as XMP with the IPTC term for pictures made by a model.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal
from xml.sax.saxutils import escape

from asymflow._version import __version__
from asymflow.core.errors import FileFormatError, InputError
from asymflow.core.presets import Grid
from asymflow.core.types import SOLVERS, Plan
from asymflow.generation import decisions
from asymflow.io.images import Notes
from asymflow.io.json_reader import Fields, parse
from asymflow.planning.plan_json import plan_and_rules_from_json, plan_hash, plan_to_json

_log = logging.getLogger("asymflow.generation")

FORMAT = "asymflow picture"
SHEET_FORMAT = "asymflow sheet"
SCHEMA = 1
_SIDES = range(1, 1_000_000)
_SEEDS = range(2**63)
_LABELS = range(10**6)

_TERMS = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_XMP = """\
<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:asymflow="urn:asymflow:">
   <Iptc4xmpExt:DigitalSourceType>{source}</Iptc4xmpExt:DigitalSourceType>
   <xmp:CreatorTool>{tool}</xmp:CreatorTool>{record}
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""


@dataclass(frozen=True, slots=True)
class Source:
    """An input picture file: its path as given, and the SHA-256 of its pixels."""

    path: str
    sha256: str


ReferenceKind = Literal["library", "given", "none"]
_KINDS: tuple[ReferenceKind, ...] = ("library", "given", "none")


@dataclass(frozen=True, slots=True)
class Reference:
    """The references that a picture was conditioned on.

    Attributes:
        kind: looked up in the library, given as a file, or none.
        shown: name of each drawing: "fox, noto".
        library: SHA-256 of the library file that was used.
        source: of a given picture.
    """

    kind: ReferenceKind
    shown: tuple[str, ...] = ()
    library: str | None = None
    source: Source | None = None

    @property
    def named(self) -> str | None:
        """The name of the given picture without its ending, "none", or None for the library."""
        if self.source is not None:
            return PurePath(self.source.path).stem
        return "none" if self.kind == "none" else None


@dataclass(frozen=True, slots=True)
class Record:
    """Everything that decides the pixels of a picture.

    Attributes:
        negative: what the model was asked with: a translation, for one that knows English only.
        size: (height, width).
        plan: the whole plan, before it is truncated to `strength`.
        grid: settings that `plan` was made from, so that a repetition can change one of them.
        model: name of the adapter.
        weights: hash of the weights.
        image, mask: of image-to-image and inpainting.
        background: a colour, or None for a transparent picture.
        versions: of asymflow and of its numerical libraries.
        reference: None for a model without references.
        label: class of a model that is asked with one; `prompt` is its name.
        suffix: that the style added to the prompt, for a model that knows styles by words only.
        drawn: what the model was asked with instead of `prompt`; None where that was the prompt.
    """

    prompt: str
    negative: str
    style: str | None
    seed: int
    size: tuple[int, int]
    guidance: float
    plan: Plan
    grid: Grid | None
    model: str
    weights: str
    dtype: str
    device: str
    image: Source | None
    mask: Source | None
    strength: float
    background: str | None
    versions: Mapping[str, str]
    reference: Reference | None = None
    label: int | None = None
    suffix: str | None = None
    drawn: str | None = None


def notes(record: Record, *, in_xmp: bool) -> Notes:
    """The metadata of a picture file; `in_xmp` for formats without custom chunks."""
    text = json.dumps(to_json(record))
    return Notes(
        parameters(record), text, _xmp(_kind(record.mask is not None), text if in_xmp else None)
    )


def mark(*, composite: bool) -> Notes:
    """Only the mark that the picture is AI-generated, without prompt and settings.

    Args:
        composite: a part of it is from an input picture.
    """
    return Notes("", "", _xmp(_kind(composite), None))


def sheet_notes(records: Sequence[Record]) -> Notes:
    """The metadata of a contact sheet: its first picture in full, and how the others differ."""
    data = {
        "format": SHEET_FORMAT,
        "schema": SCHEMA,
        "first": to_json(records[0]),
        "pictures": [
            {"prompt": record.prompt, "style": record.style, "seed": record.seed}
            for record in records
        ],
    }
    text = json.dumps(data)
    return Notes(parameters(records[0]), text, _xmp("trainedAlgorithmicMedia", None))


def settings(record: Record) -> dict[str, str]:
    """The settings of the parameter line, by the names that other tools know."""
    height, width = record.size
    found = {
        "Steps": str(len(record.plan.steps)),
        "Sampler": record.plan.steps[0].solver_name,
        "CFG scale": f"{record.guidance:g}",
        "Seed": str(record.seed),
        "Size": f"{width}x{height}",
        "Model hash": record.weights[:10],
        "Model": record.model.partition(":")[0],
    }
    if record.style is not None:
        found["Style"] = record.style
    if record.reference is not None and record.reference.shown:
        found["Reference"] = "; ".join(record.reference.shown)
    if record.image is not None:
        found["Denoising strength"] = f"{record.strength:g}"
    return found | {"Version": f"asymflow {__version__}"}


def parameters(record: Record) -> str:
    """The parameter line for other tools: prompt, negative prompt, settings."""
    lines = [record.prompt]
    if record.negative:
        lines.append(f"Negative prompt: {record.negative}")
    lines.append(", ".join(f"{key}: {_quoted(value)}" for key, value in settings(record).items()))
    return "\n".join(lines)


def _quoted(value: str) -> str:
    """As AUTOMATIC1111 writes values that would end where they should not."""
    return json.dumps(value, ensure_ascii=False) if set(",:\n") & set(value) else value


def to_json(record: Record) -> dict[str, Any]:
    """A record as JSON data."""
    grid = record.grid
    data: dict[str, Any] = {
        "format": FORMAT,
        "schema": SCHEMA,
        "prompt": record.prompt,
        "negative": record.negative,
        "style": record.style,
        "seed": record.seed,
        "width": record.size[1],
        "height": record.size[0],
        "guidance": record.guidance,
        "strength": record.strength,
        "background": record.background,
        "image": _source_to_json(record.image),
        "mask": _source_to_json(record.mask),
        "model": record.model,
        "weights": record.weights,
        "dtype": record.dtype,
        "device": record.device,
        "versions": dict(record.versions),
        "grid": None
        if grid is None
        else {
            "steps": grid.steps,
            "solver": grid.solver,
            "low": grid.guidance_interval[0],
            "high": grid.guidance_interval[1],
            "shift": grid.shift,
        },
        "plan_hash": plan_hash(record.plan),
        "plan": plan_to_json(record.plan),
    }
    if record.reference is not None:
        data["reference"] = {
            "kind": record.reference.kind,
            "shown": list(record.reference.shown),
            "library": record.reference.library,
            "source": _source_to_json(record.reference.source),
        }
    for name in ("label", "suffix", "drawn"):
        if (value := getattr(record, name)) is not None:
            data[name] = value
    return data


def from_json(text: str, where: str) -> Record:
    """Read a record from JSON text; `where` names the file in messages.

    The plan of a picture that rules led off its plan has the steps that the picture made.

    Raises:
        FileFormatError: it is damaged, of another schema, or about a contact sheet.
    """
    fields = Fields(parse(text, where), where)
    fields.expect(FORMAT, SCHEMA, "A contact sheet cannot be repeated as one picture")
    plan, rules = plan_and_rules_from_json(fields.value("plan"), f"{where}: plan")
    if fields.text("plan_hash") != plan_hash(plan, rules):
        fields.refuse("has a plan that was changed after the picture was made")
    if "decisions" in fields:
        plan = decisions.made(plan, decisions.read(fields), where)
    if rules:
        _log.warning(
            "%s was made by a plan with rules for single pictures, which are no longer run. It is "
            "read as the steps that this picture made.",
            where,
        )
    width, height = fields.integer("width", _SIDES), fields.integer("height", _SIDES)
    guidance, strength = fields.number("guidance"), fields.number("strength")
    if not guidance > 0:
        fields.refuse(f"has guidance = {guidance:g}, which must be positive")
    if not 0 < strength <= 1:
        fields.refuse(f"has strength = {strength:g}, which must be above 0 and at most 1")
    record = Record(
        prompt=fields.text("prompt"),
        negative=fields.text("negative"),
        style=fields.optional_text("style"),
        seed=fields.integer("seed", _SEEDS),
        size=(height, width),
        guidance=guidance,
        plan=plan,
        grid=_grid(fields.optional_fields("grid")),
        model=fields.text("model"),
        weights=fields.text("weights"),
        dtype=fields.text("dtype"),
        device=fields.text("device"),
        image=_source(fields.optional_fields("image")),
        mask=_source(fields.optional_fields("mask")),
        strength=strength,
        background=fields.optional_text("background"),
        versions=fields.texts("versions"),
        reference=_reference(fields.optional_fields("reference"))
        if "reference" in fields
        else None,
        label=fields.integer("label", _LABELS) if "label" in fields else None,
        suffix=fields.text("suffix") if "suffix" in fields else None,
        drawn=fields.text("drawn") if "drawn" in fields else None,
    )
    fields.finish()
    return record


def _source_to_json(source: Source | None) -> dict[str, str] | None:
    return None if source is None else {"path": source.path, "sha256": source.sha256}


def _source(fields: Fields | None) -> Source | None:
    if fields is None:
        return None
    source = Source(fields.text("path"), fields.text("sha256"))
    fields.finish()
    return source


def _reference(fields: Fields | None) -> Reference | None:
    if fields is None:
        return None
    reference = Reference(
        fields.choice("kind", _KINDS),
        tuple(fields.strings("shown")),
        fields.optional_text("library"),
        _source(fields.optional_fields("source")),
    )
    fields.finish()
    return reference


def _grid(fields: Fields | None) -> Grid | None:
    if fields is None:
        return None
    steps, solver = fields.integer("steps"), fields.choice("solver", SOLVERS)
    interval = fields.number("low"), fields.number("high")
    shift = fields.number("shift")
    fields.finish()
    try:
        return Grid(steps, solver, interval, shift)
    except InputError as error:
        raise FileFormatError(f"{fields.where} cannot be used. {error}") from error


def _kind(composite: bool) -> str:
    # With a mask, pixels of the input picture are kept.
    return "compositeWithTrainedAlgorithmicMedia" if composite else "trainedAlgorithmicMedia"


def _xmp(kind: str, record: str | None) -> str:
    return _XMP.format(
        source=_TERMS + kind,
        tool=f"asymflow {__version__}",
        record=""
        if record is None
        else f"\n   <asymflow:record>{escape(record)}</asymflow:record>",
    )
