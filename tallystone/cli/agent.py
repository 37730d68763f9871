"""`tallystone agent`: the agents that the caller sponsors."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from cyclopts import Parameter

from tallystone.cli.group import command, group
from tallystone.cli.place import Place
from tallystone.cli.terminal import emit, jsonable, line, moment, pairs, say, table
from tallystone.cli.times import deadline
from tallystone.cli.token import show
from tallystone.vault.types import Agent

app = group("agent", "List agents, and give one a token of its own.")

AgentId = Annotated[str, Parameter(metavar="AGENT")]


@command(app, "list", "tallystone agent list", "tallystone agent list --url http://127.0.0.1:8283")
def list_agents(*, place: Place = Place()) -> int:
    """List your agents."""
    with place.vault() as vault:
        agents = vault.agents()
    if place.as_json:
        emit([_json(agent) for agent in agents])
    else:
        columns = ("ID", "NAME", "BLOCKS", "UPDATED")
        table(
            columns,
            ([a.id, a.name, len(a.blocks), moment(a.updated_at)] for a in agents),
            empty="no agents yet",
        )
    return 0


@command(app, "show", "tallystone agent show agent-7c1e…")
def show_agent(agent: AgentId, /, *, place: Place = Place()) -> int:
    """Show one agent and the blocks attached to it.

    Parameters
    ----------
    agent
        The agent's id.
    """
    with place.vault() as vault:
        found = vault.agent(agent)
    if place.as_json:
        emit(_json(found))
        return 0
    pairs(
        {
            "id": found.id,
            "name": found.name,
            "created": moment(found.created_at),
            "updated": moment(found.updated_at),
            "tools": ", ".join(found.tools),
        }
    )
    line("")
    columns = ("LABEL", "BLOCK", "RIGHTS", "READ-ONLY", "SIZE")
    rows = (
        [b.label, b.id, b.rights, "yes" if b.read_only else "", f"{len(b.value)}/{b.limit}"]
        for b in found.blocks
    )
    table(columns, rows, empty="no blocks attached")
    return 0


def _json(agent: Agent) -> dict[str, object]:
    return {
        "id": agent.id,
        "name": agent.name,
        "created_at": moment(agent.created_at),
        "updated_at": moment(agent.updated_at),
        "version": agent.version,
        "tools": agent.tools,
        "blocks": [
            {"id": block.id, "label": block.label, "rights": block.rights, "read_only": block.read_only}
            for block in agent.blocks
        ],
        "state": jsonable(
            {key: value for key, value in agent.state.items() if key not in {"blocks", "memory", "tools"}}
        ),
    }


@command(app, "token", "tallystone agent token agent-7c1e… --expires 7d > agent.token")
def token(
    agent: AgentId,
    /,
    *,
    scope: Literal["full", "read"] = "full",
    expires: Annotated[str | None, Parameter(metavar="WHEN")] = None,
    label: str = "",
    place: Place = Place(),
) -> int:
    """Make a token that carries this agent and nothing of yours. It goes to stdout alone, once.

    Parameters
    ----------
    agent
        The agent's id.
    scope
        full, or read: without the keys to write or share.
    expires
        When it ends: a span (30d, 12h) or a time (2027-01-31). Without it, never.
    label
        A note to tell it from others. It is sealed.
    """
    ends = deadline(expires, datetime.now(UTC))
    with place.vault() as vault:
        made = vault.agent_token(agent, scope=scope, expires=ends, label=label)
    show(made, place)
    return 0


@command(
    app,
    "contact",
    "tallystone agent contact agent-7c1e…",
    "tallystone agent contact agent-7c1e… --with ada",
)
def contact(
    agent: AgentId,
    /,
    *,
    to: Annotated[str | None, Parameter(name="--with", metavar="WHOM")] = None,
    place: Place = Place(),
) -> int:
    """Show the block that names an agent to others, and make it if there is none. Agents of other users who hold it may
    write to the agent. It is shared, listed and revoked as every block is.

    Parameters
    ----------
    agent
        The agent's id.
    to
        Share it with a user, an agent or a role, to read, right away.
    """
    with place.vault() as vault:
        block = vault.contact(agent)
        grant = None if to is None else vault.share(block.id, to, "read")
    if place.as_json:
        emit({"block": block.id, "label": block.label, "grant": grant})
        return 0
    line(block.id)
    if grant is not None:
        whom = grant.name or grant.recipient
        say(f"{whom} can read it (grant {grant.number}): agents that hold it may write to {agent}")
    return 0
