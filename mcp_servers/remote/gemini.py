"""The client of Gemini's API (google-genai), and why an answer of it holds nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from mcp_servers.backends import BackendChoice
from mcp_servers.errors import BackendError, FailureKind
from mcp_servers.remote.access import NO_KEY, key_of

if TYPE_CHECKING:
    from google.genai.client import AsyncClient
    from google.genai.types import GenerateContentResponse

REFUSED = ("SAFETY", "PROHIBITED_CONTENT", "BLOCKLIST", "SPII", "JAILBREAK", "RECITATION", "MODEL_ARMOR", "ESCALATION")
"""Reasons (or the ends of reasons, such as IMAGE_SAFETY) for which Gemini declines."""


@asynccontextmanager
async def client(choice: BackendChoice) -> AsyncIterator[AsyncClient]:
    """Gemini's async client, without retries of its own."""
    import httpx2
    from google import genai
    from google.genai import types

    async with httpx2.AsyncClient(timeout=choice.timeout) as http:
        options = types.HttpOptions(
            base_url=choice.base_url or None, timeout=round(1000 * choice.timeout), httpx_async_client=http
        )
        async with genai.Client(
            vertexai=False, api_key=key_of("gemini", choice) or NO_KEY, http_options=options
        ).aio as made:
            yield made


def raise_if_refused(response: GenerateContentResponse, service: str, cost_usd: float = 0.0) -> None:
    """Raise BackendError (REFUSED) where Gemini declined: it answers with a reason instead of an error."""
    feedback = response.prompt_feedback
    reasons = [feedback.block_reason] if feedback and feedback.block_reason else []
    reasons += [c.finish_reason for c in response.candidates or [] if c.finish_reason]  # type: ignore[misc]
    for reason in (str(getattr(reason, "value", reason)) for reason in reasons):
        if reason.endswith(REFUSED) or (feedback and feedback.block_reason):
            text = f"{service} refused for policy reasons ({reason}): word it more neutrally"
            raise BackendError(text, FailureKind.REFUSED, cost_usd=cost_usd)


def ended_with(response: GenerateContentResponse) -> str:
    """The reason why the model stopped, in its API's word; "no candidate" where it wrote nothing."""
    for candidate in response.candidates or []:
        if candidate.finish_reason:
            return str(candidate.finish_reason.value)
    return "no candidate"
