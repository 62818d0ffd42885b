"""A plan explained on a page: what it says is what was measured, and nothing is fetched."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from asymflow.bench.markup import Markup, element
from asymflow.bench.page import GLOSSARY, page
from asymflow.bench.plan_report.cost import Account, account, on_white
from asymflow.bench.plan_report.poster import poster
from asymflow.core import schedules
from asymflow.core.statistics import Interval
from asymflow.core.transforms import pooled
from asymflow.core.types import CONDITIONAL, Evidence, Plan, Request, Step, Tier
from asymflow.models.gaussian import GaussianAdapter
from asymflow.planning import verifier

CARRIED = Tier("conditional+", guided=False, cached=True)
STEPS = (Step(1.0, 0.7), Step(0.7, 0.4, CARRIED), Step(0.4, 0.0, CONDITIONAL, "heun"))
EVIDENCE = Evidence(
    made={"adapter": "gaussian"},
    cost_ms=(10.0, 5.0, 6.0),
    full_ms=10.0,
    shares=(0.7, 0.2, 0.1),
    predicted=0.3,
    rms=Interval(0.2, 0.15, 0.25),
    distance=Interval(0.1, 0.0, 0.2),
    pictures=24,
)
REQUEST = Request({"label": 1}, (8, 8), 3, 2.0)
SUBJECT = "a <fox> & “owl”"
FINE = schedules.fine_plan((8, 8))


@pytest.fixture(scope="module")
def model() -> GaussianAdapter:
    shape = (2, 4, 8, 8)
    return GaussianAdapter(torch.zeros(shape), torch.linspace(0.3, 0.9, 512).view(shape))


@pytest.fixture(scope="module")
def found(model: GaussianAdapter) -> Account:
    against = Plan("<other>", (Step(1.0, 0.5), Step(0.5, 0.0)))
    plan = Plan("mine", STEPS, EVIDENCE)
    return account(model, plan, REQUEST, FINE, against, subject=SUBJECT)


class Reader(HTMLParser):
    """Every tag that is opened and closed, links, and the text outside the style sheet."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data + "\n"


def test_an_element_escapes_what_is_not_an_element() -> None:
    inner = element("b", "1 < 2")
    assert element("p", inner, " & ", class_='"') == '<p class="&quot;"><b>1 &lt; 2</b> &amp; </p>'
    assert element("img", alt="a") == '<img alt="a">'
    assert isinstance(inner, Markup)


def test_the_page_is_whole_and_fetches_nothing(found: Account) -> None:
    html = page(found, {"model": "<gaussian>"})
    read = Reader(html)
    assert read.open == []
    assert len(read.links) == 3 + 3 + 1  # the ends, every estimate, and the picture again
    assert all(link.startswith("data:image/png;base64,") for link in read.links)
    assert "script" not in html
    assert "url(" not in html


def test_what_people_typed_is_escaped(found: Account) -> None:
    html = page(found, {"model": "<gaussian>"})
    assert "How the plan “mine” draws “a <fox> & “owl””" in Reader(html).text
    for text in ("<fox>", "<other>", "<gaussian>"):
        assert text not in html
        assert text in Reader(html).text


def test_the_page_says_what_was_measured(found: Account) -> None:
    text = Reader(page(found, {})).text
    for said in (
        "3 steps that cost as much as 2.1 full estimates",
        "30.5 times less than the reference",
        "measured 0.200 (0.150 to 0.250)",
        "predicted 0.300",
        "0.100 (0.000 to 0.200)",
        "24 held-out pictures",
        "guidance carried, damped2",
        "not guided, heun",
        f"RMSE {found.rmse(found.plan):.3f}",
        *GLOSSARY,
    ):
        assert said in text
    rows = re.findall(r"<tr>(.*?)</tr>", page(found, {}))
    cells = re.findall(r"<td.*?>(.*?)</td>", rows[2])
    assert cells == [
        "2", "0.7000", "0.4000", "conditional+", "full", "carried", "damped2", "1", "50%", "20%",
    ]  # fmt: skip


def test_without_evidence_the_page_says_so_and_costs_are_of_this_run(
    model: GaussianAdapter, found: Account
) -> None:
    plain = account(model, Plan("mine", STEPS), REQUEST, FINE)
    text = Reader(page(plain, {})).text
    assert "has no evidence" in text
    assert "share of error" not in text
    assert plain.costs(plain.reference) == (1.0,) * 64
    assert all(cost > 0 for cost in plain.costs(plain.plan))
    assert found.costs(found.plan) == (1.0, 0.5, 0.6)


def test_pictures_are_those_of_the_rollouts(model: GaussianAdapter, found: Account) -> None:
    assert torch.equal(found.plan.x_0, verifier.rollout(model, Plan("mine", STEPS), [REQUEST]))
    link = Reader(page(found, {})).links[0]
    with Image.open(io.BytesIO(base64.b64decode(link.partition(",")[2]))) as image:
        shown = np.asarray(image.convert("RGBA"), np.float32) / 255
    shown[..., :3] *= shown[..., 3:]
    valid = np.minimum(found.plan.picture, found.plan.picture[..., 3:])
    assert np.abs(shown - valid).max() < 0.006
    assert found.plan.forwards == 2 + 1 + 1


def test_a_picture_without_alpha_is_shown_too() -> None:
    shape = (2, 3, 8, 8)
    model = GaussianAdapter(torch.zeros(shape), torch.ones(shape))
    request = replace(REQUEST, guidance_scale=1.0)
    made = account(model, Plan("mine", (Step(1.0, 0.0),)), request, FINE)
    assert "1 step that costs" in Reader(page(made, {})).text
    assert np.array_equal(on_white(made.plan.picture), made.plan.picture)


@pytest.mark.parametrize("steps", [3, 13])
def test_a_poster_holds_every_step(steps: int, model: GaussianAdapter, tmp_path: Path) -> None:
    nodes = np.linspace(1, 0, steps + 1).tolist()
    plan = Plan("mine", tuple(Step(t, s) for t, s in pairwise(nodes)))
    poster(account(model, plan, REQUEST, FINE), tmp_path / "p.png")
    with Image.open(tmp_path / "p.png") as image:
        assert image.width > 1000
        assert image.height > (700 if steps == 3 else 1000)


def test_costs_are_counted_in_full_estimates_where_no_run_makes_any(
    model: GaussianAdapter,
) -> None:
    """As on large pictures, of which plans and the reference are asked at a part of the side."""
    plan = Plan("mine", (Step(1.0, 0.0),))
    made = account(model, pooled(plan, 2), REQUEST, pooled(FINE, 2))
    assert {step.tier.pool_factor for _, run in made.runs for step in run.plan.steps} == {2}
    assert made.costs(made.full) == (1.0,)
    assert all(cost > 0 for cost in made.costs(made.reference))
