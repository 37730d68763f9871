"""Questions to the log: what is asked for, as a filter over events. Pure: no log, no keys, no clock.

A leaf says its kind and minute in clear, so `admits` leaves most of them out before anything is opened. The rest of a
question is about the details, and `wants` answers it for whoever could open them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tallystone.errors import Invalid

READS = frozenset({"read", "list", "watch", "audit"})
"""Kinds of event by which somebody learned what blocks hold: a list counts for each block in it."""
REFUSALS = frozenset({"denied", "refused-capsule", "refused-message"})
GAINS = frozenset({"share", "attach", "role", "transfer", "accept", "create", "update"})
"""Kinds of event by which somebody may have come to reach something."""
KINDS = READS | REFUSALS | GAINS | frozenset(
    {
        "auditor", "cancel", "charter", "decline", "delete", "detach", "erase", "expire", "init", "invite", "message",
        "offer", "principal", "receive", "reset", "restore", "revoke", "rotate", "send", "token", "tool", "tool_return",
    }
)  # fmt: skip
"""Every kind that an operation logs."""

What = Literal["reads", "changes", "gained", "denied"]
WHATS: tuple[What, ...] = ("reads", "changes", "gained", "denied")


@dataclass(frozen=True)
class Question:
    """What an event must be to be in the answer. A field that is left empty asks for nothing.

    `block`: it concerns this block. `by`: done by this principal, or by an agent under its token. `to`: this principal
    came to reach something by it. `kinds`: it is of one of these. `what`: somebody read (`reads`), changed something
    (`changes`), came to reach something (`gained`) or was refused (`denied`). `since` and `until`: minutes since 1970,
    both included. Raises `Invalid` for a kind that there is not, and for a time that ends before it begins.
    """

    block: str = ""
    by: str = ""
    to: str = ""
    kinds: frozenset[str] = frozenset()
    what: What | None = None
    since: int | None = None
    until: int | None = None

    def __post_init__(self) -> None:
        unknown = self.kinds - KINDS
        if unknown:
            raise Invalid(
                f"no event is of kind {min(unknown)!r}",
                hint="the kinds are " + ", ".join(sorted(KINDS)),
                code="bad_question",
            )
        if self.since is not None and self.until is not None and self.until < self.since:
            raise Invalid(
                "the question ends before it begins", hint="let until be after since", code="bad_question"
            )

    def admits(self, kind: str, minute: int) -> bool:
        """Whether a leaf of this kind and minute may belong to the answer: what can be said without opening it."""
        if self.kinds and kind not in self.kinds:
            return False
        if (self.since is not None and minute < self.since) or (
            self.until is not None and minute > self.until
        ):
            return False
        if self.to and kind not in GAINS:
            return False
        match self.what:
            case "reads":
                return kind in READS
            case "changes":
                return kind not in READS | REFUSALS
            case "gained":
                return kind in GAINS
            case "denied":
                return kind in REFUSALS
            case None:
                return True

    def wants(
        self, kind: str, actor: str, under: str, detail: Mapping[str, Any], blocks: frozenset[str]
    ) -> bool:
        """Whether an event that `admits` let pass belongs to the answer. `blocks` are those that it concerns."""
        if self.block and self.block not in blocks:
            return False
        if self.by and self.by not in (actor, under):
            return False
        came = gained(kind, actor, detail, blocks) if self.to or self.what == "gained" else ()
        if self.to and self.to not in came:
            return False
        return self.what != "gained" or bool(came)


def gained(kind: str, actor: str, detail: Mapping[str, Any], blocks: frozenset[str]) -> tuple[str, ...]:
    """Who came to reach something by an event: the grantee, the agent, the members, the heir, whoever accepted."""
    match kind:
        case "share":
            return _texts(detail.get("to"))
        case "attach":
            return _texts(detail.get("agent"))
        case "role":
            return _texts(detail.get("added"))
        case "accept":
            return _texts(actor)
        case "transfer":
            return _texts(actor) if detail.get("accepted") else ()
        case "create" if any(block.startswith("block-") for block in blocks):
            return _texts(detail.get("agent"))
        case "update" if detail.get("placed"):
            return _texts(detail.get("agent"))
        case _:
            return ()


def named_blocks(detail: Mapping[str, Any]) -> frozenset[str]:
    """The blocks that an event's details name themselves."""
    return frozenset(
        _texts(detail.get("block")) + _texts(detail.get("blocks")) + _texts(list(placed_by(detail)))
    )


def placed_by(detail: Mapping[str, Any]) -> Mapping[str, Any]:
    """{block: number of the grant} of the blocks that an agent got by an event, along with what else it did."""
    found = detail.get("placed")
    return found if isinstance(found, dict) else {}


def _texts(value: Any) -> tuple[str, ...]:
    """A text, or a list of them; what is neither, in details that somebody else wrote, is nothing."""
    found = value if isinstance(value, list) else [value]
    return tuple(one for one in found if isinstance(one, str) and one)
