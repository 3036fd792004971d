"""One trajectory from one real defect (Algorithm 2): real calls where there is something to call, then the script.

prompt_gen, image_gen, quality_eval and knowledge_retrieval are called over MCP; the last image is the real photo, and
the mask the real one. What is not a tool's own result is named in the session's ``constructed.simulated``. Here the
material is gathered (``Constructor``); ``script.py`` makes turns and results of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from agent.episode import Episode
from agent.loop import run_episode
from agent.policies.planner import KNOWLEDGE_BELOW
from agent.policies.refine import insert, refine
from agent.protocol import ImageRef, ToolCall
from agent.task import StopReason, Task
from agent.toolbox import Observation, Toolbox
from mcp_servers.mask_gen.local import find_mask
from training.construction.advice import answers, reconciled, responds
from training.construction.mark import Mark, measure
from training.construction.prepared import ConstructedWriter, PreparedToolbox, Script
from training.construction.prompting import complex_wishes, fact_of, real_prompt, simple_wishes
from training.construction.script import Material, Original, Tried, write_script
from training.errors import TrainingError

TRIES = 9
"""Prompts tried for an imperfect attempt."""
STARTS = 2
"""First attempts from which a better second one is looked for."""
SERIOUS = 2.5
"""Score (0-10) below which an attempt is no serious one: hardly anything to be seen."""
MARGIN = 0.5
"""Score (0-10) by which an attempt must stay below the real defect's, so that a threshold fits between."""
THRESHOLDS = (7.0, 7.5, 8.0, 8.5, 9.0)
"""Scores from which a sample may be asked to pass; the first that tells attempts and the real defect apart."""
TYPES = ("single", "dual", "triple")


@dataclass(frozen=True, slots=True)
class Made:
    """What a trajectory came to: its type ("single", "dual", "triple"), whether it asks for knowledge, its scores."""

    type: str
    wanted: str
    knowledge: bool
    threshold: float
    scores: tuple[float, ...]
    simulated: tuple[str, ...]


class Constructor:
    """Builds one trajectory over a connected toolbox; ``seed`` and ``rng`` make it repeatable."""

    def __init__(self, toolbox: Toolbox, original: Original, seed: int, rng: np.random.Generator) -> None:
        self.toolbox, self.original, self.rng = toolbox, original, rng
        self.task = Task(
            str(original.normal_file), original.category, original.kind, seed=seed, threshold=THRESHOLDS[0]
        )
        self.names = {"item_name": original.category, "anomaly_type": original.kind}
        self.images: list[ImageRef] = []
        self.family = ""

    async def build(self, folder: Path, attempts: int) -> Made:
        """Write the session into ``folder``: up to ``attempts`` (0-2) imperfect images, then the real one.

        Raises TrainingError where no trajectory can be made of this photo, ToolboxError where the tools fail.
        """
        original = self.original
        normal = await self.toolbox.open_photo(str(original.normal_file))
        anomaly = await self.toolbox.open_photo(str(original.anomaly_file))
        self.images = [normal, replace(anomaly, index=2)]
        proposal = await self._call("prompt_gen", image=1)
        base, self.family = str(proposal.payload["prompt"]), str(proposal.payload.get("family", ""))
        try:
            mark = measure(original.normal, original.anomaly, original.mask, self.family)
            prompt = real_prompt(base, mark, original.category)
        except ValueError as error:
            raise TrainingError(f"{original.name}: {error}: use the local prompter") from error
        verdict = await self._call("quality_eval", anomaly_image=2)
        limit = min(max(float(verdict.payload["score"]), THRESHOLDS[0]), THRESHOLDS[-1]) - MARGIN
        tries = await self._attempts(base, mark, limit, attempts)
        worst = max((attempt.score for attempt in tries), default=0.0)
        threshold = next(value for value in THRESHOLDS if value > worst)
        self.task = replace(self.task, threshold=threshold)
        wording = reconciled(tries[-1].review, tries[-1].prompt, prompt) if tries else prompt
        knowledge = await self._call("knowledge_retrieval")
        looks_up = len(tries) == 2 or (len(tries) == 1 and tries[0].score < KNOWLEDGE_BELOW)
        if looks_up and (fact := fact_of(knowledge.payload)):
            wording = insert(wording, fact)
        material = Material(
            original=original,
            mark=mark,
            prompt=wording,
            proposal=proposal,
            tries=[replace(attempt, judged=await self._judge(attempt.made)) for attempt in tries],
            drawn=await self.toolbox.call(_edit(wording), self.task, self.images),
            judged=await self._call("quality_eval", anomaly_image=2),
            knowledge=knowledge if looks_up else None,
            masked=await self.toolbox.call(ToolCall("mask_gen", {"anomaly_image": 2}), self.task, self.images),
            real=anomaly,
            threshold=threshold,
        )
        script = write_script(material, self.rng)
        constructed = {
            "method": "reverse_synthesis",
            "source": original.name,
            "photograph": original.photograph,
            "split": original.split,
            "type": TYPES[len(tries)],
            "simulated": list(script.simulated),
        }
        episode = Episode(replace(self.task, image=f"reversed:{original.name}"))
        with ConstructedWriter(folder, constructed) as session:
            box = PreparedToolbox(self.toolbox, normal, script.steps)
            await run_episode(episode.task, Script(script.steps), box, session, episode=episode)
        if episode.stop_reason is not StopReason.ANSWERED or episode.repairs:
            raise TrainingError(f"{original.name}: the loop did not accept the script: {episode.error or 'a repair'}")
        return Made(
            type=TYPES[len(tries)],
            wanted=TYPES[attempts],
            knowledge=looks_up,
            threshold=threshold,
            scores=tuple(float((made.evaluation or {})["score"]) for made in episode.made),
            simulated=script.simulated,
        )

    async def _judge(self, made: Observation) -> Observation:
        """quality_eval of an attempt, by the task's threshold. Raises TrainingError where it refuses."""
        assert made.image is not None
        shown = [self.images[0], replace(made.image, index=2)]
        seen = await self.toolbox.call(ToolCall("quality_eval", {"anomaly_image": 2, **self.names}), self.task, shown)
        if seen.error:
            raise TrainingError(f"{self.original.name}: quality_eval refused: {seen.error}")
        return seen

    async def _attempts(self, base: str, mark: Mark, limit: float, wanted: int) -> list[Tried]:
        """Up to ``wanted`` attempts that score below ``limit``, the second better than the first."""
        if wanted == 0:
            return []
        simple = simple_wishes(base, mark, self.original.category, self.original.kind, self.rng)
        firsts = await self._below([(wish.prompt, wish.flaw) for wish in simple], 0.0, limit, wanted)
        if wanted == 2:
            fact = fact_of((await self._call("knowledge_retrieval")).payload)
            for first in sorted(firsts, key=lambda attempt: attempt.score)[:STARTS]:
                refined = refine(first.prompt, first.review, self.original.category).prompt
                wishes = complex_wishes(first.prompt, refined, fact, self.rng)
                prompts = [(w, "") for w in wishes if responds(first.review, first.prompt, w, self.original.category)]
                seconds = await self._below(prompts, first.score, limit, 1)
                if second := next((attempt for attempt in seconds if self._answered(attempt, mark)), None):
                    return [first, second]
        fitting = [attempt for attempt in firsts if self._answered(attempt, mark)]
        usual = [attempt for attempt in fitting if attempt.score < THRESHOLDS[0]]
        return (usual or sorted(fitting, key=lambda attempt: attempt.score))[:1]

    async def _below(self, prompts: Sequence[tuple[str, str]], above: float, limit: float, enough: int) -> list[Tried]:
        """Attempts that score between ``above`` and ``limit``, until ``enough`` would fail by the usual threshold."""
        found: list[Tried] = []
        for prompt, flaw in prompts[:TRIES]:
            made = await self.toolbox.call(_edit(prompt), self.task, self.images)
            if made.error or made.image is None:
                continue  # this prompt cannot be drawn here; the next one may
            attempt = Tried(prompt, flaw, made, await self._judge(made), self._mark(made))
            if max(above, SERIOUS) < attempt.score <= limit:
                found.append(attempt)
            if sum(attempt.score < THRESHOLDS[0] for attempt in found) > enough:
                break
        return found

    def _answered(self, attempt: Tried, real: Mark) -> bool:
        """Whether the real defect is what the attempt's review asks for."""
        return answers(attempt.review, attempt.prompt, attempt.mark, real)

    def _mark(self, made: Observation) -> Mark | None:
        """What can be seen in an attempt, by the mask tool's own comparison."""
        assert made.image is not None
        decoded = cv2.imdecode(np.frombuffer(made.image.png, np.uint8), cv2.IMREAD_COLOR)
        picture = np.ascontiguousarray(np.asarray(decoded, np.uint8)[:, :, ::-1])
        differs = find_mask(self.original.normal, picture)
        return measure(self.original.normal, picture, differs.mask, self.family) if differs.found else None

    async def _call(self, name: str, **arguments: Any) -> Observation:
        """A real call that must succeed. Raises TrainingError where the tool refuses."""
        call = ToolCall(name, {**arguments, **self.names})
        seen = await self.toolbox.call(call, self.task, self.images)
        if seen.error:
            raise TrainingError(f"{self.original.name}: {name} refused: {seen.error}")
        return seen


def _edit(prompt: str) -> ToolCall:
    return ToolCall("image_gen", {"prompt": prompt, "target_image": 1})
