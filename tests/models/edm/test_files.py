"""Files of EDM's and guided-diffusion's networks: outputs of the official code, and bad files."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.testing import assert_close

from asymflow.core import engine
from asymflow.core.card import Carded
from asymflow.core.errors import FileFormatError, InputError
from asymflow.core.types import Request
from asymflow.models.edm import CallableAdapter, adm_checkpoint, checkpoint
from asymflow.models.edm.adm import AdmConfig, AdmNetwork
from asymflow.models.edm.networks import DhariwalConfig, SongConfig
from asymflow.models.edm.preconditioning import EdmModel, EDMPrecond, VEPrecond, named
from tests.models.edm import recording

ROOT = Path(__file__).parents[3]
OUTPUTS, PUBLISHED = recording.recorded()
SMALL = "ddpmpp"
NETWORKS: Mapping[str, SongConfig | DhariwalConfig] = {
    "ddpmpp": SongConfig(
        size=16, classes=4, augmentations=9, width=32, widths=(64, 64, 64), embedding=128,
        noise=32, blocks=2, attention=(8,),
    ),
    "ddpmpp-vp": SongConfig(
        size=16, width=32, widths=(32, 64), embedding=128, noise=32, blocks=2, attention=(8,)
    ),
    "ncsnpp-ve": SongConfig(
        size=16, width=32, widths=(32, 64, 64), embedding=128, noise=64, blocks=2, attention=(8,),
        fourier=True, encoder="residual", taps=4,
    ),
    "ncsnpp": SongConfig(
        size=16, width=32, widths=(32, 64, 64), embedding=128, noise=64, blocks=2, attention=(8,),
        fourier=True, encoder="residual", taps=4,
    ),
    "skips": SongConfig(
        size=16, width=32, widths=(32, 64, 32), embedding=128, noise=32, blocks=2, attention=(8,),
        encoder="skip", decoder="skip", taps=4,
    ),
    "adm": DhariwalConfig(
        size=16, classes=4, augmentations=9, width=64, widths=(64, 128, 128), embedding=256,
        blocks=1, attention=(8, 4),
    ),
    "adm-iddpm": DhariwalConfig(
        size=16, outputs=6, classes=4, width=64, widths=(64, 128), embedding=256, blocks=1,
        attention=(8,),
    ),
}  # fmt: skip


@cache
def edm_network(name: str) -> EdmModel:
    arguments = recording.EDM[name]
    model = EdmModel(NETWORKS[name], named(arguments["class_name"], arguments))
    model.load_state_dict(recording.filled(model.state_dict()))
    return model.eval().requires_grad_(False)


def edm_file(folder: Path, name: str = SMALL, **changes: object) -> Path:
    path = folder / f"{name}.safetensors"
    metadata = {"edm": json.dumps({**recording.EDM[name], **changes})}
    save_file(edm_network(name).state_dict(), path, metadata)
    return path


@cache
def adm_network(name: str) -> AdmNetwork:
    official = recording.ADM[name]
    base, ratios = official["model_channels"], official["channel_mult"]
    config = AdmConfig(
        size=official["image_size"],
        outputs=official["out_channels"],
        width=base,
        widths=tuple(int(ratio * base) for ratio in ratios),
        blocks=official["num_res_blocks"],
        attention=tuple(
            level for level in range(len(ratios)) if 2**level in official["attention_resolutions"]
        ),
        classes=official["num_classes"] or 0,
        heads=official.get("num_heads", 1),
        head_width=official.get("num_head_channels"),
        new_order=official.get("use_new_attention_order", False),
        film=official.get("use_scale_shift_norm", False),
        residual=official.get("resblock_updown", False),
    )
    model = AdmNetwork(config)
    model.load_state_dict(recording.filled(model.state_dict()))
    return model.eval().requires_grad_(False)


def adm_file(folder: Path, name: str = "new-order") -> Path:
    path = folder / f"{name}.pt"
    torch.save(adm_network(name).state_dict(), path)
    return path


def adm_flags(name: str = "new-order") -> dict[str, Any]:
    known = ("image_size", "num_heads", "num_head_channels", "use_new_attention_order")
    official = recording.ADM[name]
    return {
        "noise_schedule": "linear",
        **{flag: official[flag] for flag in known if flag in official},
    }


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


def agree(found: Tensor, expected: Tensor) -> None:
    """Within the rounding of float32, of the largest number that took part."""
    assert expected.std() > 0.1
    assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max().clamp(min=1)))


# What the official code makes of the same weights.


@pytest.mark.parametrize("name", recording.EDM)
@torch.inference_mode()
def test_files_of_edm_answer_as_the_official_networks(name: str, tmp_path: Path) -> None:
    adapter = checkpoint.load(edm_file(tmp_path, name))
    net = adapter.net
    assert isinstance(net, EdmModel)
    assert net.model.config == NETWORKS[name]
    x, sigma, _, labels = recording.asked()
    one_hot = torch.eye(adapter.classes)[labels] if adapter.classes else None
    found = net(x * sigma.view(-1, 1, 1, 1), net.round_sigma(sigma), one_hot)[..., ::2, ::2]
    agree(found, OUTPUTS[f"edm/{name}"])


@pytest.mark.parametrize("name", recording.ADM)
@torch.inference_mode()
def test_files_of_guided_diffusion_answer_as_the_official_networks(
    name: str, tmp_path: Path
) -> None:
    adapter = adm_checkpoint.load(adm_file(tmp_path, name), **adm_flags(name))
    net = adapter.net
    assert isinstance(net, AdmNetwork)
    assert net.config == adm_network(name).config
    x, _, tau, labels = recording.asked()
    found = net(x, tau, labels if adapter.classes else None)[..., ::2, ::2]
    agree(found, OUTPUTS[f"guided-diffusion/{name}"])


@torch.inference_mode()
def test_adapters_ask_the_networks_of_files(tmp_path: Path) -> None:
    """x_0 of one state, by hand: EDM at sigma = 3, guided-diffusion at timestep 700."""
    x_0, _, _, labels = recording.asked()
    x_t, t = x_0 / 4, torch.tensor([0.75, 0.75], dtype=torch.float64)
    adapter = checkpoint.load(edm_file(tmp_path))
    expected = edm_network(SMALL)(x_0, torch.tensor([3.0, 3.0]), torch.eye(4)[labels])
    assert_close(adapter.denoise(x_t, t, {"label": labels}), expected, rtol=1e-4, atol=1e-4)

    adapter = adm_checkpoint.load(adm_file(tmp_path), **adm_flags())
    square = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)[700]
    alpha, sigma = float(square.sqrt()), float((1 - square).sqrt())
    eps = adm_network("new-order")(x_0, torch.tensor([700.0, 700.0]), labels)[:, :3]
    t = torch.full((2,), sigma / (alpha + sigma), dtype=torch.float64)
    found = adapter.denoise(x_0 / (alpha + sigma), t, {"label": labels})
    assert_close(found, (x_0 - sigma * eps) / alpha, rtol=1e-3, atol=1e-3)
    assert adapter.clip_estimate(found).abs().max() <= 1


# Published models, which are not here: their names and shapes are those of the official code.


def sizes_of(model: torch.nn.Module) -> dict[str, Any]:
    state = model.state_dict()
    return {"digest": recording.digest(state), "parameters": recording.parameters(state)}


@pytest.mark.parametrize(
    ("name", "config", "millions"),
    [
        ("64x64_diffusion", AdmConfig(
            64, width=192, widths=(192, 384, 576, 768), blocks=3, attention=(1, 2, 3), heads=1,
            new_order=True,
        ), 296),
        ("128x128_diffusion", AdmConfig(
            128, widths=(256, 256, 512, 768, 1024), attention=(2, 3, 4), head_width=None,
        ), 422),
        ("256x256_diffusion", AdmConfig(heads=1), 554),
        ("256x256_diffusion_uncond", AdmConfig(heads=1, classes=0), 553),
        ("512x512_diffusion", AdmConfig(
            512, widths=(128, 256, 256, 512, 512, 1024, 1024), attention=(4, 5, 6), heads=1,
        ), 559),
    ],
)  # fmt: skip
def test_published_models_of_guided_diffusion_are_known(
    name: str, config: AdmConfig, millions: int
) -> None:
    """Millions of parameters are those of arXiv 2105.05233."""
    with torch.device("meta"):
        model = AdmNetwork(config)
    assert sizes_of(model) == PUBLISHED[name]
    assert round(PUBLISHED[name]["parameters"] / 1e6) == millions
    shapes = shapes_of(model.state_dict())
    assert adm_checkpoint.recognises(shapes)
    assert not checkpoint.recognises(shapes)
    found, flags = adm_checkpoint.config_of(shapes, adm_checkpoint.Flags())
    assert found == config
    assert flags.noise_schedule == ("cosine" if config.size == 64 else "linear")


@pytest.mark.parametrize("name", recording.PUBLISHED_EDM)
def test_published_models_of_edm_are_known(name: str) -> None:
    arguments = recording.PUBLISHED_EDM[name]
    size, classes = arguments["img_resolution"], arguments.get("label_dim", 0)
    config: SongConfig | DhariwalConfig
    if arguments["model_type"] == "DhariwalUNet":
        config = DhariwalConfig(outputs=6 if arguments["class_name"] == "iDDPMPrecond" else 3)
    else:
        widths = tuple(128 * ratio for ratio in arguments["channel_mult"])
        config = SongConfig(size, classes=classes, augmentations=9, widths=widths)
        if arguments["embedding_type"] == "fourier":
            config = SongConfig(
                size, classes=classes, augmentations=9, widths=widths, noise=256, fourier=True,
                encoder="residual", taps=4,
            )  # fmt: skip
    with torch.device("meta"):
        model = EdmModel(config, named(arguments["class_name"], arguments))
    assert sizes_of(model) == PUBLISHED[name]
    shapes = shapes_of(model.state_dict())
    assert checkpoint.recognises(shapes)
    assert not adm_checkpoint.recognises(shapes)
    assert checkpoint.config_of(shapes) == config


def test_other_networks_are_not_recognised() -> None:
    for shapes in (
        {},
        {"model.map_layer0.weight": (128, 32), "model.map_layer1.weight": (128, 128)},
        # A latent diffusion model: words in the place of attention among pixels.
        {"time_embed.0.weight": (4, 1), "input_blocks.0.0.weight": (320, 4, 3, 3)},
    ):
        assert not checkpoint.recognises(shapes)
        assert not adm_checkpoint.recognises(shapes)


# What files say, and what is said of them.


def test_files_make_pictures_of_their_size(tmp_path: Path) -> None:
    adapters = (
        checkpoint.load(edm_file(tmp_path), class_names=("a", "b", "c", "d")),
        adm_checkpoint.load(adm_file(tmp_path, "narrow"), **adm_flags("narrow")),
    )
    for adapter in adapters:
        assert isinstance(adapter, Carded)
        card = adapter.card
        assert card.sizes.offered() == ((16, 16),)
        [result] = engine.run(
            adapter, adapter.default_plan((16, 16)), [Request(card.calibration[0], (16, 16), 3)]
        )
        assert result.picture.shape == (16, 16, 3)
        assert result.picture.std() > 0.01
        with pytest.raises(InputError, match=r"32x16 is not possible: .* trained at 16x16"):
            adapter.check(Request(card.calibration[0], (16, 32)))
    first, second = (adapter.card for adapter in adapters)
    assert (first.asks, first.classes, first.title) == ("class", ("a", "b", "c", "d"), SMALL)
    assert (second.asks, second.classes) == ("nothing", ())


def test_guidance_is_there_where_labels_were_dropped(tmp_path: Path) -> None:
    assert not checkpoint.load(edm_file(tmp_path)).card.guided
    assert checkpoint.load(edm_file(tmp_path), null=True).card.guided
    path = edm_file(tmp_path, label_dropout=0.1)
    assert checkpoint.load(path).card.guided
    assert not checkpoint.load(path, null=False).card.guided

    path, flags = adm_file(tmp_path), adm_flags()
    plain, guided = adm_checkpoint.load(path, **flags), adm_checkpoint.load(path, **flags, null=4)
    assert (plain.card.guided, plain.classes, len(plain.card.classes)) == (False, 5, 5)
    assert (guided.card.guided, guided.classes, len(guided.card.classes)) == (True, 4, 4)
    _, null = guided.encode([Request({"label": 1}, (16, 16))])
    assert null["label"].tolist() == [4]


def test_preconditioning_is_never_guessed(tmp_path: Path) -> None:
    path = tmp_path / "bare.safetensors"
    save_file(edm_network("ncsnpp").state_dict(), path)
    with pytest.raises(InputError, match=r"bare\.safetensors.*Give preconditioning="):
        checkpoint.load(path)
    by_name = checkpoint.load(path, preconditioning="VEPrecond")
    assert by_name.name == checkpoint.load(path, preconditioning=VEPrecond()).name
    others = [
        checkpoint.load(path, preconditioning=EDMPrecond()),
        checkpoint.load(path, preconditioning=EDMPrecond(sigma_data=0.7)),
        checkpoint.load(path, preconditioning="VPPrecond"),
    ]
    assert len({each.name for each in (by_name, *others)}) == 4
    assert checkpoint.load(edm_file(tmp_path, "ncsnpp")).name == others[1].name
    for wrong in ("EDM2Precond", 3):
        said = edm_file(tmp_path, class_name=wrong)
        with pytest.raises(InputError, match=f"Preconditioning {wrong!r} is not known"):
            checkpoint.load(said)
    for wrong in ("0.5", -1.0, True):
        said = edm_file(tmp_path, sigma_data=wrong)
        with pytest.raises(InputError, match=rf"Cannot read .*sigma_data={wrong!r}"):
            checkpoint.load(said)


def test_flags_come_from_arguments_then_the_file_then_the_table(tmp_path: Path) -> None:
    state = adm_network("legacy-order").state_dict()
    bare, said = tmp_path / "bare.safetensors", tmp_path / "said.safetensors"
    save_file(state, bare)
    flags = {**adm_flags("legacy-order"), "num_head_channels": -1, "dropout": 0.1}
    save_file(state, said, {"guided_diffusion": json.dumps(flags)})
    with pytest.raises(InputError, match=r"bare\.safetensors.*Give image_size="):
        adm_checkpoint.load(bare)
    known = adm_checkpoint.load(said)
    assert known.name == adm_checkpoint.load(bare, **adm_flags("legacy-order")).name
    others: tuple[dict[str, Any], ...] = (
        {}, {"num_heads": 2}, {"num_head_channels": 8}, {"use_new_attention_order": True},
        {"noise_schedule": "cosine"}, {"diffusion_steps": 500}, {"predict_xstart": True},
        {"clip_denoised": False}, {"rescale_timesteps": True},
    )  # fmt: skip
    assert len({adm_checkpoint.load(said, **changes).name for changes in others}) == 9
    impossible: tuple[tuple[dict[str, Any], str], ...] = (
        ({"num_heads": 3}, "64 channels of attention cannot be shared by 3 heads"),
        ({"num_head_channels": 24}, "cannot be shared by heads of 24 channels"),
        ({"noise_schedule": "sqrt"}, "noise_schedule='sqrt' is not known"),
        ({"image_size": 0}, "image_size=0"),
        ({"predict_xstart": "yes"}, "predict_xstart='yes'"),
    )
    for wrong, message in impossible:
        with pytest.raises(InputError, match=message):
            adm_checkpoint.load(said, **wrong)
    upward = {**adm_flags("legacy-order"), "num_heads_upsample": 2}
    save_file(state, said, {"guided_diffusion": json.dumps(upward)})
    with pytest.raises(InputError, match="num_heads_upsample=2 is not supported"):
        adm_checkpoint.load(said)
    save_file(state, said, {"guided_diffusion": "[64]"})
    with pytest.raises(FileFormatError, match=r"said\.safetensors.*is a list"):
        adm_checkpoint.load(said)
    save_file(state, said, {"guided_diffusion": "{"})
    with pytest.raises(FileFormatError, match="is not JSON"):
        adm_checkpoint.load(said)


def test_schedules_are_those_of_the_official_code() -> None:
    """Values of `get_named_beta_schedule`, cumulated, at the commit of the recording."""
    known: tuple[tuple[adm_checkpoint.NoiseSchedule, int, tuple[float, ...]], ...] = (
        ("linear", 1000, (0.9999, 0.07779665836502389, 4.035829765375676e-05)),
        ("linear", 250, (0.9996, 0.07403081329824181, 3.264409135490725e-05)),
        ("cosine", 1000, (0.999958715775178, 0.49228517244880304, 2.4287669070348567e-09)),
        ("cosine", 4000, (0.9999901341811863, 0.49345397967426397, 1.5179804688514517e-10)),
    )
    for name, steps, expected in known:
        found = adm_checkpoint.alphas_cumprod(name, steps)
        assert len(found) == steps
        some = [float(found[at]) for at in (0, steps // 2, -1)]
        assert some == pytest.approx(expected, rel=1e-12)


@torch.inference_mode()
def test_half_precision_is_near_and_is_called_alike(tmp_path: Path) -> None:
    x, _, _, labels = recording.asked()
    files: tuple[tuple[Callable[..., CallableAdapter], Path, dict[str, Any]], ...] = (
        (checkpoint.load, edm_file(tmp_path, "adm-iddpm"), {}),
        (checkpoint.load, edm_file(tmp_path, "ncsnpp"), {}),
        (adm_checkpoint.load, adm_file(tmp_path), adm_flags()),
    )
    for load, path, options in files:
        one, half = load(path, **options), load(path, **options, dtype=torch.bfloat16)
        assert half.name == one.name
        assert one.net is not None
        assert half.net is not None
        assert {parameter.dtype for parameter in half.net.parameters()} == {torch.bfloat16}
        assert {buffer.dtype for buffer in half.net.buffers()} <= {torch.float32}
        context = {"label": labels} if one.classes else {}
        t = torch.tensor([0.3, 0.8])
        expected, found = (each.denoise(0.5 * x, t, context) for each in (one, half))
        assert found.dtype == torch.float32
        assert 0 < float((found - expected).std()) < 0.1 * float(expected.std())


# Files that are something else.


class Harmful:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (Path("harm"),)


LOADERS = (checkpoint.load, adm_checkpoint.load)


@pytest.mark.parametrize("load", LOADERS)
def test_code_in_pickles_is_never_run(
    load: Callable[..., CallableAdapter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "network-snapshot.pkl"
    for write in (
        lambda value: path.write_bytes(pickle.dumps(value)),  # pyright: ignore[reportUnknownLambdaType]
        lambda value: torch.save(value, path),  # pyright: ignore[reportUnknownLambdaType]
    ):
        write({"ema": Harmful()})
        with pytest.raises(FileFormatError, match=r"Cannot read .*network-snapshot\.pkl"):
            load(path)
    # As `persistence` writes it: a call of its function with source code.
    opcodes = b"\x80\x04}\x8c\x03emactorch_utils.persistence\n_reconstruct_persistent_obj\n"
    path.write_bytes(opcodes + pickle.dumps(Harmful()))
    with pytest.raises(FileFormatError, match=r"no code of files is run.*convert_edm\.py"):
        load(path)
    assert not (tmp_path / "harm").exists()


def test_bad_files_are_refused_with_their_tensors(tmp_path: Path) -> None:
    state = edm_network(SMALL).state_dict()
    path, metadata = tmp_path / "model.safetensors", {"edm": json.dumps(recording.EDM[SMALL])}

    def changed(**changes: Tensor | None) -> Path:
        merged = {**state, **{f"model.{name}": value for name, value in changes.items()}}
        save_file({n: v for n, v in merged.items() if v is not None}, path, metadata)
        return path

    wrong = "dec.8x8_block1.conv1.bias"
    for changes, message in (
        ({wrong: None}, f"missing: model.{wrong}"),
        ({wrong: torch.zeros(3)}, rf"another shape: model.{wrong} float32 \(3,\) instead of \(64"),
        ({wrong: torch.zeros(64, dtype=torch.int64)}, f"another shape: model.{wrong} int64"),
        ({"extra": torch.zeros(1)}, r"unexpected: model\.extra"),
        ({"dec.16x16_aux_conv.weight": None}, "no tensor 'model.dec.16x16_aux_conv.weight'"),
        ({"enc.16x16_conv.weight": None}, "no tensor 'model.enc.0x0_conv.weight'"),
        ({"map_label.weight": torch.zeros(4)}, r"has shape \(4,\), and 2 dimensions"),
    ):
        words = rf"Cannot read .*model\.safetensors\. .*{message}"
        with pytest.raises(FileFormatError, match=words):
            checkpoint.load(changed(**changes))
    with pytest.raises(FileFormatError, match=r"no tensor 'time_embed\.0\.weight', but model"):
        adm_checkpoint.load(path)
    save_file({**state, "u": torch.zeros(5)}, path, metadata)
    with pytest.raises(FileFormatError, match="unexpected: u"):
        checkpoint.load(path)


def test_relatives_of_guided_diffusions_networks_are_refused(tmp_path: Path) -> None:
    state, path = adm_network("legacy-order").state_dict(), tmp_path / "model.pt"
    flags = adm_flags("legacy-order")

    def refused(state: Mapping[str, Tensor], message: str) -> None:
        torch.save(dict(state), path)
        with pytest.raises(FileFormatError, match=message):
            adm_checkpoint.load(path, **flags)

    refused(
        {**state, "input_blocks.0.0.weight": torch.zeros(32, 6, 3, 3)},
        "6 channels to 6: an upsampler",
    )
    encoder = {name: value for name, value in state.items() if "output_blocks" not in name}
    refused(encoder, "no output blocks: a classifier")
    missing = "output_blocks.3.2.in_layers.2.bias"
    refused({n: v for n, v in state.items() if n != missing}, f"missing: {missing}")
    refused({**state, "step": torch.zeros(1)}, "unexpected: step")
    torch.save({**state, "step": 3}, path)
    with pytest.raises(FileFormatError, match="holds 'step', which is no tensor"):
        adm_checkpoint.load(path, **flags)


@pytest.mark.parametrize("load", LOADERS)
def test_files_that_are_no_weights_are_refused(
    load: Callable[..., CallableAdapter], tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    torch.save([1, 2], path)
    with pytest.raises(FileFormatError, match="holds a list"):
        load(path)
    whole = adm_file(tmp_path).read_bytes()
    for name, content in (("model.pt", whole[:5000]), ("model.safetensors", b"no tensors")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FileFormatError, match=f"Cannot read .*{name}"):
            load(tmp_path / name)
    for missing in ("none.pt", "none.safetensors"):
        with pytest.raises(FileFormatError, match=f"Cannot read .*{missing}"):
            load(tmp_path / missing)


def test_old_files_of_torch_are_read(tmp_path: Path) -> None:
    path = tmp_path / "legacy.pt"
    state = adm_network("new-order").state_dict()
    torch.save(state, path, _use_new_zipfile_serialization=False)
    found = adm_checkpoint.load(path, **adm_flags())
    assert found.name == adm_checkpoint.load(adm_file(tmp_path), **adm_flags()).name


# The script for users, with a stand-in for EDM's clone.

CLONE = """
import torch

class EDMPrecond(torch.nn.Module):
    def __init__(self, state, init_kwargs):
        super().__init__()
        self.state, self.init_kwargs = state, init_kwargs

    def state_dict(self):
        return self.state
"""
PICKLED = """
import json, pickle, torch, networks

net = networks.EDMPrecond(torch.load("state.pt"), json.load(open("arguments.json")))
pickle.dump({"ema": net}, open("net.pkl", "wb"))
"""


def test_the_script_converts_pickles_in_the_clone_of_edm(tmp_path: Path) -> None:
    """It needs nothing of asymflow, and what it writes is loaded."""
    arguments = {k: v for k, v in recording.EDM[SMALL].items() if k != "class_name"}
    (tmp_path / "networks.py").write_text(CLONE, "utf-8")
    (tmp_path / "arguments.json").write_text(json.dumps(arguments), "utf-8")
    torch.save(edm_network(SMALL).state_dict(), tmp_path / "state.pt")
    script = str(ROOT / "scripts" / "convert_edm.py")
    for command in (["-c", PICKLED], [script, "net.pkl", "net.safetensors"]):
        subprocess.run([sys.executable, *command], cwd=tmp_path, check=True)
    with pytest.raises(FileFormatError, match=r"net\.pkl.*that torch\.save did not write"):
        checkpoint.load(tmp_path / "net.pkl")
    adapter = checkpoint.load(tmp_path / "net.safetensors")
    assert adapter.name == checkpoint.load(edm_file(tmp_path)).name
