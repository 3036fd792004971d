"""The real tool suite with one fault: ``python faulty.py dies|hangs|garbage|crashes|unready|strict FOLDER``.

The first five are image_gen's; "strict" is a quality_eval that is never content.
"""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import replace
from typing import Any

from mcp_types import CallToolResult, TextContent

from mcp_servers.backends import BackendChoice, BackendFacts
from mcp_servers.serving import build_server, make_tool, store_from
from mcp_servers.store import Store
from mcp_servers.suite import SPECS

FAULT = sys.argv[1]


def faulty_tools(store: Store, choice: BackendChoice) -> list[Any]:
    def image_gen(prompt: str, target_image: str, seed: int = 0) -> CallToolResult:
        """Edit the photo."""
        if FAULT == "dies":
            os._exit(7)
        if FAULT == "hangs":
            threading.Event().wait()
        if FAULT == "crashes":
            raise RuntimeError("secret detail /etc/shadow")
        return CallToolResult(content=[TextContent(type="text", text="this is not JSON")])

    facts = BackendFacts(problem="there is no key: set SOME_API_KEY" if FAULT == "unready" else "")
    return [make_tool(image_gen, title="Edit", read_only=False, structured=False, backend=facts)]


def strict_tools(store: Store, choice: BackendChoice) -> list[Any]:
    def quality_eval(anomaly_image: str, normal_image: str, item_name: str, anomaly_type: str) -> dict[str, Any]:
        """Judge the result."""
        review = "Make the defect more pronounced: it is faint. Make the defect larger."
        return {"score": 5.0, "location_score": 4.0, "quality_score": 1.0, "review": review, "passed": False}

    return [make_tool(quality_eval, title="Judge", read_only=True, structured=True, backend=BackendFacts())]


def main() -> None:
    store = store_from(sys.argv[2:], dict(os.environ))
    replaced, tools = ("quality_eval", strict_tools) if FAULT == "strict" else ("image_gen", faulty_tools)
    specs = [replace(spec, build=tools) if spec.name == replaced else spec for spec in SPECS]
    build_server("faulty", store, specs, "").run("stdio")


if __name__ == "__main__":
    main()
