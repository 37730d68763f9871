"""The embedded library: a vault in the caller's own process."""

from __future__ import annotations

import asyncio
import os
from typing import Any, Self

from tallystone.errors import Unauthenticated
from tallystone.vault import Vault, Workspace
from tallystone.vault.types import Change
from tallystone.vault.watching import POLL_SECONDS, Watch


class OpenVault(Vault):
    """A vault that owns its workspace: close it, or use it in a `with` block."""

    def __init__(self, workspace: Workspace, token: str) -> None:
        self._workspace = workspace
        try:
            caller = workspace.caller(token)
        except Unauthenticated:
            workspace.denied({"code": Unauthenticated.code})
            raise
        super().__init__(caller)
        workspace.purge_if_due()

    def close(self) -> None:
        """Finish what is being written, and let go of the files."""
        self._workspace.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open(path: str | os.PathLike[str], *, token: str, store: str | None = None) -> OpenVault:
    """The vault that `token` opens in the data directory `path`. `store`: the URL of its database, if another
    than the directory names: with a password, or because it moved.

    Raises `StoreError` when there is no workspace, `Unauthenticated` when the token opens nothing in it.
    """
    workspace = Workspace.open(path, store)
    try:
        return OpenVault(workspace, token)
    except BaseException:
        workspace.close()
        raise


class AsyncVault:
    """The same methods as `Vault`, awaitable; each runs in a thread, one after the other."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._turn = asyncio.Lock()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._vault, name)
        if not callable(method):
            return method

        async def call(*args: Any, **kwargs: Any) -> Any:
            async with self._turn:
                result = await asyncio.to_thread(method, *args, **kwargs)
            if isinstance(result, Watch):
                return AsyncWatch(result)
            return AsyncVault(result) if isinstance(result, Vault) else result

        call.__name__, call.__doc__ = name, method.__doc__
        return call

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncWatch:
    """The changes of a caller's blocks, as they happen: `async for change in await vault.watch()`."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change:
        while True:
            change = await asyncio.to_thread(self._watch.poll)
            if change is not None:
                return change
            await asyncio.sleep(POLL_SECONDS)

    @property
    def place(self) -> str:
        """Where a later watch goes on (`after`)."""
        return self._watch.place


async def aopen(path: str | os.PathLike[str], *, token: str, store: str | None = None) -> AsyncVault:
    """The asynchronous form of `open`."""
    return AsyncVault(await asyncio.to_thread(open, path, token=token, store=store))
