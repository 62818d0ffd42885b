"""Sample captioned pictures from a dataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from asymflow.core.errors import FileFormatError, InputError
from asymflow.models.embedded import layout
from asymflow.models.embedded.bitmaps import Pixels, resize
from asymflow.models.embedded.library import COMMON
from asymflow.models.embedded.styles import LIBRARY, style_ids
from asymflow.models.embedded.words import everyday_names, plain_name
from asymflow.training.data import backgrounds, references, scenes
from asymflow.training.data.captions import can_say_colour, caption, is_nameable
from asymflow.training.data.colours import main_colours
from asymflow.training.data.holdout import Pair
from asymflow.training.data.manifest import Entry, Split, read_manifest
from asymflow.training.data.scenes import Scene, Thing

SIZES = (32, 64, 128)

_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]
_Bools = npt.NDArray[np.bool_]

_GROUPS = ("animals-nature", "food-drink", "travel-places", "activities", "objects")
_SIMPLE = frozenset(name for name in everyday_names() if len(name.split()) == 1)
_FACES = ("face", "cat-", "monkey-")  # prefixes of subgroups of faces
_SCENE_WORDS = 3  # maximum words of a CLDR name in a scene
_LIBRARY_WEIGHT = 3.0  # weight of references in a style of the library, relative to others
_HUE_ROTATIONS = (45.0, 315.0)  # degrees; less barely changes the colour


@dataclass(frozen=True, slots=True)
class Batch:
    """Captioned pictures and their references.

    Attributes:
        images: uint8 [n, h, w, 4], premultiplied RGBA.
        captions: n strings.
        styles: int64 [n], indices in `Dataset.styles`.
        references: like `images`, [n, r, h, w, 4]; empty where not present.
        present: [n, r], which references exist.
    """

    images: Pixels
    captions: list[str]
    styles: _Ints
    references: Pixels
    present: _Bools


class Dataset:
    """A memory-mapped dataset.

    Args:
        root: output folder of `asymflow data build`.
        split: `"train"`, or `"heldout"` for pairs excluded from training.

    Raises:
        FileFormatError: the build is incomplete, or the split is empty.
    """

    def __init__(self, root: str | Path, split: Split = "train") -> None:
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
        self._weights: _Floats = np.array([self.entries[i].weight for i in members], np.float64)
        self._simple: _Bools = np.array([is_simple(self.entries[i]) for i in members], np.bool_)
        numbers = {style: number for number, style in enumerate(self.styles)}
        self._style_of: _Ints = np.array([numbers[e.style] for e in self.entries], np.int64)
        self._flip_ok: _Bools = np.array([e.flip_ok for e in self.entries], np.bool_)
        small = np.array(self._images[SIZES[0]])
        self._ink = _ink_boxes(small)
        self._mean = _mean_colours(small)
        self._cut_out = _cut_out(small)
        coarse = small[:, ::2, ::2]  # sufficient for colours, four times faster
        self._main: list[str | None] = [
            colour if entry.group in _GROUPS else None
            for entry, colour in zip(self.entries, main_colours(coarse), strict=True)
        ]
        self._others = references.others(self.entries)
        self._reference_weights: _Floats = np.array(
            [_LIBRARY_WEIGHT if e.style in LIBRARY else 1.0 for e in self.entries], np.float64
        )
        self._things = self._scene_things(members)
        self._has_scenes: _Bools = np.array(
            [len({t.entry.key for t in things}) >= layout.MOST_KINDS for things in self._things]
        )

    @property
    def styles(self) -> tuple[str, ...]:
        """All style ids in their fixed numbering, including styles that were not built."""
        return style_ids()

    def __len__(self) -> int:
        """The number of pictures in the split."""
        return len(self._members)

    def image(self, index: int, size: int) -> Pixels:
        """Picture `index` of any split, premultiplied uint8 [size, size, 4].

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

    def images(self, indices: Sequence[int], size: int) -> Pixels:
        """Pictures of any split, premultiplied uint8 [n, size, size, 4]."""
        return np.stack([self.image(index, size) for index in indices])

    def references(self, entries: Sequence[Entry], size: int, count: int) -> tuple[Pixels, _Bools]:
        """Deterministic references: styles of the library first, no held-out pictures.

        Args:
            entries: n target pictures.
            size: 32, 64 or 128.
            count: maximum number of references per target.

        Returns:
            Premultiplied uint8 [n, count, size, size, 4], and which references exist [n, count].
        """
        shown = np.zeros((len(entries), count, size, size, 4), np.uint8)
        present = np.zeros((len(entries), count), np.bool_)

        def place_of(index: int) -> int:
            style = self.entries[index].style
            return LIBRARY.index(style) if style in LIBRARY else len(LIBRARY)

        for row, entry in enumerate(entries):
            for place, other in enumerate(sorted(self._others[entry.index], key=place_of)[:count]):
                shown[row, place] = self.image(other, size)
                present[row, place] = True
        return shown, present

    def heldout_pairs(self) -> tuple[Pair, ...]:
        """All held-out (key, style) pairs, sorted."""
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
        simple: float = 1.0,
        count: int = 0,
        p_disturb: float = 0.0,
        p_recolour: float = 0.0,
    ) -> Batch:
        """Draw `n` captioned pictures; the same `rng` state gives the same batch.

        Args:
            rng: source of randomness.
            n: number of pictures, at least 1.
            size: side in pixels, or (height, width); multiples of 8, the shorter at most 128.
            p_background: share composited on a flat colour or a vertical gradient.
            p_scene: share with several things, or one off centre.
            p_style: share of captions that name the style.
            p_flip: share mirrored, among pictures that allow it.
            simple: factor on the weight of simple things, which have an everyday name of one word:
                "fox", "pizza", "rocket".
            count: maximum number of references: drawings of the same concept in other styles. Half
                of the pictures have at most one. Those of a scene have its layout.
            p_disturb: share of references that are augmented, see `training.data.references`.
            p_recolour: share, among single things with a dominant colour, that is recoloured,
                either with the references or with the new colour in the caption.

        Raises:
            InputError: a size or share is out of range.
        """
        height, width = _canvas(size)
        _check(
            n,
            p_background=p_background,
            p_scene=p_scene,
            p_style=p_style,
            p_flip=p_flip,
            p_disturb=p_disturb,
            p_recolour=p_recolour,
        )
        u: _Floats = rng.random((5, n))
        weights = self._weights * np.where(self._simple, simple, 1.0)
        cumulative: _Floats = np.cumsum(weights) / weights.sum()
        chosen = self._members[np.searchsorted(cumulative, u[0], side="right")]
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

        # A separate stream, so that pictures do not depend on `count`.
        (reference_rng,) = rng.spawn(1)
        shown, present = self._draw_references(
            reference_rng, chosen, planned, count, (height, width)
        )
        single = plain[rng.random(len(plain)) < p_recolour] if p_recolour else plain[:0]
        recoloured = self._recolour(rng, images, shown, chosen, single)
        if p_disturb:
            disturbed = present & (reference_rng.random(present.shape) < p_disturb)
            for row, place in np.argwhere(disturbed).tolist():
                shown[row, place] = references.augment(reference_rng, shown[row, place])
        ground = backgrounds.choose(rng, self._shown_colours(chosen, planned))
        rows = np.flatnonzero(backed)
        columns = backgrounds.gradient(ground.upper[rows], ground.lower[rows], height)
        images[rows] = backgrounds.composite(images[rows], columns)

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
                    colour=recoloured.get(row, self._main[index]),
                    insist=row in recoloured,
                )
            captions.append(text)
        return Batch(images, captions, styles, shown, present)

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
        """Place one centred picture of maximum size on each row's canvas."""
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

    def _draw_references(
        self,
        rng: np.random.Generator,
        chosen: _Ints,
        planned: dict[int, Scene],
        count: int,
        canvas: tuple[int, int],
    ) -> tuple[Pixels, _Bools]:
        """Random references [n, count, h, w, 4] of each row, and which of them exist."""
        shown = np.zeros((len(chosen), count, *canvas, 4), np.uint8)
        present = np.zeros((len(chosen), count), np.bool_)
        single: list[list[tuple[int, int]]] = [[] for _ in range(count)]
        for row, index in enumerate(chosen.tolist() if count else ()):
            limit = count if rng.random() < 0.5 else 1
            if row in planned:
                for place, scene in enumerate(self._in_other_styles(rng, planned[row], limit)):
                    shown[row, place] = scenes.draw(scene, self._nearest)
                    present[row, place] = True
                continue
            found = references.choose(rng, self._others[index], self._reference_weights, limit)
            for place, other in enumerate(found):
                single[place].append((row, other))
        for place, pairs in enumerate(single):
            if pairs:
                rows, drawings = np.array(pairs, np.int64).T
                self._place(shown[:, place], rows, drawings, np.zeros(len(rows), np.bool_))
                present[rows, place] = True
        return shown, present

    def _in_other_styles(
        self, rng: np.random.Generator, scene: Scene, limit: int
    ) -> Iterator[Scene]:
        """Up to `limit` scenes of the same layout; things without another style are omitted."""
        drawings = {
            index: references.choose(rng, self._others[index], self._reference_weights, limit)
            for index in dict.fromkeys(placed.thing.entry.index for placed in scene.placed)
        }
        for place in range(max(map(len, drawings.values()))):
            placed: list[scenes.Placed] = []
            for item in scene.placed:
                found = drawings[item.thing.entry.index]
                if found:
                    other = found[min(place, len(found) - 1)]
                    placed.append(replace(item, thing=self._thing(other)))
            yield replace(scene, placed=tuple(placed))

    def _recolour(
        self,
        rng: np.random.Generator,
        images: Pixels,
        shown: Pixels,
        chosen: _Ints,
        rows: _Ints,
    ) -> dict[int, str]:
        """Recolour some rows in place; returns the colours that captions must name.

        For half of the rows only the target changes, and the caption names the colour; for the
        others the references change too, and the caption names it half of the time.
        """
        named: dict[int, str] = {}
        for row in rows.tolist():
            entry = self.entries[int(chosen[row])]
            alone, angle = rng.random() < 0.5, rng.uniform(*_HUE_ROTATIONS)
            if self._main[entry.index] is None or not can_say_colour(entry.name):
                continue
            recoloured = references.rotate_hues(images[row], angle)
            colour = main_colours(recoloured[None])[0]
            if colour is None or colour == self._main[entry.index]:
                continue
            images[row] = recoloured
            if alone:
                named[row] = colour
            else:
                shown[row] = references.rotate_hues(shown[row], angle)
                if rng.random() < 0.5:
                    named[row] = colour
        return named

    def _shown_colours(self, chosen: _Ints, planned: dict[int, Scene]) -> _Floats:
        """Mean colours [n, k, 3] of the things in each picture, repeated to k."""
        shown = np.repeat(chosen[:, None], layout.MOST_KINDS, axis=1)
        for row, scene in planned.items():
            kinds = list(dict.fromkeys(placed.thing.entry.index for placed in scene.placed))
            shown[row] = (kinds * layout.MOST_KINDS)[: layout.MOST_KINDS]
        return self._mean[shown]

    def _scene_things(self, members: Sequence[int]) -> tuple[tuple[Thing, ...], ...]:
        """Things for scenes by style: common, cut out, with a short name."""
        found: list[list[Thing]] = [[] for _ in self.styles]
        for index in members:
            entry = self.entries[index]
            concrete = entry.group in _GROUPS or entry.subgroup.startswith(_FACES)
            short = len(entry.name.split()) <= _SCENE_WORDS and is_nameable(entry.name)
            if entry.weight == COMMON and self._cut_out[index] and concrete and short:
                found[int(self._style_of[index])].append(self._thing(index))
        return tuple(tuple(things) for things in found)

    def _thing(self, index: int) -> Thing:
        top, left, bottom, right = self._ink[index].tolist()
        return Thing(self.entries[index], (top, left, bottom, right), self._main[index])


def is_simple(entry: Entry) -> bool:
    """Whether this is a thing with an everyday name of one word, the most common prompts."""
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
    """Boxes of visible pixels (top, left, bottom, right), as fractions of the side [n, 4]."""
    n, side = pixels.shape[:2]
    ink: _Bools = pixels[..., 3] > 8
    boxes = np.zeros((n, 4), np.float64)
    for axis, (first, last) in ((2, (0, 2)), (1, (1, 3))):
        lines: _Bools = np.any(ink, axis=axis)
        boxes[:, first] = np.argmax(lines, axis=1) / side
        boxes[:, last] = 1 - np.argmax(lines[:, ::-1], axis=1) / side
    return boxes


def _mean_colours(pixels: Pixels) -> _Floats:
    """Mean colours of visible pixels, 0 to 255 [n, 3]."""
    total: _Floats = pixels.sum(axis=(1, 2), dtype=np.float64)
    return total[:, :3] / np.maximum(total[:, 3:], 1) * 255


def _cut_out(pixels: Pixels) -> _Bools:
    """Whether each picture is cut out rather than filling its square [n]."""
    solid: _Floats = np.mean(pixels[..., 3] > 250, axis=(1, 2))
    return solid < 0.85
