"""``python -m mcp_servers.knowledge_retrieval``: this tool alone."""

import sys

from mcp_servers.knowledge_retrieval.server import INSTRUCTIONS, SPEC
from mcp_servers.serving import main

if __name__ == "__main__":
    sys.exit(main("mcp_servers.knowledge_retrieval", [SPEC], INSTRUCTIONS))
