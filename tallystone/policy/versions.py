"""Whether a version of a block's content counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tallystone.errors import Tampered
from tallystone.policy.rights import Head, Standing, Via, rights
from tallystone.statements import WRITE, Genesis, Version


def check_version(
    cited: Head,
    current: Head,
    version: Version,
    digest: bytes,
    standing: Standing,
    ended: Head | None,
) -> None:
    """Whether `version` counts, for a reader of the newest one. Raises `Tampered`.

    `cited` is the head that the version names, `ended` the one right after it if there is one, `current` the latest. If
    they differ, each was made on exactly this version (rule 6): a revoked writer cannot slip one in behind the
    revocation, nor can somebody who may still issue a link make one on it afterwards.
    """
    if (
        version.block != cited.block
        or version.policy != cited.number
        or version.policy_digest != cited.digest
    ):
        raise Tampered("a version cites a policy that is not the block's")
    if cited.due:
        raise Tampered("a version was written before the keys were changed")
    if cited.number > current.number:
        raise Tampered("a version cites a policy after the latest")
    if version.number < current.version or (
        cited.number == current.number and version.number == current.version
    ):
        raise Tampered("a version is older than the one that the policy was made on")
    between = ended.number - cited.number if ended is not None else 0
    if between != (1 if cited.number < current.number else 0):
        raise Tampered("a version cites a policy that is not the block's")
    for later in (ended, current) if cited.number < current.number else ():
        if later is not None and later.version < version.number:
            raise Tampered("a version was written after its policy had ended")
        if later is not None and later.version == version.number and later.version_digest != digest:
            raise Tampered("a version is not the one that the policy was made on")
    _check_writer(cited, version, standing)


def check_past(cited: Head, ended: Head | None, version: Version, digest: bytes, standing: Standing) -> None:
    """Whether an earlier `version` counted when it was the newest. Raises `Tampered`.

    `cited` is the head that it names, `ended` the one right after that, if there is one. That the version is the one
    which the newest leads back to, by each one's hash of its predecessor, is the caller's to see.
    """
    if (
        version.block != cited.block
        or version.policy != cited.number
        or version.policy_digest != cited.digest
    ):
        raise Tampered("a version cites a policy that is not the block's")
    if cited.due:
        raise Tampered("a version was written before the keys were changed")
    if version.number <= cited.version:
        raise Tampered("a version is older than the one that the policy was made on")
    if ended is not None and ended.version < version.number:
        raise Tampered("a version was written after its policy had ended")
    if ended is not None and ended.version == version.number and ended.version_digest != digest:
        raise Tampered("a version is not the one that the policy was made on")
    _check_writer(cited, version, standing)


def _check_writer(cited: Head, version: Version, standing: Standing) -> None:
    """Whether the writer held `write` under the head that the version cites, and the block took versions from it."""
    if version.writer != standing.principal or not rights(cited, standing, today=0) & WRITE:
        raise Tampered("a version was written by somebody without the right to")
    seen = serials(version)
    if any(seen.get(step.head.role) != step.head.serial for step in standing.via):
        raise Tampered("a version does not name the heads of the roles that it came through")
    if version.writer == cited.owner:
        return  # the owner's change of settings makes a version that cites the very link which locks
    if cited.settings.get("locked") or (
        cited.settings.get("read_only") and version.writer.startswith("agent-")
    ):
        raise Tampered("a version was written while the block took none from its writer")


def kept(version: Version) -> int:
    """The number of the oldest version that is kept, as this one states it; 1 while none was let go."""
    number = version.change.get("kept", 1)
    if type(number) is not int or not 1 <= number <= max(1, version.number - 1):
        raise Tampered("a version says wrongly which ones are kept")
    return number


def check_kept(before: Version, after: Version, settings: Mapping[str, Any]) -> None:
    """Versions are let go from the oldest on, and only where the block's rule (`keep`) says so. How long ago one was
    replaced is its writer's claim, so of a number of days only that there is such a rule is checked. Raises
    `Tampered`."""
    rule = settings.get("keep") or {}
    most = after.number - rule["last"] + 1 if "last" in rule else after.number
    if kept(after) != kept(before) and not (rule and kept(before) < kept(after) <= most):
        raise Tampered("a version lets go of others that the block keeps")


def serials(version: Version) -> dict[str, int]:
    """{role: highest serial of its head that anybody has written this block under}, as the version carries it on."""
    seen = version.authority.get("heads", {})
    if not isinstance(seen, dict) or not all(
        isinstance(role, str) and type(serial) is int for role, serial in seen.items()
    ):
        raise Tampered("a version's authority is malformed")
    return seen


def carried(before: Version | None, via: tuple[Via, ...]) -> dict[str, Any]:
    """The authority that the next version states: what the one before it had seen, and the heads it comes through."""
    seen = dict(serials(before)) if before is not None else {}
    for step in via:
        if seen.get(step.head.role, -1) > step.head.serial:
            raise Tampered("the head of a role's members is older than one that was written under")
        seen[step.head.role] = step.head.serial
    return {"heads": seen} if seen else {}


def check_serials(before: Version | None, after: Version, via: tuple[Via, ...]) -> None:
    """Rule 7: within a block the serial of a role's head never goes back, nor further on than a writer came by (`via`):
    a serial that its role has never had would keep the members out. Raises `Tampered`."""
    if serials(after) != carried(before, via).get("heads", {}):
        raise Tampered("a version was written under an older head of a role's members")


def check_fixed(genesis: Genesis, version: Version) -> None:
    """What a genesis says is immutable stays as its first version was, whose hash it names. Raises `Tampered`."""
    if not genesis.mutable and version.payload != genesis.change.get("payload"):
        raise Tampered("a version changes a block that is immutable")


def check_appended(before: tuple[str, bytes], after: tuple[str, bytes]) -> None:
    """In an append-only block the value grows at its end and nothing else changes. Each argument is a version's value
    and the encoding of all its other content. Raises `Tampered`."""
    if not after[0].startswith(before[0]) or before[1] != after[1]:
        raise Tampered("a version of an append-only block does more than append")
