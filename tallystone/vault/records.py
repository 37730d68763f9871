"""How a block's rows are sealed and opened: wraps, epochs, statements, contents, shelf rows. No store, no rules.

Keys of one epoch: DEK opens contents and the chain key; H opens the epoch before. A grant with history holds both.
Contexts name the block and the place in it, so a row that is moved elsewhere does not open.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from tallystone import _cbor, crypto
from tallystone.errors import Tampered
from tallystone.keystore import Keys
from tallystone.statements import SHARE, WRITE, Leaf, Signed, Version

if TYPE_CHECKING:
    from tallystone.vault.recall import Recalled

ACCEPTED, OFFERED = "accepted", "offered"


@dataclass(frozen=True)
class EpochKeys:
    """The keys of one epoch of one block, 32 bytes each. `history` is None for a grant without history."""

    number: int
    dek: bytes
    history: bytes | None
    chain: bytes

    def __repr__(self) -> str:
        return f"EpochKeys({self.number})"


def new_epoch(number: int) -> EpochKeys:
    """Fresh keys."""
    return EpochKeys(number, crypto.random_bytes(), crypto.random_bytes(), crypto.random_bytes())


def nest_key(day_key: bytes, block: str, number: int) -> bytes:
    """What the keys of one epoch of a block that expires are nested in (32 bytes), from the key of its last day."""
    return crypto.derive(day_key, "day/wrap", block, number)


def shred_nest(shred_key: bytes, block: str, number: int, day_key: bytes | None = None) -> bytes:
    """What the keys of one epoch of a block with a shred key are nested in (32 bytes); if it expires, of both keys."""
    if day_key is None:
        return crypto.derive(shred_key, "shred/wrap", block, number)
    return crypto.derive_from_both(shred_key, day_key, "shred-and-day/wrap", block, number)


class EpochWraps:
    """Wraps one epoch's keys under many K_grants: what is the same for all is worked out once."""

    def __init__(self, block: str, keys: EpochKeys, nest: bytes | None = None) -> None:
        self._info = crypto.purpose("grant/wrap", block, keys.number)
        self._recent = keys.dek if nest is None else crypto.wrap(nest, keys.dek)
        whole = keys.dek + (keys.history or b"")
        self._whole = whole if nest is None else crypto.wrap(nest, whole)

    def __repr__(self) -> str:
        return "EpochWraps()"

    def under(self, grant_key: bytes, *, history: bool) -> bytes:
        """DEK, and H if the grant has history: 40 or 72 bytes, 8 more if nested."""
        return crypto.wrap(crypto.derive_for(grant_key, self._info), self._whole if history else self._recent)


def wrap_epoch(
    grant_key: bytes, block: str, keys: EpochKeys, *, history: bool, nest: bytes | None = None
) -> bytes:
    """DEK, and H if the grant has history, for one grant: 40 or 72 bytes. With `nest` (see `nest_key`) they are first
    wrapped under that, so that both keys are needed: 48 or 80 bytes."""
    return EpochWraps(block, keys, nest).under(grant_key, history=history)


def unwrap_epoch(
    grant_key: bytes, block: str, number: int, wrapped: bytes, nest: bytes | None = None
) -> tuple[bytes, bytes | None]:
    """DEK and H (or None). Raises `Tampered`, also when the wrap is nested and `nest` is not given, or the reverse."""
    secret = crypto.unwrap(crypto.derive(grant_key, "grant/wrap", block, number), wrapped)
    if nest is not None:
        secret = crypto.unwrap(nest, secret)
    if len(secret) not in (32, 64):
        raise Tampered("a grant's key does not have its length")
    return secret[:32], secret[32:] or None


def epoch_row(keys: EpochKeys, before: EpochKeys | None) -> tuple[int, bytes, bytes | None, bytes | None]:
    """(number, chain, previous_chain, previous) of the epoch table: the links from this epoch to the one before."""
    chain = crypto.wrap(crypto.derive(keys.dek, "epoch/chain"), keys.chain)
    if before is None:
        return keys.number, chain, None, None
    previous_chain = crypto.wrap(crypto.derive(keys.chain, "epoch/previous-chain"), before.chain)
    previous = None
    if keys.history and before.history:
        previous = crypto.wrap(crypto.derive(keys.history, "epoch/previous"), before.dek + before.history)
    return keys.number, chain, previous_chain, previous


def open_chain_key(dek: bytes, wrapped: bytes) -> bytes:
    """The epoch's chain key, from its DEK."""
    return crypto.unwrap(crypto.derive(dek, "epoch/chain"), wrapped)


def previous_chain_key(chain: bytes, wrapped: bytes) -> bytes:
    """The chain key of the epoch before."""
    return crypto.unwrap(crypto.derive(chain, "epoch/previous-chain"), wrapped)


def previous_epoch(history: bytes, wrapped: bytes) -> tuple[bytes, bytes]:
    """DEK and H of the epoch before."""
    secret = crypto.unwrap(crypto.derive(history, "epoch/previous"), wrapped)
    return secret[:32], secret[32:]


def seal_statement(chain: bytes, block: str, number: int, signed: Signed) -> bytes:
    """A policy statement, signature included, for the chain table."""
    return crypto.seal(chain, crypto.pae("chain", block, number), signed.encode())


def open_statement(chain: bytes, block: str, number: int, sealed: bytes) -> Signed:
    """The reverse. Raises `Tampered`."""
    return Signed.decode(crypto.open_sealed(chain, crypto.pae("chain", block, number), sealed))


@dataclass(frozen=True)
class Content:
    """What a version seals: its signed statement, its payload, and the writer's grant with its proof (none: owner).

    `via` is empty for a grant to the writer itself; a writer through a role will prove its membership there. Of an
    erased version the payload is gone (empty), and `erased` is the signed word of who erased it.
    """

    signed: Signed
    payload: bytes
    leaf: Leaf | None
    proof: tuple[Any, ...]
    via: tuple[Any, ...] = ()
    erased: bytes = b""


def seal_content(content_key: bytes, block: str, number: int, content: Content) -> bytes:
    """The `sealed` column of a version. Its key is used for this version alone."""
    leaf = content.leaf.encode() if content.leaf else None
    payload = [content.erased] if content.erased else content.payload
    body = _cbor.encode([content.signed.encode(), payload, leaf, list(content.proof), list(content.via)])
    return crypto.seal(content_key, crypto.pae("version", block, number), body)


def open_content(content_key: bytes, block: str, number: int, sealed: bytes) -> Content:
    """The reverse. Raises `Tampered`."""
    body = crypto.open_sealed(content_key, crypto.pae("version", block, number), sealed)
    signed, payload, leaf, proof, via = _cbor.unpack(
        body, "a version", bytes, (bytes, list), (bytes, type(None)), list, list
    )
    erased = b""
    if isinstance(payload, list):
        if not _cbor.fits(payload, (bytes,)):
            raise Tampered("a version is malformed")
        payload, erased = b"", bytes(payload[0])
    found = Leaf.decode(leaf) if leaf else None
    return Content(Signed.decode(signed), payload, found, tuple(proof), tuple(via), erased)


SALT = "salt"
"""What a payload holds beside its fields: 16 random bytes. The statement names the payload's hash and outlives an
erased payload; nobody confirms a guess by it."""

_BLOCK_FIELDS: dict[str, type | tuple[type, ...]] = {
    "label": str, "value": str, "description": (str, type(None)), "tags": list, "metadata": dict, "extra": dict,
    "created": int,
}  # fmt: skip
_ROLE_FIELDS: dict[str, type | tuple[type, ...]] = {
    "name": str, "description": str, "read": bytes, "act": bytes, "head": bytes, "history": bool, "created": int,
}  # fmt: skip
_AGENT_FIELDS: dict[str, type | tuple[type, ...]] = {"state": dict, "created": int}


def open_payload(kind: str, payload: bytes) -> dict[str, Any]:
    """A content's map, with the fields of its kind of block and `SALT`, which must stay what it is where the genesis
    names the content's hash. Its writer had the right to write, and may still have written nonsense: raises
    `Tampered`."""
    return check_payload(kind, _cbor.decode(payload))


def check_payload(kind: str, value: Any) -> dict[str, Any]:
    """The same of what a payload spells. Raises `Tampered`."""
    wanted = {"agent": _AGENT_FIELDS, "role": _ROLE_FIELDS}.get(kind, _BLOCK_FIELDS)
    if (
        not isinstance(value, dict)
        or not _cbor.fits([value.get(name, ...) for name in wanted], tuple(wanted.values()))
        or not all(isinstance(tag, str) for tag in value.get("tags", ()))
        or (kind == "agent" and not isinstance(value["state"].get("name"), str))
    ):
        raise Tampered("a content does not have the fields of its kind")
    return value


def wrap_content_key(dek: bytes, block: str, number: int, content_key: bytes) -> bytes:
    """A version's content key under the epoch's DEK, bound to the version: 40 bytes."""
    return crypto.wrap(crypto.derive(dek, "content/wrap", block, number), content_key)


def unwrap_content_key(dek: bytes, block: str, number: int, wrapped: bytes) -> bytes:
    """The reverse. Raises `Tampered`."""
    return crypto.unwrap(crypto.derive(dek, "content/wrap", block, number), wrapped)


def open_version(dek: bytes, block: str, number: int, wrap: bytes, sealed: bytes) -> tuple[Content, Version]:
    """A version's content and statement, from the epoch's DEK and its row. Raises `Tampered`."""
    content = open_content(unwrap_content_key(dek, block, number, wrap), block, number, sealed)
    return content, Version.decode(content.signed.body)


# -- shelves ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Held:
    """What a shelf row says: where the block is stored, which grant opens it, who owned it when it came here.

    `subject` names the agent or role whose block it is. `root_read` and `root_act` are an agent's root, as its
    sponsor's shelf carries it; for a role `root_act` opens the acting half of the root in the role's block. `admin` is
    there for owners and sharers, in part two. Not stored: `via`, the roles through whose shelves this one was found;
    `origin`, the shelf's keys and the row; `recalled`, what the process kept of the block (see `recall`).
    """

    block: str
    storage: bytes
    grant: int
    key: bytes
    owner: str
    kind: str
    state: str
    position: int
    leaf: bytes = b""
    admin_public: bytes = b""
    subject: str = ""
    extra: dict[str, Any] | None = None
    root_read: bytes = b""
    admin: bytes = b""
    root_act: bytes = b""
    via: tuple[Any, ...] = field(default=(), compare=False)
    origin: tuple[Keys, tuple[Any, ...]] | None = field(default=None, compare=False)
    recalled: Recalled | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        return f"Held({self.block}, grant {self.grant}, {self.state})"

    def accepted(self) -> Self:
        """The same, no longer an offer."""
        return replace(self, state=ACCEPTED, recalled=None)

    @property
    def since(self) -> int:
        """The number of the link that made `owner` the owner; 0 for the genesis."""
        since = (self.extra or {}).get("since", 0)
        return since if isinstance(since, int) else 0

    @cached_property
    def own_leaf(self) -> Leaf | None:
        """The grant's leaf; none for the owner."""
        return Leaf.decode(self.leaf) if self.leaf else None


def as_on_shelf(held: Held, keys: Keys, row: tuple[Any, ...]) -> Held:
    """What `unshelve` makes of the row that `shelve` has just made of it."""
    found = Held.__new__(Held)
    found.__dict__.update(held.__dict__, via=(), origin=(keys, row), recalled=None)
    found.__dict__.pop("own_leaf", None)
    return found


def rights_of(held: Held) -> str:
    """`owner`, `read`, `write`, `share` or `write+share`."""
    leaf = held.own_leaf
    if leaf is None:
        return "owner"
    return "+".join(name for bit, name in ((WRITE, "write"), (SHARE, "share")) if leaf.rights & bit) or "read"


def shelve(keys: Keys, shelf: bytes, locator: bytes, held: Held) -> tuple[bytes, bytes]:
    """Parts one and two of a shelf row."""
    one = [
        held.block,
        held.storage,
        held.grant,
        held.key,
        held.owner,
        held.kind,
        held.state,
        held.leaf,
        held.admin_public,
        held.subject,
        held.extra,
        held.root_read,
    ]
    context = crypto.pae("shelf", shelf, locator, held.position)
    first = crypto.seal(keys.seal, context, _cbor.encode(one))
    if not held.admin and not held.root_act:
        return first, b""
    return first, crypto.seal(keys.act, context, _cbor.encode([held.admin, held.root_act, {}]))


_PART_ONE = (str, bytes, int, bytes, str, str, str, bytes, bytes, str, (dict, type(None)), bytes)


def unshelve(keys: Keys, shelf: bytes, locator: bytes, position: int, one: bytes, two: bytes) -> Held:
    """The reverse; part two only if the caller's token carries the half that opens it. Raises `Tampered`."""
    context = crypto.pae("shelf", shelf, locator, position)
    value = _cbor.unpack(crypto.open_sealed(keys.seal, context, one), "a shelf row", *_PART_ONE)
    block, storage, grant, key, owner, kind, state, leaf, public, subject, extra, root_read = value
    admin, root_act = b"", b""
    if two and keys.can_act:
        second = crypto.open_sealed(keys.act, context, two)
        admin, root_act, _ = _cbor.unpack(second, "a shelf row", bytes, bytes, dict)
    elif not two and not leaf and kind in ("block", "agent", "role"):
        # An owner without the admin key would seal the next grants under a key that is none.
        raise Tampered("a shelf row has lost its second part")
    return Held(
        block=block,
        storage=storage,
        grant=grant,
        key=key,
        owner=owner,
        kind=kind,
        state=state,
        position=position,
        leaf=leaf,
        admin_public=public,
        subject=subject,
        extra=extra,
        root_read=root_read,
        admin=admin,
        root_act=root_act,
    )
