"""The client of OpenAI's API, which many servers speak too (vLLM, vLLM-Omni)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_servers.backends import BackendChoice
from mcp_servers.remote.access import NO_KEY, key_of

if TYPE_CHECKING:
    from openai import AsyncOpenAI

VENDORS_URL = "https://api.openai.com/v1"


def client(choice: BackendChoice) -> AsyncOpenAI:
    """The async client, an async context manager, without retries of its own."""
    from openai import AsyncOpenAI

    return AsyncOpenAI(
        api_key=key_of("openai", choice) or NO_KEY,
        base_url=choice.base_url or VENDORS_URL,
        timeout=choice.timeout,
        max_retries=0,
    )
