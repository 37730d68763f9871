"""What `tallystone doctor` looks at: the machine, the data directory, the server, the token. Changes nothing."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sqlite3
import stat
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tallystone import crypto, keystore
from tallystone.errors import TallystoneError
from tallystone.vault import Workspace

FREE_SPACE = 200 * 1024 * 1024
"""Bytes that should be free where the data lies."""
_KIT_MARK = b"AGE-SECRET-KEY-"
_KIT_SIZE = 64 * 1024
_REACH = 10


@dataclass(frozen=True)
class Check:
    """One thing looked at. `verdict` is `ok`, `warning` or `problem`."""

    name: str
    verdict: str
    detail: str
    hint: str = ""


def examine(
    data: Path | None, url: str | None, token: str | None, store: str | None = None
) -> Iterator[Check]:
    """All checks that apply: of the machine always, of a place and a token where they are named. `store`: the
    URL of the store, if another than the data directory names."""
    yield _python()
    yield _cryptography()
    yield _sqlite()
    yield _extras()
    if data is not None:
        yield from _directory(data, store)
    if url is not None:
        yield _server(url)
    if token is not None:
        yield _token(token, data, store)


def _python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    return Check("Python", "ok", found)


def _cryptography() -> Check:
    try:
        seed, key = crypto.random_bytes(), crypto.random_bytes()
        public = crypto.kem_public(seed)
        whole = (
            crypto.open_from(seed, b"doctor", crypto.seal_to(public, b"doctor", b"round trip"))
            == b"round trip"
            and crypto.open_sealed(key, b"doctor", crypto.seal(key, b"doctor", b"round trip"))
            == b"round trip"
            and crypto.verify(crypto.signing_public(seed), crypto.sign(seed, b"doctor"), b"doctor")
        )
    except Exception as problem:  # whatever the library raises here is the finding
        return Check(
            "cryptography", "problem", type(problem).__name__, "reinstall: pip install 'cryptography>=50'"
        )
    installed = f"{version('cryptography')}: hybrid capsules, sealing and signatures work"
    return Check("cryptography", "ok" if whole else "problem", installed)


def _sqlite() -> Check:
    if sqlite3.sqlite_version_info < (3, 37):
        return Check(
            "SQLite", "problem", sqlite3.sqlite_version, "a Python with SQLite 3.37 or newer is needed"
        )
    return Check("SQLite", "ok", sqlite3.sqlite_version)


def _extras() -> Check:
    wanted = {"cli": "cyclopts", "server": "starlette", "demo": "letta_client", "postgresql": "psycopg"}
    present = [extra for extra, module in wanted.items() if importlib.util.find_spec(module) is not None]
    try:
        ours = version("tallystone")
    except PackageNotFoundError:
        ours = "not installed as a package"
    return Check("Tallystone", "ok", f"{ours}, with: {', '.join(present) or 'no extras'}")


# -- the data directory -----------------------------------------------------------------------------------------


def _directory(data: Path, store: str | None) -> Iterator[Check]:
    if not data.is_dir():
        yield Check(
            "data directory", "problem", f"{data} is no directory", f"make it: tallystone init {data}"
        )
        return
    yield _private(data)
    yield _space(data)
    yield _opens(data, store)
    yield _no_kits(data)


def _private(data: Path) -> Check:
    open_to_others = [
        path
        for path in (data, *sorted(data.rglob("*")))
        if not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) & 0o077
    ]
    # A directory that nobody else can enter covers what is in it.
    if not open_to_others or open_to_others[0] != data:
        return Check("permissions", "ok", "for you alone")
    return Check("permissions", "warning", f"others on this machine can enter {data}", f"chmod 700 {data}")


def _space(data: Path) -> Check:
    free = shutil.disk_usage(data).free
    detail = f"{free // 1024 // 1024} MiB free"
    if free < FREE_SPACE:
        return Check(
            "disk", "problem", detail, "make room: a full disk stops every operation, reads included"
        )
    return Check("disk", "ok", detail)


def _opens(data: Path, store: str | None) -> Check:
    try:
        Workspace.open(data, store).close()
    except TallystoneError as refused:
        return Check("workspace", "problem", refused.message, refused.hint)
    return Check("workspace", "ok", "opens; tallystone audit verify checks every row")


def _no_kits(data: Path) -> Check:
    for path in sorted(data.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.stat().st_size <= _KIT_SIZE and _holds_kit(path):
            return Check(
                "recovery kit",
                "problem",
                f"{path} looks like one, and a backup takes it along",
                "move it away from the data",
            )
    return Check("recovery kit", "ok", "none in the data directory")


def _holds_kit(path: Path) -> bool:
    try:
        return _KIT_MARK in path.read_bytes().upper()
    except OSError:
        return False


# -- the server and the token -----------------------------------------------------------------------------------


def _server(url: str) -> Check:
    hint = "is it running, and the URL right?"
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/v1/health/", timeout=_REACH) as answer:
            found = json.loads(answer.read(65536))
    except urllib.error.HTTPError as refused:
        with refused:
            return Check("server", "problem", f"{url} answered {refused.code}", hint)
    except (OSError, ValueError) as problem:
        return Check(
            "server", "problem", f"no answer from {url}: {getattr(problem, 'reason', problem)}", hint
        )
    return Check("server", "ok", f"{url} is up, version {found.get('version', '?')}")


def _token(token: str, data: Path | None, store: str | None) -> Check:
    try:
        keystore.parse_token(token)
    except TallystoneError:
        return Check(
            "token", "problem", "malformed, or mistyped", "a token looks like tally_…_…_…, on one line"
        )
    if data is None:
        return Check("token", "ok", "well-formed")
    try:
        workspace = Workspace.open(data, store)
    except TallystoneError:
        return Check("token", "warning", "well-formed; without its workspace there is nothing to try it on")
    try:
        vault = workspace.vault(token)
        return Check("token", "ok", f"opens {vault.principal_id}, scope {vault.scope}")
    except TallystoneError as refused:
        return Check("token", "problem", refused.message, refused.hint)
    finally:
        workspace.close()
