"""The audit log of a server, over the HTTP routes."""

from __future__ import annotations

from tallystone.cli import values
from tallystone.cli.wire import Wire, path
from tallystone.vault.types import LogKeyInfo, LogView, WitnessInfo


class RemoteLog:
    """The audit log of a server. Same methods and values as `PublicLog`, fewer of them."""

    def __init__(self, url: str, token: str | None) -> None:
        """Without a token only a server whose log is public answers."""
        self._wire = Wire(url, token)

    def checkpoint(self, *, cosigned: bool = False) -> bytes:
        """The newest signed checkpoint, or the newest that was cosigned."""
        return self._wire.fetch("/v1/log/checkpoint" + ("?cosigned=true" if cosigned else ""))

    def receipt(self, leaf: int) -> bytes:
        """The bundle that proves a leaf."""
        return self._wire.fetch(path("log", "receipt", str(leaf)))

    def view(self) -> LogView:
        """The log's name, key and size, and its witnesses."""
        answer = self._wire.call("GET", "/v1/log/witnesses")[0]
        listed = [values.plain(WitnessInfo, item) for item in answer["witnesses"]]
        keys = [values.plain(LogKeyInfo, item) for item in answer.get("keys", [])]
        return LogView(str(answer["origin"]), str(answer["key"]), int(answer["size"]), listed, keys)


class RemoteAuditors:
    """Who sees what concerns no block. Same methods and values as `Vault` has."""

    _wire: Wire

    def auditors(self) -> list[str]:
        """Their ids."""
        return [str(one) for one in self._wire.call("GET", "/v1/audit/auditors")[0]]

    def grant_audit(self, who: str, *, history: bool = False) -> str:
        """Let a user see it."""
        body = {"principal": who, "history": history}
        return str(self._wire.call("POST", "/v1/audit/auditors", body)[0]["principal"])

    def end_audit(self, who: str) -> str:
        """Take that away."""
        return str(self._wire.call("DELETE", path("audit", "auditors", who))[0]["principal"])
