"""What is given in another form than it is wanted: a clear error, before anything is computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import asymflow
from asymflow import Adapter, InputError, Plan, Request, Step, Tier
from asymflow.core import engine
from asymflow.core.errors import FileFormatError
from asymflow.core.schedules import plan_of, shifted, uniform
from asymflow.core.types import FULL, Profile
from asymflow.models import edm, jit, loading
from asymflow.models.empirical import EmpiricalAdapter
from asymflow.models.gaussian import GaussianAdapter
from asymflow.models.jit.network import JitConfig, JitModel
from asymflow.planning import profiler

BETAS = torch.linspace(1e-4, 0.02, 100, dtype=torch.float64)
SQUARES = (1 - BETAS).cumprod(0)
PLAN = plan_of(uniform(2))


def asked_at_all(*_: object, **__: object) -> Tensor:
    raise AssertionError("nothing should be computed")


def model(**options: Any) -> Any:
    return edm.edm(asked_at_all, channels=1, name="never", **options)


def guided(squares: object = SQUARES, **options: Any) -> Any:
    given = cast("Tensor", squares)
    return edm.guided_diffusion(asked_at_all, given, channels=1, name="never", **options)


def request(**changes: Any) -> Request:
    given: dict[str, Any] = {"inputs": {}, "size": (4, 4), **changes}
    return Request(**given)


def run(adapter: Any, plan: Any, requests: Any) -> object:
    return engine.run(adapter, plan, requests)


WRONG: list[tuple[str, Callable[[], object], str]] = [
    # In the place of alpha^2, which falls.
    ("betas", lambda: guided(BETAS), r"from 0\.0001 to 0\.02, is no schedule.*cumprod"),
    ("array of betas", lambda: guided(BETAS.numpy()), "is no schedule"),
    ("two dimensions", lambda: guided(SQUARES[None]), r"shape \(1, 100\)"),
    ("standard deviations", lambda: guided(2 * SQUARES), "is no schedule"),
    ("not a number", lambda: guided(SQUARES * torch.nan), "is no schedule"),
    ("no noise levels", lambda: guided(None), "a NoneType, which holds no numbers"),
    ("no network", lambda: edm.edm(cast("Any", None), channels=1), "NoneType cannot be called"),
    ("no name", lambda: edm.edm(asked_at_all, channels=1), "name=None.*Give it one"),
    ("half a channel", lambda: edm.edm(asked_at_all, channels=cast("Any", 1.5), name="a"), "1.5"),
    ("null class of EDM", lambda: model(null=3), "null is a int"),
    ("text for classes", lambda: guided(classes="4"), "classes='4'"),
    ("factors", lambda: model(factors=("2",)), "factors='2'"),
    # Requests.
    ("one request", lambda: run(model(), PLAN, request()), r"requests is a Request.*\[asymflow"),
    ("swapped", lambda: run(PLAN, model(), [request()]), "adapter is a Plan.*order"),
    ("no plan", lambda: run(model(), None, [request()]), "plan is a NoneType"),
    ("a name of a plan", lambda: run(model(), "best", [request()]), "plan is a str"),
    ("dicts", lambda: run(model(), PLAN, [{}]), r"requests\[0\] is a dict"),
    ("walk", lambda: next(engine.walk(model(), PLAN, cast("Any", request()))), "requests is a"),
    ("a side", lambda: request(size=4), r"size is a int.*\(height, width\)"),
    ("text as size", lambda: request(size="44"), "size is a str"),
    ("half pixels", lambda: request(size=(4.5, 4)), "A side of size=4.5"),
    ("three sides", lambda: request(size=(4, 4, 3)), r"size=\(4, 4, 3\)"),
    ("a prompt", lambda: request(inputs="a fox"), "inputs is a str.*prompt"),
    ("no inputs", lambda: request(inputs=None), "inputs is a NoneType"),
    ("seed", lambda: request(seed=0.5), "seed=0.5"),
    ("no seed", lambda: request(seed=None), "seed=None"),
    ("guidance", lambda: request(guidance_scale="3"), "guidance_scale='3'"),
    ("strength", lambda: request(strength=None), "strength=None"),
    ("picture", lambda: request(image=Image.new("L", (4, 4))), r"image is a Image.*asarray"),
    ("mask", lambda: request(mask=Image.new("L", (4, 4))), "mask is a Image"),
    ("tensor", lambda: request(image=torch.zeros(4, 4, 1)), "image is a Tensor"),
    # Plans and grids.
    ("steps as text", lambda: uniform(cast("Any", "8")), "n='8'"),
    ("half steps", lambda: uniform(cast("Any", 2.5)), r"n=2\.5"),
    ("no shift", lambda: shifted(2, cast("Any", None)), "shift=None"),
    ("grid as text", lambda: plan_of(cast("Any", "uniform")), "times='uniform'"),
    ("no grid", lambda: plan_of(cast("Any", None)), "times=None"),
    ("a number", lambda: plan_of(cast("Any", 8)), "times=8"),
    ("times as text", lambda: plan_of(cast("Any", ["1", "0"])), r"times\[0\]='1'"),
    ("interval", lambda: plan_of((1, 0), guidance_interval=cast("Any", 0.5)), "interval=0.5"),
    ("times", lambda: Step(cast("Any", "1"), 0.0), "t='1'"),
    ("tier", lambda: Step(1.0, 0.0, cast("Any", "full")), "tier is a str"),
    ("tier's name", lambda: Tier(cast("Any", 2)), "name of a tier is a int"),
    ("tier's side", lambda: Tier("half", pool_factor=cast("Any", "2")), "pool_factor='2'"),
    ("plan without name", lambda: Plan(cast("Any", PLAN.steps), ()), "name of a plan is a tuple"),
    ("one step", lambda: Plan("one", cast("Any", PLAN.steps[0])), "steps is a Step"),
    ("times as steps", lambda: Plan("two", cast("Any", (1.0, 0.0))), r"steps\[0\] is a float"),
    # Measuring.
    ("nothing", lambda: profiler.profile(model(), []), "no request to measure with"),
    ("one", lambda: profiler.profile(model(), cast("Any", request())), "requests is a Request"),
    ("plan", lambda: profiler.profile(cast("Any", PLAN), [request()]), "adapter is a Plan"),
    ("rising", lambda: profiler.profile(model(), [request()], times=(0, 1)), "no candidates"),
    ("tiers", lambda: profiler.profile(model(), [request()], tiers=cast("Any", "half")), "str"),
    ("timings", lambda: profiler.profile(model(), [request()], repeats=0), "repeats=0"),
    # Files.
    ("no path", lambda: asymflow.load_plan(cast("Any", None)), "path=None is no path"),
    ("descriptor", lambda: asymflow.load_profile(cast("Any", 3)), "path=3 is no path"),
    ("plan last", lambda: asymflow.save_plan(cast("Any", "p.json"), cast("Any", PLAN)), "order"),
    ("no profile", lambda: asymflow.save_profile(cast("Any", PLAN), "p"), "profile is a Plan"),
    ("no checkpoint", lambda: jit.load(cast("Any", None)), "path=None is no path"),
    ("a number", lambda: loading.load(cast("Any", 7)), "model=7 is no path"),
]


@pytest.mark.parametrize(
    ("use", "message"), [each[1:] for each in WRONG], ids=[each[0] for each in WRONG]
)
def test_it_is_refused_with_what_to_pass(use: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        use()
    assert str(caught.value).endswith((".", "?"))


def test_unknown_arguments_are_named() -> None:
    with pytest.raises(TypeError, match=r"edm\(\) got an unexpected keyword argument 'clip'"):
        model(clip=True)


@pytest.mark.parametrize("label", [np.int64(1), torch.tensor(1), np.uint8(1), 1])
@pytest.mark.parametrize("kind", ["edm", "jit", "gaussian", "empirical"])
def test_labels_are_integers_of_any_library(label: Any, kind: str) -> None:
    config = JitConfig(size=8, patch=4, width=8, depth=1, heads=1, hidden=8, bottleneck=4,
                       classes=3, class_tokens=1, class_start=0)  # fmt: skip
    adapters: dict[str, Callable[[], Adapter]] = {
        "edm": lambda: model(classes=3),
        "jit": lambda: jit.adapt(JitModel(config)),
        "gaussian": lambda: GaussianAdapter(torch.zeros(3, 1, 8, 8), torch.ones(3, 1, 8, 8)),
        "empirical": lambda: EmpiricalAdapter(torch.zeros(3, 1, 8, 8), torch.arange(3)),
    }
    adapter = adapters[kind]()
    wanted = Request({"label": label}, (8, 8))
    adapter.check(wanted)
    assert adapter.encode([wanted])[0]["label"].tolist() == [1]
    for wrong in ("1", 1.0, None, True, [1], -2, 7):
        if wrong is None and kind == "edm":
            continue
        with pytest.raises(InputError):
            adapter.check(Request({"label": wrong}, (8, 8)))


def test_integers_and_floats_of_other_libraries_are_those_of_python() -> None:
    wanted = request(
        size=(np.int64(4), torch.tensor(4)), seed=np.int32(3), guidance_scale=np.float32(1)
    )
    assert (wanted.size, wanted.seed, wanted.guidance_scale) == ((4, 4), 3, 1.0)
    assert all(type(side) is int for side in (*wanted.size, wanted.seed))
    grid = plan_of(cast("Any", np.linspace(1, 0, 3, dtype=np.float32)))
    assert grid == plan_of(torch.linspace(1, 0, 3).tolist()) == plan_of((1, 0.5, 0))
    assert uniform(cast("Any", np.int64(2))) == uniform(2)
    assert Plan("list", cast("Any", list(grid.steps))) == Plan("list", grid.steps)


def test_a_plan_of_whole_times_is_the_one_in_its_file(tmp_path: Path) -> None:
    plan = Plan("whole", (Step(1, 0.5), Step(0.5, 0)))
    asymflow.save_plan(plan, tmp_path / "plan.json")
    from asymflow.planning.plan_files import plan_hash

    assert plan_hash(asymflow.load_plan(tmp_path / "plan.json")) == plan_hash(plan)


def test_paths_are_taken_as_text_too(tmp_path: Path) -> None:
    asymflow.save_plan(PLAN, str(tmp_path / "plan.json"))
    assert asymflow.load_plan(str(tmp_path / "plan.json")) == PLAN
    flat = np.zeros((2,) * 3, np.float32)
    profile = Profile((1.0, 0.0), (FULL,), (1.0,), (1,), (1,), flat[0, 0], 1.0, flat[None], flat,
                      flat[:1], {})  # fmt: skip
    asymflow.save_profile(profile, str(tmp_path / "profile"))
    assert asymflow.load_profile(str(tmp_path / "profile")).times == profile.times
    for read in (jit.load, loading.load):
        with pytest.raises(
            FileFormatError, match=r"(Cannot read|no file or folder) .*none\.safetensors"
        ):
            read(str(tmp_path / "none.safetensors"))
