"""The client of xAI's API (xai-sdk), which speaks gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from mcp_servers.backends import BackendChoice
from mcp_servers.remote.access import NO_KEY, is_plain, key_of

if TYPE_CHECKING:
    from xai_sdk import AsyncClient

T = TypeVar("T")

HOST = "api.x.ai"
LARGEST = 64 * 2**20
"""Bytes of the largest message either way."""


def client(choice: BackendChoice) -> AsyncClient:
    """The async client, an async context manager, without retries of its own."""
    from xai_sdk import AsyncClient

    return AsyncClient(
        api_key=key_of("xai", choice) or NO_KEY,
        api_host=urlsplit(choice.base_url).netloc or HOST,
        timeout=choice.timeout + 10,  # the caller's own limit comes first
        use_insecure_channel=is_plain(choice.base_url),
        channel_options=[
            ("grpc.enable_retries", 0),
            ("grpc.service_config", "{}"),
            ("grpc.max_send_message_length", LARGEST),
            ("grpc.max_receive_message_length", LARGEST),
        ],
    )


async def cancellable(call: Coroutine[Any, Any, T]) -> T:
    """The result of a gRPC call that a time limit or a client may cancel.

    gRPC answers a cancellation with one of its own, which anyio's scopes do not take for theirs; so the call runs in a
    task of its own, and the waiting is what is cancelled.
    """
    task = asyncio.ensure_future(call)
    try:
        await asyncio.wait({task})
    finally:
        task.cancel()
    return task.result()
