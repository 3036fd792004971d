"""quality_eval over MCP: scores a synthesized image against its original and says what to change."""

from __future__ import annotations

from typing import Annotated

from mcp.server.mcpserver.tools import Tool
from pydantic import BaseModel, Field

from mcp_servers.backends import BackendChoice, BackendFacts, ToolSpec
from mcp_servers.fingerprint import local_version
from mcp_servers.knowledge.catalogue import profile_for
from mcp_servers.quality_eval.local import evaluate
from mcp_servers.serving import IMAGE_ARGUMENT, make_tool
from mcp_servers.store import Store, same_scale_views

INSTRUCTIONS = "Judges a synthesized defect: scores for location and quality, and a review that says what to change."


class Evaluation(BaseModel):
    """What quality_eval returns."""

    score: float = Field(description="location_score + quality_score, 0 to 10")
    location_score: float = Field(description="0 (failed) to 5 (as real): is such a defect possible at this place?")
    quality_score: float = Field(description="0 (failed) to 5 (as real): texture, scale, contrast, integration")
    review: str = Field(description="what to change in the next prompt, or what is right")
    passed: bool = Field(description="whether the score reaches the threshold")
    threshold: float
    measurements: dict[str, float] = Field(description="the figures behind the scores")
    item_name: str
    anomaly_type: str
    anomaly_image: str = Field(description="handle of the judged image")
    normal_image: str = Field(description="handle of the original photo")
    backend: str


_BACKEND = BackendFacts(version=local_version("quality_eval"))


def tools(store: Store, choice: BackendChoice) -> list[Tool]:
    """The quality_eval tool over ``store``."""

    def quality_eval(
        anomaly_image: Annotated[str, Field(description="the image to judge: " + IMAGE_ARGUMENT)],
        normal_image: Annotated[str, Field(description="the original photo it was made from")],
        item_name: Annotated[str, Field(description='what the photo shows, e.g. "bottle"', max_length=200)],
        anomaly_type: Annotated[str, Field(description="the defect asked for, exactly as in the task", max_length=200)],
        threshold: Annotated[float, Field(description="score from which it passes", ge=0, le=10)] = 7.0,
    ) -> Evaluation:
        """Judge a synthesized defect against its original photo: place and quality, 0 to 5 each, and a review.

        The review names what to change, most important first. Call it after every image_gen.
        """
        anomaly_handle, anomaly = store.resolve(anomaly_image)
        normal_handle, normal = store.resolve(normal_image)
        normal_view, anomaly_view = same_scale_views(normal, anomaly)
        profile = profile_for(item_name, anomaly_type)
        verdict = evaluate(normal_view, anomaly_view, item_name, anomaly_type, profile, threshold)
        return Evaluation(
            **verdict.model_dump(),
            threshold=threshold,
            item_name=item_name,
            anomaly_type=anomaly_type,
            anomaly_image=anomaly_handle,
            normal_image=normal_handle,
            backend="local",
        )

    return [make_tool(quality_eval, title="Judge the result", read_only=True, structured=True, backend=_BACKEND)]


SPEC = ToolSpec("quality_eval", role="judge", backends=("local",), build=tools)
