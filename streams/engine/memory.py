"""What a worker's process does with memory.

Rules: memory that only a restore needed is given back; the cyclic collector looks at the restored state
once, not again and again (a full collection over 100,000 decoded accounts is a pause of a tenth of a second); one
allocator, with few arenas. This module imports nothing large: `set_up_memory` does most when it comes before Arrow.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

# A batch of 8,192 records makes as many messages; the default (700) would run the collector a dozen times for each.
YOUNG_OBJECTS_MAX = 50_000
# glibc keeps an arena for each thread that allocates, up to 8 per core, and gives hardly anything of them back: with
# eight committing threads that was 120 MiB, Arrow's own pool another 40.
ARENAS_MAX = 2
# Left alone, glibc raises this to 32 MiB with use, and columns of ids that are merged and freed leave holes.
MMAP_BYTES_MIN = 256 * 1024
_M_ARENA_MAX = -8
_M_MMAP_THRESHOLD = -3


class _WithoutPandas(MetaPathFinder):
    """Arrow imports pandas where it is installed, just to ask whether a value is one of its: 33 MiB and 0.1 s."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Says that there is no pandas."""
        if fullname == "pandas":
            raise ModuleNotFoundError("a worker does without pandas", name="pandas")
        return None


def set_up_memory() -> None:
    """Few arenas, Arrow on the same allocator, no pandas, a calm collector. At the very start of a worker's process.

    After Arrow has been imported, it still does what can be done then.
    """
    gc.set_threshold(YOUNG_OBJECTS_MAX, 20, 50)
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_ARENA_MAX, ARENAS_MAX)
            mallopt(_M_MMAP_THRESHOLD, MMAP_BYTES_MIN)
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    if "pandas" not in sys.modules and not any(isinstance(finder, _WithoutPandas) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WithoutPandas())


def give_memory_back() -> None:
    """Hand freed memory back to the system, where the C library can: a restore's buffers are as large as its state.

    What is left is set apart from the collector until the next call.
    """
    gc.unfreeze()
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
    gc.freeze()
