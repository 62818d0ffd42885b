"""Models that cannot be used: one message with the reason, exit code 2, nothing written."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from asymflow.models import loading
from asymflow.models.diffusers import served
from tests import miniatures

from .conftest import Type

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


class Harmful:
    """A pickle that writes a file where it is read carelessly."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("ran"),)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models that are fine."""
    folder = tmp_path_factory.mktemp("models")
    for make in (*miniatures.FILES, miniatures.minit2i_folder, miniatures.prx_folder):
        make(folder)
    miniatures.ddim_folder(folder)
    classes = miniatures.ddim_folder(folder / "classes", num_class_embeds=4)
    (classes / "asymflow.json").write_text(
        json.dumps({"classes": ["cat", "dog", "goldfish"], "null": 3}), encoding="utf-8"
    )
    return folder


def written(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(models: Path) -> Path:
        path = Path(name)
        path.write_bytes(content)
        return path

    return make


def pickled(name: str, **options: Any) -> Callable[[Path], Path]:
    def make(models: Path) -> Path:
        with Path(name).open("wb") as file:
            if options:
                torch.save({"model": Harmful()}, file, **options)
            else:
                pickle.dump(Harmful(), file)
        return Path(name)

    return make


def persistent(models: Path) -> Path:
    """As the published pickles of EDM begin."""
    path = Path("edm-cifar10-32x32-cond-vp.pkl")
    path.write_bytes(b"\x80\x03}q\x00X\x03\x00\x00\x00emaq\x01ctorch_utils.persistence\n_recons")
    return path


def empty(models: Path) -> Path:
    Path("nothing").mkdir()
    return Path("nothing")


def cut(models: Path) -> Path:
    content = (models / "edm.safetensors").read_bytes()
    path = Path("cut.safetensors")
    path.write_bytes(content[: len(content) // 2])
    return path


def copied(models: Path, name: str = "ddim") -> Path:
    import shutil

    return Path(shutil.copytree(models / name, name.replace("/", "-")))


def with_index(**changes: Any) -> Callable[[Path], Path]:
    """A DDIMPipeline with other entries in its model_index.json, and without any weights."""

    def make(models: Path) -> Path:
        path = copied(models)
        index = path / "model_index.json"
        index.write_text(json.dumps({**json.loads(index.read_text("utf-8")), **changes}), "utf-8")
        (path / WEIGHTS).unlink()
        return path

    return make


def with_tensors(change: Callable[[dict[str, Any]], object], name: str = "ddim") -> Any:
    """A folder whose weights are others."""

    def make(models: Path) -> Path:
        path = copied(models, name)
        tensors = load_file(path / WEIGHTS)
        change(tensors)
        save_file(tensors, path / WEIGHTS, {"format": "pt"})
        return path

    return make


def text_encoder_without_a_layer(models: Path) -> Path:
    path = copied(models, "prx")
    file = path / "text_encoder" / "model.safetensors"
    tensors = load_file(file)
    tensors.pop(next(name for name in tensors if name.endswith("wi_0.weight")))
    save_file(tensors, file, {"format": "pt"})
    return path


def cut_weights(models: Path) -> Path:
    path = copied(models)
    content = (path / WEIGHTS).read_bytes()
    (path / WEIGHTS).write_bytes(content[: len(content) // 2])
    return path


def several(models: Path) -> Path:
    folder = Path("several")
    folder.mkdir()
    for name in "ab":
        save_file({"x": torch.zeros(1)}, folder / f"{name}.safetensors")
    return folder


def with_code(models: Path) -> Path:
    folder = Path("theirs")
    folder.mkdir()
    (folder / "config.json").write_text('{"auto_map": {"AutoModel": "modeling.Mine"}}', "utf-8")
    (folder / "modeling.py").write_text("from pathlib import Path\nPath('ran').touch()\n", "utf-8")
    save_file({"x": torch.zeros(1)}, folder / "model.safetensors")
    return folder


def about(text: str) -> Callable[[Path], Path]:
    """A model with such an asymflow.json."""

    def make(models: Path) -> Path:
        path = copied(models)
        (path / "asymflow.json").write_bytes(text.encode("latin-1"))
        return path

    return make


def kind(name: str) -> Callable[[Path], Path]:
    return lambda models: models / name


JIT, CLASSES, DDIM, PRX, MINIT2I = map(kind, ("jit.pth", "classes/ddim", "ddim", "prx", "minit2i"))

CASES: tuple[tuple[str, Callable[[Path], Any], list[str], str], ...] = (
    ("missing file", lambda _: "gone.safetensors", [], "There is no file or folder gone.safe"),
    ("missing folder", lambda _: "./gone", [], "There is no file or folder ./gone. Check the path"),
    ("missing name", lambda _: "gone", [], "There is no model 'gone': it is no file or folder"),
    ("empty folder", empty, [], "The folder nothing is empty"),
    ("several files", several, [], "several files of weights: a.safetensors, b.safetensors"),
    ("text", written("notes.txt", b"these are words"), [], "it begins with b'these ar'"),
    ("empty file", written("empty.pth", b""), [], "it is empty"),
    ("random safetensors", written("r.safetensors", bytes(range(200, 256))), [], "It is damaged"),
    ("random pth", written("r.pth", bytes(range(200, 256))), [], "is no file of weights"),
    ("zip", written("r.pt", b"PK\x03\x04 not really"), [], "Cannot read r.pt"),
    ("pickle", pickled("p.pkl"), [], "a pickle that torch.save did not write"),
    ("torch pickle", pickled("t.pth", pickle_protocol=2), [], "Cannot read t.pth"),
    (
        "old torch pickle",
        pickled("o.pth", _use_new_zipfile_serialization=False),
        [],
        "Cannot read o.pth",
    ),
    ("pickle of EDM", persistent, [], "Convert it once, in EDM's own clone, by scripts/convert_"),
    ("truncated", cut, [], "It is damaged, or no safetensors file: fetch it again"),
    ("no text encoder", kind("minit2i.safetensors"), [], "comes without a text encoder"),
    (
        "pipeline with code",
        with_index(_class_name=["pipeline", "Mine"]),
        [],
        "brings its own code (pipeline/Mine)",
    ),
    (
        "part with code",
        with_index(unet=["mine", "Net"]),
        [],
        "brings its own code for unet (mine.Net)",
    ),
    ("model with code", with_code, [], "brings its own code"),
    (
        "latent",
        with_index(_class_name="StableDiffusionPipeline", vae=["diffusers", "AutoencoderKL"]),
        [],
        "works on the latents of its vae. asymflow plans in pixels",
    ),
    (
        "latent klein",
        with_index(_class_name="Flux2KleinPipeline", vae=["diffusers", "AutoencoderKLFlux2"]),
        [],
        "asymflow.load(..., adapter=FILE)",
    ),
    (
        "unknown pipeline",
        with_index(_class_name="DanceDiffusionPipeline"),
        [],
        "is a DanceDiffusionPipeline, which is not known: these are DDPMPipeline",
    ),
    (
        "second stage",
        with_index(_class_name="IFSuperResolutionPipeline"),
        [],
        "a second stage that enlarges a small picture, so it makes none by itself. Load it with "
        "diffusers in Python: asymflow.accelerate(pipe, examples=",
    ),
    (
        "image to image",
        with_index(_class_name="IFImg2ImgPipeline"),
        [],
        "begins with a picture. Load the pipeline of the same model that begins with noise",
    ),
    ("no weights", with_index(), [], "Cannot load the pipeline ddim: "),
    (
        "missing tensor",
        with_tensors(lambda tensors: tensors.pop("conv_in.weight")),
        [],
        "Tensors missing: conv_in.weight",
    ),
    (
        "further tensor",
        with_tensors(lambda tensors: tensors.update(surprise=torch.zeros(2))),
        [],
        "unexpected: surprise",
    ),
    (
        "misshapen tensor",
        with_tensors(lambda tensors: tensors.update({"conv_in.bias": torch.zeros(5)})),
        [],
        "conv_in.bias",
    ),
    (
        "missing tensor of a network of classes",
        with_tensors(lambda tensors: tensors.pop("conv_in.weight"), "classes/ddim"),
        [],
        "Tensors missing: conv_in.weight",
    ),
    (
        "missing tensor of a text encoder",
        text_encoder_without_a_layer,
        ["a fox"],
        "Tensors missing: encoder.block.0.layer.1.DenseReluDense.wi_0.weight",
    ),
    ("truncated weights", cut_weights, [], "Cannot load the pipeline ddim: "),
    ("about: no JSON", about("{"), [], "asymflow.json is not a JSON file, or a damaged one"),
    ("about: no text", about('{"title": "\xe9"}'), [], "asymflow.json is not a JSON file"),
    ("about: unknown", about('{"colour": "red"}'), [], "has unknown entries: colour"),
    ("about: type", about('{"steps": "many"}'), [], "has steps = 'many', which must be a whole"),
    ("about: half a size", about('{"height": 8}'), [], "has no width"),
    ("about: size", about('{"height": 64, "width": 64}'), [], "64x64, which DDIM cannot make"),
    ("about: classes", about('{"classes": ["cat"]}'), [], "names 1 classes, and the model has 0"),
    ("fixed size", DDIM, ["--size", "16"], "DDIM makes pictures of 8x8 only"),
    ("odd size", PRX, ["a fox", "--size", "18"], "in multiples of 4. Try 16x16"),
    ("prompt for classes", CLASSES, ["a fox"], "knows classes and no prompts"),
    ("class as a prompt", CLASSES, ["dog"], "Ask for this one with --class 'dog'"),
    ("prompt for nothing", DDIM, ["a fox"], "DDIM cannot be asked with a prompt"),
    ("no prompt", PRX, [], "There is no prompt"),
    ("class for a prompt", PRX, ["a fox", "--class", "dog"], "PRXPixel knows no classes"),
    ("class name", CLASSES, ["--class", "golfish"], "Did you mean 'goldfish'?"),
    ("class number", JIT, ["--class", "1000"], "'1000' is not a class"),
    ("class of ImageNet", JIT, ["--class", "golden retreiver"], "'golden retriever'"),
    ("style", CLASSES, ["--class", "dog", "--style", "noto"], "knows no styles"),
    ("unknown style", PRX, ["a fox", "--style", "watercolor"], "Did you mean 'watercolour'?"),
    ("negative", MINIT2I, ["a fox", "--negative", "cats"], "MiniT2I knows no negative prompt"),
    ("guidance", DDIM, ["--guidance", "3"], "DDIM has no guidance, so a scale of 3 is not"),
    ("dtype", DDIM, ["--dtype", "int8"], "Unknown dtype 'int8'"),
    ("device", DDIM, ["--device", "cuda:7"], "The device 'cuda:7' cannot be used"),
)


@pytest.mark.parametrize(
    ("make", "words", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_it_is_refused_with_the_reason(
    make: Callable[[Path], Path], words: list[str], expected: str, models: Path, here: Path,
    type_: Type,
) -> None:  # fmt: skip
    ref = make(models)
    before = sorted(here.rglob("*"))
    typed = type_("generate", *words, "--model", ref)
    assert typed.code == 2, typed
    assert expected in typed.err
    assert typed.err.startswith("error: "), typed.err
    assert typed.err.count("\n") == 1, typed.err
    assert typed.err.rstrip().endswith("."), typed.err
    assert typed.out == ""
    assert sorted(here.rglob("*")) == before  # and no pickle or module has run


def test_latent_pipelines_are_refused_before_weights_are_read(
    models: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*_: object, **__: object) -> object:
        raise AssertionError("weights were read")

    monkeypatch.setattr(served, "load", nothing)
    ref = with_index(_class_name="FluxPipeline", vae=["diffusers", "AutoencoderKL"])(models)
    with pytest.raises(loading.InputError, match="latents of its vae"):
        loading.load(ref)


class Full(RuntimeError):
    """As the allocator of the CPU says it."""

    def __init__(self) -> None:
        super().__init__("[enforce fail] DefaultCPUAllocator: can't allocate memory: 64 bytes")


@pytest.mark.parametrize("error", [Full(), MemoryError(), torch.OutOfMemoryError("no")])
@pytest.mark.parametrize(("name", "words"), [("ddim", []), ("jit.pth", ["--class", "3"])])
def test_memory_that_is_exhausted_is_said(
    error: Exception, name: str, words: list[str], models: Path, here: Path, type_: Type,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from asymflow.models.diffusers.pipelines import PipelineAdapter
    from asymflow.models.jit.adapter import JitAdapter

    def full(*_: object, **__: object) -> object:
        raise error

    with monkeypatch.context() as patch:
        for adapter in (PipelineAdapter, JitAdapter):
            patch.setattr(adapter, "denoise", full)
        typed = type_("generate", *words, "--model", models / name, "--steps", "2")
        assert (typed.code, typed.out) == (2, "")
        assert "did not fit into the memory of cpu" in typed.err
        assert "Traceback" not in typed.err
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.Module, "to", full)
        typed = type_("generate", *words, "--model", models / name)
        assert (typed.code, typed.out) == (2, "")
        assert "does not fit into the memory of cpu" in typed.err
        assert typed.err.count("\n") == 1
    assert list(here.iterdir()) == []


def test_a_package_that_a_pipeline_needs_is_named(
    models: Path, type_: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers.pipelines.prx import pipeline_prx_pixel

    monkeypatch.delattr(pipeline_prx_pixel, "ftfy", raising=False)
    monkeypatch.setattr(served, "find_spec", lambda name: None)  # pyright: ignore
    typed = type_("generate", "a fox", "--model", models / "prx")
    assert typed.code == 2
    assert "needs the package 'ftfy', which is not installed" in typed.err


def test_what_is_fine_is_drawn(models: Path, type_: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the refusals above would mean nothing."""
    miniatures.without_ftfy(monkeypatch)
    from PIL import Image

    for ref, words in (
        ("own.safetensors", ["a fox"]),
        ("jit.pth", ["--class", "goldfish"]),
        ("minit2i", ["a fox"]),
        ("edm.safetensors", ["--class", "1"]),
        ("adm.safetensors", ["--class", "3"]),
        ("ddim", []),
        ("classes/ddim", ["--class", "dog"]),
        ("prx", ["a fox", "--negative", "cats", "--style", "watercolour"]),
    ):
        typed = type_("generate", *words, "--model", models / ref, "--steps", "2", "-o", "x.png")
        assert typed.code == 0, typed.err
        with Image.open("x.png") as image:
            assert np.asarray(image).std() > 0


def test_a_size_that_was_not_trained_is_made_with_a_warning(
    models: Path, type_: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    miniatures.without_ftfy(monkeypatch)
    words = ("generate", "a fox", "--model", models / "prx", "--steps", "2")
    larger = type_(*words, "--size", "32", "-o", "x.png")
    assert larger.code == 0
    assert "32x32 is not a size that this model was trained on: 16x16 is." in larger.err
    assert "was trained on" not in type_(*words, "-o", "y.png").err
