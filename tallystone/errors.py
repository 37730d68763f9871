"""Every error that Tallystone raises, in one tree.

    TallystoneError
    ├── Unauthenticated      no token, or one that opens nothing            401
    ├── Denied               reachable, but this right is not held          403
    ├── NotFound             not reachable: the same for "never existed"    404
    ├── Invalid              the input itself is wrong                      422
    │   └── Rejected         well formed, but the contract answers 400      400
    ├── PreconditionFailed   If-Match did not match                         412
    ├── Locked               locked, or waiting for a rotation              423
    ├── Conflict             lost a race; the same call may succeed         409
    │   ├── Taken            a name or label is in use already              409
    │   └── Waiting          somebody else must answer first                409
    ├── Tampered             stored bytes fail a check                      500
    ├── Unwitnessed          no witness has cosigned the log in time        503
    └── StoreError           the store cannot answer                        503
        └── StoreFull        no space left                                  503

The message is for whoever reads the answer; `hint` says what to do next. Neither ever holds a secret, a value,
SQL, or anything about another principal.
"""

from __future__ import annotations


class TallystoneError(Exception):
    """The root. `code` is a stable word for programs, `status` the HTTP status that says the same."""

    code = "error"
    status = 500

    def __init__(self, message: str, *, hint: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code


class Unauthenticated(TallystoneError):
    """No token, or one that opens nothing: unknown, expired, revoked and malformed look alike."""

    code = "unauthenticated"
    status = 401


class Denied(TallystoneError):
    """The caller can see the thing but does not hold the right that the call needs."""

    code = "denied"
    status = 403


class NotFound(TallystoneError):
    """Not addressable for this caller. Says nothing about whether it exists for somebody else."""

    code = "not_found"
    status = 404


class Invalid(TallystoneError):
    """The input is wrong, whoever sends it."""

    code = "invalid"
    status = 422


class Rejected(Invalid):
    """Well-formed input that the wire contract answers with 400."""

    code = "rejected"
    status = 400


class PreconditionFailed(TallystoneError):
    """The version that the caller named is no longer the current one."""

    code = "precondition_failed"
    status = 412


class Locked(TallystoneError):
    """The block takes no change now: its owner locked it, or a rotation is due first."""

    code = "locked"
    status = 423


class Conflict(TallystoneError):
    """A row that the change was based on has changed meanwhile. Nothing was written."""

    code = "conflict"
    status = 409


class Taken(Conflict):
    """Another thing has this name or label already; a retry will not help."""

    code = "taken"


class Waiting(Conflict):
    """Something else must be answered first; a retry of the same will not help."""

    code = "waiting"


class Tampered(TallystoneError):
    """Stored bytes do not verify. What was read is not used; `tallystone audit verify` names the place."""

    code = "tampered"


class Unwitnessed(TallystoneError):
    """The answer waits for a witness of the log, and none has cosigned in time, or none is asked here. What was asked
    may have been done and logged: only the answer is kept back."""

    code = "not_witnessed"
    status = 503


class StoreError(TallystoneError):
    """The store cannot answer: not a database, no permission, a newer format, an I/O error."""

    code = "store"
    status = 503


class StoreFull(StoreError):
    """The disk is full. Nothing of the change was written."""

    code = "store_full"
