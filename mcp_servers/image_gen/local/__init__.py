"""The local backend of image_gen: a prompt-driven defect renderer that needs no network and no GPU.

Start at ``render.py``; one kind of defect each in ``families/``, real ones out of an example by ``transplant.py``.
"""

from mcp_servers.errors import RegionError
from mcp_servers.image_gen.local.render import Rendering, render
from mcp_servers.image_gen.local.spec import DefectSpec, PromptNotUnderstood, parse_prompt
from mcp_servers.image_gen.local.transplant_piece import Example, ExampleError

MODEL = "defect-renderer-1"
"""Name and version of the renderer, as tool results give it."""

__all__ = [
    "MODEL",
    "DefectSpec",
    "Example",
    "ExampleError",
    "PromptNotUnderstood",
    "RegionError",
    "Rendering",
    "parse_prompt",
    "render",
]
