"""The run's folder: what an episode came to, as files a person or a program can use.

``original.png anomaly.png mask.png overlay.png result.json report.html session/``; files that the episode did
not reach are absent, and result.json says so.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.episode import Episode
from agent.session import write_atomic
from agent.task import StopReason

TINT = (255, 40, 80)


def result_of(episode: Episode, policy: str, handle_of: dict[int, str], error: str | None = None) -> dict[str, Any]:
    """The content of result.json. ``handle_of`` gives the server's handle by image number."""
    final = episode.final
    evaluation = (final.evaluation if final else None) or {}
    mask = episode.mask_result if episode.mask is not None and _mask_is_for(episode) else None
    passed = bool(evaluation.get("passed", False) and mask)
    unanswered = "success" if passed and episode.stop_reason is StopReason.BUDGET else "failed"
    return {
        "task": episode.task.to_json(),
        "stop_reason": episode.stop_reason.value,
        "status": episode.answer.status if episode.answer else unanswered,
        "passed": passed,
        "score": evaluation.get("score"),
        "location_score": evaluation.get("location_score"),
        "quality_score": evaluation.get("quality_score"),
        "review": evaluation.get("review"),
        "final_image_index": final.image.index if final else None,
        "images": [
            {
                "index": made.image.index,
                "handle": handle_of.get(made.image.index, made.image.handle),
                "prompt": made.prompt,
                "score": (made.evaluation or {}).get("score"),
            }
            for made in episode.made
        ],
        "mask": {key: mask[key] for key in ("area_fraction", "boxes", "confidence", "note")} if mask else None,
        "turns": episode.turns,
        "seconds": episode.seconds,
        "cost_usd": episode.cost_usd,
        "ledger": episode.ledger.to_json(),
        "policy": policy,
        "backends": episode.backends,
        "seed": episode.task.seed,
        "notes": episode.notes,
        "error": error or episode.error,
        "files": {},
    }


def write_run(folder: Path, episode: Episode, result: dict[str, Any]) -> None:
    """Write the pictures and result.json (last, so that its presence means that the rest is there).

    Fills ``result["files"]`` with the names written. Raises OSError where the folder cannot be written.
    """
    pictures: dict[str, bytes] = {}
    if episode.original:
        pictures["original"] = episode.original.png
    if episode.final:
        pictures["anomaly"] = episode.final.image.png
    if episode.final and episode.mask and _mask_is_for(episode):
        pictures["mask"] = episode.mask.png
        pictures["overlay"] = draw_overlay(episode.final.image.png, episode.mask.png)
    for name, png in pictures.items():
        write_atomic(folder / f"{name}.png", png)
    result["files"] = {name: f"{name}.png" for name in pictures} | {"session": "session", "report": "report.html"}
    write_atomic(folder / "result.json", (json.dumps(result, indent=2, ensure_ascii=False) + "\n").encode())


def came_to_nothing(folder: Path) -> bool:
    """Whether a folder holds a run that failed before it made an image; such a run may be repeated."""
    try:
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(result, dict) and result.get("images") == []


def draw_overlay(image_png: bytes, mask_png: bytes) -> bytes:
    """PNG (8-bit) of the image with the mask lightly tinted and outlined; the defect stays visible."""
    drawn = _eight_bit(_decode(image_png, cv2.IMREAD_UNCHANGED))
    mask = _decode(mask_png, cv2.IMREAD_GRAYSCALE)
    width = 2 * max(1, round(max(mask.shape) / 600)) + 1
    inside = mask > 127
    line = (cv2.dilate(mask, np.ones((width, width), np.uint8)) > 127) & ~inside
    drawn[inside] = np.rint(0.75 * drawn[inside] + 0.25 * np.array(TINT[::-1])).astype(np.uint8)
    drawn[line] = TINT[::-1]
    ok, png = cv2.imencode(".png", drawn, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not ok:
        raise RuntimeError("PNG encoding failed")
    return png.tobytes()


def _decode(png: bytes, flags: int) -> NDArray[Any]:
    return np.asarray(cv2.imdecode(np.frombuffer(png, np.uint8), flags))


def _eight_bit(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Any stored picture as (H, W, 3) uint8 BGR; 16-bit values over the range in use."""
    if pixels.dtype != np.uint8:
        pixels = np.rint(pixels * (255.0 / max(1, int(pixels.max())))).astype(np.uint8)
    if pixels.ndim == 2:
        return np.repeat(pixels[:, :, None], 3, axis=2)
    return np.ascontiguousarray(pixels[:, :, :3], np.uint8)


def _mask_is_for(episode: Episode) -> bool:
    return episode.final is not None and episode.mask_of == episode.final.image.index
