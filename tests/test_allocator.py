"""The server's threads share one heap, unless whoever runs it has chosen otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tallystone.server import allocator

PROGRAM = """
import ctypes, runpy, sys
from threading import Barrier, Thread
print(runpy.run_path(sys.argv[1])['settle'](), flush=True)
together = Barrier(6)
def work():
    together.wait()
    blocks = [bytes(3000 + number) for number in range(2000)]
    together.wait()
threads = [Thread(target=work) for _ in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc = ctypes.CDLL(None)
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


def heaps(**environment: str) -> tuple[bool, int]:
    """Whether the allocator was told, and how many heaps it had after six threads were at work."""
    alone = {
        name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "LD_PRELOAD"))
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, allocator.__file__],
        env={**alone, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.startswith("True"), done.stdout.count("<heap nr=")


@pytest.mark.skipif(
    "CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="another C library, whose allocator is left alone"
)
def test_the_threads_of_a_server_share_a_heap_unless_the_environment_says_how_many_there_are() -> None:
    assert heaps() == (True, 1)
    told, count = heaps(MALLOC_ARENA_MAX="4")
    assert not told and count > 1
