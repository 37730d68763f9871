"""The verbs of HTTP, as remote vaults use them: the answer's body alone."""

from __future__ import annotations

from typing import Any

from tallystone.cli.wire import Wire


class Verbs:
    """One server, and the token that it is called with."""

    def __init__(self, url: str, token: str) -> None:
        self._wire = Wire(url, token)

    def _get(self, where: str) -> Any:
        return self._wire.call("GET", where)[0]

    def _post(self, where: str, body: object = None) -> Any:
        return self._wire.call("POST", where, body)[0]

    def _patch(self, where: str, body: object) -> Any:
        return self._wire.call("PATCH", where, body)[0]

    def _delete(self, where: str) -> Any:
        return self._wire.call("DELETE", where)[0]
