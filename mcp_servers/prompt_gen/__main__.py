"""``python -m mcp_servers.prompt_gen``: this tool alone."""

import sys

from mcp_servers.cli import main
from mcp_servers.prompt_gen.server import INSTRUCTIONS, SPEC

if __name__ == "__main__":
    sys.exit(main("mcp_servers.prompt_gen", [SPEC], INSTRUCTIONS))
