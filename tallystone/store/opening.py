"""Where a data directory's store lies, and opening it: a file in the directory, or a database behind a URL.

    DIR/tallystone.db     the store, or
    DIR/store.url         the `postgresql://` URL of the database that is the store, without a password; a file that is
                          there counts, so that a copy can write this down before it is taken into use

The password is for PGPASSWORD, a password file, or a URL that is given when the store is opened (TALLYSTONE_STORE): a
copy of the directory must not open the database.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from tallystone.errors import Invalid, StoreError
from tallystone.store.moving import Source, Target
from tallystone.store.protocol import Sequencer, Store
from tallystone.store.sqlite import SqliteStore
from tallystone.store.sqlite_moving import HALF, SqliteSource, SqliteTarget
from tallystone.store.tables import WORKSPACE, WS

DATABASE = "tallystone.db"
URL_FILE = "store.url"
SCHEMES = ("postgresql://", "postgres://")
_SECRETS = ("password", "sslpassword")


def check_url(url: object) -> str:
    """`url`, if it is one of a PostgreSQL database. Raises `Invalid`, which does not repeat it."""
    if isinstance(url, str) and url.startswith(SCHEMES) and url.isprintable() and " " not in url:
        with suppress(ValueError):
            if urlsplit(url).netloc.count("@") <= 1:
                return url
    raise Invalid(
        "the store should be a postgresql:// URL",
        hint="postgresql://USER@HOST/DATABASE; special characters in it as %40",
        code="bad_store",
    )


def without_password(url: str) -> str:
    """The URL, fit to be written down."""
    scheme, place, path, query, _ = urlsplit(check_url(url))
    user, at, host = place.rpartition("@")
    kept = [(name, value) for name, value in parse_qsl(query, keep_blank_values=True) if name not in _SECRETS]
    rest = f"?{urlencode(kept, quote_via=quote, safe='/,')}" if kept else ""
    return f"{scheme}://{user.partition(':')[0]}{at}{host}{path}{rest}"


def has_password(url: str) -> bool:
    """Whether the URL holds a secret."""
    _, place, _, query, _ = urlsplit(check_url(url))
    return bool(place.rpartition("@")[0].partition(":")[2]) or any(
        name in _SECRETS for name, _ in parse_qsl(query)
    )


def holds_store(folder: Path) -> bool:
    """Whether `folder` is a data directory, or will be when a copy to it is finished."""
    return any((folder / name).is_file() for name in (DATABASE, URL_FILE, f"{DATABASE}{HALF}"))


def locate(folder: Path, url: str | None = None) -> Path | str:
    """Where the store of the data directory `folder` lies: a file, or a URL, which `url` is given for.

    Raises `StoreError`: `no_workspace` if there is no store, `two_stores` for a `url` beside a file.
    """
    if (folder / DATABASE).is_file():
        if url is not None:
            raise StoreError(
                f"{folder} has a store of its own, and another one is named",
                hint="unset TALLYSTONE_STORE, or leave --store out",
                code="two_stores",
            )
        return folder / DATABASE
    try:
        written = (folder / URL_FILE).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        if (folder / f"{DATABASE}{HALF}").is_file():
            raise StoreError(
                f"what is in {folder} is an unfinished copy",
                hint="finish it: run the same tallystone copy again",
                code="unfinished_copy",
            ) from None
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise StoreError(
                f"there is no workspace in {folder}",
                hint="make one with: tallystone init DIR",
                code="no_workspace",
            ) from None
        raise StoreError(f"cannot read {folder / URL_FILE}", hint="check its permissions") from None
    return check_url(url if url is not None else written)


def note(folder: Path, url: str) -> None:
    """Write down, durably, that the store of `folder` lies at `url`; its password is left out. Raises `OSError`."""
    new = folder / f".{URL_FILE}.new"
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(without_password(url) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, folder / URL_FILE)
    handle = os.open(folder, os.O_RDONLY)
    with suppress(OSError):
        os.fsync(handle)
    os.close(handle)


def open_store(location: str | os.PathLike[str], sequencer: Sequencer, create: bool = False) -> Store:
    """The store at `location`: the path of an SQLite file, or a `postgresql://` URL. Made there if `create`.

    Raises `StoreError`; `not_installed` if the extra `postgresql` is missing.
    """
    if not (isinstance(location, str) and location.startswith(SCHEMES)):
        return SqliteStore(Path(location), sequencer, create)
    with _extra():
        from tallystone.store.postgresql import PostgresqlStore
    return PostgresqlStore(check_url(location), sequencer, create)


def open_source(location: Path | str) -> Source:
    """The store to be copied: the file in a data directory, or the database at a URL. Raises `StoreError`."""
    if isinstance(location, str):
        with _extra():
            from tallystone.store.postgresql_moving import PostgresqlSource
        return PostgresqlSource(check_url(location))
    if not (location / DATABASE).is_file():
        elsewhere = (location / URL_FILE).is_file()
        raise StoreError(
            f"there is no {DATABASE} in {location}",
            hint=f"its store is the database that {URL_FILE} names" if elsewhere else "name a data directory",
            code="no_workspace",
        )
    return SqliteSource(location / DATABASE)


def open_target(location: Path | str) -> Target:
    """Where a copy goes: to a file in the directory, or to the database at a URL. Raises `StoreError`."""
    if isinstance(location, str):
        with _extra():
            from tallystone.store.postgresql_moving import PostgresqlTarget
        return PostgresqlTarget(check_url(location))
    return SqliteTarget(location, DATABASE)


@contextmanager
def _extra() -> Iterator[None]:
    try:
        yield
    except ImportError:
        raise StoreError(
            "PostgreSQL needs another package",
            hint="pip install 'tallystone[postgresql]'",
            code="not_installed",
        ) from None


def make_store(folder: Path, url: str | None, sequencer: Sequencer) -> Store:
    """A new store for the data directory `folder`: a file in it, or in the empty database at `url`. Raises `StoreError`
    (`occupied` for a database that holds a workspace), `Invalid`."""
    if url is None:
        return open_store(folder / DATABASE, sequencer, create=True)
    store = open_store(check_url(url), sequencer, create=True)
    try:
        with store.snapshot() as snapshot:
            if snapshot.get(WORKSPACE, (WS,)) is not None:
                raise StoreError(
                    "the database holds a workspace already", hint="name an empty one", code="occupied"
                )
        note(folder, url)
    except BaseException:
        store.close()
        raise
    return store
