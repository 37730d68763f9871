"""How much the C library's allocator keeps of what the server has given back to it.

glibc gives each thread a heap of its own, up to eight for each processor, and learns from large blocks to keep more and
more of what is freed. A server's threads take turns in holding the interpreter's lock, so one heap serves them all; and
what a long answer took should go back to the system. Without this, a process that served writes for ten minutes had as
much free memory in its heaps as Python's objects took. Set are the thresholds that `MALLOC_ARENA_MAX` and the like set,
unless the environment sets any of them itself (mallopt(3)).
"""

from __future__ import annotations

import ctypes
import gc
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
HEAPS = 1
LARGE = 256 * 1024
"""Bytes of a block that is mapped by itself, and goes back as soon as it is freed."""
IDLE = 1024 * 1024
"""Free bytes at the end of the heap beyond which they go back."""
GARBAGE = 10_000
"""New objects after which Python looks for garbage among them that refers to itself. Its own number is 700, which some
requests reach alone, and of the server's garbage hardly any is such."""
LOOK = 15
"""Seconds between two looks at all that there is, see `look`."""


def settle() -> bool:
    """Set them for this process and those that it forks, before it starts threads. Whether it could: it is glibc's."""
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")) for name in os.environ):
        return False
    try:
        if not (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc"):
            return False
    except (AttributeError, ValueError, OSError):  # another C library
        return False
    mallopt = ctypes.CDLL(None).mallopt
    wanted = ((_ARENA_MAX, HEAPS), (_MMAP_THRESHOLD, LARGE), (_TRIM_THRESHOLD, IDLE))
    return all(mallopt(name, value) == 1 for name, value in wanted)


def look_less() -> None:
    """Let Python look for garbage less often from now on, and never at what is loaded by now."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE, *gc.get_threshold()[1:])


def look() -> None:
    """Look for garbage among all that came since `look_less`: milliseconds. Python does so when a quarter more
    is there than the last time, which takes a server minutes, and all that while its memory grows."""
    gc.collect()
