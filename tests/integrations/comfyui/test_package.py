"""The pack as it is shipped: metadata, help pages, graphs, and nothing that it should not do."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

import pytest
from benchmarks.comfyui import graphs, host
from benchmarks.comfyui.host import PACK
from benchmarks.results import ROOT

from asymflow._version import __version__
from tests.integrations.comfyui.test_load_plan import module

SOURCES = [*PACK.glob("*.py"), *PACK.glob("nodes/*.py")]


def test_its_version_is_that_of_asymflow() -> None:
    project = tomllib.loads((PACK / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["version"] == __version__
    assert project["project"]["dependencies"] == [f"asymflow=={__version__}"]
    assert (PACK / "requirements.txt").read_text("utf-8").split() == [f"asymflow=={__version__}"]


def test_its_metadata_follow_the_rules_of_the_registry() -> None:
    found = tomllib.loads((PACK / "pyproject.toml").read_text("utf-8"))
    project, comfy = found["project"], found["tool"]["comfy"]
    assert re.fullmatch(r"[a-z][a-z0-9_.-]{0,99}", project["name"])
    assert "comfyui" not in project["name"].lower()
    assert (PACK / project["license"]["file"]).read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert {"PublisherId", "DisplayName", "requires-comfyui"} <= set(comfy)


def test_every_node_has_a_help_page_that_names_its_inputs(pack: Any) -> None:
    folder = PACK / pack.WEB_DIRECTORY / "docs"
    assert {path.stem for path in folder.glob("*.md")} == {
        node.define_schema().node_id for node in host.nodes(pack)
    }
    for node in host.nodes(pack):
        schema = node.define_schema()
        page = (folder / f"{schema.node_id}.md").read_text("utf-8")
        title = page.splitlines()[0].removeprefix("# ")
        assert schema.display_name == f"{title} (asymflow)"
        for port in schema.inputs:
            named = port.id.removesuffix("_3").removesuffix("_4")
            if named != "positive":
                assert named in page, (schema.node_id, port.id)


def test_graphs_are_up_to_date_and_fit_the_nodes(pack: Any) -> None:
    known: dict[str, Any] = {}
    for node in host.nodes(pack):
        schema = node.define_schema()
        required = {p.id: [p.kind] for p in schema.inputs if not p.options.get("optional")}
        optional = {p.id: [p.kind] for p in schema.inputs if p.options.get("optional")}
        known[schema.node_id] = {
            "input": {"required": required, "optional": optional},
            "output": [port.kind for port in schema.outputs],
        }
    assert {path.stem for path in graphs.FOLDER.glob("*.json")} == set(graphs.graphs())
    used: set[str] = set()
    for name, graph in graphs.graphs().items():
        ours = {key: node for key, node in graph.items() if node.kind in known}
        used |= {node.kind for node in ours.values()}
        assert graphs.wrong(ours, known) == []
        kept = json.loads((graphs.FOLDER / f"{name}.json").read_text("utf-8"))
        assert kept == {**graphs.as_file(graph), "id": f"asymflow-{name}"}
    assert used == set(known)


def test_a_wrong_graph_is_found(pack: Any) -> None:
    known = {"VAELoader": {"input": {"required": {"name": ["COMBO"]}}, "output": ["VAE"]}}
    node = graphs.Node("VAELoader", 0, ("one", "two"))
    assert graphs.wrong({"a": node}, known) == [
        "a: VAELoader has the fields ['name'], and the graph ['one', 'two']"
    ]
    assert graphs.wrong({"a": graphs.Node("KSampler", 0)}, known) == ["KSampler is no node"]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_nothing_is_run_that_a_text_contains_and_nothing_installed(source: Any) -> None:
    text = source.read_text("utf-8")
    assert not re.search(r"\b(eval|exec|subprocess|__import__|pip)\b", text)


def test_nothing_of_asymflow_imports_the_pack() -> None:
    for source in (ROOT / "src").rglob("*.py"):
        assert not re.search(r"^\s*(from|import) comfy", source.read_text("utf-8"), re.M), source


def test_the_guide_lists_the_models_of_the_pack(pack: Any) -> None:
    page = (ROOT / "docs/guide/comfyui.md").read_text("utf-8")
    for family in module(pack, "families").FAMILIES.values():
        assert f"| {family.title} |" in page
    for node in host.nodes(pack):
        title = node.define_schema().display_name.removesuffix(" (asymflow)")
        assert f"| {title} |" in page
        assert f"| {title} |" in (PACK / "README.md").read_text("utf-8")
