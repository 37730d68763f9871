"""Which hosts this server may call: the one list behind models, tool servers and whatever else goes out. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import SplitResult, urlsplit

from tallystone.errors import Invalid

Origin = tuple[str, str, int]
"""Scheme, host in lower case, port."""

_PORTS = {"http": 80, "https": 443}
_ENTRY = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?)(:(?P<port>[0-9]{1,5}))?")


def origin(url: str) -> Origin:
    """Where a URL leads. Raises `Invalid` for anything but a plain http or https URL without a user in it."""
    try:
        parts: SplitResult = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in _PORTS or parts.username is not None or not url.isprintable():
        raise Invalid(
            "this is no http or https URL", hint="e.g. https://host:port/v1, without a user or password"
        )
    return parts.scheme, host.lower(), _PORTS[parts.scheme] if port is None else port


def origin_text(url: str) -> str:
    """The origin of a URL as text: scheme, host, and the port if it is not the usual one. Raises `Invalid`."""
    scheme, host, port = origin(url)
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}" if port == _PORTS[scheme] else f"{scheme}://{shown}:{port}"


class Hosts:
    """An allow-list. An entry is a host, which allows the usual port of http or https, or host:port.

    Names are compared as they are written: no wildcards, no suffixes, and a name allows no other name of the same
    machine, so the loopback is open only where an entry names it. An empty list allows nothing.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self._allowed: set[tuple[str, int]] = set()
        for entry in entries:
            found = _ENTRY.fullmatch(entry.strip().lower())
            if found is None or int(found["port"] or 1) not in range(1, 65536):
                raise Invalid(
                    "an allowed host is a host name or host:port", hint="e.g. api.openai.com, [::1]:8080"
                )
            ports = [int(found["port"])] if found["port"] else list(_PORTS.values())
            self._allowed.update((found["host"].strip("[]"), port) for port in ports)

    @classmethod
    def of_urls(cls, urls: Iterable[str]) -> Hosts:
        """The hosts of these URLs, at exactly their ports."""
        hosts = cls(())
        hosts._allowed.update(origin(url)[1:] for url in urls)
        return hosts

    def allows(self, url: str) -> bool:
        """Whether a call to this URL may leave. False for what is no URL."""
        try:
            _, host, port = origin(url)
        except Invalid:
            return False
        return (host, port) in self._allowed
