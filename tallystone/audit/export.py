"""The log as a folder of files, laid out as it is served: any web server can serve it, and later exports add to it.

The checkpoint is written last. So a folder whose export was interrupted is one of the older checkpoint, and whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tallystone.audit.checkpoint import Checkpoint, parse_text, take_apart
from tallystone.audit.logkeys import LogKeys
from tallystone.audit.merkle import HASH_SIZE
from tallystone.audit.published import WIDTH, Published, Tile, tiles_of
from tallystone.audit.restored import Authority
from tallystone.errors import StoreError, Tampered

CHECKPOINT = "checkpoint"


def export(
    log: Published,
    folder: Path,
    origin: str,
    public: bytes,
    authority: Authority,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[int, int]:
    """Write what the folder lacks. `public`: the log's key, or all that it had (`LogKeys.encode`). Returns the sizes of
    the tree that it held, and that it holds now.

    Raises `Tampered` if what was exported before is not the beginning of this log, naming the first leaf that differs,
    or the restore that gave up what was exported, if `authority` says that it is the root's word; nothing is written
    then. Raises `StoreError` if the folder cannot be written.
    """
    keys = LogKeys.decode(public)
    signed = keys.open(log.checkpoint, origin)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        old = _exported(folder, origin, keys)
        if old is not None:
            _check_beginning(log, folder, old, authority)
        since = old.size if old is not None else 0
        tiles = list(tiles_of(signed.size, since))
        for done, tile in enumerate(tiles, 1):
            _write(folder / "tile" / tile.path, log.tile(tile))
            progress(done, len(tiles))
        _write(folder / CHECKPOINT, log.checkpoint)
        for tile in tiles_of(since) if since != signed.size else ():
            if tile.width != WIDTH:
                _drop_partial(folder, tile, signed.size)
    except OSError as error:
        raise StoreError(
            f"cannot export to {folder}: {error.strerror}", hint="check its permissions and the disk's space"
        ) from error
    return since, signed.size


def _exported(folder: Path, origin: str, keys: LogKeys) -> Checkpoint | None:
    try:
        note = (folder / CHECKPOINT).read_bytes()
    except FileNotFoundError:
        return None
    there = parse_text(take_apart(note)[0])
    if there.origin != origin:
        raise Tampered(
            f"{folder} holds the export of another log, {there.origin}; nothing was written",
            hint="name another folder",
            code="another_log",
        )
    return keys.open(note, origin)


def _check_beginning(log: Published, folder: Path, old: Checkpoint, authority: Authority) -> None:
    try:
        log.consistency(old)
    except Tampered as error:
        given_up = log.gave_up(old, authority)
        if given_up is not None:
            restored, lost = given_up
            raise Tampered(
                f"{folder} holds {lost}, which were lost when a backup was restored: leaf {restored.seq} says so; "
                "nothing was written",
                hint="keep it, it is what is left of them, and export into a new folder",
                code="lost_branch",
            ) from None
        first = _first_other(log, folder, min(old.size, log.head.size))
        named = (
            f"leaf {first} is the first that differs" if first is not None else "see: tallystone audit verify"
        )
        raise Tampered(f"{error.message}; {named}", hint="keep the export: it is the evidence") from None


def _first_other(log: Published, folder: Path, size: int) -> int | None:
    """The first leaf whose exported hash is not the one in the log; `size` if all of the shorter log agree."""
    for tile in tiles_of(size):
        if tile.level != 0:
            continue
        try:
            then = _read_level_0(folder, tile)
        except OSError:
            return None
        now = log.tile(tile)
        for at in range(0, len(now), HASH_SIZE):
            if then[at : at + HASH_SIZE] != now[at : at + HASH_SIZE]:
                return tile.index * WIDTH + at // HASH_SIZE
    return size


def _read_level_0(folder: Path, tile: Tile) -> bytes:
    whole = folder / "tile" / Tile(0, tile.index).path
    if whole.is_file():
        return whole.read_bytes()
    widths = sorted(int(path.name) for path in whole.with_name(whole.name + ".p").iterdir())
    return (whole.with_name(whole.name + ".p") / str(widths[-1])).read_bytes()


def _drop_partial(folder: Path, tile: Tile, size: int) -> None:
    """A partial tile may go once the whole one is there."""
    if (tile.index + 1) * WIDTH << 8 * max(tile.level, 0) <= size:
        partial = folder / "tile" / tile.path
        partial.unlink(missing_ok=True)
        if partial.parent.is_dir() and not any(partial.parent.iterdir()):
            partial.parent.rmdir()


def _write(path: Path, content: bytes) -> None:
    """In one step, so that whoever serves the folder never serves half a tile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(path.name + ".new")
    with half.open("wb") as file:
        file.write(content)
        file.flush()
        if path.name == CHECKPOINT:
            os.fsync(file.fileno())
    half.replace(path)
