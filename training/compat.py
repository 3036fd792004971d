"""Differences between machines and library versions that training has to bridge; all of them, in this one place.

Qwen3-VL's processor demands a video processor, whose only implementation needs torchvision. This project shows a model
still images alone, and beside torch's CPU build there is no torchvision. ``without_video`` lets the processor be made,
loaded and saved without one, on every machine; ``write_video_config`` adds the file that a stock installation looks for
when it loads such a folder.
"""

from __future__ import annotations

import json
from pathlib import Path

VIDEO_CONFIG = "video_preprocessor_config.json"


def without_video() -> None:
    """Let Qwen3-VL's processor do without a video processor. May be called repeatedly."""
    from transformers import Qwen3VLProcessor

    Qwen3VLProcessor.get_attributes = classmethod(lambda cls: ["image_processor", "tokenizer"])


def write_video_config(folder: Path, patch_size: int, merge_size: int, temporal_patch_size: int) -> None:
    """Write the video processor's settings into a model's folder, unless they are there. Raises OSError.

    Sizes are those of the vision encoder: pixels a patch, patches a token along each side, frames a patch.
    """
    path = folder / VIDEO_CONFIG
    if path.exists():
        return
    settings = {
        "processor_class": "Qwen3VLProcessor",
        "video_processor_type": "Qwen3VLVideoProcessor",
        "patch_size": patch_size,
        "merge_size": merge_size,
        "temporal_patch_size": temporal_patch_size,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "size": {"longest_edge": 25165824, "shortest_edge": 4096},
    }
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
