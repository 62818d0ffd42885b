"""The measured numbers of the documents and of the README of benchmarks, from their results.

A number on these pages is in one of three places: in a function here, which computes it; in a
part that scripts/docs.py writes; or among `definitions`, with the reason why it is none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from asymflow.core import presets, schedules
from asymflow.io import tracing
from asymflow.models.embedded import plans
from asymflow.models.jit import adapter as jit
from asymflow.server.settings import Settings
from asymflow.training.recipes import RECIPES
from benchmarks.claims import (
    bare,
    definitions,
    figures,
    fixed,
    half,
    number,
    part,
    passages,
    share,
)
from benchmarks.registry import SUITES
from benchmarks.results import ROOT
from benchmarks.suites.families import train
from benchmarks.suites.families.networks import FINE
from benchmarks.suites.plans import make

Result = Mapping[str, Any]
BASELINES = "649b2356/baselines/baselines.json"
FIRST = "weights of the first design"
"""What a page says of results that are not of the weights shipped now."""
README, PLANNING, ADAPTIVE = "README.md", "docs/planning.md", "docs/adaptive.md"
CARD = "src/asymflow/models/embedded/weights/card.md"
COMPARISON = "docs/comparison.md"
DIFFUSERS, JIT = "docs/guide/diffusers.md", "docs/guide/jit.md"
MINIT2I, COMFYUI = "docs/guide/minit2i.md", "docs/guide/comfyui.md"
BATCH = "docs/guide/batch.md"
SCALE = "docs/guide/scale.md"
PICTURES = "docs/guide/pictures.md"
SERVER, STUDIO, TRAINING = "docs/guide/server.md", "docs/guide/studio.md", "docs/guide/training.md"
SMALL = "On one small model in one run"
SAID = ("stated", "kept", "pictures")
"""Verdicts of `families promises` that the table of its result has."""


def row(*cells: str) -> str:
    """A row of a table."""
    return f"| {' | '.join(cells)} |"


def interval(value: Mapping[str, float], digits: int) -> str:
    return f"({fixed(value['low'], digits)} to {fixed(value['high'], digits)})"


# --- the model card ----------------------------------------------------------------------------


@passages(CARD, "649b2356/embedded.json")
def card_training(result: Result) -> Iterator[str]:
    labels = ("first design", "half of the run", "shipped")
    for label, found in zip(labels, result["rows"].values(), strict=True):
        for split, score in found.items():
            cells = [
                f"{fixed(scale * value, digits)} ±{fixed(scale * half_width, digits)}"
                for name, scale, digits in SCORES
                if name != "fd"
                for value, half_width in (score[name],)
            ]
            yield row(label, split.replace("heldout", "held out"), *cells)
    assert all(score["n"] == 200 for found in result["rows"].values() for score in found.values())
    errors = result["squared errors"].values()
    yield row("t", *(number(f"{float(t):g}".removeprefix("0")) for t in next(iter(errors))["seen"]))
    for label, found in zip(labels, errors, strict=True):
        for split, values in found.items():
            yield row(f"{label}, {split}", *(bare(value, 4) for value in values.values()))


@passages(CARD, "649b2356/training.json")
def card_run(result: Result) -> Iterator[str]:
    small = result["share of pictures by height"]["32"]
    yield (
        f"{fixed(result['steps'])} steps, {fixed(result['minutes'])} minutes, about "
        f"{fixed(result['pictures'] / 1e6, 2)} million"
    )
    yield f"{fixed(100 * small)} % of them of 32 px"


SCORES = (
    ("recall_1", 100, 1),
    ("recall_5", 100, 1),
    ("style_1", 100, 1),
    ("kid", 1, 1),
    ("fd", 1, 1),
    ("distance", 1, 3),
)
"""Names, factors and digits of the card's columns of quality."""


def _scores(score: Mapping[str, Any]) -> list[str]:
    """The cells of a row of the card's table of quality."""
    cells = [number(score["n"])]
    for name, scale, digits in SCORES:
        found = score[name]
        cells.append(
            f"{fixed(scale * found['value'], digits)} ±{fixed(scale * half(found), digits)}"
        )
    return cells


def _generated(result: Result, label: str) -> Iterator[str]:
    """The rows of what was generated."""
    for split, name in (("seen", "seen pairs"), ("heldout", "held-out pairs")):
        yield row(label.format(name), *_scores(generated(result, split)))


@passages(CARD, "649b2356/quality-64/quality.json")
def card_quality(result: Result) -> Iterator[str]:
    yield from _generated(result, "**{}**")
    for each in result["scores"]:
        if each["style"] is None and each["source"] != "generated":
            name = each["source"].replace("reference", "copy of the reference")
            yield row(f"anchor: {name}", *_scores(each))
    nearest = result["nearest"]["seen"]
    yield (
        f"Of the seen pictures {fixed(100 * nearest['reference'], 1)} % are nearest to a drawing "
        f"that was looked at, and {fixed(100 * nearest['own'], 1)} % to the real drawing"
    )


@passages(CARD, "649b2356/quality-words/quality.json")
def card_words(result: Result) -> Iterator[str]:
    assert result["config"]["references"] == "none"
    yield from _generated(result, "without references")


@passages(CARD, "e11a8aad/quality-plans/default.json", note="the first design")
def card_quality_before(result: Result) -> Iterator[str]:
    yield from _generated(result, "the first design")


@passages(CARD, "649b2356/panel.json")
def card_panel(result: Result) -> Iterator[str]:
    everyday, real = result["everyday"], result["everyday, real drawings"]
    coloured, two = result["coloured"], result["two things"]
    yield (
        f"Of {number(everyday['n'])} everyday prompts that nobody tuned to, one seed each, the "
        f"judge says that {number(everyday['shown'])} show the thing and "
        f"{number(everyday['shown nearly'])} nearly"
    )
    yield f"real drawings {number(real['shown'])} and {number(real['shown nearly'])}"
    yield f"of ten colours {number(coloured['in their colour'])} are there"
    yield (
        f"one is nearly shown in {number(two['one shown nearly'])} and both in "
        f"{number(two['both shown nearly'])}"
    )


@passages(CARD, "e11a8aad/panel.json", note="the first design")
def card_panel_before(result: Result) -> Iterator[str]:
    everyday = result["everyday"]
    assert not result["two things"]["both shown nearly"]
    yield f"before: {number(everyday['shown'])} and {number(everyday['shown nearly'])}"
    yield f"(before: {number(result['coloured']['in their colour'])})"


@passages(CARD, "649b2356/own-pictures.json")
def card_own_pictures(result: Result) -> Iterator[str]:
    assert len(result["pictures"]) == 20
    yield f"{number(result['nearer to the reference than without it'])} are drawn nearer"


@passages(CARD, "649b2356/consistency.json")
def card_consistency(result: Result) -> Iterator[str]:
    yield f"{number(result['pictures'])} seen pairs"
    for fine, coarse in zip(result["128 against 64 px"], result["64 against 32 px"], strict=True):
        if fine["t"] in (0.98, 0.9, 0.7, 0.5, 0.3, 0.1):
            cells = (
                fixed(each[key], 3)
                for each in (fine, coarse)
                for key in ("disagreement", "error_full")
            )
            yield row(number(f"{fine['t']:g}"), *cells)


@passages(CARD, "649b2356/versions.json")
def card_versions(result: Result) -> Iterator[str]:
    for dtype in ("bfloat16", "float32"):
        for name, label in (
            ("pass of 1", "network pass of one picture"),
            ("pass of 2", "guided pass (2 rows)"),
            ("picture", "picture, 30 steps"),
        ):
            each = result[dtype][name]
            ratio, low, high = each["over former"]
            over = f"{fixed(ratio, 2)} ({fixed(low, 2)} to {fixed(high, 2)})"
            yield row(label, dtype, fixed(each["shipped_ms"], 1), over)
    now, before = result["command"]["shipped"], result["command"]["former"]
    files = result["files"]
    yield row(
        "file",
        f"`embedded.safetensors`, {fixed(files['shipped_mb'])} MB, bfloat16, word vectors in int8; "
        f"`library.zip`, {fixed(files['library_mb'])} MB",
    )
    yield f"takes {fixed(now['seconds'], 1)} s and {fixed(now['peak_mb'])} MB"
    yield f"(before: {fixed(before['seconds'], 1)} s, {fixed(before['peak_mb'])} MB)"
    yield (
        f"are {fixed(files['shipped_mb'], 1)} MB and the library "
        f"{fixed(files['library_mb'], 1)} MB (before: {fixed(files['former_mb'], 1)} MB)"
    )


@passages(CARD, "649b2356/speed.json")
def card_speed(result: Result) -> Iterator[str]:
    over = result["engine"]["median"]
    value, low, high = (fixed(100 * (over[key] - 1), 1) for key in ("value", "low", "high"))
    yield f"adds {value} % ({low} to {high}) to bare network calls"


definitions(CARD, "the library", "5,212 drawings of 64 px in three styles", "[decision 049]")
definitions(CARD, "the grid", "guidance 5 above t = 0.6")
definitions(CARD, "the unit of KID", "KID (x 1000) asks whether")
definitions(
    CARD,
    "what was aimed at",
    "a KID of 25, recall@1 of 75 % of seen and 60 % of held-out pairs, and style of 80 %",
)

# --- README.md, docs/planning.md: baselines ----------------------------------------------------


def rows_of(compared: Result) -> dict[str, Any]:
    return {each["name"].removeprefix("asymflow "): each for each in compared["results"]}


def speed(each: Result) -> float:
    return each["speedup"]["median"]


def kid(each: Result) -> str:
    return fixed(each["score"]["kid"]["value"])


def recall(each: Result) -> str:
    return fixed(100 * each["score"]["recall_1"]["value"])


def fastest(rows: Mapping[str, Any], measure: str, sign: int) -> Any:
    """The fastest baseline that is not worse than Heun: `sign` is -1 where less is better."""
    heun = rows["Heun 50"]["score"][measure]["value"]
    return max(
        (
            each
            for each in rows.values()
            if each["family"] != "asymflow"
            and sign * each["score"][measure]["value"] >= sign * heun
        ),
        key=speed,
    )


def of_plan(name: str) -> str:
    """A file of `asymflow bench quality`, by the plan."""
    return f"649b2356/quality-plans/{name}.json"


def generated(result: Result, split: str) -> Any:
    """The score of all pictures of a split."""
    [score] = (
        each
        for each in result["scores"]
        if (each["source"], each["split"], each["style"]) == ("generated", split, None)
    )
    return score


def forwards_of(name: str) -> str:
    """Network passes of a shipped plan, and how many of them are at half the side."""
    plan = plans.load(name, (64, 64))
    small = sum(step.passes(guided=True) for step in plan.steps if step.tier.pool_factor > 1)
    return number(plan.forwards) + (f" ({number(small)} at half size)" if small else "")


@passages(README, BASELINES, *map(of_plan, ("balanced", "fast", "draft")))
def headline(
    compared: Result, of_balanced: Result, of_fast: Result, of_draft: Result
) -> Iterator[str]:
    rows = rows_of(compared)
    draft, fast, balanced, heun = (rows[name] for name in ("draft", "fast", "balanced", "Heun 50"))
    yield (
        f"`balanced` takes a {part(speed(balanced))} of the time of 50 Heun steps, with a KID of "
        f"{kid(balanced)} against {kid(heun)} and a recall@1 of {recall(balanced)} against "
        f"{recall(heun)} %"
    )
    yield f"n = {number(compared['settings']['pairs'])} pictures"
    yield f"take a {part(speed(fast))} and a {part(speed(draft))}"
    scores = [generated(each, "seen") for each in (of_fast, of_draft, of_balanced)]
    kids = [fixed(score["kid"]["value"]) for score in scores]
    yield (
        f"on {number(scores[0]['n'])} pairs they have a KID of {kids[0]} and {kids[1]}, where "
        f"`balanced` has {kids[2]}"
    )


@passages(COMPARISON, BASELINES)
def baselines(compared: Result) -> Iterator[str]:
    rows = rows_of(compared)
    names = {
        "Heun, 50 steps, guided everywhere": "Heun 50",
        "Euler, 50 steps, guided everywhere": "Euler 50",
        "reference: multistep2, 64 steps": "reference",
        "UniPC-2, 8 steps, best grid": "UniPC-2, 8 steps",
        "DPM-Solver++ 2M, 5 steps, best grid": "DPM-Solver++ 2M, 5 steps",
        "DPM-Solver++ 2M, 8 steps, best grid": "DPM-Solver++ 2M, 8 steps",
        "GITS with iPNDM, 8 steps": "GITS + iPNDM, 8 steps",
        "first-block cache 0.3 over 20 steps": "first-block cache 0.3, 20 steps",
        "TaylorSeer 1 of 3 over 20 steps": "TaylorSeer 1 of 3, 20 steps",
        "AdaptiveDiffusion 0.05": "AdaptiveDiffusion 0.05",
        **{f"`{plan}`": plan for plan in plans.NAMES},
    }
    for label, name in names.items():
        each = rows[name]
        forwards = number(f"{each['forwards']:.3g}")
        if each["whole"] != each["forwards"]:
            forwards += f" ({fixed(each['whole'])} whole)"
        if name in plans.NAMES:
            forwards = forwards_of(name)
        score = each["score"]
        yield row(
            label,
            forwards,
            number(f"{speed(each):.3g}"),
            f"{kid(each)} ±{fixed(half(score['kid']))}",
            *(
                f"{fixed(100 * score[k]['value'])} ±{fixed(100 * half(score[k]))}"
                for k in ("recall_1", "recall_5")
            ),
            fixed(each["to_reference"]["value"], 3),
        )
    draft, fast, balanced, heun = (rows[name] for name in ("draft", "fast", "balanced", "Heun 50"))
    peer, near = rows["DPM-Solver++ 2M, 8 steps"], fastest(rows, "kid", -1)
    assert near is rows["DPM-Solver++ 2M, 5 steps"]
    yield f"one picture is {fixed(100 / compared['settings']['pairs'], 1)}"
    yield (
        f"`balanced` takes a {part(speed(balanced))} of the time of Heun with 50 steps, with a "
        f"KID of {kid(balanced)} against {kid(heun)} and a recall@1 of {recall(balanced)} against "
        f"{recall(heun)}"
    )
    ours, theirs = (
        f"{bare(each['to_reference']['value'], 3)} ± {bare(half(each['to_reference']), 3)}"
        for each in (balanced, peer)
    )
    yield (
        f"is level with it (KID {kid(peer)}, recall@1 {recall(peer)}, and a distance to the "
        f"reference of {theirs} against {ours})"
    )
    yield (
        f"`fast` takes a {part(speed(fast))}, and {fixed(speed(fast) / speed(near), 2)} times less "
        f"than the fastest baseline whose KID is not worse than Heun's, DPM-Solver++ 2M with 5 "
        f"steps (KID {kid(fast)} against {kid(near)}, recall@1 {recall(fast)} against "
        f"{recall(near)})"
    )
    yield (
        f"`draft` takes a {part(speed(draft))}, with a KID of {kid(draft)} and a recall@1 of "
        f"{recall(draft)}"
    )
    yield f"in {bare(speed(rows['damped2, 20 steps']) / speed(rows['best']), 2)} of their time"


@passages(COMPARISON, "649b2356/baselines-128/baselines.json")
def baselines_128(compared: Result) -> Iterator[str]:
    rows = rows_of(compared)
    ours = {name: each for name, each in rows.items() if each["family"] == "asymflow"}
    others = [
        each
        for each in rows.values()
        if each["family"] != "asymflow" and each["settings"]["steps"] < 20
    ]
    draft, fast, balanced, best = (fixed(speed(ours[name])) for name in plans.NAMES)
    yield (
        f"`draft` takes {draft} times less than Heun with 50 steps, `fast` {fast}, "
        f"`balanced` {balanced} and `best` {best}"
    )
    speeds = [speed(each) for each in others]
    yield f"{fixed(min(speeds))} to {fixed(max(speeds))} times less"
    kids = [each["score"]["kid"] for each in [*ours.values(), *others]]
    least, most = (end(each["value"] for each in kids) for end in (min, max))
    yield f"KIDs between {fixed(least)} and {fixed(most)} for all of them"
    yield f"an interval is {number(math.floor(min(map(half, kids))))} and more"
    yield f"n = {number(compared['settings']['pairs'])} separates"


@passages(COMPARISON, *map(of_plan, ("default", "best", "balanced", "fast", "draft")))
def quality(
    default: Result, best: Result, balanced: Result, fast: Result, draft: Result
) -> Iterator[str]:
    grid = number(presets.Grid().plan((64, 64)).forwards)
    names = (
        ("`default`, a plain grid of 30 steps", default, grid),
        *(
            (f"`{name}`", result, forwards_of(name))
            for name, result in (
                ("best", best),
                ("balanced", balanced),
                ("fast", fast),
                ("draft", draft),
            )
        ),
    )
    for label, result, forwards in names:
        cells: list[str] = []
        for split in ("seen", "heldout"):
            score = generated(result, split)
            found = score["recall_1"]
            cells += [
                f"{kid({'score': score})} ±{fixed(half(score['kid']))}",
                f"{fixed(100 * found['value'], 1)} ±{fixed(100 * half(found), 1)}",
            ]
        yield row(label, forwards, *cells)
    settings = default["settings"]
    yield f"{number(settings['seen'])} seen and {number(settings['heldout'])} held-out pairs"


# --- docs/planning.md: the rest ----------------------------------------------------------------


@passages(PLANNING, "649b2356/predicted-error.json")
def predicted(result: Result) -> Iterator[str]:
    summary = result["summary"]
    for name in ("all", "full only", "with carried tiers", "with biased tiers"):
        found = summary[name]
        yield row(
            "full tier only" if name == "full only" else name,
            number(found["plans"]),
            bare(found["rank_correlation"], 3 if name == "all" else 2),
            f"{fixed(found['real_over_predicted'], 2)} "
            f"({fixed(found['lower_quartile'], 2)} to {fixed(found['upper_quartile'], 2)})",
        )
    first, second, third = (summary[f"draw {i}"]["rank_correlation"] for i in range(3))
    yield f"it is {bare(first, 3)}, {bare(second, 2)} and {bare(third, 3)}"


@passages(PLANNING, "649b2356/growth.json")
def growth(result: Result) -> Iterator[str]:
    for each in result["rows"]:
        if each["side"] >= 64:
            names = ["uniform", "planned", "lighter", "pooled"][: 3 + (each["side"] > 64)]
            cells = [
                f"{figures(each[name]['peak_bytes'] / 1e6, 2)} MB, {_seconds(each[name]['ms'])} s"
                for name in names
            ]
            yield row(number(each["side"]), *cells, *[""] * (4 - len(cells))).replace("|  |", "| |")
    powers = result["exponents"]
    assert round(powers["planned"]["ms"], 1) == round(powers["uniform"]["ms"], 1)
    yield f"to the power of {fixed(powers['uniform']['ms'], 2)} for uniform"
    yield f"{fixed(powers['pooled']['ms'], 2)} at a resolution of 64 px"
    yield (
        f"bytes to the power of {fixed(powers['uniform']['peak_bytes'], 2)} and "
        f"{fixed(powers['pooled']['peak_bytes'], 2)}"
    )


@passages(
    PLANNING,
    "trained/tiled.json",
    "trained/tiled-errors.json",
    note="conditional estimate of the embedded model",
)
def tiled(result: Result, errors: Result) -> Iterator[str]:
    rows = result["embedded"]["growth"]
    assert len({each["tiled"]["working_bytes"] for each in rows}) == 1
    yield f"takes {fixed(rows[0]['tiled']['working_bytes'] / 1e6, 1)} MB at every side"
    for each in rows:
        cells = [
            f"{figures(each[name]['peak_bytes'] / 1e6, 2)} MB, "
            f"{figures(each[name]['seconds'], 2)} s"
            if name in each
            else ""
            for name in ("whole", "tiled")
        ]
        yield row(number(each["side"]), *cells).replace("|  |", "| |")
    powers = result["embedded"]["exponents"]
    yield (
        f"to the power of {fixed(powers['whole']['seconds'], 2)} for whole pictures and "
        f"{fixed(powers['tiled']['seconds'], 2)} for tiles"
    )
    for each in errors["embedded"]:
        rms = each["rms"]
        cells = [bare(rms[name], 4) for name in ("whole", "pooled", "tiled")]
        yield row(number(f"{each['t']:g}"), *cells, fixed(each["seam"]["tiled"], 2))
    jit = {each["t"]: each["rms"] for each in errors["jit"]}[0.05]
    yield (
        f"{bare(jit['whole'], 2)} whole, {bare(jit['pooled'], 3)} pooled and "
        f"{bare(jit['tiled'], 3)} in tiles, at t = {number(0.05)}"
    )


@passages(PLANNING, "trained/late.json", note="the JiT of Fashion-MNIST")
def late(result: Result) -> Iterator[str]:
    plain, guided = (result["tables"][f"Fashion JiT, {how}"] for how in ("unguided", "guidance 2"))
    one, both = guided["shares"]["late conditional"], guided["shares"]["late"]
    yield (
        f"takes {fixed(100 * one['macs'])} % of the multiply-accumulates of a pass, "
        f"{fixed(100 * one['ms'])} % of its time, and {fixed(100 * both['ms'])} % with guidance"
    )
    other = result["embedded"]["random weights"]["late conditional"]
    yield f"{fixed(100 * other['macs'])} % of the multiply-accumulates of the embedded network"
    drift = min(plain["drift"], key=lambda each: abs(each["t"] - 0.3))
    ages = drift["ages"]
    off = bare(ages["1"], 3)
    yield f"At t = {number('0.3')} a late estimate is off by {off} where the slow part"
    yield f"{bare(ages['4'], 3)} where it was four before"
    for table, how in ((plain, "none"), (guided, "2")):
        for each in table["rows"]:
            ways = each["ways"]
            assert ways["free"]["late"] == 0, "the page says that none is kept"
            cells = [bare(ways["without"]["error"]["mean"], 4)]
            for name in ("last", "last two"):
                found = ways[name]
                worth = f"{fixed(found['worth']['value'], 2)} {interval(found['worth'], 2)}"
                mean, took = bare(found["error"]["mean"], 4), fixed(found["time"], 2)
                cells.append(f"{mean}; {worth}; {took}")
            yield row(how, number(each["price"]), *cells)
    spent = max(table["seconds"]["free over without"] for table in (plain, guided))
    yield f"at most {fixed(100 * (spent - 1))} % longer"


@passages(PLANNING, "649b2356/late.json")
def late_embedded(result: Result) -> Iterator[str]:
    rows, tiers = result["rows"], result["prices of late tiers"]
    assert all(row["with"]["late"] == 0 for row in rows)
    alone, guided = (fixed(100 * tiers[name]) for name in ("late conditional", "late"))
    prices = [number(f"{row['price']:g}") for row in rows]
    yield f"{alone} % of the time of a full estimate, and {guided} % with guidance"
    yield f"with {', '.join(prices[:-1])} and {prices[-1]} full estimates"
    most = max(abs(row["worth"]["value"] - 1) for row in rows)
    yield f"changes the error by at most {share(most, 1)}"


def _seconds(ms: float) -> str:
    """Two digits, as the memory beside it; whole seconds above 100."""
    return fixed(ms / 1000) if ms >= 100_000 and ms < 800_000 else figures(ms / 1000, 2)


@passages(PLANNING, "649b2356/evidence.json")
def evidence(result: Result) -> Iterator[str]:
    plans = [found for found in result.values() if isinstance(found, dict) and "inside" in found]
    assert len(plans) == 8
    assert all(found["inside"] for found in plans)
    yield f"On {number(result['pictures'])} pictures of prompts"
    balanced, best = (bare(result[name]["found"], 3) for name in ("balanced-64", "best-64"))
    yield f"{balanced} for `balanced` and {best} for `best` at 64 px"


@passages(COMPARISON, "649b2356/ablation-64.json")
def ablation(result: Result) -> Iterator[str]:
    labels = {
        "the plan": "`balanced`",
        "full size only": "full estimates only",
        "grids of others": "on the best standard grid, with our solvers",
        "as predicted": "as predicted, without real rollouts",
        "lines undamped": "undamped extrapolation (`multistep2`) where `balanced` damps it",
        "order 1": "order 1",
    }
    for found in result["plans"]["balanced"]:
        rms = found["rms"]
        yield row(labels[found["without"]], f"{bare(rms['value'], 3)} ± {bare(half(rms), 3)}")
    yield f"{number(result['pictures'])} fresh pictures"


@passages(PLANNING)
def planning_settings() -> Iterator[str]:
    draft, fast, balanced, best = (number(f"{budget:g}") for budget in make.BUDGETS.values())
    yield f"with budgets of {draft}, {fast}, {balanced} and {best} full estimates"
    uniform = schedules.plan_of(schedules.uniform(50), solver="heun")
    yield f"is {number(uniform.forwards // 2)} times one full estimate"
    yield f"it is: above t = {number(presets.GUIDED[0])} at 64 px"


@passages(COMPARISON)
def comparison_settings() -> Iterator[str]:
    yield f"where it helps, above t = {number(presets.GUIDED[0])}, except"


definitions(PLANNING, "how many candidate times a profile has", "with 33 times and 6 tiers")
definitions(PLANNING, "what the option means", "allows a tenth of the cost of 50 Heun steps")
definitions(PLANNING, "the number of steps of the reference", "the RMSE to a 64-step reference")
definitions(COMPARISON, "the unit of KID", "KID x 1000 to real pictures")
definitions(
    COMPARISON,
    "settings of baselines",
    "first-block cache 0.3 over",
    "AdaptiveDiffusion 0.05",
)


# --- docs/guide/diffusers.md, docs/guide/jit.md ------------------------------------------------


def minutes() -> str:
    """For how long `families train` trains a network of these."""
    [suite] = [suite for suite in SUITES if suite.name == "families train"]
    return number(re.findall(r"--minutes (\d+)", suite.command)[0])


def middle(value: float | Mapping[str, float]) -> float:
    """Of a ratio, which has an interval in newer results."""
    return value["value"] if isinstance(value, Mapping) else value


def others_in(result: Result) -> int:
    """Configurations of schedulers of others."""
    return len({each["group"] for each in result["rows"]} - {"own", "asymflow"})


@passages(DIFFUSERS, "trained/accelerate-unet.json", note=SMALL)
def accelerate_unet(result: Result) -> Iterator[str]:
    rows = {each["name"]: each for each in result["rows"]}
    seconds, best = result["seconds"], result["best"]
    exact, cheap = best["others, path"], best["others, kid"]
    assert (best["asymflow, path"], best["asymflow, kid"]) == ("asymflow", "asymflow 8")
    assert (exact, cheap) == ("DPM-Solver++ 2M, Lu 20", "DDIM, leading 16")
    assert best["others, both"] is None
    assert others_in(result) == 11
    weights = sum(each.numel() for each in train.unet_of(classes=None).parameters())
    yield f"a `UNet2DModel` of {fixed(weights / 1e6, 1)} M weights"
    yield f"trained for {minutes()} minutes on emoji faces"
    yield row(
        "as it comes: `DDPMScheduler`, 1000 steps",
        number(rows["default"]["passes"]),
        figures(seconds["default"]["ms"], 3),
        "(another picture)",
    )
    for label, name in (
        ("DDIM, 50 steps", "baseline"),
        ("**`asymflow.accelerate(pipe)`**", "asymflow"),
        ("the fastest baseline of equal RMSE: DPM-Solver++ 2M, Lu", exact),
        ("**`asymflow.accelerate(pipe, steps=8)`**", "asymflow 8"),
        ("the fastest baseline of equal KID: DDIM, leading", cheap),
    ):
        more = rows[name]["more"]
        yield row(
            label,
            number(rows[name]["passes"]),
            figures(seconds[name]["ms"], 3) if name != "asymflow 8" else fixed(seconds[name]["ms"]),
            number("0") if name == "baseline" else f"{fixed(more['value'], 1)} {interval(more, 1)}",
            bare(rows[name]["rms"]["value"], 4),
        )
    ratios = {name: middle(each["ratio"]) for name, each in seconds.items()}
    yield f"{fixed(ratios['default'])} times as fast as the original pipeline"
    yield f"{fixed(ratios['baseline'], 1)} times as fast as DDIM for the same picture"
    yield f"{fixed(ratios[exact], 2)} times as fast as the best scheduler for that"
    yield f"of equal KID, {fixed(ratios[cheap] / ratios['asymflow 8'], 1)} times"
    cost, limit = result["plan_cost"], rows["limit"]["more"]
    yield f"took {fixed(cost['first_passes'])} passes, {fixed(cost['first_seconds'])} s, once"
    yield f"a KID that is {fixed(limit['value'], 1)} {interval(limit, 1)} *higher*"


@passages(JIT, "trained/accelerate-jit.json", note=SMALL)
def accelerate_jit(result: Result) -> Iterator[str]:
    rows = {each["name"]: each for each in result["rows"]}
    seconds, best = result["seconds"], result["best"]
    exact, cheap = best["others, path"], best["others, kid"]
    assert (exact, cheap) == ("Heun, shift 1 25", "UniPC 2, shift 2 4")
    assert others_in(result) == 15

    def rms(name: str, digits: int) -> str:
        return bare(rows[name]["rms"]["value"], digits)

    weights = sum(each.numel() for each in train.jit_of().parameters())
    yield f"a JiT of {fixed(weights / 1e6, 1)} M weights"
    yield f"trained for {minutes()} minutes on emoji faces"
    base, ours = seconds["baseline"], rows["asymflow"]
    yield f"take {number(rows['baseline']['passes'])} passes"
    yield (
        f"takes {number(ours['passes'])}, **{fixed(middle(base['processor_ratio']), 1)} times less "
        f"processor time** ({fixed(middle(base['ratio']), 1)} times less wall time"
    )
    yield f"at an RMSE of {rms('asymflow', 4)} to the limit"
    assert ours["rms"]["value"] < 2 / 255
    yield f"takes {fixed(middle(seconds[exact]['processor_ratio']), 1)} times as long"
    unipc = [name for name in rows if name.startswith("UniPC") and rows[name]["steps"] == 25]
    nearest = min(unipc, key=lambda name: rows[name]["rms"]["value"])
    yield f"The best UniPC configuration is at {rms(nearest, 4)} after 25 steps"
    yield f"({number(rows[cheap]['passes'])} passes)"
    yield f"takes {fixed(middle(result['gains']['kid']), 2)} times less time than UniPC with 4"
    theirs = {n: rms(f"UniPC 2, shift 2 {n}", 3) for n in (6, 8, 10)}
    plans = {n: rms(f"asymflow {n}", 3) for n in (6, 8, 10)}
    yield f"({theirs[6]} and {theirs[8]} against {plans[6]} and {plans[8]})"
    yield f"({plans[10]} against {theirs[10]})"
    cost = result["plan_cost"]
    yield f"took {fixed(cost['first_passes'])} passes, {fixed(cost['first_seconds'])} s, once"


@passages(JIT)
def jit_passes() -> Iterator[str]:
    guided = jit.plan(guidance_interval=(0.0, 1.0)).forwards
    yield f"take {number(jit.plan().forwards)} passes instead of {number(guided)}"
    yield f"velocities by at least {number(jit.FLOOR)} (AsymFlow"
    yield f"is (0, {number(jit.GUIDANCE_INTERVAL[1])}) in `guidance_interval`"


def _read(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


@passages(JIT)
def rank_example() -> Iterator[str]:
    """What is said of the example's output, from that output, which stands on the page."""
    printed = re.findall(r"^[a-z ,]+((?: +0\.\d{4}){4})$", _read(JIT), re.MULTILINE)
    lifted, scratch, plain, less, targets = ([float(n) for n in each.split()] for each in printed)
    times = (0.3, 0.5, 0.7, 0.9)
    better = [own < other for own, other in zip(lifted, scratch, strict=True)]
    first = better.index(True)
    assert all(better[first:])
    yield f"smaller ones from t = {number(times[first])} up"
    ratio = plain[-1] / targets[-1]
    yield f"have a {part(ratio)} of the variation of the plain ones at t = {number(times[-1])}"
    apart = max(abs(a / b - 1) for a, b in zip(plain, less, strict=True))
    yield f"within about {share(apart)} of each other"


@passages(DIFFUSERS)
def ddpm_schedule() -> Iterator[str]:
    kept = float(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[-1])
    alpha, sigma = math.sqrt(kept), math.sqrt(1 - kept)
    yield f"DDPM ends at `t` = {fixed(sigma / (alpha + sigma), 3)} and not at 1"
    yield f"multiplied by `sigma / alpha`, {fixed(sigma / alpha)} at the end"


definitions(
    DIFFUSERS,
    "what is compared",
    "*KID above DDIM 50*",
    "the KID minus that of 50 DDIM steps",
    "| KID above DDIM 50 |",
)
definitions(DIFFUSERS, "what the test allows", "they agree within 20% on small networks in a test")
definitions(
    MINIT2I, "what the authors recommend", "the authors recommend 2.5 for B/16 and 6 for L/16"
)
definitions(
    MINIT2I,
    "the floor of the official code, and what follows from it",
    "velocities by at least 0.05. That belongs",
    "about a third (0.8^5) of the noise at t = 0.05 stays",
    "has its last estimate at 0.05, and leaves",
    "The JAX code has 0.01 in its configurations.",
)
definitions(JIT, "the notation of the paper", "its guidance interval [0.1, 1]", "(AsymFlow 0.04)")


@passages("benchmarks/README.md", "trained/networks.json", note="`families train told-unet` trains")
def networks(result: Result) -> Iterator[str]:
    [guided] = [run for run in result["runs"] if run["guidance_scale"] == 2]
    rows = {each["name"]: each for each in guided["rows"]}

    def errors(name: str) -> str:
        each = rows[name]
        return f"{bare(each['rms']['value'], 3)} and {bare(each['distance']['value'], 3)}"

    def passes(name: str) -> str:
        return number(rows[name]["forwards"])

    def nearest(steps: int, key: str) -> str:
        others = [
            name
            for name, each in rows.items()
            if each["family"] != "asymflow" and each["forwards"] == 2 * steps
        ]
        return min(others, key=lambda name: rows[name][key]["value"])

    yield f"`families train told-unet` trains in {minutes()} minutes."
    yield f"`families train` trains in {minutes()} minutes each"
    yield f"to {number(FINE)} steps, of {number(result['pictures'])} pictures"
    few, more, many = nearest(6, "rms"), nearest(10, "rms"), nearest(20, "rms")
    assert few == "UniPC, trailing 6"
    yield (
        f"with 6 steps, {errors('asymflow 6')} in {passes('asymflow 6')} passes, against "
        f"{errors(few)} in {passes(few)} for the best baseline (UniPC)"
    )
    other = nearest(10, "distance")
    yield (
        f"with 10, {errors('asymflow 10')} against {errors(more)}, or {errors(other)} on the other "
        "grid"
    )
    yield f"with 20, {errors('asymflow 20')} against {errors(many)}."


@passages("benchmarks/README.md", "trained/promises.json", note="on four small networks")
def promises(result: Result) -> Iterator[str]:
    names = {"velocity": "UNet, v", "noise": "UNet, eps", "exact": "exact", "guided": "guided"}
    assert result["networks"].keys() == names.keys()
    yield f"on {number(result['pictures'])} seeds that"
    for name, label in names.items():
        each = result["networks"][name]
        now, before = each["now"], each["before"]
        broken = [verdict for verdict in SAID if not now["verdicts"][verdict]]

        def rmse(value: Mapping[str, float]) -> str:
            return (
                f"{bare(value['value'], 4)} ({bare(value['low'], 4)} to {bare(value['high'], 4)})"
            )

        yield row(
            label,
            f"{fixed(now['measuring']['passes'])} / {fixed(before['measuring']['passes'])}",
            f"{number(now['plan']['passes_per_picture'])} / "
            f"{number(before['plan']['passes_per_picture'])}",
            rmse(now["stated"]["rms"]),
            rmse(now["fresh"]["rms"]),
            rmse(now["own"]["rms"]),
            f"{bare(now['default']['rms']['value'], 4)} in "
            f"{number(now['default']['passes_per_picture'])}",
            f"{number(now['fresh']['changed'])} / {number(now['own']['changed'])}",
            f"not {', '.join(f'`{each}`' for each in broken)}" if broken else "all",
        )


# --- docs/comparison.md: fitted plans ----------------------------------------------------------


def _campaign(result: Result) -> Iterator[str]:
    for title, table in result["tables"].items():
        for each in table["rows"]:
            best, passes = each["baselines"][each["best"]], each["to_reach"]
            more = "over " if passes["capped"]["value"] else ""
            yield row(
                title,
                number(each["passes"]),
                f"{bare(best['mean'], 4)} ({_marked(best['setting'])})",
                bare(each["ours"]["mean"], 4),
                f"{fixed(each['ratio']['value'], 2)} {interval(each['ratio'], 2)}",
                f"{more}{fixed(passes['value'], 2)}",
                "yes" if each["band"]["not_inferior"] else "no",
            )


@passages(COMPARISON, "trained/campaign-jit.json", note="two models of Fashion-MNIST")
def campaign_jit(result: Result) -> Iterator[str]:
    yield f"on {number(result['pictures'])} pictures of fresh seeds"
    yield from _campaign(result)


@passages(COMPARISON, "trained/campaign-unet.json", note="two models of Fashion-MNIST")
def campaign_unet(result: Result) -> Iterator[str]:
    yield from _campaign(result)


@passages(COMPARISON, "e11a8aad/campaign-embedded.json", note=FIRST)
def campaign_embedded(result: Result) -> Iterator[str]:
    yield from _campaign(result)
    [table] = result["tables"].values()
    rows = table["rows"]
    few, more = (fixed(each["ratio"]["value"], 2) for each in rows)
    fewer, further = (fixed(each["to_reach"]["value"], 2) for each in rows)
    passes = [number(each["passes"]) for each in rows]
    errors = [bare(each["ours"]["mean"], 3) for each in rows]
    yield (
        f"the error of the best one is {few} times that of the plan of {passes[0]} passes, "
        f"{more} times that of {passes[1]}, and it takes {fewer} and {further} times the passes"
    )
    yield (
        f"its own error is {bare(table['limit']['mean'], 3)}, those of the plans are {errors[0]} "
        f"and {errors[1]}"
    )


@passages("README.md", "trained/campaign-jit.json", "trained/campaign-unet.json", note="A JiT")
def campaigns(jit: Result, unet: Result) -> Iterator[str]:
    tables = [table for result in (jit, unet) for table in result["tables"].values()]
    rows = [each for table in tables for each in table["rows"]]
    ratios, passes = ([each[key]["value"] for each in rows] for key in ("ratio", "to_reach"))
    over = "over " if any(each["to_reach"]["capped"]["value"] for each in rows) else ""
    yield f"{number(jit['pictures'])} pictures of fresh seeds: distance"
    yield (
        f"the error of the best baseline is {fixed(min(ratios), 2)} to {fixed(max(ratios), 2)} "
        f"times that of the plan, and it takes {fixed(min(passes), 2)} to "
        f"{over}{fixed(max(passes), 2)} times the passes"
    )


def _quality(result: Result) -> Iterator[str]:
    for each in result["rows"]:
        yield row(
            result["title"],
            _marked(re.sub(r", \d+ passes$", "", each["sampler"])),
            number(each["passes"]),
            f"{fixed(each['fd']['value'], 2)} {interval(each['fd'], 2)}",
            f"{fixed(each['fd_more']['value'], 3)} {interval(each['fd_more'], 3)}",
            fixed(each["kid"]["value"], 1),
            f"{fixed(100 * each['accuracy']['value'], 1)} %",
        )


definitions(COMPARISON, "a margin that was chosen", "to any baseline by more than 3 %")


@passages(COMPARISON, "trained/quality-jit.json", note="two models of Fashion-MNIST")
def quality_jit(result: Result) -> Iterator[str]:
    yield f"of {number(result['pictures'])} guided pictures of common seeds"
    own = result["rows"][0]["passes"]
    last = max(each["passes"] for each in result["rows"] if each["sampler"].startswith("fitted"))
    yield (
        f"On the JiT the FD of a plan of {number(last)} passes cannot be told from that of the "
        f"model's own sampler with {number(own)}"
    )
    yield from _quality(result)


@passages(COMPARISON, "trained/quality-unet.json", note="two models of Fashion-MNIST")
def quality_unet(result: Result) -> Iterator[str]:
    yield from _quality(result)
    found = result["DDPM, every timestep"]
    more = found["more"]["fitted, 10 passes"]
    yield (
        f"On {number(found['pictures'])} seeds, with {number(found['passes'])} passes for each "
        f"picture, it has an FD of {fixed(found['fd']['value'], 2)} {interval(found['fd'], 2)}, "
        f"and the plan of {number(10)} passes one that is {fixed(more['value'], 2)} "
        f"{interval(more, 2)} more"
    )


@passages(COMPARISON, "trained/effort.json", note="two models of Fashion-MNIST")
def effort(result: Result) -> Iterator[str]:
    tables = result["tables"].values()
    worths = [each["worth"]["value"] for table in tables for each in table["rows"]]
    shares = [100 * table["share"] for table in tables]
    yield (
        f"quick fits take {fixed(min(shares))} to {fixed(max(shares))} % of the time of full ones, "
        f"and have {fixed(min(worths), 2)} to {fixed(max(worths), 2)} times the error"
    )


@passages(COMPARISON, "trained/ablation.json", note="two models of Fashion-MNIST")
def ablation_of_fits(result: Result) -> Iterator[str]:
    yield f"on {number(result['pictures'])} fresh pictures of the JiT"
    names = ("polishing", "polishing and search of times", "fitted weights")
    names += ("carried guidance", "unguided steps")
    for title, table in result["tables"].items():
        for each in table["rows"]:
            without = each["without"]
            worths = [without[name]["worth"] for name in names if name in without]
            cells = [f"{fixed(one['value'], 2)} {interval(one, 2)}" for one in worths]
            cells += ["-"] * (len(names) - len(cells))
            yield row(title, number(each["passes"]), *cells)


@passages(
    COMPARISON,
    "trained/caches.json",
    "trained/campaign-jit.json",
    note="two models of Fashion-MNIST",
)
def caches(result: Result, campaign: Result) -> Iterator[str]:
    for title, table in result["tables"].items():
        known = {each["passes"]: each for each in campaign["tables"][title]["rows"]}
        for each in table["rows"]:
            found = each["caches"]
            if not found:  # the calls that are always made cost more
                continue
            name = min(found, key=lambda family: found[family]["mean"])
            best, other = found[name], known[each["passes"]]
            yield row(
                title,
                number(each["passes"]),
                f"{bare(best['mean'], 4)} ({_marked(best['setting'])}; "
                f"{fixed(best['passes'], 1)} passes)",
                bare(other["baselines"][other["best"]]["mean"], 4),
                bare(other["ours"]["mean"], 4),
            )


@passages(
    COMPARISON,
    "trained/learned.json",
    "trained/campaign-jit.json",
    note="two models of Fashion-MNIST",
)
def learned(result: Result, campaign: Result) -> Iterator[str]:
    rows = campaign["tables"]["Fashion JiT, unguided"]["rows"]
    ours = {each["passes"]: each["ours"]["mean"] for each in rows}
    for each in result["rows"]:
        found = {one["solver"]: one["mean"] for one in each["learned"]}
        yield row(
            number(each["passes"]),
            *(bare(found[name], 4) for name in ("uni_pc", "ipndm", "gs")),
            bare(ours[each["passes"]], 4),
        )
        nearer = 100 * (1 - found["gs"] / ours[each["passes"]])
        yield f"GS is {fixed(nearer)} % nearer than the fitted plan"


@passages(COMPARISON, "trained/stated.json", note="two models of Fashion-MNIST")
def stated(result: Result) -> Iterator[str]:
    yield f"on {number(result['pictures'])} fresh seeds"
    for title, table in result["tables"].items():
        for name, each in table["plans"].items():
            yield row(
                title,
                f"`{name}`",
                number(each["passes"]),
                f"{bare(each['stated']['value'], 3)} "
                f"({bare(each['stated']['low'], 3)} to {bare(each['stated']['high'], 3)})",
                f"{bare(each['fresh']['value'], 3)} "
                f"({bare(each['fresh']['low'], 3)} to {bare(each['fresh']['high'], 3)})",
                "yes" if each["within"] else "overlaps" if each["overlaps"] else "no",
            )
        own = table["own"]
        yield row(
            title,
            "own sampler",
            "",
            "",
            f"{bare(own['value'], 3)} ({bare(own['low'], 3)} to {bare(own['high'], 3)})",
            "",
        )
        found = table["predictions"]["all"]
        yield f"{bare(found['rank_correlation'], 2)} on {number(title.split(',')[0])}"


@passages(PLANNING, "trained/gate.json", note="two models of Fashion-MNIST")
def gate(result: Result) -> Iterator[str]:
    yield f"on {number(result['pictures'])} pictures of"
    for each in result["rows"]:
        blur = each["gate"]["shares"]["blurred"]["share"]
        percent = {name: 100 * value for name, value in blur.items()}
        yield row(
            each["model"],
            number(each["steps"]),
            bare(each["rms"], 3),
            f"{fixed(percent['value'], 1)} {interval(percent, 1)}",
            {"lost": "another", "kept": "the same"}[each["verdict"]],
            f"{fixed(each['fd'], 2)} ({fixed(each['fd_many'], 2)})",
            f"{fixed(each['kid_to_many']['value'], 2)} {interval(each['kid_to_many'], 2)}",
        )
    found = result["rank_correlation"]
    yield f"{bare(found['kid_to_many'], 2)} with KID to many steps"
    yield f"{bare(found['fd_more'], 2)} with the rise of FD"


definitions(
    PLANNING,
    "by the construction of the test",
    "for another in 2.5 of 100",
    "*the same within 5%*, *another by more than 5%*",
)


def _marked(name: str) -> str:
    """A name in a result, with its numbers as those of the result."""
    return re.sub(r"(?<= )\d[\d.]*", lambda found: number(found[0]), name)


# --- docs/adaptive.md --------------------------------------------------------------------------


@passages(
    ADAPTIVE,
    "trained/adaptive-jit.json",
    "trained/adaptive-unet.json",
    note="models of Fashion-MNIST",
)
def steps_by_picture(jit: Result, unet: Result) -> Iterator[str]:
    yield f"of {number(jit['pictures'])} pictures each"
    for title, table in (jit["tables"] | unet["tables"]).items():
        for each in table["rows"]:
            gains = [each[name]["gain"] for name in ("oracle", "class", "signals")]
            yield row(
                title,
                number(each["mean"]),
                *(f"{fixed(gain['value'], 2)} {interval(gain, 2)}" for gain in gains),
            )


@passages(ADAPTIVE, "e11a8aad/adaptive-real.json", note=FIRST)
def adapting(result: Result) -> Iterator[str]:
    plans = result["plans"]
    goal, ruled, left = (plans[f"balanced{kind}"] for kind in ("", ", adaptive", ", fixed"))
    yield f"of at most {share(result['rise'])} more"
    for label, found in (
        ("`balanced`", goal),
        ("with rules", ruled),
        ("the same steps left out for all", left),
    ):
        times = (found["ms"]["mean"], found["ms"]["p95"], found["ms, 8 together"]["mean"])
        error, more = bare(found["error"]["mean"], 3), found["error minus goal"]
        if found is not goal:
            error += f" ({bare(more['low'], 3, '+')} to {bare(more['high'], 3, '+')})"
        passes = number(f"{found['forwards']['p95']:g}")
        if found is ruled:  # a step is guided, in two passes, but for the last
            passes = f"{number(2 * min(ruled['steps']) - 1)} to {passes}"
        yield row(label, *(f"{fixed(ms)} ms" for ms in times), error, passes)

    def increase(found: Result) -> float:
        return found["error minus goal"]["mean"] / goal["error"]["mean"]

    ratio = ruled["time over goal"]
    yield (
        f"Rules save {share(1 - ratio)} of the time (medians of ratios: {bare(ratio, 2)} of it) "
        f"for {share(increase(ruled), 1)} more error"
    )
    yield f"saves {share(1 - left['time over goal'])} for {share(increase(left), 1)}"
    yield f"({bare(ruled['correlation of steps with complexity'], 2)})"


@passages(ADAPTIVE, "649b2356/oracle.json")
def oracle(result: Result) -> Iterator[str]:
    goals = result["goals"]
    for label, name in (
        ("all errors, chance included", "real errors"),
        ("the difficulty of every picture", "difficulty"),
        ("the difficulty, estimated from prediction residuals", "surprises"),
    ):
        yield row(label, *(share(goals[n]["saved"][name]["mean"]) for n in ("6", "8", "12")))
    explained = "explained by difficulty and grid (share of the variance of logarithms)"
    yield f"it explains {bare(result[explained], 2)} of their variance"
    spread = result["spread of difficulty (standard deviation of its logarithm)"]
    yield f"one standard deviation of it is a factor of {fixed(math.exp(spread), 2)}"
    yield f"this oracle saves {share(goals['8']['saved']['difficulty']['worst'])}"
    surprises = [share(goals[n]["saved"]["surprises"]["worst"]) for n in ("8", "12")]
    correlations = [bare(goals[n]["correlation of surprises"], 2) for n in ("12", "8")]
    yield f"({surprises[0]}; {surprises[1]} for 12 steps"
    yield f"the correlation is {correlations[0]} instead of {correlations[1]})"


# --- docs/guide: server, studio, training ------------------------------------------------------


@passages(SERVER, "server/server.json")
def load(result: Result) -> Iterator[str]:
    found = result["load"]
    memory, rates = found["memory_mb"], found["pictures per second"]
    assert found["lost"] == found["twice"] == 0
    yield f"{number(found['clients'])} clients for a minute: {number(found['jobs'])} jobs"
    yield f"95% of the calls that draw nothing answered within {fixed(found['p95_ms'])} ms"
    yield f"memory from {fixed(memory['begin'])} to {fixed(memory['end'])} MB"
    yield f"{fixed(rates['ratio'], 3)} times as many pictures per second"


@passages(SERVER, "server/crowded.json")
def crowded(result: Result) -> Iterator[str]:
    yield f"served in {fixed(result['seconds']['silent']['ratio'], 2)} times its usual time"


@passages(PICTURES, "649b2356/languages.json")
def languages(result: Result) -> Iterator[str]:
    without, hinted, more = result["without hint"], result["with hint"], "other languages"
    assert not result["english"]["changed"]
    assert without[more] == hinted[more]
    yield f"in {number(result['table']['locales'])} locales"
    yield (
        f'Of {number(without["languages"]["of"])} prompts such as "a black dog" or '
        f'"strawberries" in ten languages, {number(without["languages"]["right"])} are read as'
    )
    yield f"and {number(hinted['languages']['right'])} with it"
    yield f"Of {number(without[more]['of'])} in eight more languages"
    emoji = without["emoji"]
    yield (
        f"{number(without[more]['right'])} are read as what they name, and of "
        f"{number(emoji['of'])} emoji {number(emoji['right'])}"
    )
    took = result["ms"]
    yield f"{fixed(took['median'], 2)} ms (median), and the first one"
    yield f"the first one {fixed(took['first'] / 1000, 2)} s"


@passages(PICTURES, "649b2356/svg.json")
def traced(result: Result) -> Iterator[str]:
    size, error = result["kB"], result["rmse at 64 px"]
    assert result["smallest shape in px"] >= tracing.SMALLEST
    yield f"reduced to {number(tracing.COLOURS)} colours"
    yield f"specks below {number(tracing.SMALLEST)} pixels"
    yield (
        f"Of {number(result['pictures'])} pictures at 64 px, "
        f"the SVG has {fixed(size['median'])} kB (median; "
        f"nine in ten below {fixed(math.ceil(size['ninth']))}), "
        f"{fixed(result['shapes']['median'])} shapes, and an error of {bare(error['median'], 3)}"
    )
    yield f"{number(result['within .05'])} within {bare(0.05, 2)}, at most {bare(error['most'], 3)}"
    yield f"draw the same ({bare(result['rmse of chromium to resvg']['median'], 3)} apart)"


@passages(BATCH, "server/bulk.json")
def bulk(result: Result) -> Iterator[str]:
    whole, chaos, resume = result["division"], result["chaos"], result["resume"]
    rates = result["rates"]["rows_per_second"]
    assert whole["same"] == whole["rows"] == whole["different pixels among rows"]
    assert not any(chaos["wrong"].values())
    yield f"{fixed(whole['rows'])} rows of the embedded model at 32 px"
    yield f"{fixed(chaos['rows'])} rows that was killed {fixed(chaos['rounds'])} times"
    yield (
        f"{fixed(resume['finished'])} finished rows took {fixed(resume['seconds'])} seconds and "
        f"{fixed(resume['peak_mb'])} MB"
    )
    one, two = (rates[f"imagefolder, {name}"] for name in ("1 process", "2 processes"))
    yield f"{figures(one, 2)} rows per second by one process and {figures(two, 2)} by two"


@passages(SCALE, "649b2356/prices.json")
def prices(result: Result) -> Iterator[str]:
    for plan, each in result["plans"].items():
        yield row(
            f"`{plan}`",
            number(each["nfe"]),
            fixed(each["seconds"], 2),
            figures(each["pictures_per_core_hour"], 2),
            figures(each["core_hours_per_million"], 2),
        )


@passages(SCALE, "server/cluster.json")
def cluster(result: Result) -> Iterator[str]:
    whole, speed, free = (result[name] for name in ("division", "throughput", "free"))
    chaos, calls = result["chaos"], result["serve"]
    assert whole["same"] == whole["rows"] == whole["different pixels among rows"]
    assert not any(chaos["wrong"].values())
    lost, full = calls["one killed"], calls["too many at once"]
    assert lost["answered"] == lost["different pictures"] == lost["calls"]
    [(refusal, times)] = lost["refusals"].items()
    [(other, refused)] = full["refusals"].items()
    assert (refusal[:3], other[:3]) == ("503", "429")
    assert all(" with Retry-After" in each for each in (refusal, other))
    assert full["answered"] + refused == full["calls"]
    rate = figures(free["rows_per_second"], 2)
    yield f"handles {rate} rows per second"
    yield f"feeds {rate} actors that take a second for a picture"
    low, high = free["driver_mb"].items()
    yield f"is {fixed(low[1])} MB at {fixed(int(low[0]))} rows and {fixed(high[1])} MB"
    yield f"{fixed(whole['rows'])} rows of the embedded model became the same pixels"
    ratio = speed["ratio"]
    yield (
        f"made {fixed(ratio['median'], 2)} times the rows per second of two processes (median of "
        f"{number(len(speed['rows_per_second']['actors']))} pairs; {fixed(ratio['least'], 2)} to "
        f"{fixed(ratio['most'], 2)})"
    )
    yield f"A job of {fixed(chaos['rows'])} rows in which the driver, an actor or a whole node"
    yield f"was killed {fixed(chaos['rounds'])} times"
    yield f"Of {fixed(lost['calls'])} calls by OpenAI's client to two replicas"
    yield f"{fixed(times)} of them met a 503 with"
    yield f"{fixed(refused)} of {fixed(full['calls'])} were refused with 429"


definitions(SCALE, "status codes", "| 429 with `Retry-After` |", "| 503 with `Retry-After`")


@passages(SERVER)
def limits() -> Iterator[str]:
    settings = Settings(data=Path())
    megabytes = 1e6
    least = settings.body_pace * settings.body_seconds
    hours = 3600
    yield f"| `--keep-deleted` | {fixed(settings.undo_seconds / hours)} hours |"
    yield f"| `--keep-results` | {fixed(settings.passing_seconds / hours)} hour |"
    yield (
        f"| `--keep-uploads`, `--upload-space` | {fixed(settings.upload_seconds / hours)} hours, "
        f"{number(round(settings.upload_space / megabytes))} MB |"
    )
    yield f"| `--keep-free` | {fixed(settings.spare / megabytes)} MB |"
    yield f"| `--max-upload` | {fixed(settings.upload_bytes / megabytes)} MB |"
    yield f"| {number(settings.queue)}, {number(settings.queue_of_one)} | pictures that wait |"
    yield f"| `--rate` | {fixed(settings.rate)} |"
    yield (
        f"| {fixed(settings.picture_seconds)}, {number(round(settings.wait_seconds))} seconds | a "
        "picture"
    )
    yield f"| `--connections` | {number(settings.connections)} |"
    yield f"up to {fixed(settings.upload_space / 1e9)} GB"
    yield f"{fixed(settings.spare / megabytes)} MB of the disk stay free"
    yield f"| the headers of a request | {fixed(settings.head_seconds)} seconds |"
    yield f"| {fixed(least)} bytes in every {fixed(settings.body_seconds)} seconds |"
    yield (
        f"| {fixed(settings.answer_seconds)} seconds; {fixed(settings.answer_space / megabytes)} "
        "MB of all responses |"
    )
    yield f"| {fixed(settings.keep_alive_seconds)} seconds | it is closed |"
    yield f"| connections | {fixed(settings.connections)}, or"
    yield f"| bodies in memory | {fixed(settings.body_space / megabytes)} MB, as they arrive |"
    leaving = settings.stop_seconds - max(settings.drain_seconds, settings.notice)
    yield f"plus {fixed(leaving, 1)} seconds: {fixed(settings.stop_seconds, 1)} by default"


definitions(SERVER, "a limit in the code", "30 seconds also one that has.")
definitions(STUDIO, "a limit in the code", "plan takes less than 1.5 seconds on this machine")
definitions(SERVER, "the share that a percentile is of", "95% of the calls")
definitions(SERVER, "a limit in the code", "with 4 MB that are reserved for it", "64 kB are always")
definitions(
    SERVER,
    "status codes",
    "| 408, and the connection is closed |",
    "30 seconds | 408 |",
    "| 503, except for `/health` and `/ready` |",
    "32 downloads | 503 |",
)


@passages(STUDIO, "server/studio.json")
def studio(result: Result) -> Iterator[str]:
    yield f"first paint after {fixed(result['first_paint_ms']['median'] / 1000, 2)} s"
    yield f"the first preview {fixed(result['first_preview_ms']['median'] / 1000, 1)} s after"
    yield f"a 64 px picture {fixed(result['live_ms']['total']['median'] / 1000, 1)} s after"
    yield f"{fixed(result['javascript_bytes'] / 1000)} kB of JavaScript"
    previews, page = result["preview_percent"], result["page_percent"]
    yield f"changed the time by {fixed(previews['median'])} %"
    yield (
        f"(median of {number(previews['n'])} pairs; {fixed(previews['least'])} to "
        f"{fixed(previews['most'])} %)"
    )
    yield f"took {fixed(page['median'], 1)} % more than no page"


definitions(STUDIO, "limits in the code", "spends at most 2 % of the time")


@passages(COMFYUI, "server/comfyui-0.27.0.json", "server/comfyui-0.3.64.json")
def comfyui(newer: Result, older: Result) -> Iterator[str]:
    found = [*newer["differences"].values(), *older["differences"].values()]
    power = math.floor(math.log10(max(found)))
    most = math.ceil(max(found) / 10**power)
    yield (
        f"In ComfyUI {number(newer['comfyui'])} and {number(older['comfyui'])} the states of the "
        f"nodes are those of the engine to within {number(f'{most}e{power}')} of the largest value"
    )
    for title, rows in newer["beside"].items():
        for each in rows:
            yield row(
                title,
                _marked(each["sampler"]),
                number(each["passes"]),
                figures(each["seconds"], 2),
                fixed(each["rmse"], 3) if "rmse" in each else "-",
            )


@passages(TRAINING)
def training_length() -> Iterator[str]:
    yield f"about {fixed(RECIPES['v2'].minutes / 60)} hours of a core"


# --- definitions of the other pages ------------------------------------------------------------

definitions(
    "docs/concepts.md",
    "NFE of tiers",
    *(
        "guided | 2 | full |",
        "with the prompt only | 1 | full |",
        "guided | 2 | a half, a quarter of",
    ),
    *("guidance carried | 1 |", "detail carried | 2 |", "both carried | 1 |"),
    *("pooled to a tile | 2 |", "the same with the prompt only | 1 |"),
    "by the fast part of the network | 2 |",
)
definitions("docs/glossary.md", "the ends of time", "1 is noise, 0 is the picture")
definitions(
    "docs/guide/asymflux.md", "constants of its colours", "by (0.56, 0, 0.01) and divided by 0.16"
)
definitions(
    "docs/guide/plans.md",
    "NFE and estimates of solvers",
    *("`multistep1` | 1 | 1 |", "`multistep2` | 1 | 2 |", "`multistep3` | 1 | 3 |"),
    *("`damped2` | 1 | 2;", "`corrected2` | 1 | 2;", "`heun` | 2 (1 in the last step) | 2, made"),
)
