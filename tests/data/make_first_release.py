"""Makes `first-release/`: a data directory in the first release's format, the secrets to it, and what each one reads.

Run it only to make a directory of a new format beside this one; the old one stays, and stays readable.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tallystone.vault import Vault, Workspace

HERE = Path(__file__).parent / "first-release"


def seen(vault: Vault) -> dict[str, Any]:
    """Everything that a caller reads, as JSON has it."""
    agents = vault.agents()
    found = {
        "principal": vault.principal_id,
        "scope": vault.scope,
        "blocks": [asdict(block) for block in vault.blocks()],
        "agents": [asdict(agent) for agent in agents],
        "by label": {
            agent.id: [vault.agent_block(agent.id, block.label).value for block in agent.blocks]
            for agent in agents
        },
        "grants": {block.id: [asdict(grant) for grant in vault.grants(block.id)] for block in vault.blocks()},
        "offers": [asdict(offer) for offer in vault.offers()],
        "access": sorted([asdict(cell) for cell in vault.access()], key=str),
        "tags": vault.tags(),
        "tokens": sorted([asdict(token) for token in vault.tokens()], key=str),
        "users": sorted([asdict(user) for user in vault.users()], key=str),
    }
    plain: dict[str, Any] = json.loads(json.dumps(found, default=datetime.isoformat))
    return plain


def append(line: str) -> Any:
    return lambda block: {"value": block.value + line}


def make(folder: Path) -> None:
    """Build it. Every kind of row is in it, and every way for a row to have come about."""
    folder.mkdir()
    workspace, root = Workspace.init(folder / "data", "alice")
    alice = workspace.vault(root.token)
    bob_credentials, carol_credentials = alice.add_user("bob"), alice.add_user("carol")

    team = alice.create_block(
        label="team/knowledge",
        value="Refunds take 30 days.\n",
        description="what everybody knows",
        tags=["shared", "näme"],
        metadata={"n": 1, "nested": {"list": [True, None, 1.5, "x"]}},
        extra={"hidden": True, "project_id": "p"},
    )
    first = alice.create_agent(
        {"name": "first", "tools": ["memory_insert"], "tags": ["t"], "system": "You are first."},
        block_ids=[team.id],
        memory_blocks=[{"label": "persona", "value": "I am first."}, {"label": "human", "value": ""}],
    )
    second = alice.create_agent({"name": "second"}, block_ids=[team.id], access="read")
    alice.edit_agent_block(first.id, "team/knowledge", append("By an agent.\n"), as_agent=True)

    alice.share(team.id, "bob", "write")
    bob = workspace.vault(bob_credentials.token)
    bob.accept_offer(team.id)
    bobs = bob.create_agent({"name": "bobs"}, block_ids=[team.id])
    bob.edit_agent_block(bobs.id, "team/knowledge", append("By bob's agent.\n"), as_agent=True)
    spare = bob.create_agent({"name": "spare"}, block_ids=[team.id])
    bob.detach(spare.id, team.id)
    alice.edit_block(team.id, append("By alice, who changed the keys.\n"))

    alice.share(team.id, "carol", "read")
    workspace.vault(carol_credentials.token).accept_offer(team.id)
    alice.revoke(team.id, "carol")
    alice.edit_block(team.id, append("Not for carol.\n"))

    rules = alice.create_block(label="rules", value="Be kind.", read_only=True, limit=50)
    alice.attach(second.id, rules.id)
    alice.share(rules.id, "carol")
    workspace.vault(carol_credentials.token)  # she has it as an offer
    alice.create_block(label="done", value="No more.", locked=True)
    unopened = alice.create_block(label="unopened", value="Still in the inbox.")

    gone = alice.create_agent({"name": "gone"}, block_ids=[team.id], memory_blocks=[{"label": "private"}])
    alice.delete_agent(gone.id)
    alice.delete_block(alice.create_block(label="deleted", value="gone").id)
    bob.create_block(label="bobs own", value="Alice cannot read this.", tags=["own"])

    far = datetime(2999, 1, 1, tzinfo=UTC)
    tokens = {
        "alice": root.token,
        "alice, read only": alice.create_token(scope="read", label="read only", expires=far),
        "first": alice.agent_token(first.id, label="an agent's"),
        "bob": bob_credentials.token,
        "bobs": bob.agent_token(bobs.id, scope="read"),
        "carol": carol_credentials.token,
    }
    revoked = alice.create_token(label="revoked")
    alice.revoke_token(revoked[6:22])
    expected = {name: seen(workspace.vault(token)) for name, token in tokens.items()}
    alice.share(unopened.id, "bob", "read")  # and nobody comes by any more
    expected["alice"] = seen(workspace.vault(root.token))
    expected["alice, read only"] = seen(workspace.vault(tokens["alice, read only"]))
    assert workspace.verify().findings == []
    workspace.close()
    secrets = {
        "tokens": tokens,
        "revoked": revoked,
        "kits": {"alice": root.kit, "bob": bob_credentials.kit, "carol": carol_credentials.kit},
        "team": team.id,
        "unopened": unopened.id,
    }
    for name, value in (("secrets.json", secrets), ("expected.json", expected)):
        (folder / name).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(make(HERE))
