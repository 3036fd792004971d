"""The thoughts of a constructed trajectory, written from what was measured in its images.

Every sentence rests on a measurement (mark.py), a tool's result or a difference between two prompts; only the wording
is drawn from ``words.py``, with the trajectory's own seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.data import pick
from mcp_servers.vision.scene import Scene, analyse, grey
from mcp_servers.vision.types import Image
from training.construction import words
from training.construction.mark import Mark
from training.construction.phrases import changes, describe, listed, problems
from training.construction.prompting import framed

COMPASS = ("the right", "the lower right", "below", "the lower left", "the left", "the upper left", "above",
           "the upper right")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Seen:
    """An image of the trajectory as its writer knows it: its number, prompt, review and mark (None: no visible one)."""

    index: int
    prompt: str
    review: str
    mark: Mark | None


class Writer:
    """Writes the thoughts of one trajectory; ``normal`` is (H, W, 3)."""

    def __init__(self, item: str, anomaly_type: str, normal: Image, rng: np.random.Generator) -> None:
        self.item, self.kind, self.rng = item.replace("_", " "), f'"{anomaly_type}"', rng
        self.normal = normal
        self._used: dict[tuple[str, ...], list[int]] = {}

    def start(self) -> str:
        """Before prompt_gen."""
        return self._join(self._scene(), self._say(words.WANTED), self._say(words.START))

    def first(self, prompt: str, flaw: str) -> str:
        """Before the first image_gen."""
        if flaw == "bare":
            return self._join(f"The prompt asks for {self.kind} on the {self.item} and keeps the rest.",
                              self._say(words.FIRST[flaw]))  # fmt: skip
        frame = framed(prompt)
        what = pick(
            (
                f"The prompt puts {frame.defect} on {frame.place}, {frame.size} and {frame.severity}.",
                f"prompt_gen proposes {frame.defect}; the place is {frame.place}, the strength {frame.severity}.",
                f"So it is to be {frame.defect}, {frame.size}, {frame.severity} in strength, limited to {frame.place}.",
            ),
            self.rng,
        )
        return self._join(what, self._say(words.FIRST[flaw]))

    def judge(self, seen: Seen, earlier: Seen | None) -> str:
        """Before quality_eval."""
        looks = self._looks(seen)
        return self._join(looks, self._compared(seen, earlier), self._say(words.JUDGE))

    def look_up(self, seen: Seen) -> str:
        """Before knowledge_retrieval."""
        return self._join(self._rejected(seen), self._say(words.LOOK_UP))

    def revise(self, seen: Seen, prompt: str, target: Mark | None, fact: str, reviewed: bool) -> str:
        """Before a further image_gen with ``prompt``; ``target``: the mark it describes where that is known.

        fact: a sentence from the references, "" for none. reviewed: whether the review was spoken of already.
        """
        parts = [] if reviewed else [self._rejected(seen)]
        if fact:
            parts.append(self._say(words.LEARNED, fact=fact))
            if seen.mark and reviewed:
                parts.append(self._say(words.INSTEAD, index=seen.index, what=describe(seen.mark)))
        parts.append(self._say(words.CHANGES, changes=listed(changes(seen.prompt, prompt, target, fact))))
        if target:
            parts.append(self._ground(target))
        parts.append(self._say(words.FRESH))
        return self._join(*parts)

    def mask(self, seen: Seen) -> str:
        """Before mask_gen."""
        left = problems(seen.review, self.rng)
        passed = self._say(words.PASSED_WITH, why=left[0]) if left else self._say(words.PASSED)
        return self._join(passed, self._why_good(seen), self._say(words.MASK, index=seen.index))

    def answer(self, seen: Seen, pieces: int) -> str:
        """Before the answer; ``pieces``: regions of the mask."""
        assert seen.mark is not None
        regions = "one region" if pieces == 1 else f"{pieces} regions"
        spot = "over most of the part" if seen.mark.across == "over most of it" else f"in the {seen.mark.where} part"
        agrees = pick(
            (
                f"The mask has {regions} {spot}, where I see the defect in image {seen.index}.",
                f"Mask and picture agree: {regions}, {spot}.",
                f"The mask follows the defect {spot} ({regions}) and leaves the rest out.",
            ),
            self.rng,
        )
        return self._join(agrees, self._say(words.DONE))

    def logic(self, seen: Seen, tried: Sequence[Seen]) -> str:
        """The answer's synthesis_logic."""
        assert seen.mark is not None
        text = f"{self.kind[1:-1]} on {self.item}: {describe(seen.mark)}."
        if tried:
            reasons = [problems(attempt.review) for attempt in tried]
            told = "; ".join(f"image {a.index}: {why[0]}" for a, why in zip(tried, reasons, strict=True) if why)
            many = "Earlier attempts were" if len(tried) > 1 else "An earlier attempt was"
            text += f" {many} rejected ({told}), and the prompt was rewritten to mend that."
        else:
            text += " The first prompt named place, extent and tone, and its image passed."
        return text

    def _scene(self) -> str:
        scene = analyse(self.normal)
        level = float(grey(self.normal)[scene.part].mean())
        tone = "dim" if level < 85 else "bright" if level > 170 else "in a middle tone"
        light = f"lit from {_from(scene)}" if scene.light_confidence > 0.3 else "evenly lit"
        if scene.kind == "object":
            share = float(scene.part.mean())
            size = "leaves much background in view"
            if share > 0.35:
                size = "fills most of the frame" if share > 0.6 else "takes up about half of the frame"
            return pick(
                (
                    f"Image 1 shows a good {self.item} against a plain background, {light}; it {size}.",
                    f"The {self.item} in image 1 is intact, {light} and {tone}, and it {size}.",
                    f"In image 1 the {self.item} stands clear of its background, {light}. It {size}.",
                ),
                self.rng,
            )
        grain = _grain(scene)
        return pick(
            (
                f"Image 1 is filled by the surface of the {self.item}: {grain}, {tone}, {light}.",
                f"The photo shows nothing but good {self.item} surface, {tone} and {light}, {grain}.",
                f"A frame-filling view of the {self.item}, {light}; {grain}.",
            ),
            self.rng,
        )

    def _looks(self, seen: Seen) -> str:
        if seen.mark is None:
            return pick(
                (
                    f"I can hardly tell image {seen.index} from image 1.",
                    f"At first sight image {seen.index} shows nothing new.",
                ),
                self.rng,
            )
        return self._say(words.SEEN, index=seen.index, what=describe(seen.mark))

    def _compared(self, seen: Seen, earlier: Seen | None) -> str:
        """Against the attempt before, where there is one."""
        if earlier is None or earlier.mark is None or seen.mark is None:
            return ""
        a, b = earlier.mark, seen.mark
        said = []
        if b.length > 1.3 * a.length or b.length < a.length / 1.3:
            said.append("larger" if b.length > a.length else "smaller")
        if b.contrast > 1.25 * a.contrast or b.contrast < a.contrast / 1.25:
            said.append("stronger" if b.contrast > a.contrast else "more restrained")
        moved = self._say(words.MOVED, here=b.where, there=a.where) if a.where != b.where else ""
        if said:
            return self._join(self._say(words.COMPARED, index=earlier.index, how=listed(said)), moved)
        return moved or self._say(words.ALIKE, index=earlier.index)

    def _rejected(self, seen: Seen) -> str:
        why = problems(seen.review, self.rng)
        return self._say(
            words.REJECTED, index=seen.index, why=listed(why[:2]) if why else "the review finds it unconvincing"
        )

    def _ground(self, mark: Mark) -> str:
        """What the good surface offers where the defect is to lie, where that is worth a word."""
        ways: tuple[str, ...] = ()
        if mark.across == "over most of it":
            return ""
        if mark.busy < 0.7:
            ways = words.CALM
        elif mark.busy > 1.4:
            ways = words.BUSY
        elif abs(mark.bright) > 8:
            ways = words.LIT if mark.bright > 0 else words.SHADED
        elif mark.at_outline:
            ways = words.OUTLINE
        return self._say(ways, where=mark.where) if ways and self.rng.random() < 0.75 else ""

    def _why_good(self, seen: Seen) -> str:
        mark = seen.mark
        if mark is None:
            return ""
        reasons = [
            f"it stays within the {mark.where} part" if not mark.across else f"it reaches {mark.across}",
            f"it is {mark.tone} than the good surface" if mark.tone[0] != "a" else "it keeps the surface's lightness",
        ]
        if mark.direction:
            reasons.append(f"it runs {mark.direction}")
        if mark.colour:
            reasons.append(f"its {mark.colour} is a colour of its own that the good part has nowhere")
        if mark.at_outline:
            reasons.append("it follows the part's outline")
        if mark.pieces > 1:
            reasons.append(
                "its marks differ from one another, as real ones do" if mark.pieces > 2 else "its two marks go together"
            )
        chosen = [reasons[int(n)] for n in sorted(self.rng.permutation(len(reasons))[:2])]
        return self._say(words.GOOD, index=seen.index, why=listed(chosen))

    def _say(self, ways: tuple[str, ...], **facts: object) -> str:
        """One of the ways, none twice before all were used."""
        used = self._used.setdefault(ways, [])
        if len(used) == len(ways):
            used.clear()
        used.append(pick([number for number in range(len(ways)) if number not in used], self.rng))
        return ways[used[-1]].format(kind=self.kind, item=self.item, **facts)

    def _join(self, *sentences: str) -> str:
        return " ".join(sentence for sentence in sentences if sentence)


def _grain(scene: Scene) -> str:
    if scene.grain.coherence <= 0.35:
        return "its texture has no direction"
    turn = scene.grain.angle_deg % 180
    way = "horizontally" if min(turn, 180 - turn) < 20 else "vertically" if abs(turn - 90) < 20 else "diagonally"
    return f"its lines run {way}"


def _from(scene: Scene) -> str:
    turn = np.degrees(np.arctan2(scene.light[1], scene.light[0]))
    return COMPASS[round(float(turn) / 45) % 8]
