"""What single calls promise: contexts, answers, pictures, refusals, descriptions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from asymflow.core.adapter import (
    Beginning,
    ClipsEstimate,
    Context,
    Described,
    ProjectsGuidance,
    Remembers,
    Splits,
    begun,
    collated,
    splits,
)
from asymflow.core.errors import AsymflowError, InputError
from asymflow.core.flow import average_pool
from asymflow.core.schedules import plan_of, uniform
from asymflow.core.types import Request
from asymflow.models.contract.report import DoesNotApply, Property
from asymflow.models.contract.subject import Subject, apart
from asymflow.planning.binding import bound, match
from asymflow.planning.plan_json import plan_from_json, plan_to_json

TIMES = (0.0, 1e-6, 0.5, 1.0)


def form(subject: Subject) -> Iterator[str]:
    """Name, channels, template, batch and pool factors are of the right kind, and stay the same."""
    adapter = subject.adapter
    kinds: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
        ("name", lambda x: isinstance(x, str) and bool(x), "a text such as 'mine:3f9a'"),
        ("channels", _whole, "an integer of 1 or more"),
        ("batch", lambda x: x is None or _whole(x), "an integer of 1 or more, or None"),
    )
    for name, holds, wanted in kinds:
        values = [getattr(adapter, name) for _ in range(2)]
        if not holds(values[0]):
            yield f"{name} has to be {wanted}, and is {values[0]!r}. Return such a value."
        elif values[0] != values[1]:
            yield f"{name} is {values[0]!r}, and then {values[1]!r}. Return the same every time."
    template: Any = adapter.template
    if not isinstance(template, Tensor) or template.numel() or not template.is_floating_point():
        what = f"{tuple(template.shape)} of {template.dtype}" if _tensor(template) else template
        yield (
            f"template has to be an empty tensor of floating point, and is {what}. Return "
            "torch.empty(0, dtype=..., device=...) with the dtype and device of states."
        )
    for factor in adapter.pool_factors(subject.size):
        if not _whole(factor) or factor < 2:
            yield f"pool_factors has to hold integers above 1, and holds {factor!r}. Leave it out."


def answers(subject: Subject) -> Iterator[str]:
    """Answers are finite and of the shape, dtype and device of the state, from t = 0 to t = 1."""
    x_t = subject.state(3)
    for t in TIMES:
        found = subject.asked(x_t, [t], subject.contexts(0)[0])
        yield from _unlike(f"The answer at t = {t:g}", found, x_t)


def purity(subject: Subject) -> Iterator[str]:
    """A question is left as it was: states, times and contexts."""
    (context, _), x_t = subject.contexts(0), subject.state(4)
    question = {"x_t": x_t, "t": x_t.new_tensor([0.5])}
    before, rows = ({k: v.clone() for k, v in each.items()} for each in (question, context))
    subject.adapter.denoise(x_t, question["t"], context)
    yield from _changed("denoise", before, question)
    yield from _changed("denoise", rows, context)
    (x_0,) = x_t.clone()
    subject.adapter.to_picture(x_0)
    yield from _changed("to_picture", {"x_0": x_t[0]}, {"x_0": x_0})


def determinism(subject: Subject) -> Iterator[str]:
    """The same question has the same answer, and an answer stays as it is when others are made."""
    x_t = subject.state(5)
    first = subject.asked(x_t, [0.6], subject.contexts(0)[0])
    kept = first.clone()
    subject.asked(subject.state(6), [0.3], subject.contexts(1)[0])
    if not torch.equal(first, kept):
        yield (
            "An answer changed when the next one was made. Return a new tensor from every call, "
            "such as a clone of a buffer that is used again."
        )
    second = subject.asked(x_t, [0.6], subject.contexts(0)[0])
    exact = x_t.device.type == "cpu"
    if not (torch.equal(kept, second) if exact else subject.same(kept, second)):
        yield (
            f"The same question had answers that are {apart(kept, second):.2g} apart. Put the "
            "network into evaluation mode (net.eval()), draw no random numbers in encode and "
            "denoise, and keep nothing from one call for the next."
        )


def contexts(subject: Subject) -> Iterator[str]:
    """Contexts have a row per picture, under the same names with inputs and without."""
    cond, null = subject.contexts(0, 1)
    if cond.keys() != null.keys():
        yield (
            f"The contexts have other names with inputs ({_names(cond)}) than without "
            f"({_names(null)}). Rows of both share a call: give both the same."
        )
    device = subject.adapter.template.device
    for kind, context in (("conditional", cond), ("unconditional", null)):
        for name, value in context.items():
            if not _tensor(value) or value.shape[:1] != (2,):
                shape = tuple(value.shape) if _tensor(value) else type(value).__name__
                yield (
                    f"{name!r} of the {kind} context of 2 pictures has to be a tensor of 2 rows, "
                    f"and is {shape}. Put the pictures first; what all share belongs into the "
                    "adapter."
                )
            elif value.device != device:
                yield (
                    f"{name!r} of the {kind} context is on {value.device}, and states are on "
                    f"{device}. Move it there in encode."
                )


def rows(subject: Subject) -> Iterator[str]:
    """Every row of a call has its own time and context, and no row changes another's answer."""
    (context, _), x_t, times = subject.contexts(0, 1), subject.state(7, 2), (0.3, 0.8)
    together = subject.asked(x_t, times, context)
    for i in (0, 1):
        own = {name: value[i : i + 1] for name, value in context.items()}
        alone = subject.asked(x_t[i : i + 1], [times[i]], own)
        if not subject.same(together[i : i + 1], alone):
            difference = apart(together[i : i + 1], alone)
            yield (
                f"Row {i} of 2 has an answer that is {difference:.2g} from that of the same "
                "picture alone. Use t[i] and row i of the context for row i, and nothing that "
                "mixes rows, such as batch normalisation or a mean over all."
            )


def collating(subject: Subject) -> Iterator[str]:
    """Contexts that are made one by one and collated are those that are made together."""
    x_t, times = subject.state(8, 2), (0.4, 0.7)
    separate = [subject.contexts(which) for which in (0, 1)]
    for part, kind in enumerate(("conditional", "unconditional")[: 1 + subject.guided]):
        together = subject.asked(x_t, times, subject.contexts(0, 1)[part])
        context = collated(subject.adapter, [each[part] for each in separate])
        found = subject.asked(x_t, times, context)
        if not subject.same(together, found):
            yield (
                f"With {kind} contexts from two calls of encode, collated, answers are "
                f"{apart(together, found):.2g} from those with contexts from one call. Encode "
                "each picture by itself; where shapes differ, implement collate, with a mask."
            )


def conditioning(subject: Subject) -> Iterator[str]:
    """Other inputs have other answers."""
    first, second = subject.requests
    if all(first.inputs.get(name) is value for name, value in second.inputs.items()):
        raise DoesNotApply("both requests have the same inputs")
    x_t = subject.state(9)
    one, other = (subject.asked(x_t, [0.6], subject.contexts(which)[0]) for which in (0, 1))
    if torch.equal(one, other):
        yield (
            f"The inputs {_short(first)} and {_short(second)} have the same answers. Put all that "
            "the network is conditioned on into the context."
        )


def guidance(subject: Subject) -> Iterator[str]:
    """The answer without the inputs differs from the answer with them."""
    if not subject.guided:
        raise DoesNotApply("it refuses guidance")
    cond, null = subject.contexts(0)
    x_t = begun(subject.adapter, subject.state(10), 0.7)
    with_, without = (subject.asked(x_t, [0.7], each) for each in (cond, null))
    if torch.equal(with_, without):
        yield (
            f"It accepts guidance scale {subject.scale:g}, and has the same answer with "
            f"{_short(subject.requests[0])} as without. Return the context of a dropped condition "
            "as the second one of encode, or refuse scales other than 1 in check."
        )


def pooling(subject: Subject) -> Iterator[str]:
    """Pictures can be pooled by the factors that it says."""
    factors = subject.adapter.pool_factors(subject.size)
    if not factors:
        raise DoesNotApply("it has no pool factors")
    for f in factors:
        height, width = subject.size
        if height % f or width % f:
            yield f"Size {subject.size} cannot be pooled by {f}. Leave {f} out of pool_factors."
            continue
        small = average_pool(subject.state(11), f)
        found = subject.asked(small, [0.5], subject.contexts(0)[0])
        yield from _unlike(f"The answer to a state pooled by {f}", found, small)


def pictures(subject: Subject) -> Iterator[str]:
    """Pictures become states and the same pictures again, in [0, 1] whatever the state."""
    adapter = subject.adapter
    shape = (*subject.size, adapter.channels)
    # Sorted, so that the last channel can be the alpha of the others.
    picture = np.sort(np.random.default_rng(0).random(shape, dtype=np.float32), -1)
    given = picture.copy()
    state = adapter.to_state(given)
    if not np.array_equal(given, picture):
        yield "to_state changed the picture. Work on a copy."
    yield from _unlike("The state of a picture", state, subject.state(0)[0])
    back = adapter.to_picture(state)
    if back.shape != shape or back.dtype != np.float32:
        yield (
            f"A picture has to be float32 of shape {shape}, and is {back.dtype} of {back.shape}. "
            "Convert it in to_picture: height, width, channels."
        )
    elif not apart(back, picture) <= subject.tolerance:
        yield (
            f"A picture that became a state and a picture again is {apart(back, picture):.2g} from "
            "what it was. Let to_picture be the inverse of to_state."
        )
    wild = adapter.to_picture(9 * subject.state(12)[0])
    if not (wild.min() >= 0 and wild.max() <= 1):
        yield (
            f"A state far outside of pictures became values from {wild.min():.3g} to "
            f"{wild.max():.3g}. Clip them to [0, 1] in to_picture."
        )


def refusals(subject: Subject) -> Iterator[str]:
    """Requests that it can serve pass the check, and others raise InputError there."""
    for request in (subject.request(0), subject.request(1, scale=1.0)):
        if (told := refusal(subject, request)) is not None:
            yield f"The request {_short(request)} is refused: {told}. Accept it, or ask another."
    height, width = subject.size
    sizes = ((0, width), (height, 0), (-height, width))
    impossible = [replace(subject.request(0), size=size) for size in sizes]
    for request in (*impossible, *subject.refused):
        yield from not_refused(subject, request, "Raise asymflow.InputError for it in check.")


def beginning(subject: Subject) -> Iterator[str]:
    """States begin each by themselves, with the noise that is drawn for them."""
    if not isinstance(subject.adapter, Beginning):
        raise DoesNotApply("it has no begin")
    for t in (1.0, 0.5):
        begin = partial(subject.adapter.begin, t=t)
        yield from _by_rows(f"begin at t = {t:g}", begin, subject, _varied(subject, 13))


def clipping(subject: Subject) -> Iterator[str]:
    """Estimates are clipped each by themselves."""
    if not isinstance(subject.adapter, ClipsEstimate):
        raise DoesNotApply("it has no clip_estimate")
    x_0 = _varied(subject, 14)
    yield from _by_rows("clip_estimate", subject.adapter.clip_estimate, subject, x_0)


def projection(subject: Subject) -> Iterator[str]:
    """The guidance term is projected picture by picture; of none, nothing is added."""
    adapter = subject.adapter
    if not isinstance(adapter, ProjectsGuidance):
        raise DoesNotApply("it has no project_guidance")
    x_0, term = _varied(subject, 15), _varied(subject, 16)
    yield from _by_rows("project_guidance", adapter.project_guidance, subject, x_0, term)
    nothing = adapter.project_guidance(x_0, torch.zeros_like(term))
    if not apart(nothing, torch.zeros_like(term)) <= subject.tolerance:
        yield (
            "project_guidance of a guidance term of 0 is not 0. Both passes may agree: guard the "
            "division by its norm."
        )


def memory(subject: Subject) -> Iterator[str]:
    """An adapter that remembers answers as without memory at first, and keeps rows apart."""
    adapter = subject.adapter
    if not isinstance(adapter, Remembers):
        raise DoesNotApply("it has no denoise_remembering")
    (context, _), x_t = subject.contexts(0, 1), subject.state(17, 2)
    t = x_t.new_tensor([0.8, 0.6])
    plain = adapter.denoise(x_t, t, context)
    first, kept = adapter.denoise_remembering(x_t, t, context, None)
    if not subject.same(plain, first):
        yield (
            f"Without memory, denoise_remembering is {apart(plain, first):.2g} from denoise. "
            "Compute everything when memory is None."
        )
    second, _ = adapter.denoise_remembering(x_t, t / 2, context, kept)
    for i in (0, 1):
        own, mine = (
            {name: value[i : i + 1] for name, value in each.items()} for each in (context, kept)
        )
        alone, _ = adapter.denoise_remembering(x_t[i : i + 1], t[i : i + 1] / 2, own, mine)
        if not subject.same(second[i : i + 1], alone):
            yield (
                f"With the memory of row {i}, the answer is {apart(second[i : i + 1], alone):.2g} "
                "from that of both rows. Remember row by row, rows first."
            )
    for f in adapter.pool_factors(subject.size):
        small = average_pool(x_t, f)
        found, _ = adapter.denoise_remembering(small, t / 2, context, kept)
        yield from _unlike(
            "The answer to a pooled state, with memory of a whole one,", found, small
        )


def splitting(subject: Subject) -> Iterator[str]:
    """A network in two parts says the same as a whole; its fast part looks at the newest state."""
    adapter = subject.adapter
    if not splits(adapter):
        raise DoesNotApply("its network is known as a whole")
    ask = cast("Splits", adapter).denoise_split
    (context, _), x_t, other = subject.contexts(0, 1), subject.state(18, 2), subject.state(19, 2)
    t = x_t.new_tensor([0.8, 0.6])
    plain = adapter.denoise(x_t, t, context)
    whole, slow = ask(x_t, t, context, None)
    if not subject.same(plain, whole):
        yield (
            f"Without `slow`, denoise_split is {apart(plain, whole):.2g} from denoise. Compute "
            "both parts when slow is None."
        )
    before = {name: value.clone() for name, value in slow.items()}
    again, _ = ask(x_t, t, context, slow)
    if not subject.same(plain, again):
        yield (
            f"With what the slow part said of the same states, denoise_split is "
            f"{apart(plain, again):.2g} from denoise. Return all that the fast part takes from it."
        )
    late, _ = ask(other, t / 2, context, slow)
    yield from _unlike("The answer of the fast part", late, x_t)
    yield from _changed("slow", before, slow)
    if not apart(late, again) > 0:
        yield (
            "The fast part says the same of other states at other times. Let it look at the "
            "newest ones, or set splits to False."
        )
    for i in (0, 1):
        own, mine = (
            {name: value[i : i + 1] for name, value in each.items()} for each in (context, slow)
        )
        alone, _ = ask(other[i : i + 1], t[i : i + 1] / 2, own, mine)
        if not subject.same(late[i : i + 1], alone):
            yield (
                f"With what was kept of row {i}, the answer of the fast part is "
                f"{apart(late[i : i + 1], alone):.2g} from that of both rows. Return it rows first."
            )


def description(subject: Subject) -> Iterator[str]:
    """The description is that of the model, and plans can be bound to it and recognise it."""
    adapter = subject.adapter
    if not isinstance(adapter, Described):
        raise DoesNotApply("it has no description, so no plan can be bound to it")
    model = adapter.description
    if model != adapter.description:
        yield "The description differs from call to call. Derive it from weights and settings."
    wanted = "cfg" if subject.guided else "none"
    if model.guidance != wanted:
        yield (
            f"description.guidance is {model.guidance!r}, and a guidance scale of "
            f"{subject.scale:g} is {'accepted' if subject.guided else 'refused'} by check. Say "
            f"{wanted!r}, or change check."
        )
    plan = plan_from_json(plan_to_json(bound(plan_of(uniform(2)), model)))
    found = match(plan, model, subject.size)
    if found.level != "exact":
        yield (
            f"A plan that is bound to the model does not recognise it: it {found.line}. Let "
            "weights be a SHA-256 in hexadecimal digits, and settings map texts to texts."
        )


def identity(subject: Subject) -> Iterator[str]:
    """Loaded again, it is the same model."""
    if subject.again is None:
        raise DoesNotApply("it was not loaded a second time")
    first, second = subject.adapter, subject.again()
    if first.name != second.name:
        yield (
            f"Loaded again, {first.name!r} is called {second.name!r}. Derive the name from the "
            "weights and settings, not from the object or its precision."
        )
    if isinstance(first, Described) and isinstance(second, Described):
        found = match(bound(plan_of(uniform(2)), first.description), second.description)
        if found.level != "exact":
            yield (
                f"A plan does not recognise the model loaded again: it {found.line}. Let weights "
                "be the hash of their values, with a fingerprint for other precisions "
                "(asymflow.models.hashing)."
            )


def refusal(subject: Subject, request: Request) -> str | None:
    """Why a request is refused; None if it is not."""
    try:
        subject.adapter.check(request)
    except InputError as error:
        return str(error).rstrip(".")
    return None


def not_refused(subject: Subject, request: Request, advice: str) -> Iterator[str]:
    """What is wrong where a request has to be refused."""
    try:
        subject.adapter.check(request)
    except InputError:
        return
    except Exception as error:  # whatever an adapter may raise
        kind = "another error" if isinstance(error, AsymflowError) else "no InputError"
        yield f"The request {_short(request)} raises {type(error).__name__}, {kind}. {advice}"
        return
    yield f"The request {_short(request)} has to be refused, and passes the check. {advice}"


def _by_rows(
    name: str, function: Callable[..., Tensor], subject: Subject, *given: Tensor
) -> Iterator[str]:
    """What is wrong with a function of states [2, c, h, w] that treats each row by itself."""
    before = {str(i): each.clone() for i, each in enumerate(given)}
    together = function(*given)
    yield from _changed(name, before, {str(i): each for i, each in enumerate(given)})
    yield from _unlike(f"The result of {name}", together, given[0])
    alone = torch.cat([function(*(each[i : i + 1] for each in given)) for i in (0, 1)])
    if not subject.same(together, alone):
        yield (
            f"{name} of two rows is {apart(together, alone):.2g} from that of each by itself. "
            "Take norms, quantiles and means of every row, not of the batch."
        )


def _varied(subject: Subject, seed: int) -> Tensor:
    """Two states, one of them of a wide range."""
    x = subject.state(seed, 2)
    return x * x.new_tensor([3.0, 0.5]).view(-1, 1, 1, 1)


def _unlike(what: str, found: Any, wanted: Tensor) -> Iterator[str]:
    """What is wrong with a tensor that has to be finite, and like another one."""
    if not _tensor(found):
        yield f"{what} has to be a tensor, and is a {type(found).__name__}. Return one."
        return
    for name in ("shape", "dtype", "device"):
        value, right = (getattr(each, name) for each in (found, wanted))
        if value != right:
            right, value = (tuple(e) if name == "shape" else e for e in (right, value))
            yield f"{what} has {name} {value}, and {right} is wanted. Convert it, as by .to(x_t)."
    if not found.isfinite().all():
        bad = int((~found.isfinite()).sum())
        yield (
            f"{what} has {bad} values that are not finite. Avoid divisions by t and 1 - t: x_0 "
            "can be had without (asymflow.core.flow)."
        )


def _changed(name: str, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Iterator[str]:
    for key, value in before.items():
        if not torch.equal(value, after[key]):
            yield f"{name} changed {key!r}, which it was given. Write to a copy, not in place."


def _names(context: Context) -> str:
    return ", ".join(map(repr, context)) or "none"


def _short(request: Request) -> str:
    """A request in a message; arrays in its inputs are left out."""
    plain = {
        name: value if isinstance(value, str | int | float | None) else type(value).__name__
        for name, value in request.inputs.items()
    }
    guided = "" if request.guidance_scale == 1 else f", guidance {request.guidance_scale:g}"
    extra = "".join(f", {x}" for x in ("image", "mask") if getattr(request, x) is not None)
    return f"{plain} of size {request.size}{guided}{extra}"


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _tensor(value: object) -> bool:
    return isinstance(value, Tensor)


PROPERTIES: tuple[Property, ...] = (
    form, answers, purity, determinism, contexts, rows, collating, conditioning, guidance, pooling,
    pictures, refusals, beginning, clipping, projection, memory, splitting, description,
    identity,
)  # fmt: skip
