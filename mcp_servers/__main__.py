"""``python -m mcp_servers``: all five tools in one server."""

import signal
import sys

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it as SIGTERM does, also during the imports

    from mcp_servers.cli import main
    from mcp_servers.suite import INSTRUCTIONS, SPECS

    sys.exit(main("mcp_servers", SPECS, INSTRUCTIONS))
