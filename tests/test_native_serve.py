"""The native dialect with a real model behind a real server: function calls through ``transformers serve``."""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import cv2
import pytest

from agent.policies.choose import Policies
from agent.policies.context import ContextLimits
from agent.policies.dialects import NativeDialect
from agent.policies.pictures import picture_for_model
from agent.protocol import ANSWER, ImageRef, Message, Turn, native_tools, render_turn
from agent.task import StopReason, Task
from agent.toolbox import Toolbox, builtin_server

from .conftest import make_photo
from .test_loop import DONE, EDIT, JUDGE, MASK, Script, call, play
from .test_policy_openai import choice

pytest.importorskip("transformers")
pytest.importorskip("fastapi")
TURNS = [
    Turn("", turn.action)
    for turn in (call("prompt_gen", image=1, item_name="plate", anomaly_type="scratch"), EDIT, JUDGE, MASK, DONE)
]
SIDE = 64


def uri(image: ImageRef) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture_for_model(image.png, SIDE)).decode()}"


@contextmanager
def served(model: Path, home: Path) -> Iterator[str]:
    """``transformers serve`` with this model, as the project starts it; gives its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "training.serve", str(model), "--port", str(port), "--device", "cpu"]
    env = os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.getcwd()}
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=env) as process:
        try:
            assert process.stderr
            started = any("Uvicorn running" in line for line in process.stderr)
            assert started, "the server did not start"
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()


def test_a_real_model_drives_an_episode_by_function_calls(home: Path, tmp_path: Path) -> None:
    from .memorised_model import memorise

    photo = tmp_path / "photos" / "plate.png"
    photo.parent.mkdir()
    cv2.imwrite(str(photo), make_photo(96, 96)[:, :, ::-1])

    async def signatures() -> list[dict[str, object]]:
        async with Toolbox([builtin_server([photo.parent])]) as toolbox:
            return toolbox.signatures()

    tools = anyio.run(signatures)
    script = Script(TURNS)
    play(script, photo, tmp_path / "taught")
    conversation = [*script.seen[-1], Message("assistant", render_turn(TURNS[-1]))]
    wire = NativeDialect().request(conversation, tools, uri)
    model = memorise(wire["messages"], native_tools(tools), tmp_path / "model")
    with served(model, tmp_path / "hub") as url:
        wanted = choice(url, model=str(model), dialect="native", limits=ContextLimits(side=SIDE), temperature=0.0,
                        max_tokens=200, timeout=120.0)  # fmt: skip
        policy = Policies(wanted).make(Task("", "plate", "scratch"))
        episode, session = play(policy, photo, tmp_path / "played")
    assert episode.stop_reason is StopReason.ANSWERED, episode.error
    assert episode.repairs == 0
    assert [event["tool"] for event in session.of_type("tool_call")] == [
        "prompt_gen",
        "image_gen",
        "quality_eval",
        "mask_gen",
    ]
    calls = session.of_type("model_call")
    assert [event["finish_reason"] for event in calls] == ["tool_calls"] * 5
    assert calls[-1]["prompt_tokens"] > calls[0]["prompt_tokens"] > 0
    assert session.end is not None
    assert session.end["answer"]["final_image_index"] == 2
    assert ANSWER not in [event["tool"] for event in session.of_type("tool_call")]
