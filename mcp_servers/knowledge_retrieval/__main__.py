"""``python -m mcp_servers.knowledge_retrieval``: this tool alone."""

import sys

from mcp_servers.cli import main
from mcp_servers.knowledge_retrieval.server import INSTRUCTIONS, SPEC

if __name__ == "__main__":
    sys.exit(main("mcp_servers.knowledge_retrieval", [SPEC], INSTRUCTIONS))
