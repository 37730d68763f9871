"""How a caller's secret becomes keys: tokens, invitations, roots, identities, recovery kits (design §6). No I/O.

    token ──"auth"──▶ verifier (the store recognises the caller by its hash)
      └────"open"──▶ root halves: R_read ─▶ locate, shelf, own      R_act ─▶ sign, kem, act, access

A read-only token's row seals R_read alone, so what R_act opens (signing, the inbox, acting as an agent) is not
refused to it by a check: the keys are not there.
"""

from tallystone.keystore.identities import (
    ACTIVE,
    DELETED,
    SUSPENDED,
    Identity,
    check_principal,
    principal_id,
)
from tallystone.keystore.invites import (
    Carried,
    Invite,
    new_invite,
    open_invitation,
    open_listed,
    parse_invite,
    seal_invitation,
)
from tallystone.keystore.keys import (
    FULL,
    READ_ONLY,
    SCOPES,
    Keys,
    Nest,
    Root,
    find_nest,
    new_root,
    open_seed,
    seal_seed,
)
from tallystone.keystore.kits import Kit, parse_kit
from tallystone.keystore.tokens import Token, new_token, open_root, parse_token, seal_root, token_context

__all__ = [
    "ACTIVE",
    "DELETED",
    "FULL",
    "READ_ONLY",
    "SCOPES",
    "SUSPENDED",
    "Carried",
    "Identity",
    "Invite",
    "Keys",
    "Kit",
    "Nest",
    "Root",
    "Token",
    "check_principal",
    "find_nest",
    "new_invite",
    "new_root",
    "new_token",
    "open_invitation",
    "open_listed",
    "open_root",
    "open_seed",
    "parse_invite",
    "parse_kit",
    "parse_token",
    "principal_id",
    "seal_invitation",
    "seal_root",
    "seal_seed",
    "token_context",
]
