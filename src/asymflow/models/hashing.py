"""Identifies a network by its weights: once, and in whatever precision they are loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import RLock
from types import MappingProxyType
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from asymflow.core.errors import InputError
from asymflow.core.fingerprint import Fingerprint, Rounded

SAMPLED = 512
"""About as many weights are in the sample of a fingerprint; at least one of every tensor."""
SPACED = 1024
"""Values of a tensor that stand for all, in `sampled_identity`."""

_NONE: Mapping[str, Tensor] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Identity:
    """What weights are recognised by.

    Attributes:
        weights: SHA-256 of their names, shapes and values, rounded to bfloat16.
        fingerprint: for float16, whose values round to others.
    """

    weights: str
    fingerprint: Fingerprint


def identity_of(network: nn.Module, extra: Mapping[str, Tensor] = _NONE) -> Identity:
    """The identity of a network's weights, and of other tensors that belong to them.

    Takes a pass over all weights the first time, and as soon as they have changed.

    Raises:
        InputError: some are offloaded, on the device "meta".
    """
    with _LOCK:
        known = _known(network, extra)
        if known.identity is None:
            state = known.state()
            float16, rounded = _hashed(b"", state, torch.float16), _rounded(state)
            fingerprint = Fingerprint(float16, rounded, known.sample if rounded else ())
            known.identity = Identity(digest_of(network, b"", extra), fingerprint)
        return known.identity


def digest_of(network: nn.Module, settings: bytes, extra: Mapping[str, Tensor] = _NONE) -> str:
    """SHA-256 of settings and weights, by which adapters are named.

    Weights are rounded to bfloat16, so that a network has the same name in float32 and bfloat16.

    Raises:
        InputError: some are offloaded, on the device "meta".
    """
    with _LOCK:
        known = _known(network, extra)
        if settings not in known.digests:
            known.digests[settings] = _hashed(settings, known.state(), torch.bfloat16)
        return known.digests[settings]


def sampled_identity(
    state: Mapping[str, Tensor], settings: bytes = b"", each: int = SPACED
) -> Identity:
    """The identity of weights by some values of every tensor, evenly spaced.

    Takes milliseconds for weights of many gigabytes, wherever they are. Tuning a network changes
    nearly all of its weights, so it is told from what it was tuned from; a change of a few numbers
    may go unnoticed. It is never equal to `identity_of` the same weights.

    Args:
        state: the tensors, by name.
        settings: what else tells the model from others.
        each: values of a tensor.
    """
    begin = b"sampled %d %s" % (each, settings)
    parts: dict[str, Tensor] = {}
    for name, value in sorted(state.items()):
        begin += f" {name} {tuple(value.shape)}".encode()
        if value.numel():
            part = _spaced(value.detach(), min(each, value.numel()))
            # Operators know few of the types of 8 bits, and float32 holds all of them.
            short = part.is_floating_point() and part.element_size() == 1
            parts[name] = part.float() if short else part
    float16, rounded = _hashed(begin, parts, torch.float16), _rounded(parts)
    fingerprint = Fingerprint(float16, rounded, _sample(parts) if rounded else ())
    return Identity(_hashed(begin, parts, torch.bfloat16), fingerprint)


@dataclass(slots=True, eq=False)
class _Known:
    """What was computed of the weights as they are.

    Attributes:
        tensors: weak references, so that a tensor in the place of another one is noticed.
        versions: counters of changes in place.
        sample: of the values, since a change of `parameter.data` is not counted.
    """

    tensors: Mapping[str, ref[Tensor]]
    versions: tuple[int | None, ...]
    sample: tuple[float, ...]
    identity: Identity | None = None
    digests: dict[bytes, str] = field(default_factory=dict[bytes, str])

    def state(self) -> dict[str, Tensor]:
        found = {name: tensor() for name, tensor in self.tensors.items()}
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    def holds(self, other: _Known) -> bool:
        """Whether it is of the same weights, unchanged."""
        return (
            self.tensors.keys() == other.tensors.keys()
            # There is one reference per tensor; comparing them would compare the tensors.
            and all(self.tensors[name] is other.tensors[name] for name in self.tensors)
            and self.versions == other.versions
            and self.sample == other.sample
        )


_LOCK = RLock()
_CACHE: WeakKeyDictionary[nn.Module, _Known] = WeakKeyDictionary()


def _known(network: nn.Module, extra: Mapping[str, Tensor]) -> _Known:
    state: dict[str, Tensor] = {**network.state_dict(keep_vars=True), **extra}
    for name, value in state.items():
        if value.is_meta:
            raise InputError(
                f"The weights of this model are not in memory ({name!r} is on the device 'meta'), "
                "so it cannot be told which model it is. Accelerate it first, and enable "
                "sequential offloading after that."
            )
    found = _Known(
        {name: ref(value) for name, value in state.items()},
        tuple(_version(value) for value in state.values()),
        _sample(state),
    )
    before = _CACHE.get(network)
    if before is not None and before.holds(found):
        return before
    _CACHE[network] = found
    return found


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version


def _sample(state: Mapping[str, Tensor]) -> tuple[float, ...]:
    """Values of all tensors of numbers, evenly spaced in each and as many of each.

    This is done at every call of a pipeline: tensors are not copied, and devices waited for once.
    """
    numbers = [
        value.detach()
        for _, value in sorted(state.items())
        if value.is_floating_point() and value.numel()
    ]
    count = max(1, SAMPLED // max(1, len(numbers)))
    parts = [_spaced(value, min(count, value.numel())) for value in numbers]
    kinds: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for place, part in enumerate(parts):
        kinds.setdefault((part.device, part.dtype), []).append(place)
    found: dict[int, list[float]] = {}
    for places in kinds.values():
        joined = torch.cat([parts[place] for place in places]).float().tolist()
        for place in places:
            size = len(parts[place])
            found[place], joined = joined[:size], joined[size:]
    return tuple(value for place in range(len(parts)) for value in found[place])


def _spaced(value: Tensor, count: int) -> Tensor:
    """Evenly spaced values [count] of a tensor."""
    stride = value.numel() // count
    if value.is_contiguous():
        return value.as_strided((count,), (stride,), value.storage_offset() + stride // 2)
    places = torch.arange(count) * stride + stride // 2
    return value[torch.unravel_index(places.to(value.device), value.shape)]


def _rounded(state: Mapping[str, Tensor]) -> Rounded | None:
    """What most weights were rounded to, whatever type they have now."""
    numbers = [value.detach() for value in state.values() if value.is_floating_point()]
    total = sum(value.numel() for value in numbers)
    # What bfloat16 holds float16 does as well, but for its range.
    kinds: tuple[tuple[Rounded, torch.dtype], ...] = (
        ("bfloat16", torch.bfloat16),
        ("float16", torch.float16),
    )
    for name, dtype in kinds:
        held = (v.numel() for v in numbers if torch.equal(v.to(dtype).to(v.dtype), v))
        if 2 * sum(held) > total:
            return name
    return None


def _hashed(begin: bytes, state: Mapping[str, Tensor], dtype: torch.dtype) -> str:
    """SHA-256 of names, shapes and values, in that precision where they are numbers."""
    digest: Any = hashlib.sha256(begin)
    for name, value in sorted(state.items()):
        digest.update(f"{name} {tuple(value.shape)}".encode())
        if value.is_floating_point():
            value = value.to(dtype)
        raw = value.detach().cpu().contiguous().view(-1).view(torch.uint8)
        digest.update(raw.numpy().data)
    return digest.hexdigest()
