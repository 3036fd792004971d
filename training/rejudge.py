"""Another judge's opinion of a session's images: quality_eval over MCP, fed with the recorded pictures.

A policy that has learned to please its judge, and not to make better defects, shows when another judge scores the
same images.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from dataclasses import dataclass
from typing import Any

from agent.protocol import ImageRef, ToolCall
from agent.session import Session, SessionError
from agent.task import Task
from agent.toolbox import Toolbox
from training.trace import MAX_SCORE

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Score (0-10) by image number, the refusals in the judge's words, and what it cost in US dollars."""

    scores: dict[int, float]
    refused: dict[int, str]
    cost_usd: float


def judge_name(toolbox: Toolbox) -> str:
    """Which judge the toolbox asks: backend, model and version, as far as its server tells them."""
    told = toolbox.backend("quality_eval")
    return " ".join(str(told[key]) for key in ("name", "model", "version") if told.get(key)) or "unnamed"


async def rejudge(session: Session, toolbox: Toolbox) -> Verdicts:
    """Have every synthesized image of a session judged once, with the task's item and anomaly type.

    Raises SessionError where the log names no original or an image is missing or not the one recorded, ToolboxError
    where the judge fails.
    """
    recorded = session.start.get("task") or {}
    task = Task(
        image="",
        item_name=str(recorded.get("item_name", "")),
        anomaly_type=str(recorded.get("anomaly_type", "")),
        threshold=float(recorded.get("threshold", 7.0)),
    )
    images = [_image(session, entry, number) for number, entry in enumerate(_entries(session), 1)]
    scores: dict[int, float] = {}
    refused: dict[int, str] = {}
    cost = 0.0
    names = {"item_name": task.item_name, "anomaly_type": task.anomaly_type}
    for image in images[1:]:
        call = ToolCall("quality_eval", {"anomaly_image": image.index, **names})
        seen = await toolbox.call(call, task, images)
        cost += seen.cost_usd
        score = seen.payload.get("score")
        if seen.error:
            refused[image.index] = seen.error
        elif isinstance(score, int | float) and 0 <= score <= MAX_SCORE:
            scores[image.index] = float(score)
        else:
            refused[image.index] = f"score {score!r} is no number from 0 to 10"
    return Verdicts(scores, refused, cost)


def _entries(session: Session) -> list[dict[str, Any]]:
    """The log's descriptions of the original and of every synthesized image, in the order of their numbers."""
    first = [e for message in session.of_type("message") for e in message.get("images") or []][:1]
    if not first:
        raise SessionError(f"{session.folder}: the log names no original image, so nothing can be judged again")
    made = [e for result in session.of_type("tool_result") if result.get("tool") == "image_gen" and result.get("ok")
            for e in result.get("images") or [] if e.get("role") == "synthesis"]  # fmt: skip
    return first + made


def _image(session: Session, entry: dict[str, Any], number: int) -> ImageRef:
    png = session.image(str(entry["sha256"]))
    if hashlib.sha256(png).hexdigest() != entry["sha256"] or png[:8] != PNG_SIGNATURE or len(png) < 24:
        raise SessionError(f"{session.folder}: image {number} is not the PNG that was recorded: restore it from a copy")
    width, height = struct.unpack(">II", png[16:24])
    uri = "data:image/png;base64," + base64.b64encode(png).decode()
    return ImageRef(number, uri, png, str(entry["sha256"]), width, height)
