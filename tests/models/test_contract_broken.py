"""Every property of the contract can fail: adapters that break one, and what is said of them."""

# pyright: reportUnknownLambdaType=false

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from asymflow.core.adapter import Context
from asymflow.core.binding import ModelDescription
from asymflow.core.card import Card, Sizes, Style, Tiles
from asymflow.core.errors import InputError
from asymflow.core.schedules import plan_of, shifted, uniform
from asymflow.core.types import FULL, Picture, Plan, Request, Step, Tier
from asymflow.models import contract, loading
from asymflow.models.contract import __main__ as command
from asymflow.models.gaussian import to_picture, to_state

CARD = Card(
    title="Pixels of one colour, more or less",
    asks="class",
    sizes=Sizes((8, 8), 4, 16, multiple=4, trained=(8, 12)),
    channels=4,
    classes=("dark", "light", "red"),
    styles=(Style("soft", "Soft"),),
    negative=True,
    references=True,
    guidance=3.0,
    guided=True,
    calibration=({"label": 1}, {"label": 2, "style": "soft"}),
    tiers=("conditional", "half"),
    steps=6,
)
MEANS = torch.tensor([[0.0, 0, 0, 0], [-0.5, -0.5, -0.5, 0], [0.3, 0.4, 0.5, 0.9], [0.6, 0, 0, 1]])
"""Of no label, and of those of the card."""


class Good:
    """Pixels x_0 ~ N(mean of the label, std^2), with everything that an adapter can have."""

    name = "good:1"
    channels = 4
    batch: int | None = None
    card = CARD
    std = 0.3
    counts = 0

    @property
    def template(self) -> Tensor:
        return torch.empty(0)

    @property
    def description(self) -> ModelDescription:
        return ModelDescription("good", "ab" * 32, "x_0", "cfg", alpha=True)

    def pool_factors(self, size: tuple[int, int]) -> tuple[int, ...]:
        return () if any(side % 8 for side in size) else (2,)

    def check(self, request: Request) -> None:
        if not CARD.sizes.possible(request.size):
            raise InputError(f"Size {request.size} is not possible.")
        if {*request.inputs} - {"label", "style", "negative", "reference"}:
            raise InputError("There are inputs that it does not know.")
        if request.inputs.get("style") not in (None, "soft"):
            raise InputError("There is one style, 'soft'.")
        if request.inputs.get("label", 0) not in (0, 1, 2):
            raise InputError("Labels are 0 to 2.")

    def encode(self, requests: Sequence[Request]) -> tuple[Context, Context]:
        labels = [each.inputs.get("label", -1) + 1 for each in requests]
        return {"mean": MEANS[labels]}, {"mean": MEANS[[0] * len(labels)]}

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        mean, alpha, t = context["mean"][:, :, None, None], wide(1 - t), wide(t)
        variance = (alpha * self.std) ** 2 + t**2
        return mean + alpha * self.std**2 / variance * (x_t - alpha * mean)

    def denoise_remembering(
        self, x_t: Tensor, t: Tensor, context: Context, memory: Context | None
    ) -> tuple[Tensor, Context]:
        x_0 = self.denoise(x_t, t, context)
        if memory is None or memory["x_0"].shape != x_0.shape:
            return x_0, {"x_0": x_0}
        return (x_0 + memory["x_0"]) / 2, {"x_0": x_0}

    def begin(self, eps: Tensor, t: float) -> Tensor:
        return t * eps

    def clip_estimate(self, x_0: Tensor) -> Tensor:
        return x_0.clamp(-2, 2)

    def project_guidance(self, estimate: Tensor, guidance: Tensor) -> Tensor:
        return 0.9 * guidance

    def to_state(self, picture: Picture) -> Tensor:
        return to_state(picture)

    def to_picture(self, x_0: Tensor) -> Picture:
        return to_picture(x_0)

    def default_plan(self, size: tuple[int, int]) -> Plan:
        return plan_of(shifted(4, 2.0))

    def own_plan(self, size: tuple[int, int]) -> Plan:
        return plan_of(uniform(CARD.steps), solver="euler")


class Split(Good):
    """With a network in two parts: the slow one says what is added to the newest state."""

    splits = True
    denoise_remembering: Any = None

    @property
    def card(self) -> Card:
        return replace(CARD, tiers=(*CARD.tiers, "late"))

    def denoise_split(
        self, x_t: Tensor, t: Tensor, context: Context, slow: Context | None
    ) -> tuple[Tensor, Context]:
        if slow is None:
            slow = {"added": self.denoise(x_t, t, context) - x_t}
        return x_t + slow["added"], slow


def wide(t: Tensor) -> Tensor:
    return t.view(-1, 1, 1, 1)


def test_an_adapter_with_everything_keeps_everything() -> None:
    report = contract.check(Good(), again=Good)
    assert report.kept, str(report)
    # Of a row one thing is remembered, so that no adapter has both.
    other = contract.check(Split(), again=Split)
    assert other.kept, str(other)
    for found, absent in ((report, "splitting"), (other, "memory")):
        assert [each.name for each in found.findings] == [e.__name__ for e in contract.PROPERTIES]
        assert [each.name for each in found.findings if each.state != "kept"] == [absent]
    kept = len(contract.PROPERTIES) - 1
    assert f"good:1: {kept} kept, 0 broken, 1 do not apply" in str(report)


@dataclass(frozen=True)
class Break:
    """What one adapter does wrong.

    Attributes:
        check: the property that has to fail.
        says: part of the message.
        parts: in the place of members of `Good`.
    """

    check: str
    says: str
    parts: Mapping[str, Any]


def broken(of: str, says: str, /, **parts: Any) -> Break:
    return Break(of, says, parts)


def denoised(change: Callable[..., Any]) -> Callable[..., Tensor]:
    """A `denoise` that changes the answer, given the arguments of the right one."""

    def denoise(self: Any, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        return change(Good.denoise(self, x_t, t, context), x_t, t, context)

    return denoise


def carded(**changes: Any) -> dict[str, Any]:
    return {"card": replace(CARD, **changes)}


def described(**changes: Any) -> dict[str, Any]:
    return {"description": replace(Good().description, **changes)}


def accepts(**changes: Any) -> Callable[..., None]:
    """A `check` that forgets to look at some inputs, or all of the request."""

    def check(self: Any, request: Request) -> None:
        kept = {k: v for k, v in request.inputs.items() if k not in changes.get("ignored", ())}
        size = (8, 8) if changes.get("any_size") else request.size
        Good.check(self, replace(request, inputs=kept, size=size))

    return check


def refuses(unwanted: Callable[[Request], bool]) -> Callable[..., None]:
    def check(self: Any, request: Request) -> None:
        Good.check(self, request)
        if unwanted(request):
            raise InputError("That is not possible.")

    return check


def in_place(of: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A `denoise` that writes something into what it is given."""

    def denoise(self: Any, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        found = Good.denoise(self, x_t, t, context)
        of(x_t, t, context).mul_(0.5)
        return found

    return denoise


def reused(self: Any, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
    buffers = vars(self).setdefault("buffers", {})
    found = Good.denoise(self, x_t, t, context)
    return buffers.setdefault(found.shape, found.clone()).copy_(found)


def hidden(self: Any, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
    """Mixes in the last answer of that shape."""
    last = vars(self).setdefault("last", {})
    found = Good.denoise(self, x_t, t, context)
    before, last[found.shape] = last.get(found.shape, found), found
    return 0.9 * found + 0.1 * before


def counted(self: Any) -> str:
    type(self).counts += 1
    return f"good:{type(self).counts}"


def joined(self: Any, requests: Sequence[Request]) -> tuple[Context, Context]:
    """The mean of all prompts in the batch."""
    cond, null = Good.encode(self, requests)
    return {"mean": cond["mean"].mean(0).expand_as(cond["mean"])}, null


def flat(self: Any, requests: Sequence[Request]) -> tuple[Context, Context]:
    """A context that is the same for all pictures, and has no rows."""
    cond, null = Good.encode(self, requests)
    return {**cond, "table": torch.zeros(7)}, {**null, "table": torch.zeros(7)}


def ragged(self: Any, requests: Sequence[Request]) -> tuple[Context, Context]:
    cond, null = Good.encode(self, requests)
    return {**cond, "length": torch.zeros(len(requests))}, null


def unconditional(self: Any, requests: Sequence[Request]) -> tuple[Context, Context]:
    _, null = Good.encode(self, requests)
    return {"mean": null["mean"] + 0.1}, null


def same_null(self: Any, requests: Sequence[Request]) -> tuple[Context, Context]:
    cond, _ = Good.encode(self, requests)
    return cond, cond


def collated_wrongly(self: Any, contexts: Sequence[Context]) -> Context:
    """Every row gets the context of the first."""
    means = torch.cat([each["mean"] for each in contexts])
    return {"mean": means[:1].expand_as(means)}


def by_batch(self: Any, x: Tensor, *_: Any, **__: Any) -> Tensor:
    """Scaled by the largest value of the whole batch."""
    return x / x.abs().max()


def unguarded(self: Any, estimate: Tensor, guidance: Tensor) -> Tensor:
    return guidance / guidance.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def remembering(
    first: float, rows: Callable[[Tensor], Tensor]
) -> Callable[..., tuple[Tensor, Context]]:
    def denoise_remembering(
        self: Any, x_t: Tensor, t: Tensor, context: Context, memory: Context | None
    ) -> tuple[Tensor, Context]:
        x_0 = Good.denoise(self, x_t, t, context)
        before = torch.zeros_like(x_0) if memory is None else rows(memory["x_0"])
        return x_0 + (first if memory is None else 0.5 * before), {"x_0": x_0}

    return denoise_remembering


def split(
    of_state: Callable[[Tensor, bool], Tensor] | None,
    of_slow: Callable[[Tensor], Tensor] = lambda slow: slow,
) -> dict[str, Any]:
    """A network in two parts that changes something, or of which the slow part says everything."""

    def denoise_split(
        self: Any, x_t: Tensor, t: Tensor, context: Context, slow: Context | None
    ) -> tuple[Tensor, Context]:
        known = slow is not None
        x_0 = Good.denoise(self, x_t, t, context)
        if of_state is None:
            return (slow["added"], slow) if slow is not None else (x_0, {"added": x_0})
        added = x_0 - x_t if slow is None else of_slow(slow["added"])
        return of_state(x_t + added, known), {"added": added}

    return {"splits": True, "denoise_remembering": None, "denoise_split": denoise_split}


def keeps(self: Any, x_0: Tensor) -> Tensor:
    vars(self).setdefault("kept", []).append(x_0)
    return x_0


def scribbled(self: Any, picture: Picture) -> Tensor:
    picture *= 0.5
    return to_state(picture * 2)


def raises(error: Exception) -> Callable[..., Any]:
    def anything(self: Any, *_: Any, **__: Any) -> Any:
        raise error

    return anything


def late(self: Any, size: tuple[int, int]) -> Plan:
    return plan_of([0.5, 0.2, 0.0])


def pooled(self: Any, size: tuple[int, int]) -> Plan:
    return Plan("pooled", (Step(1.0, 0.5, FULL), Step(0.5, 0.0, Tier("quarter", pool_factor=4))))


def nan_below(t_: float) -> Callable[..., Tensor]:
    return denoised(lambda x, x_t, t, _: torch.where(wide(t) < t_, torch.nan, x))


BREAKS = (
    broken("form", "batch has to be .* or None, and is 0", batch=0),
    broken("form", "name has to be a text", name=None),
    broken("form", r"name is 'good:\d+', and then 'good:\d+'", name=property(counted)),
    broken("form", "template has to be an empty tensor", template=torch.zeros(3)),
    broken("form", "template .* torch.int64", template=torch.empty(0, dtype=torch.int64)),
    broken("form", "integers above 1, and holds 1", pool_factors=lambda self, size: (1,)),
    broken("answers", "has dtype torch.float64, and torch.float32 is wanted",
           denoise=denoised(lambda x, *_: x.double())),
    broken("answers", r"has shape \(1, 3, 8, 8\)", denoise=denoised(lambda x, *_: x[:, :3])),
    broken("answers", "is a tuple. Return one", denoise=denoised(lambda x, *_: (x,))),
    broken("answers", "at t = 1 has 256 values that are not finite",
           denoise=denoised(lambda x, x_t, t, _: x / wide(1 - t) * wide(1 - t))),
    broken("answers", "KeyError: 'tokens'.*in anything", denoise=raises(KeyError("tokens"))),
    broken("purity", "denoise changed 'x_t'.*not in place", denoise=in_place(lambda x, *_: x)),
    broken("purity", "denoise changed 't'", denoise=in_place(lambda x, t, c: t)),
    broken("purity", "denoise changed 'mean'", denoise=in_place(lambda x, t, c: c["mean"])),
    broken("purity", "to_picture changed 'x_0'",
           to_picture=lambda self, x_0: to_picture(x_0.clamp_(-1, 1))),
    broken("determinism", r"net\.eval\(\)",
           denoise=denoised(lambda x, *_: x + 0.1 * torch.randn_like(x))),
    broken("determinism", "An answer changed when the next one was made", denoise=reused),
    broken("contexts", "'table' of the conditional context of 2 pictures .* 2 rows, and is .7,",
           encode=flat),
    broken("contexts", "'mean', 'length'.*than without .'mean'", encode=ragged),
    broken("rows", "Row 1 of 2 .*Use t.i.",
           denoise=lambda self, x, t, c: Good.denoise(self, x, t[:1].expand_as(t), c)),
    broken("rows", "Row 0 of 2 .*batch normalisation",
           denoise=denoised(lambda x, *_: x - x.mean(0) / 2)),
    broken("collating", "With conditional contexts from two calls .*Encode each", encode=joined),
    broken("collating", "With conditional contexts", collate=collated_wrongly),
    broken("conditioning", "{'label': 1} .* and {'label': 2, .* same answers",
           encode=unconditional),
    broken("guidance", "accepts guidance scale 3, and has the same answer", encode=same_null),
    broken("pooling", "cannot be pooled by 3", pool_factors=lambda self, size: (3,)),
    broken("pooling", r"pooled by 2 has shape \(1, 4, 8, 8\)",
           denoise=denoised(lambda x, *_: x if x.shape[-1] > 4 else x.repeat(1, 1, 2, 2))),
    broken("pictures", "has to be float32 .* float64",
           to_picture=lambda self, x: to_picture(x).astype(np.float64)),
    broken("pictures", "is 0.5 from what it was", to_state=lambda self, p: to_state(p) + 1),
    broken("pictures", "became values from -",
           to_picture=lambda self, x: (x + 1).movedim(0, -1).numpy() / 2),
    broken("pictures", "to_state changed the picture", to_state=scribbled),
    broken("pictures", "dtype torch.float64", to_state=lambda self, p: to_state(p).double()),
    broken("refusals", r"size \(0, 8\), guidance 3 has to be refused",
           check=accepts(any_size=True)),
    broken("refusals", "raises ZeroDivisionError, no InputError",
           check=lambda self, request: 8 // request.size[0] and Good.check(self, request)),
    broken("refusals", "{'label': 2.* is refused: That is",
           check=refuses(lambda request: request.inputs.get("label") == 2)),
    broken("beginning", "begin at t = 1 of two rows", begin=by_batch),
    broken("clipping", "quantiles and means of every row", clip_estimate=by_batch),
    broken("clipping", "clip_estimate changed '0'",
           clip_estimate=lambda self, x: x.clamp_(-1, 1)),
    broken("projection", "project_guidance of two rows",
           project_guidance=lambda self, x, term: by_batch(self, term)),
    broken("projection", "of a guidance term of 0 is not 0", project_guidance=unguarded),
    broken("memory", "Without memory, .* is 1 from denoise",
           denoise_remembering=remembering(1.0, lambda x: x)),
    broken("memory", "With the memory of row 0",
           denoise_remembering=remembering(0.0, lambda x: x.flip(0))),
    broken("memory", "RuntimeError: The size of tensor",
           denoise_remembering=remembering(0.0, lambda x: x)),
    broken("splitting", "Without `slow`, denoise_split is 1 from denoise",
           **split(lambda x, known: x if known else x + 1)),
    broken("splitting", "With what the slow part said of the same states, .* is 1 from denoise",
           **split(lambda x, known: x + 1 if known else x)),
    broken("splitting", "The answer of the fast part has 1 values that are not finite",
           **split(lambda x, known: x.flatten().index_fill(0, torch.tensor(0), torch.nan)
                   .view_as(x) if known else x)),
    broken("splitting", "denoise_split changed 'added'|slow changed 'added'",
           **split(lambda x, known: x, lambda slow: slow.mul_(1.1))),
    broken("splitting", "says the same of other states", **split(None)),
    broken("splitting", "With what was kept of row 0",
           **split(lambda x, known: x, lambda slow: slow + 0.1 * len(slow))),
    broken("description", "guidance is 'none', and .* accepted", **described(guidance="none")),
    broken("description", "does not recognise it", **described(weights="ab")),
    broken("description", "differs from call to call",
           description=property(lambda self: replace(Good().description, weights=counted(self)))),
    broken("identity", "is called 'good:", name=property(lambda self: f"good:{id(self)}")),
    broken("identity", "does not recognise the model loaded again: it was made for good:",
           description=property(
               lambda self: replace(Good().description, weights=f"{id(self):064}"))),
    broken("independence", "of the same request in a batch of|from the same request",
           denoise=denoised(lambda x, *_: x + 0.02 * len(x))),
    broken("independence", "are 0.* apart",
           denoise=denoised(lambda x, *_: x + 0.01 * torch.arange(len(x)).view(-1, 1, 1, 1))),
    broken("independence", "other seeds have the same picture",
           denoise=denoised(lambda x, *_: torch.zeros_like(x)), begin=lambda self, e, t: 0 * e),
    broken("release", r"1 tensors of their states \(3, 4, 8, 8\)|tensors of their states",
           clip_estimate=keeps),
    broken("forks", "copied in its middle", denoise=hidden),
    broken("card", "3 channels, and the adapter 4", **carded(channels=3)),
    broken("card", "asks is 'words'", **carded(asks="words")),
    broken("card", "'class' and has 0 classes", **carded(classes=())),
    broken("card", "'nothing' and has 3 classes", **carded(asks="nothing")),
    broken("card", "guided is False", **carded(guided=False)),
    broken("card", "guided is True, and check refuses guidance scale 3",
           check=refuses(lambda request: request.guidance_scale != 1)),
    broken("card", "not a part of", **carded(guidance_interval=(0.5, 0.1))),
    broken("card", "no calibration inputs", **carded(calibration=())),
    broken("card", "alpha is False", **described(alpha=False)),
    broken("card", "differs from call to call",
           card=property(lambda self: replace(CARD, title=counted(self)))),
    broken("sizes", r"Size \(16, 16\) is possible by the card",
           check=refuses(lambda request: request.size[0] > 12)),
    broken("sizes", r"of size \(20, 16\).* has to be refused",
           check=accepts(any_size=True)),
    broken("sizes", r"of size \(8, 9\)", check=accepts(any_size=True)),
    broken("sizes", "offers size .7, 8., and says", **carded(sizes=Sizes((7, 8), 4, 16, 4))),
    broken("inputs", "{'label': 0, 'prompt': 'a fox'}.* has to be refused",
           check=accepts(ignored=("prompt",))),
    broken("inputs", "takes 'reference', and .* is refused",
           check=refuses(lambda request: "reference" in request.inputs)),
    broken("inputs", "'negative': 'blurred'.* has to be refused", **carded(negative=False)),
    broken("inputs", "'reference': 'ndarray'.* has to be refused", **carded(references=False)),
    broken("inputs", "classes 0 to 3, and 3 is refused", **carded(classes=("a", "b", "c", "d"))),
    broken("inputs", "{'label': 'none of them'}.* has to be refused",
           check=accepts(ignored=("label",))),
    broken("inputs", "{'label': 0, 'style': 'none of them'}.* has to be refused",
           check=accepts(ignored=("style",))),
    broken("inputs", "Style 'hard' is on the card, and refused",
           **carded(styles=(Style("soft", "Soft"), Style("hard", "Hard")))),
    broken("inputs", "takes 'prompt'", **carded(asks="prompt", classes=())),
    broken("calibration", "{'label': 9} are refused", **carded(calibration=({"label": 9},))),
    broken("calibration", "other than 1 row", encode=flat),
    broken("images", "with image|guidance 3, image has to be refused", **carded(image=False)),
    broken("images", "image, mask has to be refused", **carded(inpaint=False)),
    broken("images", "inpaint is True on the card, and such a request is refused",
           check=refuses(lambda request: request.mask is not None)),
    broken("images", "With image, the picture is not finite", denoise=nan_below(0.4)),
    broken("plans", "begins at t = 0.5, where noise is missing", default_plan=late),
    broken("plans", "own_plan.*cannot run: .* asks for tier 'quarter'", own_plan=pooled),
    broken("plans", "picture is not finite", denoise=nan_below(0.2)),
    broken("tiers", "'quarter' is on the card, and not possible",
           **carded(tiers=("conditional", "half", "quarter"))),
    broken("tiers", "tiles, and a plan with them cannot run: .* parts of its last answer",
           **carded(tiles=Tiles(4, 0.5))),
    broken("tiers", "'half' is possible, and not on the card", **carded(tiers=("conditional",))),
    broken("tiers", "Tier 'half', the picture is not finite",
           denoise=denoised(lambda x, *_: x if x.shape[-1] > 4 else x * torch.nan)),
)  # fmt: skip


@pytest.mark.parametrize("each", BREAKS, ids=lambda each: f"{each.check}: {each.says[:30]}")
def test_what_is_broken_is_found_and_said(each: Break) -> None:
    kind: Any = type("Broken", (Good,), dict(each.parts))
    requests = [Request(inputs, (8, 8), 0, 3.0) for inputs in CARD.calibration]
    [check] = [found for found in contract.PROPERTIES if found.__name__ == each.check]
    found = contract.tried(check, contract.Subject.of(kind(), requests, again=kind))
    assert found.state == "broken"
    assert any(re.search(each.says, line) for line in found.messages), str(found)
    assert all(line.endswith((".", ")")) for line in found.messages)


def test_every_property_has_been_broken() -> None:
    assert {each.check for each in BREAKS} == {each.__name__ for each in contract.PROPERTIES}


# What can be checked, and how it is told.


class Bare:
    """Only what is required; see `Good`."""

    name = "bare"
    channels, batch, template = 4, None, torch.empty(0)
    pool_factors, encode, denoise = Good.pool_factors, Good.encode, Good.denoise
    to_state, to_picture, std = Good.to_state, Good.to_picture, Good.std

    def check(self, request: Request) -> None:
        Good.check(Good(), request)
        if request.guidance_scale != 1:
            raise InputError("There is no guidance.")


def test_what_an_adapter_need_not_have_is_not_counted() -> None:
    requests = [Request({"label": label}, (12, 12)) for label in (0, 1)]
    report = contract.check(cast("Any", Bare()), requests)
    assert report.kept, str(report)
    absent = [each.name for each in report.findings if each.state == "absent"]
    assert absent == [
        "guidance", "pooling", "beginning", "clipping", "projection", "memory", "splitting",
        "description", "identity", "card", "sizes", "inputs", "calibration", "images", "plans",
        "tiers",
    ]  # fmt: skip
    assert "absent  card            (it has no card)" in str(report)
    one = contract.check(cast("Any", Bare()), requests[:1])
    assert "conditioning" in [each.name for each in one.findings if each.state == "absent"]


def test_requests_that_have_to_be_refused_are_given() -> None:
    requests = [Request({"label": label}, (12, 12)) for label in (0, 1)]
    bare: Any = Bare()
    assert contract.check(bare, requests, refused=[Request({"label": 7}, (12, 12))]).kept
    report = contract.check(bare, requests, refused=[Request({"label": 2}, (12, 12))])
    [broken] = [each for each in report.findings if not each.kept]
    assert broken.name == "refusals"
    assert str(report).count("broken  refusals") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None,), "adapter is a NoneType.*It has no name, channels"),
        ((Bare(),), "bare has no card .* no request is given"),
        ((Bare(), []), "bare has no card"),
        ((Bare(), [Request({}, (8, 8)), Request({}, (4, 4))]), "requests of one size"),
        ((Bare(), [{"label": 1}]), r"requests\[0\] is a dict"),
    ],
)
def test_what_cannot_be_checked_is_an_error(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        contract.check(*arguments)


@pytest.mark.parametrize(("batch", "status"), [(None, 0), (0, 1)])
def test_the_command_prints_what_was_found(
    batch: int | None,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kind: Any = type("Mine", (Good,), {"batch": batch})
    monkeypatch.setattr(loading, "load", lambda name: kind())  # pyright: ignore
    assert command.main(["mine"]) == status
    told = capsys.readouterr().out
    assert f"\n{'broken' if status else 'kept  '}  form " in told
    assert "kept    identity " in told


def test_the_command_says_why_it_cannot_check() -> None:
    arguments = [sys.executable, "-m", "asymflow.models.contract", "nothing"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "There is no model 'nothing'" in done.stderr
