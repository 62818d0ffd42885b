"""The model that comes with asymflow, and its file format: one safetensors file.

The file's metadata holds the configuration as JSON, so a file is all that is needed to run a
model. Weights are stored in bfloat16 and the word vectors in int8.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import itertools
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import Tensor

from asymflow.core import presets
from asymflow.core.adapter import Context
from asymflow.core.binding import ModelDescription
from asymflow.core.card import Card, Sizes, Style, Tiles
from asymflow.core.checks import as_path
from asymflow.core.errors import FileFormatError, InputError
from asymflow.core.requests import refuse_others
from asymflow.core.schedules import plan_of, uniform
from asymflow.core.transforms import with_pool_factors
from asymflow.core.types import LATE, Picture, Plan, Request, part_name
from asymflow.core.words import Understanding
from asymflow.io.files import replacing
from asymflow.io.images import cut_out, fit
from asymflow.models.embedded import ideas, installed, plans
from asymflow.models.embedded.detail import DetailConfig
from asymflow.models.embedded.emoji import emoji_to_words
from asymflow.models.embedded.languages import annotations
from asymflow.models.embedded.library import Library, Likeness, alone, shipped, style_in
from asymflow.models.embedded.network import PictureConfig, PictureModel
from asymflow.models.embedded.packed import PackedLinear, pack
from asymflow.models.embedded.prompts import calibration as prompt_list
from asymflow.models.embedded.reading import Reader
from asymflow.models.embedded.styles import STYLES
from asymflow.models.embedded.text import load_tokenizer, tokenize
from asymflow.models.embedded.transformer import TransformerConfig
from asymflow.models.embedded.vocabulary import Vocabulary
from asymflow.planning import binding as plan_binding

FORMAT = "asymflow-embedded-2"
READ = ("asymflow-embedded-1", FORMAT)
"""Readable formats; the first has no convolutions and no references."""
DEFAULT_SIZE = (64, 64)
SMALLEST = 32
"""Side of the smallest pictures that the model was trained on."""
NATIVE = 64
"""Side of the pictures that most training steps used."""
TRAINED = (32, 128)
"""Smallest and largest side of the pictures of training."""
_NULLS = 64
TILED_UNTIL = 0.5
"""Largest t at which the model is shown tiles of a larger picture."""
SIDE_LIMITS = (16, 2048)
"""Smallest and largest side in pixels; quality is measured at the trained sizes only."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class EmbeddedAdapter:
    """Pictures from prompts; inputs are "prompt", and optionally "style", "negative", "reference".

    An emoji in a prompt is read as its name. A model with references gets them by looking up the
    prompt in the library, unless "reference" is a picture [h, w, 4] to use instead, or None.

    The state is premultiplied RGBA in [-1, 1] and always float32; the network may run in bfloat16.
    """

    model: PictureModel
    weights_hash: str
    training: Mapping[str, Any]
    tokenizer: Any
    library: Library | None
    """The library that prompts are looked up in, for a model with references."""
    _nulls: OrderedDict[tuple[str, tuple[int, int]], Context] = dataclasses.field(
        default_factory=OrderedDict[tuple[str, tuple[int, int]], Context], init=False, repr=False
    )
    """The newest unconditional contexts; nearly all pictures have the same one."""
    _readers: list[Reader] = dataclasses.field(default_factory=list[Reader], init=False, repr=False)
    """What reads prompts, once one was read."""
    _likeness: list[Likeness] = dataclasses.field(
        default_factory=list[Likeness], init=False, repr=False
    )
    """What compares words with the names in the library, once a prompt was looked up."""

    @property
    def name(self) -> str:
        return f"embedded:{self.weights_hash[:12]}"

    @property
    def description(self) -> ModelDescription:
        """What plans have to know of the model."""
        return ModelDescription(
            family="embedded",
            weights=self.weights_hash,
            parameterisation="x_0",
            guidance="cfg",
            shift_rule="side / 64",
            alpha=self.channels == 4,
        )

    @property
    def channels(self) -> int:
        return self.model.config.transformer.channels

    @property
    def template(self) -> Tensor:
        return torch.empty(0, dtype=torch.float32, device=self.model.basis.device)

    @property
    def batch(self) -> int | None:
        # CPU kernels choose their summation order by the number of rows: one picture per call
        # makes a result independent of its neighbours, at a cost of a few per cent.
        return 1 if self.model.basis.device.type == "cpu" else None

    @property
    def styles(self) -> tuple[str, ...]:
        return self.model.config.styles

    @property
    def references(self) -> int:
        """Number of reference drawings that the model can use."""
        return self.model.config.references

    @property
    def card(self) -> Card:
        """What the model is asked with, and what it can make."""
        known = {style.id: style for style in STYLES}
        named = {id: known[id].names if id in known else (id,) for id in self.styles}
        prompts = zip(prompt_list(), itertools.cycle(self.styles or (None,)), strict=False)
        return Card(
            title="The embedded model",
            asks="prompt",
            subject="small pictures like emoji, without background: one thing, in few words",
            flat=self.channels == 4,
            ideas=ideas.load(),
            idea_names=ideas.names(),
            sizes=Sizes(
                DEFAULT_SIZE,
                *SIDE_LIMITS,
                multiple=self.model.config.transformer.patch,
                trained=TRAINED,
            ),
            channels=self.channels,
            styles=tuple(
                Style(id, names[0], notice=known[id].notice if id in known else "", names=names)
                for id, names in named.items()
            ),
            negative=True,
            references=self.references > 0,
            guidance=presets.GUIDANCE,
            guided=True,
            guidance_interval=presets.GUIDED,
            calibration=tuple(
                {"prompt": prompt} if style is None else {"prompt": prompt, "style": style}
                for prompt, style in prompts
            ),
            tiers=(
                "conditional",
                *map(part_name, self.pool_factors(DEFAULT_SIZE)),
                *([LATE.name] if self.splits else []),
            ),
            # A tile would be shown whole reference drawings, beside a part of the picture.
            tiles=None if self.references else Tiles(min(DEFAULT_SIZE), TILED_UNTIL),
            steps=50,
            licence="Apache-2.0",
            source="asymflow",
        )

    def default_plan(self, size: tuple[int, int]) -> Plan:
        """The grid of `presets.DEFAULT`."""
        return presets.DEFAULT.plan(size)

    def own_plan(self, size: tuple[int, int]) -> Plan:
        """50 steps of Heun's method, as pixel-space models are usually sampled."""
        return plan_of(
            uniform(50),
            solver="heun",
            guidance_interval=presets.guidance_interval(size),
            name="heun-50",
        )

    def shipped_plan(self, name: str, size: tuple[int, int]) -> Plan | None:
        """A plan that comes with asymflow, bound to the weights that do."""
        if name not in plans.NAMES:
            return None
        plan = with_pool_factors(plans.load(name, size), self.pool_factors(size))
        return dataclasses.replace(plan, binding=plan_binding.binding_of(plans.measured(name)))

    @property
    def library_digest(self) -> str | None:
        """Of the library that references are looked up in."""
        return None if self.library is None else self.library.digest

    def pool_factors(self, size: tuple[int, int]) -> tuple[int, ...]:
        grain = self.model.config.transformer.patch
        return tuple(
            f
            for f in (2, 4, 8, 16, 32)
            if all(s % (f * grain) == 0 and s >= f * SMALLEST for s in size)
        )

    def check(self, request: Request) -> None:
        patch = self.model.config.transformer.patch
        for side in request.size:
            if side % patch or not SIDE_LIMITS[0] <= side <= SIDE_LIMITS[1]:
                height, width = request.size
                nearest = int(np.clip(round(side / patch) * patch, *SIDE_LIMITS))
                raise InputError(
                    f"Size {width}x{height} is not possible: {side} is not a multiple of {patch} "
                    f"from {SIDE_LIMITS[0]} to {SIDE_LIMITS[1]}. Try {nearest}."
                )
        taken = ("prompt", "negative", "style", *(["reference"] if self.references else []))
        refuse_others(request, taken, "the embedded model")
        self._style(request)

    def encode(self, requests: Sequence[Request]) -> tuple[Context, Context]:
        prompts = [emoji_to_words(str(request.inputs.get("prompt", ""))) for request in requests]
        styles = torch.tensor([self._style(request) for request in requests])
        drawings = [self.find_references(request)[0] for request in requests]
        nulls = [self._null(request) for request in requests]
        return (
            self._context(prompts, styles, drawings),
            {key: torch.cat([null[key] for null in nulls]) for key in nulls[0]},
        )

    def _null(self, request: Request) -> Context:
        """The unconditional context of one picture."""
        text = emoji_to_words(str(request.inputs.get("negative", "")))
        key = text, request.size
        found = self._nulls.get(key)
        if found is None:
            nothing = np.zeros((0, *request.size, 4), np.float32)
            found = self._context([text], torch.zeros(1, dtype=torch.long), [nothing])
            self._nulls[key] = found
            while len(self._nulls) > _NULLS:
                self._nulls.popitem(last=False)
        return found

    def find_references(self, request: Request) -> tuple[NDArray[np.float32], tuple[str, ...]]:
        """The references of a request, and their names.

        Returns:
            Premultiplied RGBA [r, h, w, 4] in [0, 1], of the request's size, r at most
            `references`; and r names: "fox, noto" is a drawing from the library, "given" the
            picture of the request.
        """
        count, none = self.references, np.zeros((0, *request.size, 4), np.float32)
        if not count:
            return none, ()
        if "reference" in request.inputs:
            given = request.inputs["reference"]
            if given is None:
                return none, ()
            cut = cut_out(given)
            if cut[..., 3].min() < 1:  # a single object, anywhere on its canvas
                drawing = alone(np.rint(cut * 255).astype(np.uint8), request.size)
                return np.asarray(drawing[None], np.float32) / np.float32(255), ("given",)
            return fit(cut, request.size)[None], ("given",)
        if self.library is None:
            return none, ()
        prompt = str(request.inputs.get("prompt", ""))
        if not self._likeness:
            self._likeness.append(Likeness(self.library, self.meaning))
        match = self.library.find(prompt, self._likeness[0])
        if match is None:
            return none, ()
        style = request.inputs.get("style") or style_in(prompt)
        drawings, styles = self.library.drawings(match, style, request.size, count)
        what = " + ".join(dict.fromkeys(concept.names[0] for concept in match.concepts))
        unit = np.asarray(drawings, np.float32) / np.float32(255)
        return unit, tuple(f"{what}, {style}" for style in styles)

    def understand(self, prompt: str, locales: Sequence[str] = ()) -> Understanding:
        """A prompt as the model reads it, see `asymflow.core.words.Understands`.

        Without the library and the words of other languages, which come with the weights, nothing
        is known of its words.
        """
        if not self._readers:
            library = self.library
            if library is None and installed.find(installed.LIBRARY) is not None:
                library = shipped()
            if library is None or installed.find(installed.ANNOTATIONS) is None:
                return Understanding(prompt, emoji_to_words(prompt), None, ())
            vocabulary = Vocabulary(library, self.meaning)
            self._readers.append(Reader(vocabulary, annotations.shipped()))
        return self._readers[0].understand(prompt, locales)

    def count_tokens(self, prompt: str) -> int:
        """The word pieces of a prompt."""
        _, mask = tokenize(self.tokenizer, [emoji_to_words(prompt)])
        return int(mask.sum())

    def meaning(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The mean static vectors of the word pieces of texts: float32 [n, d], for n texts."""
        encodings = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        table, scale = self.model.text.table, self.model.text.table_scale
        means = [(table[e.ids] * scale[e.ids].float()).mean(dim=0) for e in encodings]
        return torch.stack(means).cpu().numpy()

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        dtype = self.model.text.position.dtype
        if x_t.device.type == "cpu":
            context = _without_gaps(context)
        return self.model(x_t.to(dtype), t.float(), context).float()

    @property
    def splits(self) -> bool:
        """Whether the network has convolutions beside its trunk, which draw without it."""
        return self.model.detail is not None

    def denoise_split(
        self, x_t: Tensor, t: Tensor, context: Context, slow: Context | None
    ) -> tuple[Tensor, Context]:
        """As `denoise`; the slow part is the trunk."""
        dtype = self.model.text.position.dtype
        if x_t.device.type == "cpu":
            context = _without_gaps(context)
        known = None if slow is None else slow["tokens"]
        x_0, tokens = self.model.split(x_t.to(dtype), t.float(), context, known)
        return x_0.float(), {"tokens": tokens}

    def to_state(self, picture: Picture) -> Tensor:
        return torch.from_numpy(picture).permute(2, 0, 1).to(self.template) * 2 - 1

    def to_picture(self, x_0: Tensor) -> Picture:
        picture = ((x_0.float() + 1) / 2).clamp(0, 1)
        # Premultiplied colour cannot exceed alpha.
        picture[:3] = torch.minimum(picture[:3], picture[3:])
        return np.ascontiguousarray(picture.permute(1, 2, 0).cpu().numpy())

    def _context(
        self, prompts: Sequence[str], styles: Tensor, drawings: Sequence[NDArray[np.float32]]
    ) -> Context:
        ids, mask = tokenize(self.tokenizer, prompts)
        device = self.model.basis.device
        # Prompt by prompt, without its padding: see `batch`.
        rows: list[Context] = []
        for i, m, style, seen in zip(ids, mask, styles.to(device), drawings, strict=True):
            length = int(m.sum())
            used = (i[None, :length].to(device), m[None, :length].to(device), style[None])
            context = self.model.context(*used, self._references(seen))
            rows.append(_padded(context, ids.shape[1] - length))
        return {key: torch.cat([row[key] for row in rows]) for key in rows[0]}

    def _references(self, drawings: NDArray[np.float32]) -> Tensor | None:
        """Pictures [r, h, w, 4] as network input, padded with absent ones."""
        count = self.references
        if not count:
            return None
        states = torch.zeros(1, count, 4, *drawings.shape[1:3])
        present = torch.zeros(1, count, dtype=torch.bool)
        for place, drawing in enumerate(drawings[:count]):
            states[0, place] = torch.from_numpy(drawing).permute(2, 0, 1) * 2 - 1
            present[0, place] = True
        dtype, device = self.model.text.position.dtype, self.model.basis.device
        return self.model.encode_references(states.to(device, dtype), present.to(device))

    def _style(self, request: Request) -> int:
        style = request.inputs.get("style")
        if style is None:
            return 0
        if style not in self.styles:
            close = difflib.get_close_matches(str(style), self.styles, 1, 0.4)
            hint = f"Did you mean {close[0]!r}? " if close else ""
            raise InputError(f"Unknown style {style!r}. {hint}Styles: {', '.join(self.styles)}.")
        return self.styles.index(style) + 1


def _padded(context: Context, count: int) -> Context:
    """The context padded at the end by `count` places without a token."""
    return {
        **context,
        "keys": F.pad(context["keys"], (0, 0, 0, count)),
        "values": F.pad(context["values"], (0, 0, 0, count)),
        "mask": F.pad(context["mask"], (0, count)),
    }


def _without_gaps(context: Context) -> Context:
    """The context without the places (usually most) where no prompt has a token."""
    used = torch.nonzero(context["mask"].any(0)).flatten()
    return {
        **context,
        "keys": context["keys"].index_select(3, used),
        "values": context["values"].index_select(3, used),
        "mask": context["mask"].index_select(1, used),
    }


def save(model: PictureModel, path: Path, *, training: Mapping[str, Any]) -> None:
    """Write a model file; `training` says how it was made and is kept in the metadata.

    Raises:
        InputError: the model is packed, so its weights cannot be read.
    """
    if any(isinstance(module, PackedLinear) for module in model.modules()):
        raise InputError(
            "A packed model cannot be saved: its weights are laid out for one kernel. Load it "
            "with packed=False."
        )
    tensors = {
        name: (value.to(torch.bfloat16) if value.ndim > 1 and value.is_floating_point() else value)
        .detach()
        .cpu()
        .contiguous()
        for name, value in model.state_dict().items()
    }
    metadata = {
        "format": FORMAT,
        "config": json.dumps(dataclasses.asdict(model.config)),
        "training": json.dumps(dict(training)),
    }
    with replacing(path) as file:
        file.write(serialize(tensors, metadata))


def default_weights() -> Path:
    """The model file that comes with asymflow.

    Raises:
        InputError: it is not installed.
    """
    return installed.path_of(installed.WEIGHTS)


def load(
    weights: Path | str | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    packed: bool = True,
) -> EmbeddedAdapter:
    """Load a model file, by default the one shipped with the package.

    Args:
        weights: the file.
        device: to load it on.
        dtype: of the network.
        packed: on a CPU, use packed weights: faster, for inference only, see
            `models.embedded.packed`. Without it the model can be trained and saved.

    Raises:
        FileFormatError: the file is missing, damaged or holds another kind of model.
    """
    path = default_weights() if weights is None else as_path("weights", weights)
    try:
        with safe_open(path, "pt") as file:
            metadata = cast("dict[str, str]", file.metadata() or {})
        if metadata.get("format") not in READ:
            raise FileFormatError(
                f"{path} is a safetensors file of another kind (format "
                f"{metadata.get('format')!r}, expected {' or '.join(map(repr, READ))}). Pass a "
                "file that `asymflow train` exported."
            )
        values = cast("dict[str, Any]", json.loads(metadata["config"]))
        values["transformer"] = TransformerConfig(**values["transformer"])
        if values.get("detail") is not None:
            values["detail"] = DetailConfig(**values["detail"])
        values["styles"] = tuple(values["styles"])
        with torch.device("meta"):
            model = PictureModel(PictureConfig(**values))
        model.load_state_dict(load_file(path), assign=True)
        training = cast("dict[str, Any]", json.loads(metadata["training"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise FileFormatError(
            f"Cannot read the model file {path}: {error}. If it is damaged, install asymflow "
            "again or pass another file."
        ) from error
    model = model.to(device=device, dtype=dtype).eval().requires_grad_(False)
    if packed:
        pack(model)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    library = shipped() if model.config.references else None
    return EmbeddedAdapter(model, digest, training, load_tokenizer(), library)
