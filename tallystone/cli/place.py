"""Where a command works and as whom: `--data DIR` or `--url URL`, and the token.

A token never comes from the command line: other users of the machine can read that.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from tallystone.cli.terminal import warn
from tallystone.errors import TallystoneError
from tallystone.vault import Vault, Workspace
from tallystone.vault.places import check_url, has_password, holds_store
from tallystone.vault.types import Backups, Credentials

if TYPE_CHECKING:
    from tallystone.cli.remote import RemoteVault
    from tallystone.cli.remote_log import RemoteLog
    from tallystone.vault.publishing import PublicLog

WHERE = Group("Where", sort_key=50)
SHAPE = Group("Output", sort_key=60)

_MOST_DAYS = 36500

AsJson = Annotated[bool, Parameter(name="--json", negative=(), group=SHAPE, show_default=False)]
Url = Annotated[str | None, Parameter(name="--url", metavar="URL", group=WHERE)]
DataDir = Annotated[Path | None, Parameter(name="--data", metavar="DIR", group=WHERE)]
StoreUrl = Annotated[str | None, Parameter(name="--store", metavar="URL", group=WHERE)]
TokenFile = Annotated[
    Path | None, Parameter(name="--token-file", metavar="FILE", group=WHERE, allow_leading_hyphen=True)
]


class Usage(TallystoneError):
    """The command was called the wrong way: exit status 2."""

    code = "usage"
    status = 400


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Keyless:
    """Options of commands that need a data directory and no token."""

    data: DataDir = None
    """The data directory. Also: TALLYSTONE_DATA."""
    as_json: AsJson = False
    """Print JSON."""

    def directory(self) -> Path:
        """The data directory. `Usage` when none is named."""
        named = self.data or _from_environment("TALLYSTONE_DATA")
        if named is None:
            raise Usage("no data directory named", hint="give --data DIR or set TALLYSTONE_DATA")
        return Path(named)

    @contextmanager
    def workspace(self) -> Iterator[Workspace]:
        """The workspace in the data directory, closed at the end."""
        backups = Backups(_days("TALLYSTONE_BACKUP_DAYS"), _days("TALLYSTONE_KEY_BACKUP_DAYS") or 0)
        workspace = Workspace.open(self.directory(), store_url())
        workspace.backups = backups
        try:
            yield workspace
        finally:
            workspace.close()


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Place:
    """Options of commands that act for somebody."""

    data: DataDir = None
    """The data directory. Also: TALLYSTONE_DATA."""
    url: Url = None
    """A running server instead of a directory. Also: TALLYSTONE_URL."""
    token_file: TokenFile = None
    """File that holds the token; - is standard input. Also: the token itself in TALLYSTONE_TOKEN."""
    as_json: AsJson = False
    """Print JSON."""

    @contextmanager
    def vault(self) -> Iterator[Vault | RemoteVault]:
        """The caller's vault, wherever it is."""
        data, url = _one(self.data, self.url)
        if url is not None:
            from tallystone.cli.remote import RemoteVault

            yield RemoteVault(url, read_token(self.token_file))
            return
        with self._opened(data) as vault:
            yield vault

    @contextmanager
    def _opened(self, data: Path | None) -> Iterator[Vault]:
        token = read_token(self.token_file)
        with Keyless(data=data).workspace() as workspace:
            vault = workspace.vault(token)
            workspace.purge_if_due()
            yield vault

    @contextmanager
    def log(self) -> Iterator[PublicLog | RemoteLog]:
        """The audit log, for which a data directory needs no token, nor does a server whose log is public."""
        data, url = _one(self.data, self.url)
        if url is not None:
            from tallystone.cli.remote_log import RemoteLog

            yield RemoteLog(url, offered_token(self.token_file))
            return
        with Keyless(data=data).workspace() as workspace:
            yield workspace.log

    def named(self) -> tuple[Path | None, str | None]:
        """The data directory or URL that was named; for commands that can do without (`Usage` for both)."""
        return _named(self.data, self.url)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Anywhere:
    """Options of commands that need a place and no token."""

    data: DataDir = None
    """The data directory. Also: TALLYSTONE_DATA."""
    url: Url = None
    """A running server instead of a directory. Also: TALLYSTONE_URL."""
    as_json: AsJson = False
    """Print JSON."""

    def named(self) -> tuple[Path | None, str | None]:
        """The data directory or the URL, one of the two. `Usage` for neither, or both."""
        return _one(self.data, self.url)

    def redeem(self, code: str) -> Credentials:
        """The user that an invitation's code makes there. Raises `Unauthenticated`."""
        data, url = self.named()
        if url is not None:
            from tallystone.cli.remote import redeem

            return redeem(url, code)
        with Keyless(data=data).workspace() as workspace:
            return workspace.redeem(code)


def _named(data: Path | None, url: str | None) -> tuple[Path | None, str | None]:
    if data is not None and url is not None:
        raise Usage("--data and --url exclude each other", hint="name one place")
    if data is not None or url is not None:
        return data, url
    known, address = _from_environment("TALLYSTONE_DATA"), _from_environment("TALLYSTONE_URL")
    if known is not None and address is not None:
        raise Usage(
            "TALLYSTONE_DATA and TALLYSTONE_URL are both set",
            hint="unset one, or choose with --data or --url",
        )
    return (Path(known) if known else None), address


def _one(data: Path | None, url: str | None) -> tuple[Path | None, str | None]:
    found = _named(data, url)
    if found == (None, None):
        raise Usage("no place named", hint="give --data DIR or --url URL, or set TALLYSTONE_DATA")
    return found


def store_url(given: str | None = None) -> str | None:
    """The URL of the store: `given` on the command line, or in TALLYSTONE_STORE. Raises `Usage` for a password on the
    command line, which other users of the machine can read, `Invalid` for what is no URL of a store."""
    if given is not None and has_password(given):
        raise Usage(
            "--store holds a password, and others on this machine can see it",
            hint="leave it out, and set PGPASSWORD or a password file; or set TALLYSTONE_STORE to the whole URL",
        )
    named = given or _from_environment("TALLYSTONE_STORE")
    return None if named is None else check_url(named)


def _days(name: str) -> int | None:
    said = _from_environment(name)
    if said is not None and not (said.isascii() and said.isdecimal() and int(said) <= _MOST_DAYS):
        raise Usage(f"{name} should be a number of days", hint=f"a whole number from 0 to {_MOST_DAYS}")
    return None if said is None else int(said)


def _from_environment(name: str) -> str | None:
    return os.environ.get(name) or None


def offered_token(file: Path | None) -> str | None:
    """The token, for commands that need none: None when neither a file nor TALLYSTONE_TOKEN names one."""
    return read_token(file) if file is not None or _from_environment("TALLYSTONE_TOKEN") else None


def read_token(file: Path | None) -> str:
    """The caller's token from `file`, standard input (`-`) or TALLYSTONE_TOKEN. `Usage` when there is none."""
    if file is None:
        token = (os.environ.get("TALLYSTONE_TOKEN") or "").strip()
        if not token:
            raise Usage("no token", hint="set TALLYSTONE_TOKEN or give --token-file FILE")
        return token
    token = sys.stdin.readline(4096).strip() if str(file) == "-" else _read_secret(file)
    if not token or len(token.split()) != 1:
        raise Usage(f"{file} does not hold one token", hint="the file should hold the token and nothing else")
    return token


def _read_secret(file: Path) -> str:
    try:
        with file.open(encoding="utf-8") as opened:
            if stat.S_IMODE(os.fstat(opened.fileno()).st_mode) & 0o077:
                warn(f"others on this machine can read {file}: chmod 600 {file}")
            return opened.read(65536).strip()
    except (OSError, UnicodeDecodeError) as problem:
        reason = getattr(problem, "strerror", None) or "not a text file"
        raise Usage(f"cannot read {file}: {reason}") from None


def secret_file(path: Path, *, outside: Path | None, what: str) -> Path:
    """`path`, checked: a new file for a secret, in no data directory, `outside` or another. `Usage` otherwise.

    A backup of the data directory takes along what lies in it, and a key beside the data it opens protects nothing.
    """
    target = path.expanduser()
    resolved = target.parent.resolve() / target.name
    base = outside.expanduser().resolve() if outside else None
    if base in (resolved, *resolved.parents) or any(holds_store(up) for up in resolved.parents):
        raise Usage(
            f"the {what} must not lie in a data directory",
            hint=f"name a file outside {outside or 'it'}, best on another disk",
        )
    if target.exists() or target.is_symlink():
        raise Usage(
            f"{target} exists already", hint=f"name another file for the {what}, or move this one away"
        )
    if not target.parent.is_dir():
        raise Usage(f"{target.parent} is no folder", hint="make it first")
    return target


@contextmanager
def written_secret(path: Path) -> Iterator[list[str]]:
    """Reserve the new file `path` (mode 0600), then write what the body puts into the list. A failing body leaves none.

    It is opened before the body runs: a key that cannot be written down must not come to be.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as problem:
        raise Usage(f"cannot write {path}: {problem.strerror}") from None
    content: list[str] = []
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as opened:
            yield content
            opened.write("".join(content))
            opened.flush()
            os.fsync(opened.fileno())
    except BaseException:
        if not content:
            path.unlink(missing_ok=True)
        raise
