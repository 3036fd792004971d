"""What went wrong between the policy and its server, each in one line with the cure. No line holds a key."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import openai

OPTIONAL_FIELDS = ("stop", "seed", "parallel_tool_calls", "stream_options", "stream", "max_tokens")
"""Fields of a request that are left out (``max_tokens``: named otherwise) where a server does not take them."""

NO_QUOTA = ("insufficient_quota", "billing_hard_limit_reached")
"""Codes of a 429 that waiting does not mend."""

_OVERFLOW = re.compile(
    r"context.{0,3}length|context window|maximum model length|max_model_len|prompt is too long|too many tokens"
    r"|at most \d+ images?|at most \d+ image\(s\)",
    re.IGNORECASE,
)
_NOT_TAKEN = re.compile(r"unsupported|not support|unexpected|unrecognized|unknown|extra|not permitted", re.IGNORECASE)


def server_words(error: openai.APIError) -> str:
    """What the server said, in one line of at most 300 characters."""
    body = error.body
    words = body.get("message") or body.get("detail") or body.get("error") if isinstance(body, dict) else body
    if isinstance(words, dict):
        words = words.get("message")
    text = " ".join((words if isinstance(words, str) and words else error.message).split())
    return text if len(text) <= 300 else text[:299] + "…"


def overflows(error: openai.APIError) -> bool:
    """Whether the server says that the conversation, or its number of images, exceeds what the model takes."""
    if not isinstance(error, openai.APIStatusError) or error.status_code not in (400, 413, 422):
        return False
    named = error.code == "context_length_exceeded" or error.status_code == 413
    return named or bool(_OVERFLOW.search(server_words(error)))


def field_not_taken(error: openai.APIError, fields: Sequence[str]) -> str:
    """Which optional field of the request the server does not take; "" where the trouble is another."""
    if not isinstance(error, openai.APIStatusError) or error.status_code not in (400, 422) or overflows(error):
        return ""
    words = server_words(error)
    if not _NOT_TAKEN.search(words) and error.code not in ("unsupported_parameter", "unsupported_value"):
        return ""
    named = [name for name in OPTIONAL_FIELDS if error.param == name or re.search(rf"\b{name}\b", words)]
    return next((name for name in named if name in fields), "")


def may_pass(error: openai.APIError) -> bool:
    """Whether the same request may succeed later (what the SDK retries)."""
    if isinstance(error, openai.APIStatusError):
        return error.status_code in (408, 409, 429) or error.status_code >= 500
    return isinstance(error, openai.APIConnectionError)


def describe(error: openai.APIError, url: str, scrub: Callable[[str], str], attempts: int) -> str:
    """The failure in one line with its cure; a missing model is described by ``no_such_model``."""
    words, server = scrub(server_words(error)), f"the policy server {url}"
    if isinstance(error, openai.APIStatusError):
        status = error.status_code
        if status in (401, 403):
            return f"{server} does not accept the key: set ANOMALY_AGENT_POLICY_API_KEY or OPENAI_API_KEY"
        if status == 429 and error.code in NO_QUOTA:
            return f"{server}: the account's quota is used up ({words}): check its billing"
        if status == 429:
            return f"{server} is over its limit, asked {attempts} times ({words}): wait, or raise the account's quota"
        if status >= 500:
            return f"{server} failed, asked {attempts} times (HTTP {status}: {words}): see its log"
        return f"{server} did not accept the request (HTTP {status}: {words}): change what it names"
    if isinstance(error, openai.APITimeoutError):
        return f"{server} does not answer in time: raise --policy-timeout, or lower --max-tokens"
    if isinstance(error, openai.APIConnectionError):
        return f"{server} cannot be reached: check --base-url and that the server runs"
    return f"{server} broke its reply off ({words}): run again, and see its log"


def no_such_model(model: str, url: str, models: Sequence[str] | None) -> str:
    """A 404 in one line: the models that the server has, or that there is no such server (None)."""
    if models is None:
        return f"there is no OpenAI-compatible server at {url}: check --base-url (it mostly ends in /v1)"
    named = ", ".join(models[:20]) or "none"
    return f"the policy server {url} has no model {model!r}: choose one with --model ({named})"
