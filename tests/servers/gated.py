"""``python -m mcp_servers`` whose only tool waits until the test lets it go on: ``python gated.py PIPE [options]``.

The tool opens PIPE (a named pipe) for reading, in a computing thread, and so waits until somebody writes to it.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult

from mcp_servers import suite
from mcp_servers.backends import BackendChoice, BackendFacts, ToolSpec
from mcp_servers.calls import step
from mcp_servers.serving import make_tool, text_result
from mcp_servers.store import Store


def gated_tools(pipe: Path) -> Any:
    """The tools of a server whose only tool waits for the pipe."""

    def build(store: Store, choice: BackendChoice) -> list[Tool]:
        def image_gen(prompt: str) -> CallToolResult:
            """Wait, then answer."""
            step(1, 2, "waiting")
            said = pipe.read_text()
            step(2, 2, "done")
            return text_result({"prompt": prompt, "said": said.strip()})

        return [make_tool(image_gen, title="Wait", read_only=True, structured=False, backend=BackendFacts())]

    return build


if __name__ == "__main__":
    spec = ToolSpec("image_gen", role="editor", backends=("local",), build=gated_tools(Path(sys.argv[1])))
    del sys.argv[1]
    suite.SPECS = (spec,)
    runpy.run_module("mcp_servers", run_name="__main__")
