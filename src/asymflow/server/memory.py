"""Memory that nobody uses any more."""

from __future__ import annotations

import ctypes
import sys


def give_back() -> None:
    """Give the system the memory that the C library keeps for later, where that is glibc.

    It keeps some for every thread: hundreds of megabytes after a few large pictures.
    """
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
