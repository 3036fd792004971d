"""The doctor's check of tools that a model or service stands behind: each is called once, as an episode would.

Keys and packages can be there and the service still say no. What may cost money is called only where that was allowed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.protocol import FIVE_TOOLS, ToolCall
from agent.task import Task
from agent.toolbox import Toolbox, ToolboxError

ITEM, ANOMALY = "flange", "scratch"
PROMPT = (
    "Using the provided image, change only the upper part of the flange to introduce a scratch. The defect is small "
    "and pronounced. Everything else stays exactly as it is."
)


async def try_tools(toolbox: Toolbox, photo: Path, paid: bool) -> dict[str, tuple[str, str]]:
    """Status ("ok", "FAIL", "skip") and what was found, by tool, for every tool whose backend is not ``local``.

    ``paid``: whether calls that cost money, or whose price is unknown, are made too.
    """
    task = Task(str(photo), ITEM, ANOMALY)
    names = {"item_name": ITEM, "anomaly_type": ANOMALY}
    images = [await toolbox.open_photo(task.image)]
    found = {}
    for tool in FIVE_TOOLS:
        backend = toolbox.backend(tool)
        if backend.get("name") == "local":
            continue
        most = backend.get("max_cost_usd")
        if most != 0 and not paid:
            price = "at an unknown price" if most is None else f"for up to ${most:.2g}"
            found[tool] = ("skip", f"{backend.get('name')}: not called; --paid calls it {price}")
            continue
        arguments: dict[str, dict[str, Any]] = {
            "prompt_gen": {"image": 1, **names},
            "image_gen": {"prompt": PROMPT, "target_image": 1},
            "quality_eval": {"anomaly_image": len(images), **names},
            "knowledge_retrieval": names,
            "mask_gen": {"anomaly_image": len(images)},
        }
        try:
            seen = await toolbox.call(ToolCall(tool, arguments[tool]), task, images)
        except ToolboxError as error:
            found[tool] = ("FAIL", str(error))
            continue
        if seen.image:
            images.append(seen.image)
        cost = f", ${seen.cost_usd:.4f}" if seen.cost_usd else ""
        answered = f"{backend.get('name')} answered in {seen.seconds:.1f} s{cost}"
        found[tool] = ("FAIL", seen.error) if seen.error else ("ok", answered)
    return found
