"""`/v1/log…`, ours: the audit log in public formats. With `/v1/log` as its prefix it is a C2SP `tlog-tiles` log.

None of it is about the caller, so a server may serve it to everybody (the setting `log_public`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict

from tallystone.letta.call import Answer, Binary, Call, Plain, Query
from tallystone.vault.publishing import PublicLog, leaf_of

Public = Callable[[PublicLog, Mapping[str, str], Query], Answer]
"""A route that needs no vault: the log, the path's parameters, the query."""

_FOREVER = {"cache-control": "max-age=31536000, immutable"}


def behind_token(public: Public) -> Callable[[Call], Answer]:
    """The same for a caller with a token."""
    return lambda call: public(call.vault.log, call.params, call.query)


def checkpoint(log: PublicLog, params: Mapping[str, str], query: Query) -> Answer:
    """`GET /v1/log/checkpoint`: the newest; with `?cosigned=true` the newest that a witness has cosigned."""
    return Plain(log.checkpoint(cosigned=bool(query.flag("cosigned", False))))


def tile(log: PublicLog, params: Mapping[str, str], query: Query) -> Answer:
    """`GET /v1/log/tile/…`: hashes of the tree, or under `entries/` the leaves. A tile never changes."""
    return Binary(log.tile(params["tile"]), headers=dict(_FOREVER))


def receipt(log: PublicLog, params: Mapping[str, str], query: Query) -> Answer:
    """`GET /v1/log/receipt/{leaf}`: a C2SP `tlog-proof` of one leaf."""
    return Plain(log.receipt(leaf_of(params["leaf"])))


def consistency(log: PublicLog, params: Mapping[str, str], query: Query) -> Answer:
    """`GET /v1/log/consistency/{old}`: the proof that the log grew out of its first `old` leaves."""
    return Plain(log.consistency(leaf_of(params["old"])))


def witnesses(log: PublicLog, params: Mapping[str, str], query: Query) -> Answer:
    """`GET /v1/log/witnesses`: the log's verifier key and size, and how fresh each witness's cosignature is."""
    view, now = log.view(), int(time.time())
    listed = [
        {
            **asdict(one),
            "behind": view.size - one.size,
            "age": None if one.time is None else max(now - one.time, 0),
        }
        for one in view.witnesses
    ]
    keys = [asdict(one) for one in view.keys]
    return Answer(
        {"origin": view.origin, "key": view.key, "keys": keys, "size": view.size, "witnesses": listed}
    )
