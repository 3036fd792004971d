"""quality_eval over MCP: scores a synthesized image against its original and says what to change."""

from __future__ import annotations

import time
from typing import Annotated

import numpy as np
from mcp.server.mcpserver.tools import Tool
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from mcp_servers.backends import BackendChoice, BackendFacts, ToolSpec
from mcp_servers.fingerprint import local_version
from mcp_servers.quality_eval.model import PICTURES
from mcp_servers.quality_eval.panel import OFFLINE, rule
from mcp_servers.serving import IMAGE_ARGUMENT, make_tool
from mcp_servers.store import Store, same_scale_views
from mcp_servers.threads import compute
from mcp_servers.vlm import facts_of

INSTRUCTIONS = "Judges a synthesized defect: scores for location and quality, and a review that says what to change."


class Evaluation(BaseModel):
    """What quality_eval returns."""

    score: float = Field(description="location_score + quality_score, 0 to 10")
    location_score: float = Field(description="0 (failed) to 5 (as real): is such a defect possible at this place?")
    quality_score: float = Field(description="0 (failed) to 5 (as real): texture, scale, contrast, integration")
    review: str = Field(description="what to change in the next prompt, or what is right")
    passed: bool = Field(description="whether the score reaches the threshold")
    threshold: float
    disagreement: float = Field(description="largest difference between two judges' scores, 0 to 10; 0 for one judge")
    measurements: dict[str, float] = Field(description="the figures behind the scores")
    notes: list[str] = Field(default_factory=list, description="what its user should know")
    item_name: str
    anomaly_type: str
    anomaly_image: str = Field(description="handle of the judged image")
    normal_image: str = Field(description="handle of the original photo")
    backend: str
    model: str = Field(description="the model that judged, empty for the built-in judges")
    cost_usd: float = Field(description="US dollars")
    seconds: float


def facts(choice: BackendChoice) -> BackendFacts:
    """What clients are told of the chosen backend."""
    if set(choice.name.split("+")) <= set(OFFLINE):
        return BackendFacts(name=choice.name, version=local_version("quality_eval", "mask_gen"))
    return facts_of("quality_eval", "judge", choice, PICTURES)


def tools(store: Store, choice: BackendChoice) -> list[Tool]:
    """The quality_eval tool over ``store``."""
    backend = facts(choice)

    def views(anomaly_image: str, normal_image: str) -> tuple[str, str, NDArray[np.uint8], NDArray[np.uint8]]:
        anomaly_handle, anomaly = store.resolve(anomaly_image)
        normal_handle, normal = store.resolve(normal_image)
        return anomaly_handle, normal_handle, *same_scale_views(normal, anomaly)

    async def quality_eval(
        anomaly_image: Annotated[str, Field(description="the image to judge: " + IMAGE_ARGUMENT)],
        normal_image: Annotated[str, Field(description="the original photo it was made from")],
        item_name: Annotated[str, Field(description='what the photo shows, e.g. "bottle"', max_length=200)],
        anomaly_type: Annotated[str, Field(description="the defect asked for, exactly as in the task", max_length=200)],
        threshold: Annotated[float, Field(description="score from which it passes", ge=0, le=10)] = 7.0,
    ) -> Evaluation:
        """Judge a synthesized defect against its original photo: place and quality, 0 to 5 each, and a review.

        The review names what to change, most important first. Call it after every image_gen.
        """
        started = time.perf_counter()
        anomaly_handle, normal_handle, normal, anomaly = await compute(views, anomaly_image, normal_image)
        ruling = await rule(normal, anomaly, item_name, anomaly_type, threshold, choice)
        return Evaluation(
            **ruling.verdict.model_dump(),
            disagreement=ruling.disagreement,
            notes=ruling.notes,
            threshold=threshold,
            item_name=item_name,
            anomaly_type=anomaly_type,
            anomaly_image=anomaly_handle,
            normal_image=normal_handle,
            backend=choice.name,
            model=backend.model,
            cost_usd=ruling.cost_usd,
            seconds=round(time.perf_counter() - started, 3),
        )

    return [make_tool(quality_eval, title="Judge the result", read_only=True, structured=True, backend=backend)]


SPEC = ToolSpec(
    "quality_eval", role="judge", backends=("local", "statistics", "gemini", "openai"), build=tools, combines=True
)
