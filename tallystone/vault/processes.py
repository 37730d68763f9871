"""Whether a process that holds something is still there, as far as this machine can tell.

A process is named by its machine's boot, its process namespace, its number and when it began: a number that is given
out again, or that counts in another container, is another process. Where the system does not say this (it is read from
`/proc`), nothing is known to be gone, and a lease's time decides alone.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

_BEGAN = 19  # the field of /proc/<pid>/stat that says when, counted after the name in brackets


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


@cache
def _place() -> str:
    """The machine's boot and this process's namespace; empty where they cannot be told."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
    boot = _read("/proc/sys/kernel/random/boot_id")
    return f"{boot} {namespace}" if boot else ""


def _began(pid: int) -> str:
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[_BEGAN] if len(fields) > _BEGAN and fields[0] not in "ZX" else ""


def this_process() -> str:
    """The name of this process."""
    pid = os.getpid()  # not cached: a forked child is another process
    return f"{_place()} {pid} {_began(pid)}"


def is_gone(name: str) -> bool:
    """Whether the process of this name has certainly ended."""
    place, _, rest = name.rpartition(" ")
    place, _, pid = place.rpartition(" ")
    if not place or place != _place() or not rest or not pid.isdecimal():
        return False
    return _began(int(pid)) != rest
