"""AsymFLUX.2 on small networks: its formulas written out, and its files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.testing import assert_close

from asymflow import load
from asymflow.core import engine, schedules
from asymflow.core.errors import FileFormatError, InputError
from asymflow.core.types import FULL, Plan, Request, Step
from asymflow.models import asymflux
from asymflow.models.asymflux.adapter import AsymFluxAdapter, Colours, adapt

diffusers: Any = pytest.importorskip("diffusers")

RANK, PATCH, WIDTH, TEXT = 10, 4, 32, 84
PIXELS = 3 * PATCH**2


def transformer() -> Any:
    torch.manual_seed(0)
    return diffusers.Flux2Transformer2DModel(
        in_channels=RANK, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=TEXT, timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4), guidance_embeds=False,
    )  # fmt: skip


def tensors(prefix: str = "transformer.") -> dict[str, Tensor]:
    """An adapter's file, small."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return 0.2 * torch.randn(shape, generator=generator)

    basis = torch.linalg.qr(draw(PIXELS, RANK)).Q.contiguous()
    named = {
        "proj_buffer": basis,
        "scale_buffer": torch.tensor(0.7),
        "x_embedder.weight": draw(WIDTH, PIXELS),
        "proj_out.weight": draw(PIXELS, WIDTH),
        "norm_out.linear.weight": draw(2 * WIDTH, WIDTH),
        "transformer_blocks.0.attn.to_q.lora_A.weight": draw(3, WIDTH),
        "transformer_blocks.0.attn.to_q.lora_B.weight": draw(WIDTH, 3),
    }
    return {prefix + name: value for name, value in named.items()}


def prompts(texts: Sequence[str]) -> Tensor:
    """Features that are the same for the same text."""
    rows = [torch.Generator().manual_seed(len(text)) for text in texts]
    return torch.stack([torch.randn(5, TEXT, generator=row) for row in rows])


def adapter() -> AsymFluxAdapter:
    return adapt(transformer(), tensors(), prompts)


def request(prompt: str = "a fox", scale: float = 4.0, seed: int = 0) -> Request:
    return Request({"prompt": prompt, "negative": "bad"}, (8, 12), seed, scale)


@torch.inference_mode()
def test_estimates_follow_the_equations_of_the_paper() -> None:
    this = adapter()
    model, state = transformer().eval(), tensors("")
    model.x_embedder = torch.nn.Linear(PIXELS, WIDTH, bias=False)
    model.proj_out = torch.nn.Linear(WIDTH, PIXELS, bias=False)
    model.x_embedder.weight.copy_(state["x_embedder.weight"])
    model.proj_out.weight.copy_(state["proj_out.weight"])
    model.norm_out.linear.weight.copy_(state["norm_out.linear.weight"])
    layer = model.transformer_blocks[0].attn.to_q
    layer.weight += (
        state["transformer_blocks.0.attn.to_q.lora_B.weight"]
        @ state["transformer_blocks.0.attn.to_q.lora_A.weight"]
    )
    x_t = torch.randn(1, 3, 8, 12, generator=torch.Generator().manual_seed(2))
    [cond, _] = this.encode([request()])
    sigma, s, basis = 0.6, 0.7, state["proj_buffer"]
    rows = [
        x_t[0, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].flatten() for i in (0, 1) for j in (0, 1, 2)
    ]
    tokens = torch.stack(rows)[None]
    k = 1 / (s + (1 - s) * sigma)
    answer = model(
        hidden_states=k * tokens,
        encoder_hidden_states=cond["text"],
        timestep=torch.tensor([k * sigma]),
        img_ids=torch.tensor([[0, i, j, 0] for i in (0, 1) for j in (0, 1, 2)]),
        txt_ids=torch.tensor([[0, 0, 0, n] for n in range(5)]),
        return_dict=False,
    )[0]
    inside, x_inside = (each @ basis @ basis.T for each in (answer, tokens))
    # As they write it: a velocity in the subspace, and one in its complement.
    u_inside = s * k * inside + (1 - s * k) / sigma * x_inside
    u_outside = (tokens - x_inside + s * (answer - inside)) / sigma
    expected = tokens - sigma * (u_inside + u_outside)
    found = this.denoise(x_t, torch.tensor([sigma]), cond)
    for place, (i, j) in enumerate((i, j) for i in (0, 1) for j in (0, 1, 2)):
        part = found[0, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].flatten()
        assert_close(part, expected[0, place], rtol=1e-4, atol=1e-4)


def test_guidance_moves_across_the_estimate_only() -> None:
    this = adapter()
    estimate, guidance = torch.randn(2, 3, 8, 12), torch.randn(2, 3, 8, 12)
    projected_guidance = this.project_guidance(estimate, guidance)
    assert (projected_guidance * estimate).sum((1, 2, 3)).abs().max() < 1e-3
    # In velocities, as their pipeline has it: u = (x - D) / t.
    x_t, t = torch.randn(2, 3, 8, 12), 0.3
    bias = -guidance / t
    share = (bias * estimate).mean((1, 2, 3)) / (estimate**2).mean((1, 2, 3))
    u = (x_t - estimate) / t + bias - share.view(-1, 1, 1, 1) * estimate
    assert_close(estimate + projected_guidance, x_t - t * u, rtol=1e-4, atol=1e-4)


def test_the_engine_guides_and_cuts_as_the_adapter_says() -> None:
    this, wanted = adapter(), request()
    *_, frame = engine.walk(this, Plan("one", (Step(1.0, 0.0, FULL, "euler"),)), [wanted])
    x_1 = engine.noise(wanted.seed, (3, 8, 12))[None]
    said, unsaid = (this.denoise(x_1, torch.ones(1), each) for each in this.encode([wanted]))
    expected = this.clip_estimate(said + this.project_guidance(said, 3.0 * (said - unsaid)))
    assert_close(frame.x_t, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(expected, this.clip_estimate(said + 3.0 * (said - unsaid)), atol=1e-3)
    colours = this.colours.srgb(frame.x_t)
    assert_close(this.colours.state(colours), frame.x_t, rtol=0, atol=1e-2)


def test_its_grid_is_shifted_with_the_side() -> None:
    """sqrt(pixels) from 1024^2 to 2048^2, log shift from log 17 to log 34, as they configure it."""
    for side, shift in ((1024, 17.0), (1536, 25.5), (2048, 34.0)):
        assert asymflux.plan((side, side), 6).times == pytest.approx(schedules.shifted(6, shift))
    assert len(asymflux.plan((1024, 1024)).steps) == 38


def test_states_are_oklab() -> None:
    grey = np.full((4, 4, 3), 0.5, np.float32)
    state = adapter().to_state(grey)
    lightness = 0.5981807  # of sRGB grey .5, the cube root of its light
    assert state[0].flatten()[0] == pytest.approx((lightness - 0.56) / 0.16, abs=1e-4)
    assert Colours((0.5, 0.0, 0.0), 0.21).state(torch.ones(3, 1, 1))[0] == pytest.approx(0.5 / 0.21)


def test_bad_requests() -> None:
    with pytest.raises(InputError, match="30 is not a multiple of 4"):
        adapter().check(Request({"prompt": "x"}, (8, 30)))
    with pytest.raises(InputError, match="negative=3 is no text"):
        adapter().check(Request({"prompt": "x", "negative": 3}, (8, 8)))


def changed(**changes: Tensor | None) -> dict[str, Tensor]:
    """The adapter's tensors, with some others, or without; two underscores stand for a dot."""
    named: dict[str, Tensor | None] = dict(tensors(""))
    named.update({name.replace("__", "."): value for name, value in changes.items()})
    return {name: value for name, value in named.items() if value is not None}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (changed(proj_buffer=None), "no 'proj_buffer'"),
        (changed(surprise=torch.ones(1)), "no 'surprise'"),
        (changed(proj_buffer=torch.eye(PIXELS + 3)[:, :RANK].contiguous()), "patches of 51"),
        (changed(norm_out__linear__weight=torch.ones(3, 3)), "size mismatch"),
        (changed(transformer_blocks__0__attn__to_q__lora_B__weight=None), "not a pair"),
        (changed(transformer_blocks__0__attn__to_q__lora_A__weight=torch.ones(3, 7)), "32x7"),
        (changed(no__lora_A__weight=torch.ones(3, 7), no__lora_B__weight=torch.ones(7, 3)),
         "no linear layer 'no'"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit(state: dict[str, Tensor], message: str) -> None:
    with pytest.raises(FileFormatError, match=message):
        adapt(transformer(), state, prompts)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FLUX.2 klein in diffusers' layout, with a text encoder of the real kind, small."""
    library: Any = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("klein")
    words = folder / "words"
    words.mkdir()
    letters = [chr(c) for c in range(33, 127)] + ["\u0120"]
    vocabulary = {each: i for i, each in enumerate([*letters, "<|endoftext|>"])}
    (words / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (words / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    tokenizer = library.Qwen2TokenizerFast(
        str(words / "vocab.json"), str(words / "merges.txt"),
        unk_token="<|endoftext|>", pad_token="<|endoftext|>",
    )  # fmt: skip
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    torch.manual_seed(3)
    encoder = library.Qwen3ForCausalLM(
        library.Qwen3Config(
            vocab_size=len(vocabulary), hidden_size=28, intermediate_size=16,
            num_hidden_layers=28, num_attention_heads=2, num_key_value_heads=1, head_dim=8,
        )
    )  # fmt: skip
    pipe = diffusers.Flux2KleinPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(), vae=None, text_encoder=encoder,
        tokenizer=tokenizer, transformer=transformer(),
    )  # fmt: skip
    pipe.save_pretrained(folder / "base")
    save_file(tensors(), folder / "adapter.safetensors")
    return folder


def test_a_folder_and_a_file_make_the_model(base: Path) -> None:
    found = asymflux.load(base / "base", base / "adapter.safetensors", dtype=torch.float32)
    assert found.name == adapter().name
    first, second = (
        engine.run(found, asymflux.plan((8, 12), 3), [request(prompt)])[0].picture
        for prompt in ("a fox", "an owl")
    )
    assert first.shape == (8, 12, 3)
    assert not np.array_equal(first, second)
    again = asymflux.load(base / "base", base / "adapter.safetensors", dtype=torch.float32)
    assert np.array_equal(
        first, engine.run(again, asymflux.plan((8, 12), 3), [request()])[0].picture
    )


def test_a_reference_and_the_adapter_make_the_model(base: Path) -> None:
    file = base / "adapter.safetensors"
    found = load(base / "base", adapter=file, dtype=torch.float32)
    assert found.name == adapter().name
    index = base / "base" / "model_index.json"
    described = json.loads(index.read_text("utf-8"))
    index.write_text(json.dumps({**described, "vae": ["diffusers", "AutoencoderKL"]}), "utf-8")
    with pytest.raises(InputError, match=r"latents of its vae.*load\(\.\.\., adapter=FILE\)"):
        load(base / "base")
    assert load(base / "base", adapter=file, dtype=torch.float32).name == found.name
    with pytest.raises(FileFormatError, match=r"Cannot read .*gone\.safetensors"):
        load(base / "base", adapter=base / "gone.safetensors")


def test_files_that_are_not_there(base: Path) -> None:
    with pytest.raises(FileFormatError, match=r"Cannot read .*nothing"):
        asymflux.load(base / "nothing", base / "adapter.safetensors")
    with pytest.raises(FileFormatError, match=r"Cannot read .*no\.safetensors"):
        asymflux.load(base / "base", base / "no.safetensors")
    broken = base / "broken.safetensors"
    save_file({"proj_buffer": torch.eye(3)}, broken)
    with pytest.raises(FileFormatError, match=r"broken.* does not fit .*base"):
        asymflux.load(base / "base", broken)
