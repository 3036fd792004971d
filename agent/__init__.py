"""The client side: a policy that thinks, calls the five tools over MCP, looks at what came back, and improves.

Read ``loop.py`` first (one episode), then ``protocol.py`` (what a turn looks like), ``toolbox.py`` (MCP),
``session.py`` (what is recorded) and ``run.py`` (the command). Nothing here knows how a tool works.
"""
