"""Episodes for tests of training: short notation for what happened, and real ones played through real servers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import cv2
import pytest

from agent.loop import run_episode
from agent.policies import Policy, PolicyError, Reply
from agent.policies.planner import Planner
from agent.protocol import Answer, Message
from agent.session import SessionWriter
from agent.task import Task
from agent.toolbox import Toolbox, builtin_server
from tests.conftest import make_photo
from tests.test_loop import DONE, EDIT, JUDGE, MASK, Script, call
from training.trace import ANSWER, UNUSABLE, Action, Trace

TOOLS = {
    "PG": "prompt_gen", "IG": "image_gen", "QE": "quality_eval", "KR": "knowledge_retrieval", "MG": "mask_gen",
}  # fmt: skip
_STEP = re.compile(
    r"(?P<tool>PG|IG|QE|KR|MG)(?P<image>\d*)(?P<wrong>[~^]?)(?P<refused>!?)(?:=(?P<value>[\d.]+|none|\?))?\Z"
)


def trace(steps: str, stop: str = "", threshold: float = 7.0) -> Trace:
    """An episode in short: ``PG IG QE=5 KR IG QE=8 MG success``.

    QE and MG are about the last image unless a number names one (``QE2=7``); ``!`` is a refusal, ``~`` a wrong anomaly
    type, ``^`` a wrong item, ``MG=none`` no defect found, ``QE=?`` a score that is no number, ``??`` a turn that could
    not be used. The answer is its status, with ``:N`` for another image than the last and ``-`` where mask_generated is
    false. Without an answer the episode ran out of turns, unless ``stop`` says otherwise.
    """
    actions: list[Action] = []
    answer = None
    made = 1
    for step in steps.split():
        if step == "??":
            actions.append(Action(UNUSABLE))
        elif match := _STEP.match(step):
            tool = TOOLS[match["tool"]]
            ok = not match["refused"]
            made += tool == "image_gen" and ok
            about = tool in ("quality_eval", "mask_gen")
            judged = tool == "quality_eval" and ok and match["value"] not in (None, "?")
            typed = tool in ("prompt_gen", "quality_eval", "knowledge_retrieval")
            action = Action(
                tool,
                ok=ok,
                refused="" if ok else "no",
                image=int(match["image"] or made) if about else made if tool == "image_gen" and ok else None,
                score=float(match["value"]) if judged else None,
                anomaly_type=("dent" if match["wrong"] == "~" else "scratch") if typed else None,
                item_name=("bottle" if match["wrong"] == "^" else " plate") if typed else None,
                found=tool == "mask_gen" and ok and match["value"] != "none",
            )
            actions.append(action)
        else:
            status, _, number = step.rstrip("-").partition(":")
            index = None if number == "none" else int(number or made)
            answer = Answer(status, index, not step.endswith("-"), "")
            actions.append(Action(ANSWER))
    return Trace("plate", "scratch", threshold, actions, stop or ("answered" if answer else "max_turns"), answer)


class Silent(Policy):
    """A policy whose model cannot be reached."""

    name = "silent"

    async def next_turn(self, messages: Sequence[Message], signatures: Sequence[dict[str, Any]]) -> Reply:
        raise PolicyError("the model's server does not answer")


def record_samples(folder: Path) -> dict[str, Path]:
    """Real sessions, played through one real server, by what is special in them.

    ``single`` (photo a) and ``triple`` (photo b) are the planner's; ``repaired`` has a turn that cannot be read and an
    answer that the loop sends back, ``refused`` a call for an image that is not there; ``endless`` ran out of turns,
    ``silent`` ended since its model's server did.
    """
    photos = folder / "photos"
    photos.mkdir(parents=True)
    for number, name in enumerate("ab"):
        cv2.imwrite(str(photos / f"{name}.png"), make_photo(seed=number)[:, :, ::-1])

    def task(photo: str, **options: Any) -> Task:
        return Task(str(photos / f"{photo}.png"), "plate", "scratch", **options)

    first = call("prompt_gen", image=1, item_name="plate", anomaly_type="scratch")
    lost = call("quality_eval", anomaly_image=9, item_name="plate", anomaly_type="scratch")
    honest = {"threshold": 0.0}
    plan: dict[str, tuple[Task, Policy]] = {
        "single": (one := task("a", **honest), Planner(one)),
        "triple": (three := task("b", threshold=10.0), Planner(three)),
        "repaired": (task("a", **honest), Script(["I begin.", first, EDIT, JUDGE, DONE, MASK, DONE])),
        "refused": (task("b", **honest), Script([first, EDIT, lost, JUDGE, MASK, DONE])),
        "endless": (task("a", max_turns=4), Script([first, EDIT, EDIT, EDIT])),
        "silent": (task("a"), Silent()),
    }

    async def main() -> None:
        async with Toolbox([builtin_server([photos])]) as toolbox:
            for name, (wanted, policy) in plan.items():
                with SessionWriter(folder / "sessions" / name) as session:
                    await run_episode(wanted, policy, toolbox, session)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANOMALY_AGENT_HOME", str(folder / "home"))
        anyio.run(main)
    return {name: folder / "sessions" / name for name in plan}
