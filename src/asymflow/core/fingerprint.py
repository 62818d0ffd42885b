"""Tells the same weights in another precision from other weights.

Rounding to float16 or bfloat16 is a function, so weights in float32 are recognised in either by a
hash of what they round to. Only float16 and bfloat16 weights of the same float32 ones have no hash
in common: neither is the other one rounded. They are compared number by number on a sample, where
each must be within half a unit in the last place of both formats.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Literal, get_args

Rounded = Literal["float16", "bfloat16"]
ROUNDED: tuple[Rounded, ...] = get_args(Rounded)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What weights are recognised by, beside the hash of what they round to in bfloat16.

    Attributes:
        float16: SHA-256 of the weights rounded to float16.
        rounded: what most weights were rounded to; None for those with the precision of float32.
        sample: where they were rounded some of the weights, of every tensor; numbers of float32.
    """

    float16: str
    rounded: Rounded | None = None
    sample: tuple[float, ...] = ()

    def matches(self, other: Fingerprint) -> bool:
        """Whether both are of the same weights, one or both of them rounded."""
        if self.float16 == other.float16:
            return True
        if {self.rounded, other.rounded} != {"float16", "bfloat16"}:
            return False
        half, brain = (self, other) if self.rounded == "float16" else (other, self)
        return 0 < len(half.sample) == len(brain.sample) and all(
            a == b or _cross(a, b) for a, b in zip(half.sample, brain.sample, strict=True)
        )


def _cross(half: float, brain: float) -> bool:
    """Whether some number rounds to the one in float16 and to the other in bfloat16."""
    if not (math.isfinite(half) and math.isfinite(brain)):
        return False
    if not (_is_float16(half) and _is_bfloat16(brain)):
        return False
    # Below 2^-14 numbers of float16 are evenly spaced; those of bfloat16 as far as float32's.
    slack = math.ldexp(0.5, max(_exponent(half), -14) - 10)
    slack += math.ldexp(0.5, _exponent(brain) - 7)
    return abs(half - brain) <= slack


def _exponent(value: float) -> int:
    """floor(log2(|value|)); that of the smallest float32 for 0."""
    return math.frexp(value)[1] - 1 if value else -149


def _is_float16(value: float) -> bool:
    try:
        return struct.unpack("<e", struct.pack("<e", value))[0] == value
    except OverflowError:
        return False


def _is_bfloat16(value: float) -> bool:
    return struct.pack("<f", value)[:2] == b"\0\0"
