"""What a result was measured on, and what processes cost: read from /proc, so on Linux alone."""

from __future__ import annotations

import os
import platform
import sqlite3
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

_TICK = os.sysconf("SC_CLK_TCK")


def described(folder: Path | None = None) -> dict[str, Any]:
    """The machine, for a result. `folder` is where the data lies."""
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "file_system": file_system(folder or Path.cwd()),
        **{name: _version(name) for name in ("cryptography", "starlette", "uvicorn", "msgspec")},
        "load": round(os.getloadavg()[0], 1),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def file_system(folder: Path) -> str:
    """The type of the file system that holds a folder: of the longest mount point that it lies below."""
    found, kind = "", "unknown"
    place = f"{folder.resolve()}/"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, this, *_ = line.split()
        if place.startswith(point.rstrip("/") + "/") and len(point) >= len(found):
            found, kind = point, this
    return kind


def children(pid: int) -> list[int]:
    """The processes that this one has started and that are there."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return found


def tree(pid: int) -> list[int]:
    """A process and all that descend from it; those that are gone are left out."""
    found = [pid]
    for one in found:
        found += children(one)
    return [one for one in found if Path(f"/proc/{one}").exists()]


def cpu(*pids: int) -> float:
    """Seconds of processor time, user and system, that these processes and their descendants have taken."""
    return sum(_cpu(one) for one in {one for pid in pids for one in tree(pid)})


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (
        sum(int(fields[place]) for place in (11, 12, 13, 14)) / _TICK
    )  # its own, and of children that have ended


def whole() -> tuple[float, float]:
    """Seconds that the cores have worked, and that they have done nothing, since the machine began."""
    fields = [int(one) for one in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / _TICK, idle / _TICK


def memory(*pids: int) -> dict[str, float]:
    """MB (2²⁰ bytes) of these processes and their descendants: resident; with each page that several map divided among
    them (so that all together is what the machine has given); and of pages that nobody else maps."""
    rss = pss = own = 0
    processes = {one for pid in pids for one in tree(pid)}
    for pid in processes:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        sizes = {line.partition(":")[0]: line.split()[1] for line in lines if line.endswith("kB")}
        rss += int(sizes.get("Rss", 0))
        pss += int(sizes.get("Pss", 0))
        own += int(sizes.get("Private_Clean", 0)) + int(sizes.get("Private_Dirty", 0))
    found = {"rss_mb": rss, "pss_mb": pss, "own_mb": own}
    return {**{name: round(size / 1024, 1) for name, size in found.items()}, "processes": len(processes)}


def age(pid: int) -> float:
    """Seconds since this process was started; 0 if it is gone."""
    try:
        began = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        return float(Path("/proc/uptime").read_text().split()[0]) - began / _TICK
    except OSError:
        return 0.0
