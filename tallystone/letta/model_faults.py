"""From whatever a provider's library raises to a failure that may be shown, and whether trying again makes sense.

Foreign messages quote requests, answers and sometimes keys: none of their words is taken over, only status codes are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import httpx2
from pydantic_ai import exceptions as foreign

from tallystone.letta.model import FailureKind, ModelFailed
from tallystone.letta.outbound import Elsewhere, Unfit

_TOO_LONG = re.compile(
    r"context[_ ](length|window|size)|maximum context|too many (input )?tokens|prompt is too long",
    re.IGNORECASE,
)


class CutShort(Exception):
    """A stream that ended without saying why: the rest of the answer is missing."""


@dataclass(frozen=True)
class Fault:
    """A failure, whether another attempt may help (`again`), and the seconds that the provider asked to wait."""

    failure: ModelFailed
    again: bool = False
    after: float | None = None


def fault_of(error: Exception, provider: str) -> Fault:
    """What this error means."""
    chain = list(_causes(error))
    if any(isinstance(link, Elsewhere) for link in chain):
        return _fault("refused", f"a call to {provider} would have left for another host")
    if any(isinstance(link, Unfit) for link in chain):
        return _fault("bad_answer", f"{provider} sent an answer that is packed or far too large")
    if isinstance(error, foreign.ModelRequestTimeout | TimeoutError):
        return _fault(
            "timeout", f"{provider} did not answer in time", "the setting `model_timeout` says how long"
        )
    if isinstance(error, foreign.ModelTimeoutError | httpx2.TimeoutException):
        return Fault(ModelFailed("timeout", f"{provider} did not answer in time"), again=True)
    if isinstance(error, foreign.ModelConnectionError | httpx2.TransportError):
        return Fault(ModelFailed("unavailable", f"the connection to {provider} failed"), again=True)
    if isinstance(error, CutShort):
        return Fault(ModelFailed("unavailable", f"{provider} broke off its answer"), again=True)
    if isinstance(error, foreign.ModelAPIError):
        return _of_api_error(error, provider)
    return _fault("bad_answer", f"{provider} sent an answer that cannot be read")


def _of_api_error(error: foreign.ModelAPIError, provider: str) -> Fault:
    status = error.status_code if isinstance(error, foreign.ModelHTTPError) else None
    said = f" ({status})" if status is not None else ""
    if isinstance(error, foreign.ModelContextWindowExceededError) or (
        status in (400, 413, 422) and _TOO_LONG.search(str(error.body))
    ):
        return _fault("too_long", f"the conversation is too long for the model of {provider}{said}")
    if isinstance(error, foreign.ModelAuthenticationError) or status in (401, 403):
        return _fault(
            "refused", f"{provider} does not accept the key{said}", "check the key of this provider"
        )
    if isinstance(error, foreign.ModelQuotaExceededError):
        return _fault(
            "refused", f"the account at {provider} has no quota left{said}", "check the account's billing"
        )
    if isinstance(error, foreign.ModelNotFoundError):
        return _fault("refused", f"{provider} has no such model{said}", "check the agent's model handle")
    limited = isinstance(error, foreign.ModelRateLimitError) or status == 429
    broken = isinstance(error, foreign.ModelUnavailableError | foreign.ModelServerError)
    if limited or broken or (status is not None and (status >= 500 or status in (408, 409))):
        again = not (isinstance(error, foreign.ModelHTTPError) and error.provider_retry_hint is False)
        words = (
            f"{provider} limits the rate of calls{said}" if limited else f"{provider} is not available{said}"
        )
        return Fault(ModelFailed("unavailable", words), again, error.retry_after)
    if isinstance(error, foreign.ModelRequestRejectedError) or status is not None:
        return _fault("refused", f"{provider} does not accept the request{said}")
    return _fault("bad_answer", f"{provider} sent an answer that cannot be read")


def _fault(kind: FailureKind, message: str, hint: str = "") -> Fault:
    return Fault(ModelFailed(kind, message, hint=hint))


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__
