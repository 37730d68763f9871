"""The file of a store, before SQLite sees it."""

from __future__ import annotations

import os
from pathlib import Path

from tallystone.errors import StoreError


def prepare_file(path: Path, *, create: bool) -> None:
    """See that a store's file is there; make it, empty and for this user alone, with `create`. Raises `StoreError`."""
    try:
        if path.is_dir():
            raise StoreError("the store's path is a folder", hint="name a file in it", code="not_a_database")
        if create:
            # Before SQLite sees it, so that it never exists with a wider mode; SQLite gives its WAL the
            # same.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600))
        elif not path.exists():
            raise StoreError(
                "there is no store here", hint="create it first: tallystone init", code="missing"
            )
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        raise StoreError(
            "the store cannot be opened", hint="check the path and its permissions", code="no_access"
        ) from error
