"""``python -m mcp_servers.quality_eval``: this tool alone."""

import sys

from mcp_servers.cli import main
from mcp_servers.quality_eval.server import INSTRUCTIONS, SPEC

if __name__ == "__main__":
    sys.exit(main("mcp_servers.quality_eval", [SPEC], INSTRUCTIONS))
