"""The one kind of failure that a caller can mend: its message is one line and names the cure.

Everything that is raised as a ToolInputError reaches the MCP client as a tool error with its text; any other
exception is a bug and reaches the client without its text.
"""


class ToolInputError(ValueError):
    """The request cannot be carried out as it stands; the message says what to change."""


class RegionError(ToolInputError):
    """A region of interest that cannot be used."""
