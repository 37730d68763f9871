"""The threads in which requests are worked on: so many at once, the others wait in line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

import anyio

T = TypeVar("T")


class Threads:
    """A hop to one of them and back takes a third of the processor time of anyio's."""

    def __init__(self, most: int) -> None:
        self._pool = ThreadPoolExecutor(most, "tallystone-request")

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread, in this context. What has begun ends: nobody is told of half an operation."""
        with anyio.CancelScope(shield=True):
            done = await asyncio.get_running_loop().run_in_executor(self._pool, copy_context().run, work)
        return done

    def close(self) -> None:
        """Take no more work; what has begun ends by itself."""
        self._pool.shutdown(wait=False)
