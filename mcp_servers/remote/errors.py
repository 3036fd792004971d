"""What a failure of a service means: one reading for every SDK, and one table from status to FailureKind.

A service's own words are passed on in one short line, without keys.
"""

from __future__ import annotations

import email.utils
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mcp_servers.errors import BackendError, FailureKind

RETRYABLE = frozenset({408, 429, 500, 502, 503, 504})
"""HTTP statuses after which the same request may pass."""
REFUSALS = ("moderation", "content_policy", "safety system", "safety_violation", "prohibited_content")
"""Words in a rejection that say that it is one of policy."""
WRONG_KEY = ("api_key_invalid", "api key not valid", "api key expired", "invalid_api_key")
"""Words in a rejection that say that the key is to blame, whatever its status."""
NO_QUOTA = ("insufficient_quota", "billing_hard_limit", "credit balance")
"""Words in a "too many requests" that say that waiting will not help."""
UNREADABLE = ("ValidationError", "APIResponseValidationError", "UnknownApiResponseError")
"""Exceptions by which pydantic and the SDKs say that an answer is not of the promised form."""
WORDS = 200
"""Characters of a service's own words that are passed on."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A failed request: what kind, whether asking again may help, how long the service wants to be left alone (s)."""

    kind: FailureKind
    message: str
    retry: bool = False
    wait: float | None = None

    def error(self, cost_usd: float = 0.0, attempts: int = 1) -> BackendError:
        return BackendError(self.message, self.kind, cost_usd=cost_usd, attempts=attempts)


def fault_of(error: Exception, service: str, secrets: Iterable[str] = ()) -> Fault | None:
    """What an SDK's or the HTTP client's exception means; None for one that is a bug of ours.

    ``service`` is how the message names the service; ``secrets`` are cut out of the service's own words.
    """
    name, module = type(error).__name__, type(error).__module__.partition(".")[0]
    said = one_line(_words(error), secrets)
    status = _status(error)
    if status is not None:
        return from_status(status, said, service, _wait(error))
    if isinstance(error, TimeoutError) or "Timeout" in name:
        return Fault(
            FailureKind.TIMEOUT,
            f"{service} gave no answer in time: try again later, or raise ANOMALY_AGENT_..._TIMEOUT",
        )
    if module == "json" or name in UNREADABLE:
        return unreadable(service)
    if module in ("openai", "httpx", "httpx2", "google", "grpc") or isinstance(error, OSError):
        cure = "check the address and the network"
        return Fault(FailureKind.UNAVAILABLE, f"{service} cannot be reached ({said}): {cure}", retry=True)
    return None


def unreadable(service: str) -> Fault:
    """An answer that is not what the service's protocol says; asked for once more."""
    return Fault(FailureKind.MALFORMED, f"{service} sent an answer that cannot be read: try again later", retry=True)


def from_status(status: int, said: str, service: str, wait: float | None = None) -> Fault:
    """The meaning of an HTTP status (gRPC statuses are translated before), given what the service said."""
    lower = said.lower()
    because = f" ({said})" if said else ""
    if status in (401, 403) or (status == 400 and any(word in lower for word in WRONG_KEY)):
        return Fault(FailureKind.AUTH, f"{service} does not accept the key{because}: check the key and its rights")
    if status == 429:
        if any(word in lower for word in NO_QUOTA):
            return Fault(FailureKind.RATE_LIMITED, f"{service}: the account's quota is used up{because}: check billing")
        text = f"{service} limits the number of requests{because}: wait, or raise the account's limits"
        return Fault(FailureKind.RATE_LIMITED, text, True, wait)
    if status in (408, 504):
        return Fault(FailureKind.TIMEOUT, f"{service} ran out of time{because}: try again later", True, wait)
    if status >= 500:
        text = f"{service} answers with server errors (status {status}{', ' + said if said else ''}): try again later"
        return Fault(FailureKind.UNAVAILABLE, text, status in RETRYABLE, wait)
    if any(word in lower for word in REFUSALS):
        return Fault(FailureKind.REFUSED, f"{service} refused for policy reasons{because}: word it more neutrally")
    if status == 404:
        return Fault(FailureKind.REJECTED, f"{service} does not know that model or address{because}: check both")
    text = f"{service} did not accept the request (status {status}{', ' + said if said else ''}): check the options"
    return Fault(FailureKind.REJECTED, text)


def one_line(text: str, secrets: Iterable[str] = ()) -> str:
    """A text in one line of at most ``WORDS`` printable characters, without the secrets."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= WORDS else text[: WORDS - 1] + "…"


def _words(error: Exception) -> str:
    """What the service itself said, without the SDK's wrapping."""
    body = getattr(error, "body", None)  # openai
    if isinstance(body, Mapping):
        return " ".join(str(body[key]) for key in ("message", "code") if body.get(key) and isinstance(body[key], str))
    if isinstance(details := getattr(error, "details", None), Mapping):  # google-genai
        inner = details.get("error", details)
        if isinstance(inner, Mapping):
            reasons = [str(item.get("reason", "")) for item in _items(inner)]
            return " ".join(part for part in (str(inner.get("message", "")), *reasons) if part)
    if callable(details):  # grpc
        return str(details() or "")
    return str(getattr(error, "message", None) or error)


def _status(error: Exception) -> int | None:
    code = getattr(error, "code", None)
    if callable(code):  # grpc
        return GRPC_STATUS.get(code().name)
    response = getattr(error, "response", None)
    found = getattr(error, "status_code", None) or getattr(response, "status_code", None) or code
    return found if isinstance(found, int) and 400 <= found < 600 else None


GRPC_STATUS = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNKNOWN": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "ABORTED": 503,
    "DEADLINE_EXCEEDED": 504,
}
"""gRPC status -> HTTP status of the same meaning."""


def _wait(error: Exception) -> float | None:
    """Seconds that the service asks to be left alone: Retry-After, or Google's RetryInfo."""
    headers = getattr(getattr(error, "response", None), "headers", None)
    if headers is not None and (text := headers.get("retry-after")):
        return _seconds(text)
    details = getattr(error, "details", None)
    if isinstance(details, Mapping) and isinstance(inner := details.get("error", details), Mapping):
        delays = [str(item["retryDelay"]) for item in _items(inner) if item.get("retryDelay")]
        return _seconds(delays[0].removesuffix("s")) if delays else None
    return None


def _items(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    listed = body.get("details")
    return [item for item in listed if isinstance(item, Mapping)] if isinstance(listed, list) else []


def _seconds(text: str) -> float | None:
    """Seconds of a delay given as a number or as a date, None for anything else."""
    try:
        number = float(text)
    except ValueError:
        try:
            number = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, number) if math.isfinite(number) else None
