"""Which store lies at a location: a file, or a database behind a `postgresql://` URL."""

from __future__ import annotations

import os
from pathlib import Path

from tallystone.errors import StoreError
from tallystone.store.protocol import Sequencer, Store
from tallystone.store.sqlite import SqliteStore

SCHEMES = ("postgresql://", "postgres://")


def open_store(location: str | os.PathLike[str], sequencer: Sequencer, create: bool = False) -> Store:
    """The store at `location`: the path of an SQLite file, or a `postgresql://` URL. Made there if `create`.

    Raises `StoreError`; `not_installed` if the extra `postgresql` is missing.
    """
    if isinstance(location, str) and location.startswith(SCHEMES):
        try:
            from tallystone.store.postgresql import PostgresqlStore
        except ImportError:
            raise StoreError(
                "PostgreSQL needs another package",
                hint="pip install 'tallystone[postgresql]'",
                code="not_installed",
            ) from None
        return PostgresqlStore(location, sequencer, create)
    return SqliteStore(Path(location), sequencer, create)
