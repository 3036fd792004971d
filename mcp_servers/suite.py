"""The five tools together, in the order in which they are used."""

from __future__ import annotations

from mcp_servers.backends import ToolSpec
from mcp_servers.image_gen import server as image_gen
from mcp_servers.knowledge_retrieval import server as knowledge_retrieval
from mcp_servers.mask_gen import server as mask_gen
from mcp_servers.prompt_gen import server as prompt_gen
from mcp_servers.quality_eval import server as quality_eval

INSTRUCTIONS = (
    "Turns a photo of a good part into one with a realistic defect, and its pixel mask. prompt_gen once; then "
    "image_gen on the original photo and quality_eval on the result; while the score is low, look the defect up "
    "with knowledge_retrieval, rewrite the prompt as the review says and repeat; then mask_gen on the best image. "
    "Images are named by the handles (img_...) that the tools return."
)


SPECS: tuple[ToolSpec, ...] = tuple(
    module.SPEC for module in (prompt_gen, image_gen, quality_eval, knowledge_retrieval, mask_gen)
)
