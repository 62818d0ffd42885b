"""Sample captioned pictures from a built dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from asymflow.data import backgrounds, scenes
from asymflow.data.captions import caption, is_nameable
from asymflow.data.colours import main_colours
from asymflow.data.holdout import Pair
from asymflow.data.manifest import Entry, Split, read_manifest
from asymflow.data.render import Pixels, resize
from asymflow.data.scenes import Scene, Thing
from asymflow.data.sources import style_ids
from asymflow.data.weights import COMMON
from asymflow.data.words import everyday_names, plain_name
from asymflow.errors import FileFormatError, InputError

SIZES = (32, 64, 128)

_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]
_Bools = npt.NDArray[np.bool_]

_GROUPS = ("animals-nature", "food-drink", "travel-places", "activities", "objects")
_SIMPLE = frozenset(name for name in everyday_names() if len(name.split()) == 1)
_FACES = ("face", "cat-", "monkey-")  # how subgroups of faces begin
_SCENE_WORDS = 3  # the longest CLDR name that a sentence about several things can carry


@dataclass(frozen=True, slots=True)
class Batch:
    """Captioned pictures.

    ``images`` is uint8 [n, h, w, 4], RGBA premultiplied by alpha; ``captions`` has n strings;
    ``styles`` is int64 [n], positions in :attr:`Dataset.styles`.
    """

    images: Pixels
    captions: list[str]
    styles: _Ints


class Dataset:
    """A built dataset, memory-mapped.

    Args:
        root: the folder that ``asymflow data build`` filled.
        split: ``"train"``, or ``"heldout"`` for the pairs that training never sees.
        simple: factor on the weight of simple things, those that have an everyday name of one
            word: "fox", "pizza", "rocket".

    Raises:
        FileFormatError: the folder holds no complete build, or nothing in this split.
    """

    def __init__(self, root: str | Path, split: Split = "train", *, simple: float = 1.0) -> None:
        self.root = Path(root)
        self.entries: tuple[Entry, ...] = read_manifest(self.root / "manifest.jsonl")
        self._images = {size: self._load(size) for size in SIZES}
        members = [entry.index for entry in self.entries if entry.split == split]
        if not members:
            raise FileFormatError(
                f"{self.root} has no pictures in split {split!r}: too few styles were built to "
                "hold any back. Build more styles."
            )
        self._members: _Ints = np.array(members, np.int64)
        weights: _Floats = np.array(
            [
                self.entries[i].weight * (simple if _is_simple(self.entries[i]) else 1)
                for i in members
            ],
            np.float64,
        )
        self._cumulative: _Floats = np.cumsum(weights) / weights.sum()
        numbers = {style: number for number, style in enumerate(self.styles)}
        self._style_of: _Ints = np.array([numbers[e.style] for e in self.entries], np.int64)
        self._flip_ok: _Bools = np.array([e.flip_ok for e in self.entries], np.bool_)
        small = np.array(self._images[SIZES[0]])
        self._ink = _ink_boxes(small)
        self._mean = _mean_colours(small)
        self._cut_out = _cut_out(small)
        coarse = small[:, ::2, ::2]  # enough to see the colour, four times faster
        self._main: list[str | None] = [
            colour if entry.group in _GROUPS else None
            for entry, colour in zip(self.entries, main_colours(coarse), strict=True)
        ]
        self._things = self._scene_things(members)
        self._has_scenes: _Bools = np.array(
            [len({t.entry.key for t in things}) >= scenes.MOST_KINDS for things in self._things]
        )

    @property
    def styles(self) -> tuple[str, ...]:
        """Style ids in the order that numbers them; fixed, whichever styles were built."""
        return style_ids()

    def __len__(self) -> int:
        """The number of pictures in the split."""
        return len(self._members)

    def image(self, index: int, size: int) -> Pixels:
        """Picture ``index`` of any split, premultiplied uint8 [size, size, 4].

        Raises:
            InputError: the size is not 32, 64 or 128, or the index is out of range.
        """
        if size not in SIZES:
            raise InputError(
                f"size is {size}, but pictures are kept at {SIZES}. Pass one of these."
            )
        if not 0 <= index < len(self.entries):
            raise InputError(
                f"index is {index}, but the dataset has {len(self.entries)} pictures. "
                f"Pass 0 to {len(self.entries) - 1}."
            )
        return np.array(self._images[size][index])

    def heldout_pairs(self) -> tuple[Pair, ...]:
        """Every (key, style) that training never sees, sorted."""
        return tuple(sorted({(e.key, e.style) for e in self.entries if e.split == "heldout"}))

    def sample(
        self,
        rng: np.random.Generator,
        n: int,
        size: int | tuple[int, int],
        *,
        p_background: float = 0.2,
        p_scene: float = 0.15,
        p_style: float = 0.7,
        p_flip: float = 0.5,
    ) -> Batch:
        """Draw ``n`` captioned pictures; the same ``rng`` state gives the same batch.

        Args:
            rng: source of every choice.
            n: how many, at least 1.
            size: side in pixels, or (height, width); multiples of 8, the shorter at most 128.
            p_background: share laid on a flat colour or a vertical gradient.
            p_scene: share showing several things, or one off centre.
            p_style: share of captions that name the style.
            p_flip: share mirrored, among pictures that may be.

        Raises:
            InputError: a size or share is out of range.
        """
        height, width = _canvas(size)
        _check(n, p_background=p_background, p_scene=p_scene, p_style=p_style, p_flip=p_flip)
        u: _Floats = rng.random((5, n))
        chosen = self._members[np.searchsorted(self._cumulative, u[0], side="right")]
        styles = self._style_of[chosen]
        is_scene: _Bools = (u[1] < p_scene) & self._has_scenes[styles]
        backed: _Bools = (u[2] < p_background) & (is_scene | self._cut_out[chosen])
        styled: list[bool] = (u[3] < p_style).tolist()
        flip: _Bools = u[4] < p_flip

        images = np.zeros((n, height, width, 4), np.uint8)
        plain = np.flatnonzero(~is_scene)
        self._place(images, plain, chosen[plain], flip[plain])
        planned: dict[int, Scene] = {}
        for row in np.flatnonzero(is_scene).tolist():
            things = self._things[int(styles[row])]
            planned[row] = scenes.plan(rng, things, height, width)
            images[row] = scenes.draw(planned[row], self._nearest)

        ground = backgrounds.choose(rng, self._shown_colours(chosen, planned))
        rows = np.flatnonzero(backed)
        columns = backgrounds.gradient(ground.upper[rows], ground.lower[rows], height)
        images[rows] = backgrounds.lay(images[rows], columns)

        captions: list[str] = []
        indices: list[int] = chosen.tolist()
        for row, index in enumerate(indices):
            name = ground.names[row] if backed[row] else None
            if row in planned:
                text = scenes.caption(planned[row], rng, style=styled[row], background=name)
            else:
                text = caption(
                    self.entries[index],
                    rng,
                    style=styled[row],
                    background=name,
                    colour=self._main[index],
                )
            captions.append(text)
        return Batch(images, captions, styles)

    def _load(self, size: int) -> Pixels:
        path = self.root / f"images-{size}.npy"
        try:
            images: Pixels = np.load(path, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise FileFormatError(
                f"{path} cannot be read: {error}. Run `asymflow data build` again."
            ) from error
        if images.shape != (len(self.entries), size, size, 4):
            raise FileFormatError(
                f"{path} has shape {images.shape}, but the manifest lists {len(self.entries)} "
                "pictures. Run `asymflow data build` again."
            )
        return images

    def _nearest(self, index: int, side: int) -> Pixels:
        size = next((size for size in SIZES if size >= side), SIZES[-1])
        return self._images[size][index]

    def _place(self, images: Pixels, rows: _Ints, chosen: _Ints, flip: _Bools) -> None:
        """Put one centred picture on each row's canvas, as large as fits."""
        height, width = images.shape[1:3]
        side = min(height, width)
        if side in SIZES:
            squares = self._images[side][chosen]
        else:
            squares = np.empty((len(rows), side, side, 4), np.uint8)
            for square, index in zip(squares, chosen.tolist(), strict=True):
                square[...] = resize(self._nearest(index, side), side, side)
        mirrored = flip & self._flip_ok[chosen]
        squares[mirrored] = squares[mirrored, :, ::-1]
        top, left = (height - side) // 2, (width - side) // 2
        images[rows, top : top + side, left : left + side] = squares

    def _shown_colours(self, chosen: _Ints, planned: dict[int, Scene]) -> _Floats:
        """Mean colours [n, k, 3] of what each picture shows, repeated where it shows fewer."""
        shown = np.repeat(chosen[:, None], scenes.MOST_KINDS, axis=1)
        for row, scene in planned.items():
            kinds = list(dict.fromkeys(placed.thing.entry.index for placed in scene.placed))
            shown[row] = (kinds * scenes.MOST_KINDS)[: scenes.MOST_KINDS]
        return self._mean[shown]

    def _scene_things(self, members: Sequence[int]) -> tuple[tuple[Thing, ...], ...]:
        """Per style, what may be placed in scenes: common, cut out, of a short name."""
        found: list[list[Thing]] = [[] for _ in self.styles]
        for index in members:
            entry = self.entries[index]
            concrete = entry.group in _GROUPS or entry.subgroup.startswith(_FACES)
            short = len(entry.name.split()) <= _SCENE_WORDS and is_nameable(entry.name)
            if entry.weight == COMMON and self._cut_out[index] and concrete and short:
                top, left, bottom, right = self._ink[index].tolist()
                thing = Thing(entry, (top, left, bottom, right), self._main[index])
                found[int(self._style_of[index])].append(thing)
        return tuple(tuple(things) for things in found)


def _is_simple(entry: Entry) -> bool:
    name = plain_name(entry.name)
    return entry.weight == COMMON and entry.group in _GROUPS and name in _SIMPLE


def _canvas(size: int | tuple[int, int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    if height % scenes.STEP or width % scenes.STEP or min(height, width) < scenes.STEP:
        raise InputError(
            f"size is {height} x {width}, but a canvas has sides that are multiples of "
            f"{scenes.STEP}. Round both sides."
        )
    if min(height, width) > SIZES[-1]:
        raise InputError(
            f"size is {height} x {width}, but pictures are kept at {SIZES[-1]} pixels at most. "
            f"Pass a shorter side of at most {SIZES[-1]}."
        )
    return height, width


def _check(n: int, **shares: float) -> None:
    if n < 1:
        raise InputError(f"n is {n}, but a batch has at least 1 picture. Pass 1 or more.")
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise InputError(f"{name} is {share}, but it is a share. Pass a number from 0 to 1.")


def _ink_boxes(pixels: Pixels) -> _Floats:
    """(top, left, bottom, right) of what is drawn, as fractions of the side [n, 4]."""
    n, side = pixels.shape[:2]
    ink: _Bools = pixels[..., 3] > 8
    boxes = np.zeros((n, 4), np.float64)
    for axis, (first, last) in ((2, (0, 2)), (1, (1, 3))):
        lines: _Bools = np.any(ink, axis=axis)
        boxes[:, first] = np.argmax(lines, axis=1) / side
        boxes[:, last] = 1 - np.argmax(lines[:, ::-1], axis=1) / side
    return boxes


def _mean_colours(pixels: Pixels) -> _Floats:
    """Mean colour of what is drawn, 0 to 255 [n, 3]."""
    total: _Floats = pixels.sum(axis=(1, 2), dtype=np.float64)
    return total[:, :3] / np.maximum(total[:, 3:], 1) * 255


def _cut_out(pixels: Pixels) -> _Bools:
    """Whether each picture leaves room around it, rather than filling its square [n]."""
    solid: _Floats = np.mean(pixels[..., 3] > 250, axis=(1, 2))
    return solid < 0.85
