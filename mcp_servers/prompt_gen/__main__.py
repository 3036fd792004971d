"""``python -m mcp_servers.prompt_gen``: this tool alone."""

import signal
import sys

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it as SIGTERM does, also during the imports

    from mcp_servers.cli import main
    from mcp_servers.prompt_gen.server import INSTRUCTIONS, SPEC

    sys.exit(main("mcp_servers.prompt_gen", [SPEC], INSTRUCTIONS))
