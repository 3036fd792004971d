"""Five MCP tool servers for defect synthesis, each usable alone.

``python -m mcp_servers`` serves all five tools; ``python -m mcp_servers.image_gen`` (and so on) serves one.
Read ``serving.py`` for the MCP surface, ``images.py`` for how images enter, and each tool's ``server.py``.
"""
