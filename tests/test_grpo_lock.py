"""A regression lock on what a rollout means: scripted episodes with real tools come to exactly what was recorded.

``grpo_lock.json`` holds, for four episodes of one task, what the policy sampled and what it was given, in order, with
the rewards and advantages that came of it. The tools are real, but for a judge that always gives 9.0; what they say is
left open, so that the lock holds whatever becomes of their words. Where a rollout's meaning was changed on purpose,
delete the file and run this test: it writes what now holds, to be read before it is committed.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from tests.paid import Shop
from tests.scripted_grpo import ASK, DONE, EDIT, GIVEN_UP, JUDGE, MASK, UNREADABLE, stage
from training.grpo.trajectory import Trajectory

LOCK = Path(__file__).with_name("grpo_lock.json")
EPISODES = {
    "00000-0": [ASK, EDIT, JUDGE, MASK, DONE],
    "00000-1": [UNREADABLE, EDIT, JUDGE, MASK, DONE],
    "00000-2": [ASK, EDIT, EDIT, GIVEN_UP],
    "00000-3": [JUDGE, DONE, EDIT, EDIT, ASK, EDIT],
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the episodes come to now."""
    folder = tmp_path_factory.mktemp("lock")
    shop = Shop(folder / "photos", folder / "calls.txt", ("quality_eval=instant",))
    with stage(folder, f"tools.servers={json.dumps([shlex.join(shop.command())])}") as made:
        made.scripts.update(EPISODES)
        batch = made.batch([0])
        tokenizer = made.own.encoder.processor.tokenizer
        return [
            {
                "stop_reason": rollout.stop_reason,
                "pieces": pieces(rollout, tokenizer),
                "pictures": same_pictures(rollout.pictures),
                "rewards": {name: round(value or 0.0, 6) for name, value in rollout.rewards.items()},
                "total": round(rollout.total or 0.0, 6),
                "advantage": round(float(advantage), 6),
            }
            for rollout, advantage in zip(made.trainer.batch.groups[0].rollouts, batch["advantages"], strict=True)
        ]


def pieces(rollout: Trajectory, tokenizer: Any) -> list[list[str]]:
    """The completion as runs of sampled and of given tokens: their kind and text."""
    runs = []
    for sampled, run in groupby(zip(rollout.sampled, rollout.completion_ids, strict=True), key=lambda pair: pair[0]):
        text = tokenizer.decode([token for _, token in run])
        if sampled:
            runs.append(["sampled", text])
        else:
            short = re.sub(r"(<\|image_pad\|>)+", lambda pads: f"<{len(pads[0]) // 13} image tokens>", text)
            runs.append(["given", re.sub(r"(?<=\]\n)\{.*\}", "{...}", short)])
    return runs


def same_pictures(pictures: Sequence[bytes]) -> list[int]:
    """Each picture as the place of the first that is the same."""
    return [pictures.index(picture) for picture in pictures]


def test_scripted_episodes_come_to_exactly_what_was_recorded(found: list[dict[str, Any]]) -> None:
    if not LOCK.exists():
        LOCK.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        pytest.fail(f"{LOCK.name} was missing and has been written: read it and run again")
    recorded = json.loads(LOCK.read_text())
    assert len(found) == len(recorded)
    for now, then in zip(found, recorded, strict=True):
        assert now["stop_reason"] == then["stop_reason"]
        assert now["pieces"] == then["pieces"]
        assert now["pictures"] == then["pictures"]
        assert now["rewards"] == pytest.approx(then["rewards"], abs=1e-6)
        assert now["total"] == pytest.approx(then["total"], abs=1e-6)
        assert now["advantage"] == pytest.approx(then["advantage"], abs=1e-5)


def test_the_lock_holds_a_good_episode_a_repair_a_surrender_and_one_without_an_answer(
    found: list[dict[str, Any]],
) -> None:
    assert [one["stop_reason"] for one in found] == ["answered", "answered", "answered", "max_turns"]
    assert [[text for kind, text in one["pieces"] if kind == "sampled"] for one in found] == list(EPISODES.values())
    assert any("could not be used" in text for _, text in found[1]["pieces"])
    assert found[0]["advantage"] > found[1]["advantage"] > found[2]["advantage"] > found[3]["advantage"]
