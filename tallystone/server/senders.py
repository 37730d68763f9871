"""Which address a request came from: that of the connection, or what a trusted proxy says in `X-Forwarded-For`.

It is looked at for requests without a good token alone, to count them by address. Nobody is let in by an address.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

from tallystone.errors import Invalid

Network: TypeAlias = IPv4Network | IPv6Network
_HINT = "for example 127.0.0.1,10.0.0.0/8"


def read_proxies(value: object) -> tuple[str, ...]:
    """The setting `proxies`: addresses and networks. Raises `Invalid`."""
    entries = value.split(",") if isinstance(value, str) else value
    if not isinstance(entries, list | tuple) or not all(isinstance(entry, str) for entry in entries):
        raise Invalid("should be a list of addresses and networks", hint=_HINT)
    cleaned = tuple(entry.strip() for entry in entries)
    try:
        networks(cleaned)
    except ValueError:
        raise Invalid("should be a list of addresses and networks", hint=_HINT) from None
    return cleaned


def networks(proxies: Sequence[str]) -> tuple[Network, ...]:
    """The networks that the setting names. Raises `ValueError`."""
    return tuple(ip_network(entry) for entry in proxies)


def sender(peer: str, headers: Mapping[str, str], trusted: Sequence[Network]) -> str:
    """The address that a request is counted under; of IPv6 the network of 64 bits that one customer has.

    Of `X-Forwarded-For` the last address counts that no trusted proxy has: what stands before it, anybody can write.
    """
    if _is_trusted(peer, trusted):
        for entry in reversed(headers.get("x-forwarded-for", "").split(",")):
            if not entry.strip():
                break
            peer = entry.strip()
            if not _is_trusted(peer, trusted):
                break
    try:
        address = ip_address(peer)
    except ValueError:
        return peer[:64]
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return str(IPv6Network((address, 64), strict=False))
    return str(address)


def _is_trusted(peer: str, trusted: Sequence[Network]) -> bool:
    if not trusted:
        return False
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    return any(address in network for network in trusted)
