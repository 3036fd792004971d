"""Serves a trained folder with ``transformers serve``, an OpenAI-compatible server that also runs on a CPU.

    python -m training.serve MODEL --port 8001
    python -m agent.run photo.png --item bottle --anomaly scratch \
        --policy openai --base-url http://127.0.0.1:8001/v1 --model MODEL --stop off

The model's name in requests is the folder as it was given here. On a GPU, ``vllm serve MODEL`` does the same, faster.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from training.compat import without_video


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code when the server is stopped."""
    parser = argparse.ArgumentParser(prog="python -m training.serve", description="Serve a model on an OpenAI API.")
    parser.add_argument("model", metavar="MODEL", help="the folder that training left")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8001, help="port to listen on (default 8001)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:0 (default auto)")
    options = parser.parse_args(argv)
    if not (Path(options.model) / "config.json").is_file():
        parser.error(f"{options.model} holds no model: name the folder that training left")
    if not 0 < options.port < 65536:
        parser.error(f"--port {options.port}: choose a port from 1 to 65535")
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    (home / "hub").mkdir(parents=True, exist_ok=True)  # the server lists it, and fails where it is missing
    try:
        from transformers.cli.serve import Serve
    except ImportError as error:
        parser.error(f"{error.name or error} is missing: pip install 'anomaly-agent[serve-cpu]'")
    without_video()
    Serve(force_model=options.model, host=options.host, port=options.port, device=options.device)
    return 0


if __name__ == "__main__":
    sys.exit(main())
