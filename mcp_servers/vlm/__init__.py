"""Questions to vision-language models whose answer must be JSON of a given form: Gemini, and servers that speak OpenAI.

``asking.py`` is where to start: a question goes out, an answer that cannot be used is asked for again with the problem
named, and what it all cost is added up. ``services.py`` speaks to the two services, ``reading.py`` reads their JSON,
``choosing.py`` says which model answers, at which price, and why it cannot.
"""

from mcp_servers.vlm.asking import Answer, Question, ask_for
from mcp_servers.vlm.choosing import facts_of, parts_of
from mcp_servers.vlm.pictures import picture_of
from mcp_servers.vlm.reading import ReplyError, schema_of

__all__ = ["Answer", "Question", "ReplyError", "ask_for", "facts_of", "parts_of", "picture_of", "schema_of"]
