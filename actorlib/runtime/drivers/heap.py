"""What the C library does with memory that is free: a worker keeps some of it while it is busy.

By default glibc gives a freed array's pages back to the kernel at once, and the next array of that size faults them in
again: for tasks that make arrays of a megabyte this is more than half of their time. So workers let it keep a bounded
amount, and give that back when they have had nothing to do for a moment. So does a node, which receives objects in
chunks of that size.
"""

from __future__ import annotations

import ctypes

KEPT_BYTES_MAX = 64 << 20
MAPPED_ABOVE_BYTES = 32 << 20
"""Larger ones are mapped and unmapped each by itself (glibc takes no larger threshold)."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from malloc.h
_LIBRARY = ctypes.CDLL(None)


def keep_freed_memory() -> None:
    """Let the C library keep up to KEPT_BYTES_MAX of free memory.

    Done once, by the node and by the zygote; workers inherit it.
    """
    mallopt = getattr(_LIBRARY, "mallopt", None)
    if mallopt is not None:  # it is glibc
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES_MAX)
        mallopt(M_MMAP_THRESHOLD, MAPPED_ABOVE_BYTES)


def give_back() -> None:
    """Return what is free to the kernel."""
    trim = getattr(_LIBRARY, "malloc_trim", None)
    if trim is not None:
        trim(0)
