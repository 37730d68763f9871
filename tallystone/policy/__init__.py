"""Who may do what: pure rules over a block's statements. No I/O, no clock, no keys.

The caller loads and opens statements and checks that a signature is by whom it says; this module decides whether
that signer was *allowed*. A valid signature by somebody who was not is a forgery (design §13).

The rules kept here, numbered as in design §7:

1. The genesis names the owner, who has every right. A link of the owner is trusted as it stands: it is a snapshot.
   A sharer passes on at most what it holds; `share` itself only with depth left, and then with less depth. Ownership
   moves by a `transfer` link: the old owner's signed settings name the new one, the new one signs the link.
2. `write` and `share` imply `read`; a grant never exceeds its granter's rights, expiry, history or depth. Who may be
   granted a block at all is in its settings: an allow-list, and the clearance that its sensitivity asks for.
3. Settings (limit, read_only, locked, …) are the owner's: a link by anybody else must leave them as they were.
4. The owner revokes anything; others what was given through their own grant, the whole subtree. Who cannot change the
   keys in the same step says so (`due`), and no version may cite that link.
5. A grantee may place the block with agents that it sponsors, below its own grant, with these rights or less. A grant
   that one reaches through a role is not placed: the agent becomes a member instead.
6. A version names its predecessor and the policy it was written under; a link names the link before it and the
   version it was made on. A version after that one may not cite an earlier link.
7. A version counts if its writer held `write` under the link it cites. Through a role: its path leads from the role's
   grant over the heads of live members to the writer, no head older than the record that the step before it names.
8. One grant is proved against the root in the link, so an answer costs a path, not the chain.
9. Expired means not granted: `today` (days since 1970) is an argument.
10. `read_only` leaves agents `read`; `locked` stops everybody's writes. What the genesis says is immutable keeps its
    first content, what it says is append-only keeps every version as the beginning of the next, whoever writes.
11. All versions are kept unless the owner's settings say how many or how long. A version names the oldest that is kept;
    from there on none is missing.

Keys change by a `policy` link of anybody who may write or share: it goes to the next epoch and touches nothing else.
Who does not hold the grants' keys renews them, which changes their leaves: such a link lists every live grant, and
each stays what it was but for its key and the record it is sealed to.

Example: Alice makes a block (genesis, she is the owner), grants Bob `write` (link 1, place 1 holds Bob's leaf). Bob
writes version 2: it cites link 1 and carries his leaf with its path to link 1's `grants`. Alice revokes Bob (link 2,
made on version 2; place 1 is empty). A version 3 by Bob that cites link 1 fails rule 6; one that cites link 2 fails
rule 7, for no path leads from his leaf to link 2's root.
"""

from tallystone.policy.chain import by_owner, follow, snapshot
from tallystone.policy.rights import (
    ROLE_DEPTH,
    Head,
    Party,
    PartyOf,
    Standing,
    Via,
    begin,
    check_settings,
    clearance,
    closure,
    exceeds,
    may_write,
    refusal,
    rights,
    rule_fits,
)
from tallystone.policy.versions import (
    carried,
    check_appended,
    check_fixed,
    check_kept,
    check_past,
    check_serials,
    check_version,
    kept,
    serials,
)

__all__ = [
    "ROLE_DEPTH",
    "Head",
    "Party",
    "PartyOf",
    "Standing",
    "Via",
    "begin",
    "by_owner",
    "carried",
    "check_appended",
    "check_fixed",
    "check_kept",
    "check_past",
    "check_serials",
    "check_settings",
    "check_version",
    "clearance",
    "closure",
    "exceeds",
    "follow",
    "kept",
    "may_write",
    "refusal",
    "rights",
    "rule_fits",
    "serials",
    "snapshot",
]
