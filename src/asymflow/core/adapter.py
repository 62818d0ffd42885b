"""The interface between asymflow and a pixel-space model.

An adapter translates the conventions of its model. Inside asymflow there is one path,

    x_t = (1 - t) x_0 + t eps,   t = 1 noise, t = 0 data

and a model predicts one quantity, x_0 given x_t. Unlike velocity or noise, x_0 can be computed from
any parameterisation without a division that is singular near either end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor

from asymflow.core.binding import ModelDescription
from asymflow.core.card import Card, Carded
from asymflow.core.errors import InputError
from asymflow.core.types import Picture, Plan, Request

R = TypeVar("R")

Context = Mapping[str, Tensor]
"""Conditioning of a model: tensors with the batch first, computed once per picture."""


@runtime_checkable
class Denoiser(Protocol):
    """An estimator of x_0: x_t [b, c, h, w] at times t [b] to x_0 [b, c, h, w]."""

    def __call__(self, x_t: Tensor, t: Tensor, /) -> Tensor: ...


@runtime_checkable
class Adapter(Protocol):
    """What asymflow requires of a model."""

    @property
    def name(self) -> str:
        """Identifies the model and its weights, e.g. "embedded:3f9a..."."""
        ...

    @property
    def channels(self) -> int:
        """Channels c of the state x_t."""
        ...

    @property
    def template(self) -> Tensor:
        """An empty tensor on the device and in the dtype of the state."""
        ...

    @property
    def batch(self) -> int | None:
        """Pictures per network call, or None for no limit.

        Matrix kernels may round differently for different batch sizes. With 1, every
        picture is independent of its neighbours bit for bit.
        """
        ...

    def pool_factors(self, size: tuple[int, int]) -> tuple[int, ...]:
        """Factors f > 1 by which a picture of (height, width) can be pooled for the network."""
        ...

    def check(self, request: Request) -> None:
        """Raise `InputError` when the model cannot serve the request (size, inputs)."""
        ...

    def encode(self, requests: Sequence[Request]) -> tuple[Context, Context]:
        """Conditional and unconditional contexts of a batch."""
        ...

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        """Estimate x_0 [b, c, h, w] from x_t [b, c, h, w] at times t [b]."""
        ...

    def to_state(self, picture: Picture) -> Tensor:
        """A picture [h, w, c] in [0, 1] as x_0 [c, h, w]."""
        ...

    def to_picture(self, x_0: Tensor) -> Picture:
        """x_0 [c, h, w] as a picture [h, w, c], clipped to [0, 1]."""
        ...


@runtime_checkable
class Described(Protocol):
    """An adapter that plans can be bound to (`asymflow.planning.binding`); all of ours are."""

    @property
    def description(self) -> ModelDescription:
        """What plans have to know of the model."""
        ...


class CardedAdapter(Adapter, Described, Carded, Protocol):
    """What `asymflow.load` returns: a model that says what it is asked with, and what it is."""


@runtime_checkable
class ClipsEstimate(Protocol):
    """An adapter that clips estimates to a range, after guidance has been applied."""

    def clip_estimate(self, x_0: Tensor) -> Tensor:
        """The estimate [b, c, h, w] that the model's sampler continues with."""
        ...


def clipped_estimate(adapter: Adapter, x_0: Tensor) -> Tensor:
    """The estimate [b, c, h, w] that a solver receives: clipped where the adapter clips."""
    clip = _optional(adapter, ClipsEstimate.clip_estimate)
    return x_0 if clip is None else clip(x_0)


@runtime_checkable
class ProjectsGuidance(Protocol):
    """An adapter that projects or rescales the guidance term (e.g. APG)."""

    def project_guidance(self, estimate: Tensor, guidance: Tensor) -> Tensor:
        """The part of `guidance` to add to the conditional `estimate`, all [b, c, h, w]."""
        ...


def projected_guidance(adapter: Adapter, estimate: Tensor, guidance: Tensor) -> Tensor:
    """The guidance term to add to the conditional estimate, all [b, c, h, w]."""
    project = _optional(adapter, ProjectsGuidance.project_guidance)
    return guidance if project is None else project(estimate, guidance)


@runtime_checkable
class Beginning(Protocol):
    """An adapter whose initial state has more or less noise than the path has at that time."""

    def begin(self, eps: Tensor, t: float) -> Tensor:
        """The initial state at time t from the noise draw eps; both [b, c, h, w]."""
        ...


def begun(adapter: Adapter, eps: Tensor, t: float) -> Tensor:
    """The initial state [b, c, h, w] at time t of pictures without an input image."""
    begin = _optional(adapter, Beginning.begin)
    return t * eps if begin is None else begin(eps, t)


@runtime_checkable
class UsesReferences(Protocol):
    """An adapter whose network looks at drawings of what it is asked for."""

    @property
    def library_digest(self) -> str | None:
        """SHA-256 of the library that they are looked up in, if there is one."""
        ...

    def find_references(self, request: Request) -> tuple[Picture, tuple[str, ...]]:
        """The drawings [r, h, w, c] for a request, and their names."""
        ...


@runtime_checkable
class CountsTokens(Protocol):
    """An adapter that can say how long a prompt is for it."""

    def count_tokens(self, prompt: str) -> int:
        """The tokens of a prompt that the network is shown."""
        ...


@runtime_checkable
class Collates(Protocol):
    """An adapter whose contexts may have different shapes, such as prompts of different length."""

    def collate(self, contexts: Sequence[Context]) -> Context:
        """One context for the rows of several, for instance padded and masked."""
        ...


def collated(adapter: Adapter, contexts: Sequence[Context]) -> Context:
    """One context for the rows of several, in their order."""
    if (collate := _optional(adapter, Collates.collate)) is not None:
        return collate(contexts)
    return {key: torch.cat([each[key] for each in contexts]) for key in contexts[0]}


@runtime_checkable
class Remembers(Protocol):
    """An adapter that reuses parts of its last answer, such as a cache of its trunk."""

    def denoise_remembering(
        self, x_t: Tensor, t: Tensor, context: Context, memory: Context | None
    ) -> tuple[Tensor, Context]:
        """`Adapter.denoise`, and what to hand back with the next question about these rows.

        Args:
            x_t: states [b, c, h, w].
            t: their times [b].
            context: of the rows.
            memory: tensors, rows first, as they were returned before for these rows, perhaps when
                their states were larger or smaller; None at first.
        """
        ...


@runtime_checkable
class Splits(Protocol):
    """An adapter of a network in two parts, a slow and a fast one.

    What the slow part says changes little from one time to the next. The fast part turns that and
    the newest state into an estimate. It is no `Remembers` too: of a row one thing is kept.
    """

    @property
    def splits(self) -> bool:
        """Whether this network has two parts; others of its family may not."""
        ...

    def denoise_split(
        self, x_t: Tensor, t: Tensor, context: Context, slow: Context | None
    ) -> tuple[Tensor, Context]:
        """`Adapter.denoise`, and what the slow part says.

        Args:
            x_t: states [b, c, h, w].
            t: their times [b].
            context: of the rows.
            slow: tensors, rows first, as they were returned for these rows before, at other states
                of this size and other times; None to ask the slow part too.

        Returns:
            Estimates [b, c, h, w], and what the slow part said, in tensors, rows first. With what
            it said of the same states and times, estimates are the same up to rounding.
        """
        ...


Part = Literal["all", "all, kept", "fast"]
"""What is asked of a network: all of it, all and what its slow part says, its fast part."""


def denoised(
    adapter: Adapter,
    x_t: Tensor,
    t: Tensor,
    context: Context,
    memory: Context | None,
    part: Part = "all",
) -> tuple[Tensor, Context | None]:
    """Estimates of x_0 [b, c, h, w], and what is remembered of them.

    Args:
        adapter: the model; one that `splits` if a part is asked, or kept.
        x_t: states [b, c, h, w].
        t: their times [b].
        context: of the rows.
        memory: what was remembered of the rows; the fast part needs it.
        part: what is asked.

    Raises:
        InputError: the fast part is asked, and there is no memory.
    """
    if part != "all":
        if part == "fast" and memory is None:
            raise InputError(
                "The fast part of a network is asked, and what its slow part said is not known. "
                "Ask the whole network at full size first."
            )
        both = cast("Splits", adapter)
        return both.denoise_split(x_t, t, context, memory if part == "fast" else None)
    if (remembering := _optional(adapter, Remembers.denoise_remembering)) is not None:
        return remembering(x_t, t, context, memory)
    return adapter.denoise(x_t, t, context), None


def collates(adapter: Adapter) -> bool:
    """Whether an adapter is a `Collates`."""
    if isinstance(adapter, Wrapped):
        return collates(adapter.inner)
    return _optional(adapter, Collates.collate) is not None


def remembers(adapter: Adapter) -> bool:
    """Whether an adapter is a `Remembers`."""
    return _optional(adapter, Remembers.denoise_remembering) is not None


def splits(adapter: Adapter) -> bool:
    """Whether an adapter is a `Splits` of a network in two parts."""
    return bool(getattr(adapter, "splits", False)) and not remembers(adapter)


def _optional(adapter: Adapter, method: Callable[..., R]) -> Callable[..., R] | None:
    """An adapter's method that it need not have; much faster than `isinstance` with a protocol."""
    return getattr(adapter, method.__name__, None)


class Wrapped:
    """An adapter that delegates to another one; subclasses override what they change.

    One that overrides `denoise` and not `denoise_split` has a network in one part: the other method
    would leave out what it changes.
    """

    def __init__(self, inner: Adapter) -> None:
        self.inner = inner

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def channels(self) -> int:
        return self.inner.channels

    @property
    def template(self) -> Tensor:
        return self.inner.template

    @property
    def batch(self) -> int | None:
        return self.inner.batch

    @property
    def description(self) -> ModelDescription:
        return cast("Described", self.inner).description

    @property
    def card(self) -> Card:
        return cast("Carded", self.inner).card

    def default_plan(self, size: tuple[int, int]) -> Plan:
        return cast("Carded", self.inner).default_plan(size)

    def own_plan(self, size: tuple[int, int]) -> Plan:
        return cast("Carded", self.inner).own_plan(size)

    def pool_factors(self, size: tuple[int, int]) -> tuple[int, ...]:
        return self.inner.pool_factors(size)

    def check(self, request: Request) -> None:
        self.inner.check(request)

    def encode(self, requests: Sequence[Request]) -> tuple[Context, Context]:
        return self.inner.encode(requests)

    def denoise(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        return self.inner.denoise(x_t, t, context)

    @property
    def splits(self) -> bool:
        classes = type(self).__mro__
        whole, parts = (
            next(place for place, each in enumerate(classes) if name in vars(each))
            for name in ("denoise", "denoise_split")
        )
        return parts <= whole and splits(self.inner)

    def denoise_split(
        self, x_t: Tensor, t: Tensor, context: Context, slow: Context | None
    ) -> tuple[Tensor, Context]:
        return cast("Splits", self.inner).denoise_split(x_t, t, context, slow)

    def collate(self, contexts: Sequence[Context]) -> Context:
        return collated(self.inner, contexts)

    def clip_estimate(self, x_0: Tensor) -> Tensor:
        return clipped_estimate(self.inner, x_0)

    def begin(self, eps: Tensor, t: float) -> Tensor:
        return begun(self.inner, eps, t)

    def project_guidance(self, estimate: Tensor, guidance: Tensor) -> Tensor:
        return projected_guidance(self.inner, estimate, guidance)

    def to_state(self, picture: Picture) -> Tensor:
        return self.inner.to_state(picture)

    def to_picture(self, x_0: Tensor) -> Picture:
        return self.inner.to_picture(x_0)


def unwrapped(adapter: Adapter) -> Adapter:
    """The adapter within all wrappers, to ask for what only some can do."""
    while isinstance(adapter, Wrapped):
        adapter = adapter.inner
    return adapter
