"""The node Measure model: it measures through ComfyUI's calls, resumes, keeps, and is used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.comfyui import host, parity
from benchmarks.comfyui.host import conditioning
from torch import Tensor

from asymflow.core import engine
from asymflow.core.errors import InputError
from asymflow.core.schedules import plan_of
from asymflow.core.statistics import Interval
from asymflow.core.types import Evidence, Request
from asymflow.io import folders
from asymflow.models import contract
from asymflow.planning import named
from asymflow.planning.shelf import Shelf
from tests.integrations.comfyui import standin
from tests.integrations.comfyui.standin import Patcher
from tests.integrations.comfyui.test_load_plan import describe, load, module, plan_in
from tests.integrations.comfyui.test_sampling import Counted

SIZE = (8, 8)
LATENT = {"samples": torch.zeros(1, 3, *SIZE)}


@pytest.fixture
def model() -> Patcher:
    Counted.rows = 0
    return Patcher(Counted, {"shift": 3.0, "noise_scale": 2.0})


def measure(pack: Any, model: Any, **given: Any) -> tuple[Any, str]:
    inputs: dict[str, Any] = {
        "model": model,
        "positive": conditioning(0),
        "negative": conditioning(1),
        "latent_image": LATENT,
        "cfg": 3.0,
        "effort": "quick",
        "again": False,
    }
    with torch.inference_mode():  # as ComfyUI runs nodes
        made, text = host.execute(pack.MeasureModel, **(inputs | given))
    return made, text


@pytest.mark.slow
def test_a_model_is_measured_once_kept_and_used(pack: Any, model: Patcher) -> None:
    patched, text = measure(pack, model, positive_2=conditioning(2))
    first = Counted.rows
    assert patched is model
    assert "plan best" in text
    assert standin.SEEN.progress[-1][0] <= standin.SEEN.progress[-1][1]
    assert first > 1000
    described = module(pack, "models").model_of(model, SIZE).description
    shelf = Shelf(described)
    best = shelf.find("best", SIZE)
    assert best is not None
    assert best.evidence is not None
    assert best.evidence.made["host"] == "ComfyUI"
    assert best.binding == described.binding
    assert not list((folders.cache() / "measuring").glob("*"))
    # Again: nothing is asked, for the same prompts.
    _, again = measure(pack, model, positive_2=conditioning(2))
    assert Counted.rows == first
    assert text.startswith(again)
    _, sampler, _, told = load(pack, model, "best", latent_image=LATENT, cfg=3.0)
    assert plan_in(sampler) == best
    assert "was measured on this model" in told
    assert "was measured at cfg 3" in load(pack, model, "best", latent_image=LATENT, cfg=5.0)[3]


@pytest.mark.slow
def test_an_interrupted_measurement_resumes(
    pack: Any, model: Patcher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever was measured before is not asked for again, and the plans are the same."""
    whole = measure(pack, model)[1]
    passes = Counted.rows
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    Counted.rows = 0
    forward = Counted.forward

    def stopped(self: Counted, x: Tensor, timesteps: Tensor, context: Tensor, **_: Any) -> Tensor:
        standin.SEEN.interrupted = Counted.rows >= 2 * passes // 3
        return forward(self, x, timesteps, context)

    monkeypatch.setattr(Counted, "forward", stopped)
    with pytest.raises(standin.InterruptedByUser):
        measure(pack, model)
    monkeypatch.setattr(Counted, "forward", forward)
    asked = Counted.rows
    assert asked < passes
    resumed = measure(pack, model)[1]
    further = Counted.rows - asked
    assert further < 0.6 * passes

    def steps(text: str) -> list[str]:
        return [line[:60] for line in text.splitlines() if line[:4].strip().isdigit()]

    assert steps(resumed) == steps(whole)


def test_the_loaded_model_keeps_the_contract(pack: Any, model: Patcher) -> None:
    measuring = module(pack, "measuring")
    seen: list[Any] = []

    class Checking(measuring.Measuring):
        def sample(self, model_wrap: Any, sigmas: Any, extra_args: Any, *rest: Any) -> Any:
            loaded = measuring.Loaded(
                model_wrap,
                describe(pack, model),
                SIZE,
                3.0,
                ("positive", "positive_2"),
                "negative",
                extra_args["model_options"],
                torch.device("cpu"),
            )
            seen.append(contract.check(loaded))
            request = Request({"prompt": "positive"}, SIZE, 3, 3.0)
            [end] = engine.rollout(loaded, parity.INTERVAL, [request])
            seen.append(end.x_0 * loaded.model.noise_scale)
            return rest[2]

    guider = standin.CFGGuider(model)
    texts = {name: conditioning(i) for i, name in enumerate(("positive", "positive_2", "negative"))}
    guider.inner_set_conds(texts)
    sampler = Checking(describe(pack, model), SIZE, "quick", named.no_progress)
    empty = LATENT["samples"]
    with torch.inference_mode():
        guider.sample(empty, empty, sampler, torch.tensor([1.0, 0.0]))
    report, measured = seen
    assert report.kept, str(report)
    # The model that is measured is the one that is sampled.
    guider.set_cfg(3.0)
    plan_sampler = module(pack, "sampling").sampler_of(parity.INTERVAL)
    sigmas = module(pack, "sampling").sigmas_of(parity.INTERVAL)
    sampled = guider.sample(engine.noise(3, (1, 3, *SIZE)), empty, plan_sampler, sigmas)
    torch.testing.assert_close(sampled[0], measured)


def test_what_cannot_be_measured_is_refused(pack: Any, model: Patcher) -> None:
    with pytest.raises(InputError, match="none is connected"):
        measure(pack, model, negative=None)
    part = conditioning(0)
    part[0][1]["area"] = (4, 4, 0, 0)
    with pytest.raises(InputError, match="a part of the picture only"):
        measure(pack, model, positive=part)
    with pytest.raises(InputError, match="distilled"):
        measure(pack, Patcher(Counted, {}, "pid"))
    assert Counted.rows == 0


def test_a_size_that_does_not_fit_into_memory_is_refused(pack: Any, model: Patcher) -> None:
    standin.SEEN.free = 20 * 10**9
    large = {"samples": torch.zeros(1, 3, 1, 1).expand(1, 3, 2048, 2048)}
    with pytest.raises(InputError, match=r"2048x2048 takes about 116 GB .* 20 GB are free"):
        measure(pack, model, latent_image=large)
    assert Counted.rows == 0


def test_evidence_names_the_device_of_the_network(pack: Any) -> None:
    measured_for = module(pack, "measuring").measured_for
    evidence = Evidence({"device": "cpu"}, (1.0,), 1.0, (), None, Interval(0, 0, 0), None, 1)
    plans = named.NamedPlans({"best": replace(plan_of((1.0, 0.0)), evidence=evidence)}, {}, 1)
    [there] = measured_for(plans, "some", torch.device("meta")).values()
    [here] = measured_for(plans, "some", torch.device("cpu")).values()
    assert there.evidence.made["device"] == "meta of the stand-in"
    assert here.evidence.made["device"] == "cpu"


def test_prompts_tell_measurements_apart(pack: Any) -> None:
    digest_of = module(pack, "measuring").digest_of

    def conds(seed: int) -> dict[str, Any]:
        return {"positive": [{"cross_attn": conditioning(seed)[0][0], "uuid": object()}]}

    assert digest_of(conds(0)) == digest_of(conds(0))
    assert digest_of(conds(0)) != digest_of(conds(1))
