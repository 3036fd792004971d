"""The two kinds of failure that a client hears of; each message is one line and names the cure.

A ToolInputError is the caller's to mend, a BackendError came from the model or service behind a tool. Any other
exception is a bug and reaches the client without its text.
"""

from __future__ import annotations

from enum import StrEnum


class ToolInputError(ValueError):
    """The request cannot be carried out as it stands; the message says what to change."""


class RegionError(ToolInputError):
    """A region of interest that cannot be used."""


class FailureKind(StrEnum):
    """What went wrong behind a tool, as tool results and sessions name it."""

    REFUSED = "refused"
    """The service declined for safety or policy reasons; another wording may pass."""
    EMPTY = "empty"
    """The service answered without the image or text it was asked for; another wording may help."""
    MALFORMED = "malformed"
    """Answers that could not be read, also after asking again."""
    RATE_LIMITED = "rate_limited"
    """Too many requests, also after waiting."""
    UNAVAILABLE = "unavailable"
    """Cannot be reached or answers with server errors, also after retries."""
    TIMEOUT = "timeout"
    """No answer in time."""
    AUTH = "auth"
    """The key is missing or not accepted."""
    REJECTED = "rejected"
    """The request as such was not accepted (unknown model, unsupported option)."""
    SETUP = "setup"
    """The backend cannot be used on this machine: a package, a file or a setting is missing."""


class BackendError(RuntimeError):
    """The backend of a tool failed; ``kind`` says how, ``cost_usd`` what the attempts cost all the same.

    ``attempts`` is the number of requests made. The message reaches the client: it holds no keys.
    """

    def __init__(self, message: str, kind: FailureKind, *, cost_usd: float = 0.0, attempts: int = 1) -> None:
        super().__init__(message)
        self.kind = kind
        self.cost_usd = cost_usd
        self.attempts = attempts
