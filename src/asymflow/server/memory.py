"""Returns unused memory to the system."""

from __future__ import annotations

import ctypes
import sys


def give_back() -> None:
    """Return memory cached by the C library to the system, if that is glibc.

    It caches some for every thread: hundreds of megabytes after a few large pictures.
    """
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
