"""`asymflow plan export`: files, tables and refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from asymflow.core.binding import Binding, Requirements
from asymflow.core.schedules import plan_of, shifted
from asymflow.planning.plan_files import load_plan, save_plan

from .conftest import Type
from .test_real_model import write_model

PLAN = plan_of(shifted(6, 3.0), guidance_interval=(0.5, 1.0), name="mine")


def test_a_file_is_written_with_its_table(type_: Type, here: Path) -> None:
    save_plan(PLAN, "mine.json")
    typed = type_(
        "plan", "export", "mine.json", "--to", "comfyui", "--shift", "3", "-o", "out.json"
    )
    assert typed.code == 0
    data = json.loads((here / "out.json").read_text())
    assert data["plan"]["name"] == "mine"
    assert [row["part"] for row in data["carried"]] == ["times", "solver", "guidance on and off"]
    rows = [f"{row['part']:<19}  {row['carried']:<7}  {row['how']}" for row in data["carried"]]
    assert typed.out.splitlines() == rows
    assert "Written to out.json." in typed.err


def test_without_a_file_it_is_printed_and_the_table_beside_it(type_: Type) -> None:
    save_plan(PLAN, "mine.json")
    for target in ("diffusers", "sglang", "vllm-omni"):
        typed = type_("plan", "export", "mine.json", "--to", target)
        assert json.loads(typed.out)["target"] == target
        assert typed.err.startswith("times ")


def test_json_is_a_plan_file(type_: Type) -> None:
    save_plan(PLAN, "mine.json")
    assert type_("plan", "export", "mine.json", "--to", "json", "-o", "again.json").code == 0
    assert load_plan("again.json") == PLAN


def test_a_named_plan_of_a_model(type_: Type, tmp_path: Path) -> None:
    model = tmp_path / "tiny.safetensors"
    write_model(model, seed=0)
    typed = type_("plan", "export", "default", "--model", str(model), "--to", "diffusers")
    assert json.loads(typed.out)["plan"]["bound_to"].startswith("embedded:")


def test_a_file_learns_from_the_model_what_it_is_for(type_: Type, tmp_path: Path) -> None:
    model = tmp_path / "tiny.safetensors"
    write_model(model, seed=0)
    save_plan(PLAN, "mine.json")
    arguments = ("plan", "export", "mine.json", "--to", "json", "--model", str(model))
    assert json.loads(type_(*arguments).out)["binding"]["family"] == "embedded"
    save_plan(replace(PLAN, binding=Binding("jit")), "mine.json")
    typed = type_(*arguments)
    assert typed.code == 2
    assert "The plan 'mine' was made for jit, and this model is embedded:" in typed.err


def test_the_guide_has_the_table_of_the_shipped_plan(type_: Type) -> None:
    typed = type_("plan", "export", "balanced", "--to", "comfyui", "--shift", "3", "-o", "a.json")
    guide = Path(__file__).parents[2] / "docs/guide/export.md"
    for row in typed.out.splitlines():
        assert f"    {row}\n" in guide.read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--to", "comfyui"), "Give --shift: 1 for Chroma1-Radiance"),
        (("--to", "comfy", "--shift", "3"), "Did you mean 'comfyui'?"),
        (("--to", "json", "--shift", "3"), "--shift 3 is for ComfyUI"),
        (("--to", "json", "-o", "mine.json/x"), "mine.json"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    type_: Type, arguments: tuple[str, ...], message: str
) -> None:
    save_plan(PLAN, "mine.json")
    typed = type_("plan", "export", "mine.json", *arguments)
    assert (typed.code, typed.out) == (2, "")
    assert message in typed.err


def test_a_plan_of_another_kind_of_model_is_refused(type_: Type) -> None:
    save_plan(replace(PLAN, requires=Requirements(parameterisation="eps")), "eps.json")
    typed = type_("plan", "export", "eps.json", "--to", "sglang")
    assert "the pixel models of SGLang are flows" in typed.err
