"""The check with a token: signatures, rights and one principal's shelf, which the keyless check cannot see (§9)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tallystone.errors import NotFound, Tampered
from tallystone.keystore import Keys
from tallystone.vault.caller import Caller, KeysChanged
from tallystone.vault.entering import open_block
from tallystone.vault.plan import Plan
from tallystone.vault.shelves import AGENTS, BLOCKS, agent_keys, walk


@dataclass(frozen=True)
class Inspection:
    """How many blocks were opened, and (block id, what is wrong) for those that do not verify."""

    blocks: int
    findings: list[tuple[str, str]]


def inspect(caller: Caller, progress: Callable[[int], None] | None = None) -> Inspection:
    """Open every block that the caller reaches and verify its statements, its grants and its newest version."""
    findings: list[tuple[str, str]] = []
    count = 0

    def shelf(plan: Plan, actor: Caller, keys: Keys, name: str) -> None:
        nonlocal count
        for held in walk(plan, keys, name):
            count += 1
            try:
                opened = open_block(actor, plan, held)
                opened.content()
                opened.leaves()
                opened.grants()
            except (NotFound, KeysChanged):
                continue  # a grant that ended, or whose new key waits in the mail: the keyless check's business
            except Tampered as error:
                findings.append((held.subject or held.block, error.message))
            if progress is not None:
                progress(count)

    with caller.workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        caller.check(plan)
        shelf(plan, caller, caller.keys, BLOCKS)
        if not caller.id.startswith("agent-"):
            shelf(plan, caller, caller.keys, AGENTS)
            for held in walk(plan, caller.keys, AGENTS):
                keys = agent_keys(caller, held)
                shelf(plan, caller.as_agent(keys), keys, BLOCKS)
    return Inspection(count, findings)
