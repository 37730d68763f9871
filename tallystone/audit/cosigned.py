"""The newest checkpoint that each witness has cosigned, kept as one file a witness beside the store.

Not in the store: they are what a rollback of the store is found by, so they must not be rolled back along. Each file is
a signed note, and needs no other word for it than the signatures that it holds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from tallystone.audit.checkpoint import parse_text, signatures, take_apart
from tallystone.audit.cosignature import VerifierKey
from tallystone.errors import StoreError, Tampered

FOLDER = "cosigned"
_SUFFIX = ".checkpoint"
_LONGEST = 65_536


class Cosigned:
    """The notes in a folder, which need not be there yet."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, witness: VerifierKey) -> bytes | None:
        """The newest note that this witness has cosigned, as it is kept; None if there is none. Not verified."""
        return self._read(self._path(witness))

    def keep(self, witness: VerifierKey, note: bytes) -> None:
        """Put a note in place of the older one, durably. Raises `StoreError`."""
        path = self._path(witness)
        half = path.with_suffix(".new")
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            with half.open("wb") as file:
                file.write(note)
                file.flush()
                os.fsync(file.fileno())
            self._put_aside(path, note)
            half.replace(path)
        except OSError as error:
            raise StoreError(
                f"cannot keep a cosignature: {error.strerror}", hint=f"check {FOLDER}/"
            ) from error

    def _put_aside(self, path: Path, note: bytes) -> None:
        """What was cosigned of leaves that a restore gave up stays evidence of them: it keeps a file of its own."""
        before = self._read(path)
        try:
            old, new = (parse_text(take_apart(one)[0]) for one in (before or note, note))
        except Tampered:
            return  # the log check has named it
        if old.branch != new.branch:
            path.replace(path.with_suffix(f".{old.branch or 'first'}-{old.size}.lost"))

    def all(self, origin: str) -> Iterator[tuple[str, bytes]]:
        """(name of the witness, note) of all that are kept for this log, of witnesses no longer asked as well. Not
        verified.
        """
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            note = self._read(path)
            if note is not None:
                yield _witness_of(note, origin) or path.name, note

    def _read(self, path: Path) -> bytes | None:
        try:
            with path.open("rb") as file:
                return file.read(_LONGEST)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"cannot read {FOLDER}/{path.name}: {error.strerror}") from error

    def _path(self, witness: VerifierKey) -> Path:
        named = sha256(f"{witness.name}\n{witness.kind}\n".encode() + witness.public).hexdigest()[:32]
        return self._folder / f"{named}{_SUFFIX}"


def _witness_of(note: bytes, origin: str) -> str:
    try:
        return next((name for name, _ in signatures(note) if name != origin), "")
    except Tampered:
        return ""
