"""What backends behind an API have in common: keys, clients, retries, and one reading of everything that goes wrong.

``access.py`` says whether a service can be used at all, ``gemini.py``, ``openai_client.py`` and ``xai.py`` make its
client, ``retry.py`` carries a request through passing trouble, ``errors.py`` tells what a failure means.
"""

from mcp_servers.remote.access import key_of, problem_of
from mcp_servers.remote.retry import Answered, ask

__all__ = ["Answered", "ask", "key_of", "problem_of"]
