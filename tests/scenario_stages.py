"""Where stories are played (see `scenario`): on the vault, and over HTTP with the real client.

Each call opens what it needs from the token of whoever acts, as the server does for a request.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any

import httpx
import letta_client
from scenario import Day, Line, ToolRefused
from server_fixtures import AUTHORITIES, Served

from tallystone import errors
from tallystone.errors import TallystoneError
from tallystone.vault import Vault, Workspace
from tallystone.vault.types import Block

TOOL = "core_memory_append"
_RUN = count(1)


def appended(text: str, before: Block) -> dict[str, str]:
    """The edit that appends a line."""
    return {"value": f"{before.value}\n{text}"}


class VaultStage:
    """The vault in this process."""

    thorough = True

    def __init__(self, workspace: Workspace, root: str, users: Any) -> None:
        self.workspace = workspace
        self.tokens = {"root": root}
        self.ids: dict[str, str] = {}
        self._suffix = f" {next(_RUN)}"
        owner = workspace.vault(root)
        for user in users:
            made = owner.add_user(user + self._suffix)
            self.tokens[user], self.ids[user] = made.token, made.principal

    @property
    def names(self) -> dict[str, str]:
        """From ids to the story's names."""
        return {identity: name for name, identity in self.ids.items()}

    def vault(self, who: str) -> Vault:
        """What somebody's token opens now."""
        return self.workspace.vault(self.tokens[who])

    def day(self, value: Day | None) -> date | None:
        """A day of the story as a date."""
        if value is None:
            return None
        return datetime.fromtimestamp(self.workspace.now(), UTC).date() + timedelta(days=value.offset)

    def options(self, line: Line) -> dict[str, Any]:
        """A line's options as the vault takes them."""
        found: dict[str, Any] = {}
        for name, value in line.options.items():
            if isinstance(value, Day):
                value = self.day(value)
            if isinstance(value, list):
                value = [self.ids[one] for one in value]
            found[name] = value
        return found

    def close(self) -> None:
        """Back to the present."""
        self.workspace.clock = time.time

    # -- playing

    def do(self, line: Line) -> object:
        """See `Stage`."""
        return getattr(self, f"_{line.verb}")(self.vault(line.actor) if line.actor != "time" else None, line)

    def listed(self, who: str) -> dict[str, str]:
        """See `Stage`."""
        return self._texts({block.id: block.value for block in self.vault(who).blocks()})

    def _texts(self, found: Mapping[str, str]) -> dict[str, str]:
        return {self.names[identity]: text for identity, text in found.items() if identity in self.names}

    def by_id(self, who: str, block: str) -> str:
        """See `Stage`."""
        return self.vault(who).block(self.ids.get(block, block)).value

    def by_label(self, agent: str, block: str) -> str:
        """See `Stage`."""
        return self.vault(agent).agent_block(self.ids[agent], block).value

    # -- verbs

    def _create(self, vault: Vault, line: Line) -> None:
        name = line.name(0)
        self.ids[name] = vault.create_block(label=name, value=line.text(1), **self.options(line)).id

    def _set(self, vault: Vault, line: Line) -> None:
        vault.edit_block(self.ids[line.name(0)], lambda _: self.options(line))

    def _delete(self, vault: Vault, line: Line) -> None:
        vault.delete_block(self.ids[line.name(0)])

    def _read(self, vault: Vault, line: Line) -> str:
        return vault.block(self.ids[line.name(0)]).value

    def _list(self, vault: Vault, line: Line) -> set[str]:
        return set(self.listed(line.actor))

    def _write(self, vault: Vault, line: Line) -> None:
        vault.edit_block(self.ids[line.name(0)], lambda _: {"value": line.text(1)})

    def _append(self, vault: Vault, line: Line) -> None:
        vault.edit_block(self.ids[line.name(0)], partial(appended, line.text(1)))

    def _agent(self, vault: Vault, line: Line) -> None:
        name = line.name(0)
        self.ids[name] = vault.create_agent({"name": name, "tools": [TOOL]}).id
        self.tokens[name] = vault.agent_token(self.ids[name])

    def _attach(self, vault: Vault, line: Line) -> None:
        vault.attach(self.ids[line.name(0)], self.ids[line.name(1)], line.right(2, "write"))

    def _detach(self, vault: Vault, line: Line) -> None:
        vault.detach(self.ids[line.name(0)], self.ids[line.name(1)])

    def _label(self, vault: Vault, line: Line) -> str:
        return vault.agent_block(self.ids[line.name(0)], line.name(1)).value

    def _tool(self, vault: Vault, line: Line) -> None:
        edit = partial(appended, line.text(2))
        vault.edit_agent_block(self.ids[line.name(0)], line.name(1), edit, as_agent=True)

    def _share(self, vault: Vault, line: Line) -> None:
        block, who = self.ids[line.name(0)], self.ids[line.name(1)]
        vault.share(block, who, line.right(2, "read"), **self.options(line))

    def _revoke(self, vault: Vault, line: Line) -> set[str]:
        left = vault.revoke(self.ids[line.name(0)], self.ids[line.name(1)])
        return {self.names[reach.principal] for reach in left}

    def _reach(self, vault: Vault, line: Line) -> set[str]:
        return {self.names[reach.principal] for reach in vault.reach(self.ids[line.name(0)])}

    def _accept(self, vault: Vault, line: Line) -> None:
        vault.accept_offer(self.ids[line.name(0)])

    def _decline(self, vault: Vault, line: Line) -> None:
        vault.decline_offer(self.ids[line.name(0)])

    def _role(self, vault: Vault, line: Line) -> None:
        name = line.name(0)
        self.ids[name] = vault.create_role(name + self._suffix, **self.options(line)).id

    def _add(self, vault: Vault, line: Line) -> None:
        who = [self.ids[one] for one in line.arguments[1:]]
        vault.add_members(self.ids[line.name(0)], who, **self.options(line))

    def _remove(self, vault: Vault, line: Line) -> None:
        vault.remove_member(self.ids[line.name(0)], self.ids[line.name(1)])

    def _unmake(self, vault: Vault, line: Line) -> None:
        vault.delete_role(self.ids[line.name(0)])

    def _transfer(self, vault: Vault, line: Line) -> None:
        vault.transfer(self.ids[line.name(0)], self.ids[line.name(1)])

    def _take(self, vault: Vault, line: Line) -> None:
        vault.accept_transfer(self.ids[line.name(0)])

    def _keep(self, vault: Vault, line: Line) -> None:
        vault.cancel_transfer(self.ids[line.name(0)])

    def _clear(self, vault: Vault, line: Line) -> None:
        level = line.arguments[1]
        vault.set_clearance(self.ids[line.name(0)], level)

    def _suspend(self, vault: Vault, line: Line) -> None:
        vault.suspend(self.ids[line.name(0)])

    def _resume(self, vault: Vault, line: Line) -> None:
        vault.resume(self.ids[line.name(0)])

    def _days(self, _: None, line: Line) -> None:
        ahead = int(line.arguments[0]) * 86400
        before = self.workspace.clock
        self.workspace.clock = lambda: before() + ahead


# -- over HTTP --------------------------------------------------------------------------------------------------

STATUS: Mapping[int, type[TallystoneError]] = {
    400: errors.Rejected,
    401: errors.Unauthenticated,
    403: errors.Denied,
    404: errors.NotFound,
    409: errors.Taken,
    412: errors.PreconditionFailed,
    422: errors.Invalid,
    423: errors.Locked,
}


class HttpStage(VaultStage):
    """A server."""

    thorough = False  # the vault's replay is

    def __init__(self, served: Served, users: Any) -> None:
        super().__init__(served.workspace, served.token, users)
        self._served = served
        self._pool = httpx.Client(base_url=served.url, trust_env=False, verify=AUTHORITIES, timeout=60)
        self._clients: dict[str, letta_client.Letta] = {}

    def close(self) -> None:
        """Let go of the connections too."""
        super().close()
        self._pool.close()

    def client(self, who: str) -> letta_client.Letta:
        """The real client, with somebody's token."""
        if who not in self._clients:
            self._clients[who] = self._served.letta(self.tokens[who], http_client=self._pool)
        return self._clients[who]

    def do(self, line: Line) -> object:
        """See `Stage`."""
        if line.actor == "time":
            return super().do(line)
        verb = getattr(self, f"_http_{line.verb}")
        return _answered(lambda: verb(self.client(line.actor), line))

    def ask(self, who: str, method: str, path: str, body: Any = None) -> Any:
        """A request of ours, which the client has no method for."""
        send = getattr(self.client(who), method)
        return send(path, cast_to=object, **({} if body is None else {"body": body}))

    def wire(self, line: Line) -> dict[str, Any]:
        """A line's options as JSON has them."""
        found = self.options(line)
        return {name: one.isoformat() if isinstance(one, date) else one for name, one in found.items()}

    # -- looking

    def listed(self, who: str) -> dict[str, str]:
        """See `Stage`."""

        def texts() -> dict[str, str]:
            return self._texts(
                {block.id: block.value for block in self.client(who).blocks.list(limit=100).items}
            )

        found: dict[str, str] = _answered(texts)
        return found

    def by_id(self, who: str, block: str) -> str:
        """See `Stage`."""
        found: str = _answered(lambda: self.client(who).blocks.retrieve(self.ids[block]).value)
        return found

    def by_label(self, agent: str, block: str) -> str:
        """See `Stage`."""
        ask = self.client(agent).agents.blocks.retrieve
        found: str = _answered(lambda: ask(block, agent_id=self.ids[agent]).value)
        return found

    # -- verbs

    def _http_create(self, client: letta_client.Letta, line: Line) -> None:
        name, options = line.name(0), self.wire(line)
        made = client.blocks.create(label=name, value=line.text(1), extra_body=options)
        self.ids[name] = made.id

    def _http_set(self, client: letta_client.Letta, line: Line) -> None:
        client.blocks.update(self.ids[line.name(0)], extra_body=self.wire(line))

    def _http_delete(self, client: letta_client.Letta, line: Line) -> None:
        client.blocks.delete(self.ids[line.name(0)])

    def _http_read(self, client: letta_client.Letta, line: Line) -> str:
        return client.blocks.retrieve(self.ids[line.name(0)]).value

    def _http_list(self, client: letta_client.Letta, line: Line) -> set[str]:
        return set(self.listed(line.actor))

    def _http_write(self, client: letta_client.Letta, line: Line) -> None:
        client.blocks.update(self.ids[line.name(0)], value=line.text(1))

    def _http_append(self, client: letta_client.Letta, line: Line) -> None:
        block = self.ids[line.name(0)]
        client.blocks.update(block, value=f"{client.blocks.retrieve(block).value}\n{line.text(1)}")

    def _http_agent(self, client: letta_client.Letta, line: Line) -> None:
        name = line.name(0)
        self.ids[name] = client.agents.create(name=name, tools=[TOOL]).id
        made = self.ask(line.actor, "post", "/v1/tokens", {"agent_id": self.ids[name]})
        self.tokens[name] = made["token"]

    def _http_attach(self, client: letta_client.Letta, line: Line) -> None:
        agent, block = self.ids[line.name(0)], self.ids[line.name(1)]
        query = {"access": line.right(2, "write")} if len(line.arguments) > 2 else {}
        client.agents.blocks.attach(block, agent_id=agent, extra_query=query)

    def _http_detach(self, client: letta_client.Letta, line: Line) -> None:
        client.agents.blocks.detach(self.ids[line.name(1)], agent_id=self.ids[line.name(0)])

    def _http_label(self, client: letta_client.Letta, line: Line) -> str:
        return client.agents.blocks.retrieve(line.name(1), agent_id=self.ids[line.name(0)]).value

    def _http_tool(self, client: letta_client.Letta, line: Line) -> None:
        arguments: dict[str, object] = {"label": line.name(1), "content": line.text(2)}
        run = client.agents.tools.run(TOOL, agent_id=self.ids[line.name(0)], args=arguments)
        if run.status != "success":
            raise ToolRefused(str(run.stderr))

    def _grants(self, line: Line) -> str:
        return f"/v1/blocks/{self.ids[line.name(0)]}/grants"

    def _http_share(self, client: letta_client.Letta, line: Line) -> None:
        body = {"recipient": self.ids[line.name(1)], "can": line.right(2, "read"), **self.wire(line)}
        self.ask(line.actor, "post", self._grants(line), body)

    def _http_revoke(self, client: letta_client.Letta, line: Line) -> set[str]:
        left = self.ask(line.actor, "delete", f"{self._grants(line)}/{self.ids[line.name(1)]}")
        return {self.names[reach["principal"]] for reach in left["still_reachable"]}

    def _http_accept(self, client: letta_client.Letta, line: Line) -> None:
        self.ask(line.actor, "post", f"/v1/offers/{self.ids[line.name(0)]}/accept")

    def _http_decline(self, client: letta_client.Letta, line: Line) -> None:
        self.ask(line.actor, "post", f"/v1/offers/{self.ids[line.name(0)]}/decline")

    def _http_role(self, client: letta_client.Letta, line: Line) -> None:
        body = {"name": line.name(0) + self._suffix, **self.wire(line)}
        self.ids[line.name(0)] = self.ask(line.actor, "post", "/v1/roles", body)["id"]

    def _http_add(self, client: letta_client.Letta, line: Line) -> None:
        body = {"members": [self.ids[one] for one in line.arguments[1:]], **self.wire(line)}
        self.ask(line.actor, "post", f"/v1/roles/{self.ids[line.name(0)]}/members", body)

    def _http_remove(self, client: letta_client.Letta, line: Line) -> None:
        role, who = self.ids[line.name(0)], self.ids[line.name(1)]
        self.ask(line.actor, "delete", f"/v1/roles/{role}/members/{who}")

    def _http_unmake(self, client: letta_client.Letta, line: Line) -> None:
        self.ask(line.actor, "delete", f"/v1/roles/{self.ids[line.name(0)]}")

    def _http_reach(self, client: letta_client.Letta, line: Line) -> set[str]:
        found = self.ask(line.actor, "get", f"/v1/blocks/{self.ids[line.name(0)]}/access")
        return {self.names[reach["principal"]] for reach in found}

    def _http_transfer(self, client: letta_client.Letta, line: Line) -> None:
        body = {"to": self.ids[line.name(1)]}
        self.ask(line.actor, "post", f"/v1/blocks/{self.ids[line.name(0)]}/transfer", body)

    def _http_take(self, client: letta_client.Letta, line: Line) -> None:
        self.ask(line.actor, "post", f"/v1/blocks/{self.ids[line.name(0)]}/transfer/accept")

    def _http_keep(self, client: letta_client.Letta, line: Line) -> None:
        self.ask(line.actor, "delete", f"/v1/blocks/{self.ids[line.name(0)]}/transfer")

    def _http_clear(self, client: letta_client.Letta, line: Line) -> None:
        self.ask(line.actor, "patch", f"/v1/users/{self.ids[line.name(0)]}", {"clearance": line.arguments[1]})

    def _http_suspend(self, client: letta_client.Letta, line: Line) -> None:
        self.ask(line.actor, "post", f"/v1/users/{self.ids[line.name(0)]}/suspend")

    def _http_resume(self, client: letta_client.Letta, line: Line) -> None:
        self.ask(line.actor, "post", f"/v1/users/{self.ids[line.name(0)]}/resume")


def _answered(ask: Any) -> Any:
    """What `ask` returns; what the server refuses is raised as the vault's error of that status."""
    try:
        return ask()
    except letta_client.APIStatusError as error:
        body = error.body if isinstance(error.body, dict) else {}
        code = body.get("error", {}).get("code", "?")
        raise STATUS[error.status_code](str(body.get("detail")), code=code) from None
