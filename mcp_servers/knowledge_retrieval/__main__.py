"""``python -m mcp_servers.knowledge_retrieval``: this tool alone."""

import signal
import sys

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it as SIGTERM does, also during the imports

    from mcp_servers.cli import main
    from mcp_servers.knowledge_retrieval.server import INSTRUCTIONS, SPEC

    sys.exit(main("mcp_servers.knowledge_retrieval", [SPEC], INSTRUCTIONS))
