"""``python -m mcp_servers``: all five tools in one server."""

import sys

from mcp_servers.cli import main
from mcp_servers.suite import INSTRUCTIONS, SPECS

if __name__ == "__main__":
    sys.exit(main("mcp_servers", SPECS, INSTRUCTIONS))
