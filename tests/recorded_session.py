"""Sessions for tests, recorded step by step the way an episode records them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from agent.session import SessionWriter

REVIEW = "The line is too straight and ends in mid air; let it fade out along the turning marks."
FIRST = "Using the provided image, change only the flange's face to introduce a straight scratch. Keep the rest."
SECOND = "Using the provided image, change only the flange's rim to introduce a curved faint scratch. Keep the rest."


def png(size: tuple[int, int] = (96, 64), colour: str = "grey", line: bool = False, mode: str = "RGB") -> bytes:
    picture = Image.new(mode, size, colour)
    if line:
        ImageDraw.Draw(picture).line((size[0] * 0.3, size[1] * 0.4, size[0] * 0.7, size[1] * 0.5), "white", 3)
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


class Recorder:
    """Writes a session step by step, the way an episode does."""

    def __init__(self, folder: Path, *, item: str = "flange", size: tuple[int, int] = (96, 64)) -> None:
        self.writer, self.size, self.calls, self.made = SessionWriter(folder), size, 0, 1
        task = {"image": "flange.png", "item_name": item, "anomaly_type": "scratch", "seed": 3, "region": ""}
        self.writer.append(
            "session_start",
            session_id="s1",
            task=task | {"threshold": 7.0, "max_images": 3, "max_turns": 12},
            policy={"name": "planner"},
            servers=[{"name": "image_gen", "version": "0.1", "era": "2025-11-25"}],
            tools=[{"name": "image_gen", "parameters": {}}],
            protocol_hash="abc",
        )
        self.message("system", "You are an inspection engineer.")
        self.message("user", f"Item: {item}", [self.image("original", 1, png(size))])

    def image(self, role: str, index: int | None, data: bytes) -> dict[str, Any]:
        width, height = self.size
        digest = self.writer.add_image(data)
        return {"role": role, "index": index, "handle": "h", "sha256": digest, "width": width, "height": height}

    def message(self, role: str, content: str, images: list[Any] | None = None) -> None:
        self.writer.append("message", role=role, content=content, images=images or [])

    def call(self, tool: str, arguments: dict[str, Any], thought: str = "Next step.") -> None:
        self.calls += 1
        call = json.dumps({"name": tool, "arguments": arguments})
        self.message("assistant", f"<thinking>{thought}</thinking><tool_call>{call}</tool_call>")
        self.writer.append("tool_call", call_id=self.calls, tool=tool, arguments=arguments, bound=arguments)

    def result(
        self, tool: str, payload: dict[str, Any], images: list[Any] | None = None, error: str | None = None
    ) -> None:
        self.writer.append(
            "tool_result",
            call_id=self.calls,
            tool=tool,
            ok=error is None,
            seconds=0.4,
            cost_usd=0.01,
            payload=payload,
            images=images or [],
            error_class="ToolError" if error else None,
            error=error,
        )
        self.message("tool", f"[Tool Response from {tool}]\n{json.dumps(payload or {'error': error})}")

    def attempt(self, prompt: str, score: float, review: str = REVIEW) -> None:
        self.made += 1
        self.call("image_gen", {"prompt": prompt, "target_image": 1})
        image = self.image("synthesis", self.made, png(self.size, f"#{self.made}0{self.made}0{self.made}0", True))
        self.result("image_gen", {"image_index": self.made, "backend": "local", "seed": 3}, [image])
        self.call("quality_eval", {"anomaly_image": self.made, "item_name": "x", "anomaly_type": "scratch"})
        scores = {"score": score, "location_score": score / 2, "quality_score": score / 2}
        self.result("quality_eval", scores | {"review": review, "passed": score >= 7})

    def mask(self) -> None:
        self.call("mask_gen", {"anomaly_image": self.made})
        image = self.image("mask", None, png(self.size, "black", True, "L"))
        self.result("mask_gen", {"found": True, "area_fraction": 0.01, "confidence": 0.9}, [image])

    def end(self, stop_reason: str = "answered", final: int | None = None, error: str | None = None) -> None:
        answer = {"status": "success", "final_image_index": final, "mask_generated": True} if final else None
        if answer:
            self.message("assistant", f"<thinking>Done.</thinking><answer>{json.dumps(answer)}</answer>")
        self.writer.append(
            "session_end",
            stop_reason=stop_reason,
            answer=answer,
            error=error,
            turns=4,
            seconds=2.5,
            cost_usd=0.05,
        )
        self.writer.close()


def finished(folder: Path, **options: Any) -> Path:
    recorder = Recorder(folder, **options)
    recorder.attempt(FIRST, 5.5)
    recorder.attempt(SECOND, 8.25)
    recorder.mask()
    recorder.end(final=3)
    return folder
