"""Memory that is freed stays with the process: the next tensor of its size needs no new pages.

glibc maps every large block anew and gives it back when it is freed, and the kernel clears each
page before it is touched again. Three 1×1 convolutions with ReLU6 on 32×96×112×112 spend three
quarters of their time on that.
"""

from __future__ import annotations

import ctypes
import os
import sys

OPT_OUT = "SHRINKC_HEAP"  # "system" leaves the allocator alone
# Parameters of mallopt(3), and the variables by which glibc sets them in processes that start.
_SETTINGS = (
    (-4, "MALLOC_MMAP_MAX_", 0),  # no block is mapped on its own
    (-1, "MALLOC_TRIM_THRESHOLD_", 2**31 - 1),  # bytes that are free before any are given back
    (-2, "MALLOC_TOP_PAD_", 64 << 20),  # bytes that are taken beyond what is asked for
)


def keep_freed_memory() -> bool:
    """In this process and those that it starts, where the C library is glibc. Returns whether it
    is so now; what the user has set himself stays."""
    asked = os.environ.get(OPT_OUT) == "system" or any(n in os.environ for _, n, _ in _SETTINGS)
    if asked or not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    done = [library.mallopt(parameter, value) == 1 for parameter, _, value in _SETTINGS]
    os.environ.update({name: str(value) for _, name, value in _SETTINGS})
    return all(done)
