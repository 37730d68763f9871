"""What a block's genesis fixes for good: content that never changes (`mutable` false), or only grows (`append_only`).

The owner is bound as everybody is. Who edits is told so before anything is written; and each reader asks again, so that
a version that somebody wrote past these checks counts for nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tallystone import _cbor, crypto, policy
from tallystone.errors import Denied, Invalid, NotFound, Tampered
from tallystone.statements import Genesis, Version
from tallystone.vault.records import SALT, Content, open_payload

if TYPE_CHECKING:
    from tallystone.vault.opening import Opened

STEPS_BACK = 64
"""How many versions at most are compared with their predecessors when a process sees the newest one first."""


def check_pair(mutable: bool, append_only: bool) -> None:
    """Raises `Invalid` for what cannot both hold: a value that grows, and content that never changes."""
    if append_only and not mutable:
        raise Invalid(
            "a block cannot be append-only and immutable",
            hint="choose one: an append-only value still grows",
            code="bad_field",
        )


def check_edit(genesis: Genesis, before: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    """Raises `Denied` (`immutable`, `append_only`) for changes of content that the genesis rules out. `before` is the
    current payload, `content` what would change in it."""
    if not content:
        return
    if not genesis.mutable:
        raise Denied("the content of this block never changes", hint="make another block", code="immutable")
    if genesis.append_only and not _appends(before, content):
        raise Denied(
            "this block's value only grows at its end, and nothing else of it changes",
            hint="append to it, or make another block",
            code="append_only",
        )


def _appends(before: Mapping[str, Any], content: Mapping[str, Any]) -> bool:
    value = content.get("value")
    return content.keys() == {"value"} and isinstance(value, str) and value.startswith(before["value"])


def _parts(opened: Opened, content: Content) -> tuple[str, bytes]:
    payload = open_payload(opened.held.kind, content.payload)
    payload.pop(SALT, None)  # each version has its own
    return payload.pop("value"), _cbor.encode(payload)


def check_content(opened: Opened, content: Content, version: Version) -> None:
    """What a reader asks of a version beyond its writer's rights. Raises `Tampered`."""
    genesis = opened.genesis()
    policy.check_fixed(genesis, version)
    if genesis.append_only and version.number == opened.row.version:
        _check_growth(opened, content, version)


def _check_growth(opened: Opened, content: Content, version: Version) -> None:
    """Each version against the one that it names as its predecessor, back to one that this process has seen."""
    workspace, seen = opened.caller.workspace, []
    for _ in range(STEPS_BACK):
        mark = crypto.sha256(crypto.pae("grown", opened.id, content.signed.digest))
        if mark in workspace.trusted:
            break
        if version.number > 1:
            try:
                earlier, before = opened.stored(version.number - 1)
            except NotFound:
                return  # a grant without history: it cannot tell, and vouches for nothing
            if not crypto.equal(version.previous, earlier.signed.digest):
                raise Tampered("a version does not follow the one before it")
            policy.check_appended(_parts(opened, earlier), _parts(opened, content))
        else:
            earlier, before = content, version
        seen.append(mark)
        if earlier is content:
            break
        content, version = earlier, before
    for mark in seen:
        workspace.trust(mark)
