"""What tests of recording and budgets share: the paid server, how to count its calls, and scripted policies."""

from __future__ import annotations

import os
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.policies import ModelCall, Policy, Reply
from agent.protocol import Answer, Message, ToolCall, Turn, render_turn
from agent.run import main
from agent.toolbox import Server

ROOT = Path(__file__).resolve().parent.parent
PROMPT = (
    "Using the provided image, change only the surface of the plate to introduce a scratch. The defect is "
    "medium-sized and pronounced. Everything else stays exactly as it is."
)


def call(name: str, **arguments: Any) -> Turn:
    return Turn("next", ToolCall(name, arguments))


EDIT = call("image_gen", prompt=PROMPT, target_image=1)
JUDGE = call("quality_eval", anomaly_image=2, item_name="plate", anomaly_type="scratch")
MASK = call("mask_gen", anomaly_image=2)
DONE = Turn("done", Answer("success", 2, True, "a scratch"))
FAILED = Turn("done", Answer("failed", None, False, "given up"))


@dataclass(slots=True)
class Shop:
    """A paid server over a folder of photos, and the file in which it counts its calls."""

    folder: Path
    calls_file: Path
    options: Sequence[str] = ("image_gen=price:0.04", "quality_eval=price:0.01")

    def command(self) -> list[str]:
        script = str(ROOT / "tests" / "servers" / "paid.py")
        return [sys.executable, script, "--allow", str(self.folder), "--calls", str(self.calls_file), *self.options]

    def server(self, **options: Any) -> Server:
        env = {"PYTHONPATH": str(ROOT), "ANOMALY_AGENT_HOME": os.environ["ANOMALY_AGENT_HOME"]}
        return Server(command=self.command(), env=env, identity="paid", **options)

    def run(self, photo: Path, out: Path, *options: str) -> int:
        """``agent.run`` on the photo with this server."""
        named = ["--item", "plate", "--anomaly", "scratch", "--out", str(out)]
        return main([str(photo), *named, "--server", shlex.join(self.command()), *options])

    def calls(self) -> Counter[str]:
        """How often each tool was called, and under "started" how often the server was started."""
        return Counter(self.calls_file.read_text().split()) if self.calls_file.exists() else Counter()


class Script(Policy):
    """A model of no vendor: writes the given turns, each at the given price, and counts its calls."""

    name = "script"

    def __init__(self, turns: Sequence[Turn], price: float = 0.0, model: str = "fake-model") -> None:
        self._turns, self.price, self.model = list(turns), price, model
        self.calls = 0

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "model": self.model}

    def max_cost_usd(self, messages: Sequence[Message]) -> float:
        return self.price

    async def next_turn(self, messages: Sequence[Message], signatures: Sequence[dict[str, Any]]) -> Reply:
        self.calls += 1
        said = sum(message.role == "assistant" for message in messages)
        return Reply(render_turn(self._turns[said]), ModelCall(self.model, 0.5, cost_usd=self.price))


class Acts(Policy):
    """A policy that does what it is told at its first turn: crash, or hang."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self.name, self._act = "acts", act

    async def next_turn(self, messages: Sequence[Message], signatures: Sequence[dict[str, Any]]) -> Reply:
        await self._act()
        raise AssertionError("never reached")
