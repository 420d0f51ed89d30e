"""Memory that a restore needed and nobody needs any more."""

from __future__ import annotations

import ctypes
import gc
import sys


def give_memory_back() -> None:
    """Hand freed memory back to the system, where the C library can: a restore's buffers are as large as its state."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
