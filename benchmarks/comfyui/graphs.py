"""The example graphs of the pack, as files that ComfyUI opens.

    python -m benchmarks.comfyui.graphs

writes them. Each is written down here as its nodes and what they are connected to, and placed in
columns.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from asymflow.io.files import write_text
from benchmarks.comfyui.host import PACK

FOLDER = PACK / "example_workflows"
WIDE, GAP, LINE = 330, 70, 26

Slot = tuple[str, int]
"""A node by its name in the graph, and the number of its output."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What is known of a kind of node: inputs that are connected, and types of outputs."""

    inputs: Mapping[str, str] = field(default_factory=dict[str, str])
    outputs: Sequence[tuple[str, str]] = ()


def _same(*types: str) -> tuple[tuple[str, str], ...]:
    return tuple((each, each) for each in types)


KINDS: Mapping[str, Kind] = {
    "UNETLoader": Kind({}, _same("MODEL")),
    "CLIPLoader": Kind({}, _same("CLIP")),
    "CheckpointLoaderSimple": Kind({}, _same("MODEL", "CLIP", "VAE")),
    "VAELoader": Kind({}, _same("VAE")),
    "ModelSamplingAuraFlow": Kind({"model": "MODEL"}, _same("MODEL")),
    "HiDreamO1PatchSeamSmoothing": Kind({"model": "MODEL"}, _same("MODEL")),
    "SenseNovaSamplingOptions": Kind({"model": "MODEL"}, _same("MODEL")),
    "T5TokenizerOptions": Kind({"clip": "CLIP"}, _same("CLIP")),
    "CLIPTextEncode": Kind({"clip": "CLIP"}, _same("CONDITIONING")),
    "EmptyChromaRadianceLatentImage": Kind({}, _same("LATENT")),
    "EmptyHiDreamO1LatentImage": Kind({}, _same("LATENT")),
    "EmptySenseNovaLatentImage": Kind({}, _same("LATENT")),
    "RandomNoise": Kind({}, _same("NOISE")),
    "SamplerCustomAdvanced": Kind(
        {
            "noise": "NOISE",
            "guider": "GUIDER",
            "sampler": "SAMPLER",
            "sigmas": "SIGMAS",
            "latent_image": "LATENT",
        },
        (("output", "LATENT"), ("denoised_output", "LATENT")),
    ),
    "KSampler": Kind(
        {
            "model": "MODEL",
            "positive": "CONDITIONING",
            "negative": "CONDITIONING",
            "latent_image": "LATENT",
        },
        _same("LATENT"),
    ),
    "VAEDecode": Kind({"samples": "LATENT", "vae": "VAE"}, _same("IMAGE")),
    "SaveImage": Kind({"images": "IMAGE"}),
    "PreviewAny": Kind({"source": "*"}, (("STRING", "STRING"),)),
    "AsymflowLoadPlan": Kind(
        {
            "model": "MODEL",
            "positive": "CONDITIONING",
            "latent_image": "LATENT",
            "negative": "CONDITIONING",
        },
        (("GUIDER", "GUIDER"), ("SAMPLER", "SAMPLER"), ("SIGMAS", "SIGMAS"), ("text", "STRING")),
    ),
    "AsymflowApplyPlan": Kind({"model": "MODEL"}, _same("MODEL")),
    "AsymflowMeasureModel": Kind(
        {
            "model": "MODEL",
            "positive": "CONDITIONING",
            "latent_image": "LATENT",
            "negative": "CONDITIONING",
            "positive_2": "CONDITIONING",
            "positive_3": "CONDITIONING",
            "positive_4": "CONDITIONING",
        },
        (("MODEL", "MODEL"), ("text", "STRING")),
    ),
}


@dataclass(frozen=True, slots=True)
class Node:
    """A node of a graph.

    Attributes:
        column: where it is placed, from the left.
        widgets: values of its fields, in their order; behind a seed, what becomes of it.
        linked: what its inputs are connected to.
        title: in place of that of its kind.
    """

    kind: str
    column: int
    widgets: tuple[Any, ...] = ()
    linked: Mapping[str, Slot] = field(default_factory=dict[str, Slot])
    title: str | None = None


Graph = Mapping[str, Node]
FOX = "A red fox asleep on a mossy log in a misty forest, soft morning light."
MORE = (
    "A bowl of ramen with a soft-boiled egg, seen from above.",
    "Portrait of an elderly woman with silver hair and a blue scarf, soft window light.",
    "A mountain village at night, snow, warm lights in the windows.",
)
AVOIDED = "blurred, low quality"


def _prompts(clip: Slot, *texts: str) -> dict[str, Node]:
    found = {
        f"positive {number}" if number else "positive": Node(
            "CLIPTextEncode", 1, (text,), {"clip": clip}, "Prompt"
        )
        for number, text in enumerate(texts)
    }
    found["negative"] = Node("CLIPTextEncode", 1, (AVOIDED,), {"clip": clip}, "Negative prompt")
    return found


def _planned(model: Slot, cfg: float, vae: Slot, prefix: str) -> dict[str, Node]:
    """From Load plan to the file."""
    return {
        "noise": Node("RandomNoise", 2, (7, "randomize")),
        "plan": Node(
            "AsymflowLoadPlan",
            2,
            ("auto", cfg, 1.0),
            {
                "model": model,
                "positive": ("positive", 0),
                "latent_image": ("latent", 0),
                "negative": ("negative", 0),
            },
        ),
        "text": Node("PreviewAny", 3, (), {"source": ("plan", 3)}, "The plan"),
        "samples": Node(
            "SamplerCustomAdvanced",
            3,
            (),
            {
                "noise": ("noise", 0),
                "guider": ("plan", 0),
                "sampler": ("plan", 1),
                "sigmas": ("plan", 2),
                "latent_image": ("latent", 0),
            },
        ),
        **_decoded(vae, prefix),
    }


def _decoded(vae: Slot, prefix: str) -> dict[str, Node]:
    linked: dict[str, Slot] = {"samples": ("samples", 0), "vae": vae}
    return {
        "decoded": Node("VAEDecode", 4, (), linked),
        "saved": Node("SaveImage", 4, (prefix,), {"images": ("decoded", 0)}),
    }


def _radiance() -> dict[str, Node]:
    return {
        "model": Node("UNETLoader", 0, ("chroma-radiance-x0.safetensors", "default")),
        "clip": Node("CLIPLoader", 0, ("t5xxl_fp8_e4m3fn_scaled.safetensors", "chroma", "default")),
        "options": Node("T5TokenizerOptions", 0, (0, 0), {"clip": ("clip", 0)}),
        "shifted": Node("ModelSamplingAuraFlow", 1, (1.0,), {"model": ("model", 0)}),
        "vae": Node("VAELoader", 0, ("pixel_space",)),
        "latent": Node("EmptyChromaRadianceLatentImage", 1, (1024, 1024, 1)),
    }


def _pixeldit() -> dict[str, Node]:
    return {
        "model": Node("UNETLoader", 0, ("pixeldit_1300m_1024px_bf16.safetensors", "default")),
        "clip": Node(
            "CLIPLoader", 0, ("gemma_2_2b_it_elm_bf16.safetensors", "pixeldit", "default")
        ),
        "vae": Node("VAELoader", 0, ("pixel_space",)),
        "latent": Node("EmptyChromaRadianceLatentImage", 1, (1024, 1024, 1)),
    }


def graphs() -> Mapping[str, Graph]:
    """All of them, by the names of their files."""
    radiance: Slot = ("shifted", 0)
    measured = {
        f"positive_{number + 1}": (f"positive {number}", 0) for number in range(1, len(MORE) + 1)
    }
    applied: dict[str, Slot] = {
        "model": ("applied", 0),
        "positive": ("positive", 0),
        "negative": ("negative", 0),
        "latent_image": ("latent", 0),
    }
    return {
        "chroma_radiance": {
            **_radiance(),
            **_prompts(("options", 0), FOX),
            **_planned(radiance, 3.5, ("vae", 0), "radiance"),
        },
        "chroma_radiance_measure": {
            **_radiance(),
            **_prompts(("options", 0), FOX, *MORE),
            "measured": Node(
                "AsymflowMeasureModel",
                2,
                (3.5, "quick", False),
                {
                    "model": radiance,
                    "positive": ("positive", 0),
                    "latent_image": ("latent", 0),
                    "negative": ("negative", 0),
                    **measured,
                },
            ),
            "report": Node("PreviewAny", 3, (), {"source": ("measured", 1)}, "What was measured"),
            **_planned(("measured", 0), 3.5, ("vae", 0), "radiance"),
        },
        "pixeldit_ksampler": {
            **_pixeldit(),
            **_prompts(("clip", 0), FOX),
            "applied": Node("AsymflowApplyPlan", 2, ("auto",), {"model": ("model", 0)}),
            "samples": Node(
                "KSampler", 3, (7, "randomize", 30, 4.0, "euler", "simple", 1.0), applied
            ),
            **_decoded(("vae", 0), "pixeldit"),
        },
        "hidream_o1": {
            "model": Node("CheckpointLoaderSimple", 0, ("hidream_o1_image_bf16.safetensors",)),
            "smooth": Node(
                "HiDreamO1PatchSeamSmoothing",
                1,
                (0.8, 1.0, "single_shift", "ramp_2_4", "median", 1.0),
                {"model": ("model", 0)},
            ),
            "latent": Node("EmptyHiDreamO1LatentImage", 1, (2048, 2048, 1)),
            **_prompts(("model", 1), FOX),
            **_planned(("smooth", 0), 5.0, ("model", 2), "hidream_o1"),
        },
        "sensenova_u1_5": {
            "model": Node("CheckpointLoaderSimple", 0, ("sensenova_u1.5_bf16.safetensors",)),
            "options": Node("SenseNovaSamplingOptions", 1, (3.0,), {"model": ("model", 0)}),
            "latent": Node("EmptySenseNovaLatentImage", 1, (2048, 2048, 1)),
            **_prompts(("model", 1), FOX),
            **_planned(("options", 0), 4.0, ("model", 2), "sensenova"),
        },
    }


def as_file(graph: Graph) -> dict[str, Any]:
    """A graph in the format of ComfyUI's page."""
    numbers = {name: number for number, name in enumerate(graph, 1)}
    links: list[list[Any]] = []
    for name, node in graph.items():
        for slot, (key, type_) in enumerate(KINDS[node.kind].inputs.items()):
            if key in node.linked:
                source, output = node.linked[key]
                links.append([len(links) + 1, numbers[source], output, numbers[name], slot, type_])
    depth: dict[int, int] = {}
    nodes = [_placed(node, numbers[name], links, depth) for name, node in graph.items()]
    return {
        "id": "",
        "revision": 0,
        "last_node_id": len(nodes),
        "last_link_id": len(links),
        "nodes": nodes,
        "links": links,
        "groups": [],
        "config": {},
        "extra": {},
        "version": 0.4,
    }


def _placed(
    node: Node, number: int, links: Sequence[Sequence[Any]], depth: dict[int, int]
) -> dict[str, Any]:
    kind = KINDS[node.kind]
    rows = max(len(kind.inputs), len(kind.outputs)) + len(node.widgets)
    high = 40 + LINE * rows
    if node.kind in ("CLIPTextEncode", "PreviewAny", "SaveImage"):
        high = 180
    top = depth.get(node.column, 0)
    depth[node.column] = top + high + GAP
    inputs = [
        {
            "name": key,
            "type": type_,
            "link": next((each[0] for each in links if tuple(each[3:5]) == (number, slot)), None),
        }
        for slot, (key, type_) in enumerate(kind.inputs.items())
    ]
    outputs = [
        {
            "name": key,
            "type": type_,
            "links": [each[0] for each in links if tuple(each[1:3]) == (number, slot)],
        }
        for slot, (key, type_) in enumerate(kind.outputs)
    ]
    found: dict[str, Any] = {
        "id": number,
        "type": node.kind,
        "pos": [node.column * (WIDE + GAP), top],
        "size": [WIDE, high],
        "flags": {},
        "order": number - 1,
        "mode": 0,
        "inputs": inputs,
        "outputs": outputs,
        "properties": {"Node name for S&R": node.kind},
        "widgets_values": list(node.widgets),
    }
    return found if node.title is None else {**found, "title": node.title}


def wrong(graph: Graph, known: Mapping[str, Any]) -> list[str]:
    """What a graph has otherwise than ComfyUI's own list of nodes (/object_info)."""
    found: list[str] = []
    for name, node in graph.items():
        if node.kind not in known:
            found.append(f"{node.kind} is no node")
            continue
        described = known[node.kind]
        ports = {**described["input"].get("required", {}), **described["input"].get("optional", {})}
        kind = KINDS[node.kind]
        types = [type_ for _, type_ in kind.outputs]
        if described["output"][: len(types)] != types:
            found.append(f"{node.kind} has outputs {described['output']}")
        missing = set(described["input"].get("required", {})) - set(node.linked)
        for key, type_ in kind.inputs.items():
            if key not in ports or ports[key][0] not in (type_, "*"):
                found.append(f"{node.kind} has no input {key} of type {type_}")
        fields = [key for key in ports if key not in kind.inputs]
        values = [each for each in node.widgets if each not in ("randomize", "fixed")]
        if len(values) != len(fields):
            found.append(f"{name}: {node.kind} has the fields {fields}, and the graph {values}")
        found += [f"{name}: {node.kind} needs {key}" for key in missing if key not in fields]
    return found


def main() -> None:
    for name, graph in graphs().items():
        text = json.dumps({**as_file(graph), "id": f"asymflow-{name}"}, indent=1) + "\n"
        path = FOLDER / f"{name}.json"
        if "--check" in sys.argv:
            assert path.read_text("utf-8") == text, f"{path} is not up to date"
        else:
            write_text(path, text)


if __name__ == "__main__":
    main()
