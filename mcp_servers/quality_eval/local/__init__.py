"""Quality evaluation without a model: measure, then judge.

``evaluate`` finds what changed (mask_gen/local), measures its place (place.py), its look (look.py), what speaks for its
kind (kind.py) and what else changed (outside.py), turns each measurement into a smooth factor (judge.py) and says in
plain imperatives what to change.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import cv2
import numpy as np

from mcp_servers.knowledge.families import DefectProfile
from mcp_servers.mask_gen.local import find_mask
from mcp_servers.mask_gen.local.shape import ellipse
from mcp_servers.quality_eval.local.factors import Finding, pct
from mcp_servers.quality_eval.local.judge import judge_location, judge_quality
from mcp_servers.quality_eval.local.kind import measure_kind
from mcp_servers.quality_eval.local.look import measure_look
from mcp_servers.quality_eval.local.outside import matched, measure_outside
from mcp_servers.quality_eval.local.place import measure_place, solidity
from mcp_servers.quality_eval.local.verdict import Verdict
from mcp_servers.vision.scene import Scene, analyse
from mcp_servers.vision.types import Image, Mask

__all__ = ["Verdict", "evaluate"]

WORTH_SAYING = 0.85
"""Criteria below this factor are named in the review."""
MOST = 3
"""At most so many problems are named at once."""


def evaluate(
    normal: Image,
    anomaly: Image,
    item_name: str,
    anomaly_type: str,
    profile: DefectProfile | None,
    threshold: float = 7.0,
) -> Verdict:
    """Judge an edited photo ``anomaly`` of the good part ``normal``, both (H, W, 3) uint8 of the same size.

    item_name and anomaly_type are used in the review only; ``profile`` tells what the defect should be like and
    may be None. threshold: score (0-10) from which the photo passes. Deterministic. Raises ValueError where the
    photos cannot be compared or the threshold is outside 0-10.
    """
    if not 0 <= threshold <= 10:
        raise ValueError(f"threshold must be between 0 and 10, not {threshold}")
    found = find_mask(normal, anomaly)
    if not found.found:
        return Verdict(
            score=0.0,
            location_score=0.0,
            quality_score=0.0,
            review=f"{'Introduce a visible defect' if found.same else 'Edit the original photo'}. {found.note}",
            passed=threshold <= 0,
            measurements={"changed": 0.0, "mask_confidence": found.confidence},
        )
    normal = follow(normal, found.shift)
    good = analyse(normal)
    scene = whole_part(good, anomaly, found.mask)
    m = {"changed": 1.0, "mask_confidence": found.confidence}
    toned = matched(normal, anomaly, found)
    m |= measure_place(found, scene, good.part)
    m |= measure_look(toned, anomaly, found.mask, scene)
    m |= measure_kind(toned, anomaly, found.mask, scene)
    m |= measure_outside(normal, toned, anomaly, found)
    where = judge_location(m, profile)
    how = judge_quality(m, profile)
    location = round(5 * prod(f.factor for f in where), 1)
    quality = round(5 * prod(f.factor for f in how), 1)
    score = round(location + quality, 1)
    return Verdict(
        score=score,
        location_score=location,
        quality_score=quality,
        review=_review([*where, *how], score >= threshold, m, item_name, anomaly_type),
        passed=score >= threshold,
        measurements={name: round(float(value), 4) for name, value in m.items()},
    )


def whole_part(good: Scene, anomaly: Image, mask: Mask) -> Scene:
    """The good photo's scene, with the edited photo's outline where that shows the part more completely.

    A good photo that was made by removing a defect may have lost a piece of the part with it. More completely: the
    edited photo holds nearly all (97%) of what the good one shows, and is the more solid shape, which a spot that hangs
    over the outline is not; or shows more than twice as much. Where most of the good photo's outline is the border of
    the change ``mask``, the outline is of the painting's making, and the edited photo's counts. A change inside the
    part leaves the outline as it is.
    """
    inner = cv2.erode(good.part.astype(np.uint8), ellipse(2), borderValue=1) > 0
    if good.kind == "texture" or not (mask & ~inner).any():
        return good
    edited = analyse(anomaly)
    line = good.part & (cv2.erode(good.part.astype(np.uint8), ellipse(1), borderValue=1) == 0)
    near, deep = (op(mask.astype(np.uint8), ellipse(5)) > 0 for op in (cv2.dilate, cv2.erode))
    if np.count_nonzero(line & near & ~deep) > 0.5 * np.count_nonzero(line):
        return edited
    if edited.kind == "texture":
        return good
    before, after = np.count_nonzero(good.part), np.count_nonzero(edited.part)
    if np.count_nonzero(good.part & edited.part) < 0.97 * before:
        return good
    if after < 2 * before and solidity(edited.part) < solidity(good.part) + 0.002:
        return good
    return replace(good, part=edited.part)


def follow(normal: Image, shift: tuple[float, float]) -> Image:
    """The good photo moved by ``shift`` (x, y) px, to lie under an edited photo that drifted."""
    if max(abs(shift[0]), abs(shift[1])) < 0.3:
        return normal
    move = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32)
    size = (normal.shape[1], normal.shape[0])
    return np.asarray(cv2.warpAffine(normal, move, size, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def _review(findings: list[Finding], passed: bool, m: dict[str, float], item_name: str, anomaly_type: str) -> str:
    """The problems, worst first, at least one where it did not pass; or what is right."""
    problems: dict[str, Finding] = {}
    for finding in sorted(findings, key=lambda f: f.factor):
        if finding.factor < WORTH_SAYING or (not passed and not problems):
            problems.setdefault(finding.advice.split(":")[0], finding)
    if problems:
        return " ".join(f.advice for f in list(problems.values())[:MOST])
    rest = "is unchanged" if m["recolour"] < 1 and m["drift"] < 0.3 else "changed little"
    return (
        f"The {anomaly_type} lies on the {item_name} and covers {pct(m['area_share'])} of it, "
        f"with {m['contrast']:.1f} times the surface's own variation. "
        f"Its sharpness and grain match the photo, and the rest {rest}."
    )
