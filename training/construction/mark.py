"""What a defect looks like, measured from its mask: place, extent, shape, tone and colour, each with plain words.

Thoughts and prompts of a constructed trajectory are written from these words alone, so nothing in them is invented.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from mcp_servers.image_gen.local.lexicon import COLOURS
from mcp_servers.image_gen.local.spec import SIZE_RANGES
from mcp_servers.knowledge.families import SEVERITIES, SIZES, Family
from mcp_servers.mask_gen.local.shape import ellipse, lab_of
from mcp_servers.quality_eval.local.place import longest, outline_gap, thickness, without_bores
from mcp_servers.vision.scene import analyse
from mcp_servers.vision.types import Image, Mask

SLIM = 0.3
"""Width over length (0-1) under which a defect is called long and narrow, so that it has a direction."""
WIDE = 0.75
"""Share of the part's box from which a defect is said to reach across it."""
STRENGTHS = (5.0, 10.0, 18.0, 32.0)
"""Colour difference (dE) to the good surface below which a defect is faint, mild, moderate, pronounced."""
CHROMATIC = 14.0
"""Distance in a and b (CIE Lab) to the good surface from which the defect has a colour of its own."""
GREYS = ("black", "dark grey", "grey", "light grey", "white")
HUES = ("brown", "tan", "rust", "orange", "yellow", "red", "crimson", "pink", "purple", "blue", "navy", "teal", "green",
        "olive", "cream", "copper", "maroon", "magenta", "turquoise")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mark:
    """One defect, or one group of marks, on its part.

    ``where``: "upper left", "left", "central", ...; ``across``: "from side to side", "from top to bottom", "over most
    of it" or "". ``at_outline``: it touches the outer outline of an object. ``pieces``: separate marks. ``area``: share
    of the part; ``length``: longest extension of the biggest piece over the square root of the part's area; ``slim``:
    width over length, 0-1. ``angle``: degrees counter-clockwise from horizontal, [0, 180), None where it has no
    direction. ``lighter``: change of lightness (CIE L*), ``contrast``: dE, both the median over the plainer half of the
    defect's pixels. ``colour``: a plain word, "" where it has none of its own. ``size`` and ``severity``: words of the
    ladders. ``busy``: contrast of the good surface there over that of the whole part; ``bright``: its lightness there
    less that of the whole part.
    """

    where: str
    across: str
    at_outline: bool
    pieces: int
    area: float
    length: float
    slim: float
    angle: float | None
    lighter: float
    contrast: float
    colour: str
    size: str
    severity: str
    busy: float
    bright: float

    @property
    def direction(self) -> str:
        """Where a long and narrow mark runs, "" for others."""
        if self.angle is None:
            return ""
        if min(self.angle, 180 - self.angle) < 20:
            return "horizontally"
        if abs(self.angle - 90) < 20:
            return "vertically"
        return "diagonally, rising to the right" if self.angle < 90 else "diagonally, falling to the right"

    @property
    def tone(self) -> str:
        """Against the good surface."""
        if self.lighter < -2.0:
            return "much darker" if self.lighter < -20 else "darker"
        if self.lighter > 2.0:
            return "much lighter" if self.lighter > 20 else "lighter"
        return "about as light"


def measure(normal: Image, anomaly: Image, mask: Mask, family: str) -> Mark:
    """The defect under ``mask`` (H, W, not empty) of a photo, against the same photo without it; both (H, W, 3)."""
    scene = analyse(normal)
    part = scene.part | mask
    ys, xs = np.nonzero(part)
    left, right, top, bottom = xs.min(), xs.max() + 1, ys.min(), ys.max() + 1
    my, mx = np.nonzero(mask)
    extent = float(np.sqrt(np.count_nonzero(part)))
    before, after = lab_of(normal), lab_of(anomaly)
    change = after[mask] - before[mask]
    plain = np.linalg.norm(change, axis=1) >= np.median(np.linalg.norm(change, axis=1))
    strong, core = change[plain], after[mask][plain]
    shift = np.median(strong, axis=0)
    tint = float(np.linalg.norm(np.median(strong, axis=0)[1:]))
    contrast = float(np.median(np.linalg.norm(strong, axis=1)))
    length, slim = longest(_biggest(mask)) / extent, thickness(mask)
    detail = np.abs(before[..., 0] - cv2.GaussianBlur(before[..., 0], (0, 0), 2.0))
    around = (cv2.dilate(mask.astype(np.uint8), ellipse(max(3, round(0.04 * extent)))) > 0) & scene.part
    around = around if around.any() else mask
    outline = scene.kind == "object" and outline_gap(mask, without_bores(scene.part)) < 0.02 * extent
    return Mark(
        where=_where((mx.mean() - left) / (right - left), (my.mean() - top) / (bottom - top)),
        across=_across((np.ptp(mx) + 1) / (right - left), (np.ptp(my) + 1) / (bottom - top)),
        at_outline=bool(outline),
        pieces=_pieces(mask),
        area=float(np.count_nonzero(mask)) / float(np.count_nonzero(part)),
        length=length,
        slim=slim,
        angle=_angle(mask) if slim < SLIM else None,
        lighter=float(shift[0]),
        contrast=contrast,
        colour=_colour(np.median(core, axis=0)) if tint > CHROMATIC else "",
        size=_size(length, family),
        severity=SEVERITIES[int(np.searchsorted(STRENGTHS, contrast, side="right"))],
        busy=float(detail[around].mean() / max(1e-3, float(detail[scene.part].mean()))),
        bright=float(np.median(before[around][:, 0]) - np.median(before[scene.part][:, 0])),
    )


def _where(u: float, v: float) -> str:
    across = "left" if u < 0.36 else "right" if u > 0.64 else ""
    down = "upper" if v < 0.36 else "lower" if v > 0.64 else ""
    return " ".join(word for word in (down, across) if word) or "central"


def _across(width: float, height: float) -> str:
    if width > WIDE and height > WIDE:
        return "over most of it"
    return "from side to side" if width > WIDE else "from top to bottom" if height > WIDE else ""


def _pieces(mask: Mask) -> int:
    """Separate marks, without crumbs of less than 4% of the biggest."""
    near = max(1, round(0.006 * max(mask.shape)))
    joined = cv2.dilate(mask.astype(np.uint8), ellipse(near))
    _, _, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    return int(np.count_nonzero(areas >= 0.04 * areas.max()))


def _biggest(mask: Mask) -> Mask:
    """The biggest piece."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return np.asarray(labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA])))


def _angle(mask: Mask) -> float:
    """Direction of the biggest piece, by its second moments."""
    ys, xs = np.nonzero(_biggest(mask))
    x, y = xs - xs.mean(), ys - ys.mean()
    return float(np.degrees(0.5 * np.arctan2(-2 * (x * y).mean(), (x * x).mean() - (y * y).mean())) % 180)


def _size(length: float, family: str) -> str:
    """The ladder word whose length for this family is nearest, on a log scale."""
    low, high = SIZE_RANGES[Family(family)]
    at = np.log(max(length, 1e-3) / low) / np.log(high / low) * (len(SIZES) - 1)
    return SIZES[int(np.clip(round(float(at)), 0, len(SIZES) - 1))]


def _colour(lab: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> str:
    """The plain colour word nearest to a CIE Lab colour."""
    if float(np.linalg.norm(lab[1:])) < 8:
        return GREYS[int(np.clip((float(lab[0]) - 8) / 20, 0, len(GREYS) - 1))]
    swatches = np.array([[COLOURS[name] for name in HUES]], np.uint8)
    gaps = np.linalg.norm(lab_of(swatches)[0] - lab, axis=1)
    name = HUES[int(np.argmin(gaps))]
    return f"dark {name}" if lab[0] < 25 and name not in ("navy", "maroon") else name
