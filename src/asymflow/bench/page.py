"""Report on a plan as one self-contained HTML page, without scripts."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib import resources

import numpy as np
from PIL import Image

from asymflow.bench.markup import Markup, element
from asymflow.bench.plan_report.cost import Account, Run, colours
from asymflow.core.statistics import Interval
from asymflow.core.types import Evidence, Picture, Step, side_word
from asymflow.generation.pixels import to_rgba
from asymflow.io.images import to_bytes

GLOSSARY: Mapping[str, str] = {
    "t": "Noise level: 1 is pure noise, 0 is the picture.",
    "step": "One update from t to a smaller t. The network estimates the picture without noise, "
    "and the step moves towards it.",
    "estimate": "The output of the network: the pictures in the strip.",
    "full estimate": "The network at full size with guidance. The unit of all costs, because it "
    "does not depend on the machine as milliseconds do.",
    "pass": "One run of the network for one picture.",
    "tier": "The part of the network that a step evaluates: all (full), without guidance "
    "(conditional), at half the side (half). With a +, the rest is reused from the last full step.",
    "guided": "The network runs with and without the prompt, and the difference is amplified: the "
    "picture follows the prompt more closely, at twice the passes.",
    "solver": "How a step extrapolates from this estimate and earlier ones.",
    "reference": "64 steps at the native size of the model. More steps make no visible difference.",
    "RMSE": "Root mean square difference to the reference over all pixels in [-1, 1]: 0 is the "
    "same picture, 2 is white instead of black.",
}
"""Glossary of the page."""

_COLUMN_LIMIT = 8
"""Maximum number of cards in a row."""
_PERCENT = "{:.0%}".format

div, span, p, b = (partial(element, tag) for tag in ("div", "span", "p", "b"))


def page(account: Account, made: Mapping[str, str]) -> str:
    """Render the page.

    Args:
        account: the runs to report on.
        made: settings of the runs, for the footer.
    """
    style = resources.files("asymflow.bench").joinpath("page.css").read_text("utf-8")
    body = (
        element("h1", account.title),
        p(account.lead, class_="lead"),
        _ends(account),
        element("h2", "Estimate before every step"),
        p(
            "The network’s estimate of the final picture at every step; below it, the cost of the "
            "step and its share of the predicted error.",
            class_="soft",
        ),
        _strip(account),
        element("h2", "Distribution of the cost"),
        p(
            "Each step is a block, from the first on the left to the last on the right, in the "
            "colour of its tier.",
            class_="soft",
        ),
        _bars(account),
        element("h2", "Error to the reference"),
        *_evidence(account),
        element("h2", "The plan"),
        _table(account),
        element("h2", "Glossary"),
        element("dl", *_glossary()),
        element("footer", ", ".join(f"{name} {value}" for name, value in made.items())),
    )
    head = (
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", account.title),
        element("style", Markup(style)),
    )
    html = element("html", element("head", *head), element("body", *body), lang="en")
    return f"<!doctype html>\n{html}\n"


def _ends(account: Account) -> Markup:
    return div(*(_end(account, run, name) for name, run in account.runs), class_="ends")


def _end(account: Account, run: Run, name: str) -> Markup:
    cost = sum(account.costs(run))
    lines = [
        f"{len(run.plan.steps)} steps, {run.forwards} passes",
        f"{cost:.1f} full estimates",
        f"{sum(run.seconds):.2f} s in this run",
    ]
    if run is not account.reference:
        lines.append(f"RMSE {account.rmse(run):.3f}")
    text = (b(name), *(div(line) for line in lines))
    return element("figure", _image(run.picture, name), element("figcaption", *text))


def _strip(account: Account) -> Markup:
    plan, costs = account.plan.plan, account.costs(account.plan)
    tiers, shares = _tiers(account), _shares(account)
    most = max(1.0, *costs)
    cards: list[Markup] = []
    for i, (step, cost) in enumerate(zip(plan.steps, costs, strict=True)):
        colour = tiers[step.tier.name]
        gauges = [_gauge("cost", cost, most, colour)]
        if shares:
            gauges.append(_gauge("error", shares[i], 1.0, "var(--error)"))
        cards.append(
            div(
                _image(account.plan.estimates[i], f"estimate at t = {step.t:.2f}"),
                div(b(str(i + 1)), span(f"t = {step.t:.2f}"), class_="time"),
                *gauges,
                span(step.tier.name, class_="chip", style=f"background:{colour}"),
                span(f"{_guided(step)}, {step.solver_name}", class_="kind"),
                class_="card",
            )
        )
    last = div(b("end"), span("t = 0"), class_="time")
    cards.append(div(_image(account.plan.picture, "the picture"), last, class_="card"))
    rows = -(-len(cards) // _COLUMN_LIMIT)
    return div(*cards, class_="strip", style=f"--columns:{-(-len(cards) // rows)}")


def _gauge(name: str, value: float, most: float, colour: str) -> Markup:
    width = f"width:{100 * value / most:.2f}%;background:{colour}"
    return div(
        span(name), span(_PERCENT(value)), div(div(style=width), class_="track"), class_="gauge"
    )


def _bars(account: Account) -> Markup:
    steps = account.plan.plan.steps
    rows: list[tuple[str, Sequence[float]]] = [
        ("interval of t", [step.t - step.s for step in steps]),
        ("cost", account.costs(account.plan)),
    ]
    if shares := _shares(account):
        rows.append(("predicted error", shares))
    tiers = _tiers(account)
    parts: list[Markup] = []
    for name, values in rows:
        whole = sum(values) or 1.0
        blocks = [
            div(
                str(i + 1) if value / whole > 0.018 else "",
                style=f"width:{100 * value / whole:.2f}%;background:{tiers[step.tier.name]}",
                title=f"step {i + 1}: {value / whole:.0%}",
            )
            for i, (step, value) in enumerate(zip(steps, values, strict=True))
        ]
        parts += [span(name, class_="soft"), div(*blocks, class_="bar")]
    return div(*parts, class_="card bars")


def _evidence(account: Account) -> Iterator[Markup]:
    evidence = account.plan.plan.evidence
    own = account.rmse(account.plan)
    if evidence is None:
        yield p(
            f"On this picture the RMSE to the reference is {own:.3f}. The plan has no evidence: "
            "asymflow plan --verify measures a plan on many pictures and stores the results in its "
            "file."
        )
        return
    yield p(
        f"RMSE measured on {evidence.pictures} held-out pictures, with the 95% interval of the "
        "mean, and predicted from the profile for the nearest plan that it covers. Predictions "
        "rank plans; they are not measurements.",
        class_="soft",
    )
    yield div(_scale(evidence.rms, evidence.predicted, own), *_key(evidence, own), class_="card")


def _scale(measured: Interval, predicted: float | None, own: float) -> Markup:
    known = (measured.high, own) if predicted is None else (measured.high, own, predicted)
    end = 1.2 * max(known)

    def at(value: float) -> str:
        return f"left:{100 * max(value, 0.0) / end:.2f}%"

    width = f"width:{100 * (measured.high - max(measured.low, 0.0)) / end:.2f}%"
    marks = [
        div(class_="axis"),
        div(class_="range", style=f"{at(measured.low)};{width}"),
        div(class_="ring", style=at(own)),
        div(class_="dot", style=at(measured.value)),
        span("0", class_="number first", style=at(0.0)),
        span(f"{end:.2g}", class_="number last", style=at(end)),
    ]
    if predicted is not None:
        marks.append(div(class_="tick", style=at(predicted)))
    return div(*marks, class_="scale")


def _key(evidence: Evidence, own: float) -> Iterator[Markup]:
    rows = [("dot", f"measured {evidence.rms}"), ("ring", f"this picture {own:.3f}")]
    if evidence.predicted is not None:
        rows.insert(1, ("tick", f"predicted {evidence.predicted:.3f}"))
    yield div(*(span(element("i", class_=mark), text) for mark, text in rows), class_="key")
    if evidence.distance is not None:
        yield p(
            f"The feature distance (one minus the cosine) to the reference is {evidence.distance}; "
            "0 is identical, 1 is unrelated.",
            class_="soft",
        )


_COLUMNS = ("step", "from t", "to t", "tier", "side", "guided", "solver", "passes", "cost")
_TEXT_COLUMNS = ("tier", "side", "guided", "solver")


def _table(account: Account) -> Markup:
    shares, costs = _shares(account), account.costs(account.plan)
    columns = (*_COLUMNS, "share of error") if shares else _COLUMNS
    rows = [element("tr", *(_cell("th", name, name) for name in columns))]
    for i, step in enumerate(account.plan.plan.steps):
        cells = [
            str(i + 1), f"{step.t:.4f}", f"{step.s:.4f}", step.tier.name, side_word(step.tier),
            _guidance_word(step), step.solver_name, str(step.forwards), _PERCENT(costs[i]),
        ]  # fmt: skip
        if shares:
            cells.append(_PERCENT(shares[i]))
        named = zip(columns, cells, strict=True)
        rows.append(element("tr", *(_cell("td", name, cell) for name, cell in named)))
    return div(element("table", *rows), class_="card wide")


def _cell(tag: str, column: str, text: str) -> Markup:
    return element(tag, text, class_="word" if column in _TEXT_COLUMNS else "number")


def _glossary() -> Iterator[Markup]:
    for word, text in GLOSSARY.items():
        yield element("dt", word)
        yield element("dd", text)


def _guidance_word(step: Step) -> str:
    return "yes" if step.tier.guided else "carried" if step.tier.cached else "no"


def _guided(step: Step) -> str:
    words = {"yes": "guided", "carried": "guidance carried", "no": "not guided"}
    return words[_guidance_word(step)]


def _tiers(account: Account) -> dict[str, str]:
    return colours([step.tier.name for step in account.plan.plan.steps])


def _shares(account: Account) -> tuple[float, ...]:
    evidence = account.plan.plan.evidence
    return () if evidence is None else evidence.shares


def _image(picture: Picture, alt: str) -> Markup:
    """An inline image; transparency is kept."""
    pixels = to_bytes(to_rgba(picture))
    if picture.shape[-1] in (1, 3):  # nothing is transparent
        pixels = np.ascontiguousarray(pixels[..., :3])
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    data = base64.b64encode(file.getvalue()).decode()
    return element("img", src=f"data:image/png;base64,{data}", alt=alt)
