"""`tallystone block`: memory blocks, in a data directory or behind a URL. Sharing them is in `sharing`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from tallystone.cli.group import command, group
from tallystone.cli.place import Place, Usage
from tallystone.cli.terminal import body, confirm, emit, jsonable, line, moment, pairs, report, table
from tallystone.cli.times import Day, day
from tallystone.cli.times import keep as rule
from tallystone.vault.types import Block

app = group("block", "List, read, write and share memory blocks.")

BlockId = Annotated[str, Parameter(metavar="BLOCK")]
File = Annotated[Path | None, Parameter(metavar="FILE", allow_leading_hyphen=True)]
Text = Annotated[str | None, Parameter(metavar="TEXT", allow_leading_hyphen=True)]
Tags = Annotated[list[str] | None, Parameter(name="--tag", metavar="TAG", negative="--no-tags")]
Flag = Annotated[bool | None, Parameter(show_default=False)]
Once = Annotated[bool, Parameter(negative=(), show_default=False)]
Yes = Annotated[bool, Parameter(alias="-y", negative=(), show_default=False)]
AuditLevel = Annotated[Literal["durable", "checkpointed", "witnessed"] | None, Parameter(metavar="LEVEL")]
Keep = Annotated[str | None, Parameter(metavar="RULE")]
Level = Annotated[str | None, Parameter(metavar="LEVEL")]
Allowed = Annotated[list[str] | None, Parameter(name="--allow", metavar="WHOM", negative="--allow-nobody")]


@command(app, "list", "tallystone block list", "tallystone block list --tag team --json")
def list_blocks(
    *,
    label: Annotated[str | None, Parameter(metavar="LABEL")] = None,
    tag: Annotated[str | None, Parameter(metavar="TAG")] = None,
    place: Place = Place(),
) -> int:
    """List the blocks that you can read.

    Parameters
    ----------
    label
        Only blocks with exactly this label.
    tag
        Only blocks with this tag.
    """
    with place.vault() as vault:
        found = [
            block
            for block in vault.blocks()
            if (label is None or block.label == label) and (tag is None or tag in block.tags)
        ]
    if place.as_json:
        emit([_json(block) for block in found])
    else:
        columns = ("ID", "LABEL", "RIGHTS", "VERSION", "SIZE", "UPDATED")
        rows = (
            [b.id, b.label, b.rights, b.version, f"{len(b.value)}/{b.limit}", moment(b.updated_at)]
            for b in found
        )
        table(columns, rows, empty="no blocks yet")
    return 0


@command(
    app, "show", "tallystone block show block-2f4d8c1a-…", "tallystone block show block-2f4d8c1a-… --value"
)
def show(
    block: BlockId,
    /,
    *,
    value: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    place: Place = Place(),
) -> int:
    """Show a block, and to its owner and to sharers the grants on it.

    Parameters
    ----------
    block
        The block's id.
    value
        Print the value alone.
    """
    with place.vault() as vault:
        found = vault.block(block)
        knows = found.rights == "owner" or "share" in found.rights
        grants = vault.grants(block) if knows and not value else []
    if place.as_json:
        emit({**_json(found), "grants": jsonable(grants)})
    elif value:
        body(found.value)
    else:
        pairs(
            {
                "id": found.id,
                "label": found.label,
                "description": found.description,
                "rights": f"{found.rights}, through {found.through}" if found.through else found.rights,
                "owner": found.owner,
                "version": found.version,
                "updated": f"{moment(found.updated_at)} by {found.updated_by}",
                "size": f"{len(found.value)} of {found.limit} characters",
                "read-only": "yes" if found.read_only else "no",
                "locked": "yes" if found.locked else "no",
                "tags": ", ".join(found.tags),
                **_policy(found),
            }
        )
        if grants:
            line("")
            table(
                ("GRANT", "TO", "NAME", "CAN", "UNTIL", "DEPTH", "HISTORY"),
                (
                    [g.number, g.recipient, g.name, g.can, g.until, g.depth or "", "" if g.history else "no"]
                    for g in grants
                ),
            )
        line("")
        body(found.value)
    return 0


def _policy(block: Block) -> dict[str, str]:
    """What of a block's policy is worth a line: all that is not as it is for most."""
    said = {"sensitivity": block.sensitivity}
    if block.allowed is not None:
        said["allowed"] = ", ".join(block.allowed) or "nobody"
    if block.expires is not None:
        said["expires"] = f"after {block.expires}"
    if not block.mutable or block.append_only:
        said["changes"] = "append-only" if block.mutable else "immutable"
    if block.audit_level != "durable":
        said["audit level"] = block.audit_level
    if not isinstance(block.keep, str):
        said["keeps"] = " ".join(f"{name} {number}" for name, number in block.keep.items())
    return said


@command(
    app,
    "create",
    "tallystone block create team_knowledge --file notes.md --limit 5000",
    "echo 'be kind' | tallystone block create policies --file - --read-only --tag team",
    "tallystone block create budget --file b.md --sensitivity confidential --allow ada --expires 2027-12-31",
)
def create(
    label: Annotated[str, Parameter(metavar="LABEL")],
    /,
    *,
    value: Text = None,
    file: File = None,
    description: Text = None,
    limit: Annotated[int | None, Parameter(metavar="N")] = None,
    read_only: Once = False,
    tags: Tags = None,
    sensitivity: Level = None,
    allow: Allowed = None,
    expires: Day = None,
    keep: Keep = None,
    audit_level: AuditLevel = None,
    immutable: Once = False,
    append_only: Once = False,
    place: Place = Place(),
) -> int:
    """Create a block. Its id goes to stdout.

    Parameters
    ----------
    label
        What agents call it.
    value
        The text. Other users of this machine can see command lines: use --file for anything that matters.
    file
        Take the text from this file; - is standard input.
    description
        What the block is for.
    limit
        Characters that the value may have. Default: 100000.
    read_only
        Agents may read it, whatever they are granted.
    tags
        A tag; may be repeated.
    sensitivity
        One of the workspace's levels (see charter show): who is not cleared for it is granted nothing.
    allow
        Who may ever be granted the block: a user's name or id, an agent's or a role's id; may be repeated.
        --allow-nobody keeps it to yourself. Without either, anybody may.
    expires
        The last day (UTC) on which it can be read. After that nothing brings it back.
    keep
        Which versions stay: all, a number of versions (20) or of days (30d). Default: all.
    audit_level
        How sure the log must be before an answer: durable, checkpointed or witnessed. Default: durable.
    immutable
        Its content never changes, also not by you. This is for good.
    append_only
        Its value only grows at its end. This is for good.
    """
    given: dict[str, Any] = {"label": label, "value": _text(value, file) or "", "read_only": read_only}
    optional: dict[str, object] = {
        "description": description,
        "limit": limit,
        "tags": tags,
        "sensitivity": sensitivity,
        "allowed": allow,
        "expires": day(expires),
        "keep": rule(keep),
        "audit_level": audit_level,
        "mutable": False if immutable else None,
        "append_only": append_only or None,
    }
    given.update({name: field for name, field in optional.items() if field is not None})
    with place.vault() as vault:
        made = vault.create_block(**given)
    if place.as_json:
        emit(_json(made))
    else:
        line(made.id)
    return 0


@command(
    app,
    "edit",
    "tallystone block edit block-2f4d8c1a-… --file notes.md",
    "tallystone block edit block-2f4d8c1a-… --append 'checked the build' --if-version 7",
    "tallystone block edit block-2f4d8c1a-… --locked",
    "tallystone block edit block-2f4d8c1a-… --sensitivity internal --expires 2027-12-31",
)
def edit(
    block: BlockId,
    /,
    *,
    value: Text = None,
    file: File = None,
    append: Text = None,
    label: Text = None,
    description: Text = None,
    limit: Annotated[int | None, Parameter(metavar="N")] = None,
    tags: Tags = None,
    read_only: Flag = None,
    locked: Flag = None,
    sensitivity: Level = None,
    allow: Allowed = None,
    allow_anybody: Once = False,
    expires: Day = None,
    no_expiry: Once = False,
    keep: Keep = None,
    audit_level: AuditLevel = None,
    if_version: Annotated[int | None, Parameter(metavar="N")] = None,
    place: Place = Place(),
) -> int:
    """Change a block. What is not named stays as it is.

    Parameters
    ----------
    block
        The block's id.
    value
        The new text.
    file
        Take the new text from this file; - is standard input.
    append
        Add a line at the end. Lines that others append at the same moment all stay.
    label
        A new label.
    description
        A new description.
    limit
        A new limit in characters. Owner only.
    tags
        Tags that replace the present ones; may be repeated. --no-tags takes all away.
    read_only
        Whether agents may only read it. Owner only.
    locked
        Whether nobody may change it, its owner included. Owner only.
    sensitivity
        One of the workspace's levels (see charter show). Owner only.
    allow
        Who alone may be granted the block, in place of those named before; may be repeated. --allow-nobody: no one.
        Owner only.
    allow_anybody
        Take the list of those who may be granted it away. Owner only.
    expires
        The last day (UTC) on which it can be read. Owner only.
    no_expiry
        It does not end. Owner only.
    keep
        Which versions stay: all, a number of versions (20) or of days (30d). What a stricter rule leaves out goes with
        this change and those that follow. Owner only.
    audit_level
        How sure the log must be before an answer: durable, checkpointed or witnessed. Owner only.
    if_version
        Only if the block is still at this version.
    """
    if append is not None and (value is not None or file is not None):
        raise Usage("--append goes with neither --value nor --file")
    if allow is not None and allow_anybody:
        raise Usage("--allow-anybody goes with neither --allow nor --allow-nobody")
    if expires is not None and no_expiry:
        raise Usage("--expires and --no-expiry exclude each other")
    optional = {
        "value": _text(value, file),
        "label": label,
        "description": description,
        "limit": limit,
        "tags": tags,
        "read_only": read_only,
        "locked": locked,
        "sensitivity": sensitivity,
        "allowed": allow,
        "expires": day(expires),
        "keep": rule(keep),
        "audit_level": audit_level,
    }
    changes: dict[str, object] = {name: field for name, field in optional.items() if field is not None}
    if allow_anybody:
        changes["allowed"] = None
    if no_expiry:
        changes["expires"] = None
    if not changes and append is None:
        raise Usage(
            "nothing to change", hint="name a change, like --append TEXT; see tallystone block edit --help"
        )

    def change(current: Block) -> dict[str, object]:
        if append is None:
            return changes
        joint = "\n" if current.value and not current.value.endswith("\n") else ""
        return {**changes, "value": current.value + joint + append}

    with place.vault() as vault:
        done = vault.edit_block(block, change, if_version=if_version)
    return report(_json(done), f"{done.id} is at version {done.version}", as_json=place.as_json)


@command(app, "delete", "tallystone block delete block-2f4d8c1a-… --yes")
def delete(
    block: BlockId,
    /,
    *,
    yes: Yes = False,
    place: Place = Place(),
) -> int:
    """Delete a block for everybody. Owner only.

    Parameters
    ----------
    block
        The block's id.
    yes
        Do not ask.
    """
    if not yes and not confirm(f"delete {block} for everybody?"):
        raise Usage("not deleted", hint="say --yes to delete without being asked")
    with place.vault() as vault:
        vault.delete_block(block)
    return report({"deleted": block}, f"deleted {block}", as_json=place.as_json)


def _text(value: str | None, file: Path | None) -> str | None:
    if file is None:
        return value
    if value is not None:
        raise Usage("--value and --file exclude each other")
    try:
        if str(file) == "-":
            return sys.stdin.read()
        return file.read_text(encoding="utf-8")
    except OSError as problem:
        raise Usage(f"cannot read {file}: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise Usage(f"{file} is not UTF-8 text", hint="blocks hold text") from None


def _json(block: Block) -> dict[str, Any]:
    values: dict[str, Any] = jsonable(block)
    del values["position"], values["offered"]
    return values
