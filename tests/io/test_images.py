"""Reading and writing picture files."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageDraw

from asymflow.core.errors import FileFormatError, InputError
from asymflow.io import images
from asymflow.io.images import Format, Notes

NOTES = Notes("text é 🦊", '{"record": "<&>"}', "<x:xmpmeta/>")


def disc(side: int = 64) -> NDArray[np.float32]:
    """A premultiplied orange disc with a soft edge on nothing."""
    y, x = np.indices((side, side)) - (side - 1) / 2
    alpha = np.clip(side / 3 - np.hypot(x, y), 0, 1)[..., None]
    return np.concatenate((alpha * [1.0, 0.5, 0.0], alpha), -1).astype(np.float32)


def saved(
    picture: NDArray[np.float32], format: Format, background: images.Colour | None = None
) -> Image.Image:
    file = io.BytesIO()
    images.write(file, picture, format=format, notes=NOTES, background=background)
    image = Image.open(file)
    image.load()
    return image


class TestReading:
    def test_premultiplies(self, tmp_path: Path) -> None:
        Image.new("RGBA", (2, 1), (255, 102, 0, 51)).save(tmp_path / "x.png")
        picture = images.read(tmp_path / "x.png")
        assert picture.shape == (1, 2, 4)
        assert picture.dtype == np.float32
        assert picture[0, 0] == pytest.approx([0.2, 0.08, 0, 0.2])

    @pytest.mark.parametrize(
        ("mode", "value", "expected"),
        [
            ("L", 51, [0.2, 0.2, 0.2, 1]),
            ("LA", (255, 51), [0.2, 0.2, 0.2, 0.2]),
            ("RGB", (0, 51, 255), [0, 0.2, 1, 1]),
            ("1", 1, [1, 1, 1, 1]),
            ("P", 0, [0, 0, 0, 1]),
            ("I;16", 13107, [0.2, 0.2, 0.2, 1]),
        ],
    )
    def test_every_kind_of_pixel(
        self, mode: str, value: tuple[int, ...] | int, expected: list[float], tmp_path: Path
    ) -> None:
        Image.new(mode, (1, 1), value).save(tmp_path / "x.png")
        assert images.read(tmp_path / "x.png")[0, 0] == pytest.approx(expected)

    def test_cmyk_photos(self, tmp_path: Path) -> None:
        Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "x.jpg")
        assert images.read(tmp_path / "x.jpg")[4, 4] == pytest.approx([1, 0, 0, 1], abs=0.03)

    def test_a_transparent_palette_entry(self, tmp_path: Path) -> None:
        Image.new("P", (1, 1), 0).save(tmp_path / "x.png", transparency=0)
        assert images.read(tmp_path / "x.png")[0, 0].tolist() == [0, 0, 0, 0]

    def test_turns_as_the_camera_says(self, tmp_path: Path) -> None:
        image = Image.new("RGB", (20, 10), "white")
        image.paste((255, 0, 0), (0, 0, 10, 10))
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6  # turn right to see it upright
        image.save(tmp_path / "x.jpg", exif=exif, quality=95)
        picture = images.read(tmp_path / "x.jpg")
        assert picture.shape == (20, 10, 4)
        assert picture[2, 5, 1] < 0.2
        assert picture[17, 5, 1] > 0.8

    def test_takes_the_first_frame(self, tmp_path: Path) -> None:
        frames = [Image.new("RGB", (4, 4), name) for name in ("red", "blue")]
        frames[0].save(tmp_path / "x.webp", save_all=True, append_images=frames[1:], lossless=True)
        assert images.read(tmp_path / "x.webp")[0, 0].tolist() == [1, 0, 0, 1]

    def test_masks_are_light_times_alpha(self, tmp_path: Path) -> None:
        image = Image.new("RGBA", (4, 1))
        for x, pixel in enumerate(
            [(255,) * 4, (0, 0, 0, 255), (255, 255, 255, 0), (51, 51, 51, 255)]
        ):
            image.putpixel((x, 0), pixel)
        image.save(tmp_path / "x.png")
        mask = images.read_mask(tmp_path / "x.png")
        assert mask.shape == (1, 4)
        assert mask[0].tolist() == pytest.approx([1, 0, 0, 0.2])

    @pytest.mark.parametrize("format", ["png", "webp", "jpeg"])
    def test_a_cut_file_is_an_error_wherever(self, format: Format, tmp_path: Path) -> None:
        file = io.BytesIO()
        images.write(file, disc(), format=format, background=(1, 1, 1), notes=NOTES)
        whole = file.getvalue()
        pixels_begin = len(whole) - 400
        for end in (*range(0, 60, 7), pixels_begin, len(whole) - 200):
            path = tmp_path / "cut"
            path.write_bytes(whole[:end])
            with pytest.raises(FileFormatError, match="cut"):
                images.read(path)

    def test_random_damage_never_escapes(self, tmp_path: Path) -> None:
        file = io.BytesIO()
        images.write(file, disc(), format="png", notes=NOTES)
        rng = np.random.default_rng(0)
        refused = 0
        for _ in range(100):
            data = bytearray(file.getvalue())
            for place in rng.integers(8, len(data), 3):
                data[place] = rng.integers(256)
            (tmp_path / "x.png").write_bytes(data)
            try:
                images.read(tmp_path / "x.png")
                images.read_record(tmp_path / "x.png")
            except FileFormatError:
                refused += 1
        assert refused > 20

    @pytest.mark.parametrize("side", [4001, 12_000, 60_000])
    def test_a_bomb_is_refused_before_it_is_decoded(
        self, side: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def chunk(kind: bytes, data: bytes) -> bytes:
            crc = struct.pack(">I", zlib.crc32(kind + data))
            return struct.pack(">I", len(data)) + kind + data + crc

        header = struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0)
        path = tmp_path / "bomb.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b""))
        monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))  # pyright: ignore
        with pytest.raises(FileFormatError, match="16 megapixels"):
            images.read(path)

    def test_other_formats_are_not_even_tried(self, tmp_path: Path) -> None:
        Image.new("RGB", (4, 4)).save(tmp_path / "x.png", "BMP")
        with pytest.raises(FileFormatError, match="not a PNG, JPEG or WebP"):
            images.read(tmp_path / "x.png")


class TestWriting:
    @pytest.mark.parametrize("format", ["png", "webp"])
    def test_straight_alpha_is_exact(self, format: Format) -> None:
        pixels = np.asarray(saved(disc(), format)).astype(int)
        visible = pixels[pixels[..., 3] > 0]
        assert len(np.unique(visible[:, 3])) > 10, "the edge is soft"
        assert np.abs(visible[:, :3] - [255, 128, 0]).max() <= 1

    def test_no_dark_fringe_when_a_program_enlarges_first(self) -> None:
        image = saved(disc(), "png")
        enlarged = np.asarray(
            Image.merge("RGBA", [band.resize((256, 256), 2) for band in image.split()])
        )
        edge = enlarged[(enlarged[..., 3] > 3) & (enlarged[..., 3] < 250)]
        assert len(edge) > 100
        assert edge[:, 0].min() > 250

    def test_what_was_written_reads_back(self, tmp_path: Path) -> None:
        saved(disc(), "png").save(tmp_path / "x.png")
        assert np.abs(images.read(tmp_path / "x.png") - disc()).max() < 0.5 / 255 + 1e-3

    def test_png_and_webp_hold_the_same_pixels(self) -> None:
        rng = np.random.default_rng(0)
        picture = rng.random((32, 32, 4), np.float32)
        picture[..., :3] *= picture[..., 3:]
        assert np.array_equal(np.asarray(saved(picture, "png")), np.asarray(saved(picture, "webp")))

    def test_a_background_shows_through(self) -> None:
        pixels = np.asarray(saved(disc(), "png", background=(0.0, 0.0, 1.0)))
        assert pixels.shape == (64, 64, 3)
        assert pixels[0, 0].tolist() == [0, 0, 255]
        assert pixels[32, 32].tolist() == [255, 128, 0]
        alpha = disc()[20, 13, 3]
        assert pixels[20, 13, 2] == pytest.approx(255 * (1 - alpha), abs=1)

    def test_values_out_of_range_are_clipped(self) -> None:
        picture = np.array([[[2.0, -1.0, 0.5, 1.5], [0.2, 0.2, 0.2, 0.1]]], np.float32)
        assert images.to_bytes(picture)[0].tolist() == [[255, 0, 85, 255], [255, 255, 255, 26]]

    def test_an_invisible_picture(self) -> None:
        assert images.to_bytes(np.zeros((2, 3, 4), np.float32)).tolist() == [[[0] * 4] * 3] * 2

    @pytest.mark.parametrize("format", ["png", "webp", "jpeg"])
    def test_notes_are_found_again(self, format: Format, tmp_path: Path) -> None:
        notes = NOTES
        if format != "png":
            notes = Notes("", "", "<asymflow:record>{&quot;&lt;&amp;&gt;&quot;}</asymflow:record>")
        file = io.BytesIO()
        images.write(file, disc(), format=format, background=(1, 1, 1), notes=notes)
        (tmp_path / "x").write_bytes(file.getvalue())
        expected = NOTES.record if format == "png" else "{&quot;<&>&quot;}"
        assert images.read_record(tmp_path / "x") == expected

    def test_a_picture_without_notes(self, tmp_path: Path) -> None:
        for name in ("x.png", "x.jpg", "x.webp"):
            Image.new("RGB", (4, 4)).save(tmp_path / name)
            assert images.read_record(tmp_path / name) is None


class TestFitting:
    def test_any_size_fits_into_any_other(self) -> None:
        rng = np.random.default_rng(0)
        pairs = rng.integers(1, 65, (100_000, 4))
        for given_h, given_w, height, width in pairs.tolist():
            mask = np.ones((given_h, given_w), np.float32)
            fitted = images.fit(mask, (height, width))
            assert fitted.shape == (height, width)
            assert fitted.min() > 0.999  # nothing from outside

    @given(st.tuples(*[st.integers(1, 4000)] * 2), st.tuples(*[st.integers(1, 300)] * 2))
    @settings(max_examples=50, deadline=None)
    def test_photographs_of_any_size_fit(self, own: tuple[int, int], size: tuple[int, int]) -> None:
        picture = np.ones((*own, 4), np.float32)
        fitted = images.fit(picture, size)
        assert fitted.shape == (*size, 4)
        assert fitted.min() > 0.999

    @pytest.mark.parametrize("own", [(1854, 1065), (253, 430)])
    def test_crops_that_rounding_moves_out(self, own: tuple[int, int]) -> None:
        for size in ((1024, 588), (96, 72), (72, 96), (602, 1024)):
            assert images.fit(np.ones(own, np.float32), size).shape == size

    def test_the_right_size_is_left_alone(self) -> None:
        picture = disc()
        assert images.fit(picture, (64, 64)) is picture

    @pytest.mark.parametrize("size", [(32, 32), (128, 128), (40, 72), (16, 128), (7, 3)])
    def test_nothing_is_stretched(self, size: tuple[int, int]) -> None:
        fitted = images.fit(disc(96), size)
        assert fitted.shape == (*size, 4)
        # The disc is as wide as high, in pixels, wherever the crop leaves it whole.
        scale = max(size) / 96
        opaque = fitted[..., 3] > 0.5
        for extent, side in zip((opaque.any(1).sum(), opaque.any(0).sum()), size, strict=True):
            assert extent == pytest.approx(min(64 * scale, side), abs=1.5)

    @pytest.mark.parametrize("size", [(32, 32), (100, 100)])
    def test_edges_keep_their_colour(self, size: tuple[int, int]) -> None:
        """Resampling straight colours would mix the black of the transparent outside in."""
        fitted = images.fit(disc(), size)
        assert (fitted[..., :3] <= fitted[..., 3:]).all()
        edge = fitted[(fitted[..., 3] > 0.1) & (fitted[..., 3] < 0.9)]
        assert edge[:, 0] / edge[:, 3] == pytest.approx(np.ones(len(edge)), abs=0.01)

    def test_colour_never_exceeds_alpha(self) -> None:
        rng = np.random.default_rng(0)
        picture = (rng.random((40, 40, 4)) < 0.5).astype(np.float32)
        picture[..., :3] *= picture[..., 3:]
        fitted = images.fit(picture, (56, 56))
        assert (fitted[..., :3] <= fitted[..., 3:]).all()
        assert fitted.min() >= 0
        assert fitted.max() <= 1

    def test_brightness_survives_shrinking(self) -> None:
        rng = np.random.default_rng(0)
        noise = np.ones((128, 128, 4), np.float32)
        noise[..., :3] = rng.random((128, 128, 3)) < 0.5
        assert images.fit(noise, (16, 16))[..., :3].mean() == pytest.approx(0.5, abs=0.01)

    def test_a_mask_keeps_zero_exactly(self) -> None:
        mask = np.zeros((96, 96), np.float32)
        mask[:, 48:] = 1
        for size in ((64, 64), (128, 128)):
            fitted = images.fit(mask, size)
            assert (fitted[:, : size[1] // 2 - 1] == 0).all()
            assert (fitted[:, size[1] // 2 + 1 :] == 1).all()

    def test_the_middle_is_kept(self) -> None:
        wide = np.ones((10, 30, 4), np.float32)
        wide[:, :10, 1] = wide[:, 20:, 1] = 0
        assert images.fit(wide, (8, 8))[..., 1].min() > 0.95


def test_digests_know_shape_and_bits() -> None:
    a = np.zeros((2, 8), np.float32)
    b = a.copy()
    b[0, 0] = np.float32(1e-45)
    assert len({images.digest(x) for x in (a, b, a.reshape(4, 4))}) == 3
    assert images.digest(a) == images.digest(a.copy())


@pytest.mark.parametrize(
    ("text", "value"),
    [("white", (1, 1, 1)), ("#f00", (1, 0, 0)), ("rgb(0, 0, 255)", (0, 0, 1)), ("Lime", (0, 1, 0))],
)
def test_colours(text: str, value: tuple[float, ...]) -> None:
    assert images.colour(text) == value


@pytest.mark.parametrize("text", ["", "nocolour", "#12", "#00000000", "w" * 200])
def test_what_is_no_colour(text: str) -> None:
    with pytest.raises(InputError, match="colour"):
        images.colour(text)


def on_paper(paper: float, thing: tuple[slice, slice]) -> np.ndarray:
    """A red thing on paper of a grey, opaque."""
    picture = np.full((40, 30, 4), paper, np.float32)
    picture[..., 3] = 1
    picture[thing] = (0.8, 0.1, 0.1, 1)
    return picture


def test_paper_is_cut_away_and_the_thing_stays() -> None:
    thing = (slice(8, 30), slice(5, 20))
    picture = on_paper(0.96, thing)
    picture[12:16, 8:12, :3] = 0.96  # a hole is not joined to the edge
    cut = images.cut_out(picture)
    expected = np.zeros((40, 30), np.float32)
    expected[thing] = 1
    assert np.array_equal(cut[..., 3], expected)
    assert np.array_equal(cut[thing], picture[thing])
    assert not cut[expected == 0].any()


def test_a_thing_across_the_sheet_leaves_both_sides_empty() -> None:
    cut = images.cut_out(on_paper(1.0, (slice(19, 21), slice(None))))
    assert np.array_equal(np.flatnonzero(cut[..., 3].any(axis=1)), [19, 20])


@settings(max_examples=200, deadline=None)
@given(
    shape=st.tuples(st.integers(3, 24), st.integers(3, 24)),
    share=st.sampled_from([0.3, 0.5, 0.6, 0.7, 0.9]),
    seed=st.integers(0, 10**6),
)
def test_what_is_cut_away_is_what_a_flood_reaches(
    shape: tuple[int, int], share: float, seed: int
) -> None:
    paper = np.random.default_rng(seed).random(shape) < share
    paper[0], paper[-1], paper[:, 0], paper[:, -1] = True, True, True, True
    paper[1, 1] = False  # or nothing would be left
    picture = np.ones((*shape, 4), np.float32)
    picture[~paper, :3] = (0.8, 0.1, 0.1)
    flooded = Image.fromarray(paper.astype(np.uint8)).copy()
    ImageDraw.floodfill(flooded, (0, 0), 2)
    assert np.array_equal(images.cut_out(picture)[..., 3] == 0, np.asarray(flooded) == 2)


def test_photographs_and_transparent_pictures_stay_as_they_are() -> None:
    photo = np.random.default_rng(0).random((30, 30, 4)).astype(np.float32)
    photo[..., 3] = 1
    assert images.cut_out(photo) is photo
    clear = on_paper(1.0, (slice(8, 30), slice(5, 20)))
    clear[0, 0] = 0
    assert images.cut_out(clear) is clear
    blank = on_paper(1.0, (slice(0), slice(0)))
    assert images.cut_out(blank) is blank


def chunk(data: bytes, name: bytes, order: str) -> bytes:
    """The first chunk of a file that is called so, whose length follows its name in RIFF."""
    at = data.index(name)
    length = data[at + 4 : at + 8] if order == "<" else data[at - 4 : at]
    begin = at + (8 if order == "<" else 4)
    return data[begin : begin + struct.unpack(f"{order}I", length)[0]]


@pytest.mark.parametrize(("side", "patient"), [(64, True), (128, True), (136, False), (512, False)])
def test_large_files_are_written_quickly_and_small_ones_small(side: int, patient: bool) -> None:
    picture = disc(side)
    file = io.BytesIO()
    images.write(file, picture, format="png", notes=NOTES)
    effort = chunk(file.getvalue(), b"IDAT", ">")[1] >> 6  # of zlib, 3 is the most
    assert (effort == 3) == patient
    assert effort > 0
    kept = Image.fromarray(images.to_bytes(picture))
    whole, quick = (io.BytesIO() for _ in range(2))
    kept.save(whole, "WEBP", lossless=True, exact=True)
    kept.save(quick, "WEBP", lossless=True, exact=True, quality=20)
    file = io.BytesIO()
    images.write(file, picture, format="webp", notes=NOTES)
    wanted = (whole if patient else quick).getvalue()
    assert chunk(file.getvalue(), b"VP8L", "<") == chunk(wanted, b"VP8L", "<")
    for data in (file, quick):  # all the same pixels
        assert (np.asarray(Image.open(data)) == np.asarray(kept)).all()
