"""The real tool suite with one fault in image_gen: ``python faulty.py dies|hangs|garbage|crashes``."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from mcp_types import CallToolResult, TextContent

from mcp_servers.serving import build_server, make_tool, store_from
from mcp_servers.store import Store
from mcp_servers.suite import factories

FAULT = sys.argv[1]


def faulty_tools(store: Store) -> list[Any]:
    def image_gen(prompt: str, target_image: str, seed: int = 0) -> CallToolResult:
        """Edit the photo."""
        if FAULT == "dies":
            os._exit(7)
        if FAULT == "hangs":
            threading.Event().wait()
        if FAULT == "crashes":
            raise RuntimeError("secret detail /etc/shadow")
        return CallToolResult(content=[TextContent(type="text", text="this is not JSON")])

    return [make_tool(image_gen, title="Edit", read_only=False, structured=False)]


def main() -> None:
    store = store_from(sys.argv[2:], dict(os.environ))
    kept = [factory for factory in factories() if "image_gen" not in factory.__module__]
    build_server("faulty", store, [*kept, faulty_tools], "").run("stdio")


if __name__ == "__main__":
    main()
