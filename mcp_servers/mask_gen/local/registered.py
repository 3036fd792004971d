"""The editor redrew the whole picture: align, match, and find what still differs more than it should.

How much an honest redraw differs is learned from the pair itself, as a function of how busy the place is
(edges and texture survive resampling and JPEG less well than calm surface): the noise level function.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import cv2
import numpy as np

from mcp_servers.mask_gen.local.alike import ALIKE, agreement
from mcp_servers.mask_gen.local.register import Affine, align, match, warp
from mcp_servers.mask_gen.local.result import MaskResult, different, found, nothing
from mcp_servers.mask_gen.local.shape import hysteresis, lab_of, visible
from mcp_servers.vision.pixels import length
from mcp_servers.vision.types import Field, Image, Mask

WORK = 1024
"""Longer side, in pixels, of the copies that are compared."""
SCALES = {1.0: 8.0, 2.0: 5.0, 4.0: 3.0, 8.0: 2.5}
"""Sigma (px at 512 px) of a local average -> colour difference (dE) from which a change of that extent counts."""
CHROMA = 0.5
"""Weight of a and b against L: chroma subsampling leaves blocks of false colour in honest redraws."""
CALM, LEAST = 2.2, 0.27
"""A pair that agrees well elsewhere needs less: so many times its typical peak, at least this share of SCALES."""
BINS = (*np.linspace(0, 1, 13)[:-1], 0.96, 1.0)
"""Quantiles of local business between which the honest difference is learned: finer where edges are."""
WEAK = 0.4
"""Differences below this share of what counts are no part of a defect."""
SEED_Z, GROW_Z = 9.0, 3.0
"""Robust z-scores that start and that extend a defect."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """An edited photo compared with its normal one; arrays in the normal photo's frame, at ``scale`` of its size.

    ``affine``: (2, 3), pixels of the normal copy to pixels of the edited one. ``normal``, ``anomaly``: the matched
    pictures (h, w, 3), float32 Lab. ``valid``: (h, w), what the edited photo shows at all. ``mask``: (h, w), what
    changed; ``peak``: its evidence (1 = just enough); ``strongest``: the largest difference (dE). ``alike``: how
    far the two show the same piece (see `agreement`).
    """

    scale: float
    affine: Affine
    normal: Field
    anomaly: Field
    valid: Mask
    alike: float
    mask: Mask
    peak: float
    strongest: float

    @property
    def shift(self) -> tuple[float, float]:
        """(x, y) displacement of the edited photo at the middle, in px at full size."""
        middle = np.array([self.mask.shape[1] / 2, self.mask.shape[0] / 2])
        moved = self.affine[:, :2] @ middle + self.affine[:, 2] - middle
        return float(moved[0] / self.scale), float(moved[1] / self.scale)


def compare(normal: Image, anomaly: Image) -> Comparison:
    """Register and match two photos (H, W, 3) on copies of at most ``WORK`` px, and find what changed."""
    height, width = normal.shape[:2]
    scale = min(1.0, WORK / max(height, width))
    if scale < 1:
        size = (max(8, round(width * scale)), max(8, round(height * scale)))
        normal = cv2.resize(normal, size, interpolation=cv2.INTER_AREA)
        anomaly = cv2.resize(anomaly, size, interpolation=cv2.INTER_AREA)
    affine = align(normal, anomaly)
    h, w = normal.shape[:2]
    valid = warp(np.ones((h, w), np.float32), affine) > 0.99
    valid &= inside(affine, (h, w))
    rgb_n, rgb_a = match(normal, warp(anomaly, affine), valid)
    lab_n, lab_a = lab_of(rgb_n), lab_of(rgb_a)
    alike = agreement(rgb_n, rgb_a)
    return Comparison(scale, affine, lab_n, lab_a, valid, alike, *changed(lab_n, lab_a, valid))


def find_registered(normal: Image, anomaly: Image) -> MaskResult:
    """Find the defect in an edited photo of which no pixel can be trusted to be unchanged.

    Registration, sharpness and colour match (register.py); a check that it is the same photo (alike.py); local RMS
    colour difference at three scales, each against the level expected at that local gradient; robust z-score;
    hysteresis; the visible part of what remains. Works on copies of at most ``WORK`` px; the mask is returned at
    full size.
    """
    height, width = normal.shape[:2]
    seen = compare(normal, anomaly)
    if seen.alike < ALIKE:
        return different((height, width), seen.alike, seen.shift)
    if not seen.mask.any():
        why = f"after aligning and colour matching, the strongest change is {seen.strongest:.1f} dE, as anywhere else"
        return nothing((height, width), float(np.clip(1 - 0.7 * seen.peak, 0.1, 0.95)), "registered", seen.shift, why)
    h, w = seen.mask.shape
    back = cv2.warpAffine(seen.mask.astype(np.float32), seen.affine, (w, h), flags=cv2.INTER_LINEAR)
    full = cv2.resize(back, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
    if not full.any():
        return nothing((height, width), 0.3, "registered", seen.shift, "the change is smaller than a pixel")
    return found(full, float(np.clip(1 - 0.6 / seen.peak, 0.0, 0.98)), "registered", seen.shift)


def inside(affine: Field, shape: tuple[int, int]) -> Mask:
    """Pixels of the normal frame that land at least 2 px inside the edited photo."""
    h, w = shape
    ys, xs = np.mgrid[0:h, 0:w].astype(np.float32)
    x = affine[0, 0] * xs + affine[0, 1] * ys + affine[0, 2]
    y = affine[1, 0] * xs + affine[1, 1] * ys + affine[1, 2]
    return np.asarray((x >= -0.01) & (y >= -0.01) & (x <= w - 0.99) & (y <= h - 0.99))


def changed(normal: Field, anomaly: Field, valid: Mask) -> tuple[Mask, float, float]:
    """Mask (H, W), peak evidence (1 = just enough) and strongest difference (dE) of two matched Lab pictures."""
    delta = (anomaly - normal) * valid[..., None] * np.array([1, CHROMA, CHROMA], np.float32)
    steps = [cv2.Sobel(normal, cv2.CV_32F, dx, 1 - dx, scale=1 / 8) for dx in (0, 1)]
    steep = np.einsum("ijk,ijk->ij", steps[0], steps[0]) + np.einsum("ijk,ijk->ij", steps[1], steps[1])
    unit = max(1.0, max(valid.shape) / 512)
    evidence = np.zeros(valid.shape, np.float32)
    support = np.zeros(valid.shape, bool)
    for sigma, most in SCALES.items():
        mean = length(cv2.GaussianBlur(delta, (0, 0), sigma * unit))
        busy = np.sqrt(cv2.GaussianBlur(steep, (0, 0), max(1.5, sigma) * unit))
        floor = float(np.clip(CALM * typical_peak(mean, valid), LEAST * most, most))
        strong = valid & (mean >= WEAK * floor)  # elsewhere neither count
        difference = mean[strong]
        level, spread = expected(mean, busy, valid, busy[strong])
        z = (difference - level) / spread
        evidence[strong] = np.maximum(evidence[strong], np.minimum(z / SEED_Z, difference / floor))
        support[strong] |= z >= GROW_Z
    margin = round(4 * unit)
    inner = np.zeros_like(valid)  # what enters or leaves at the picture's border is no evidence of a defect
    inner[margin:-margin, margin:-margin] = True
    evidence *= inner
    support = hysteresis(evidence >= 1, support)
    fine = length(cv2.GaussianBlur(delta, (0, 0), 1.0 * unit))
    mask = visible(fine, support, 1.5, sure=evidence >= 1)
    return mask, float(evidence.max()), float(fine.max())


def typical_peak(difference: Field, valid: Mask) -> float:
    """Upper quartile of the peaks in an 8 x 8 grid of blocks: the peak (dE) that an honest redraw shows."""
    h, w = (max(1, n // 8) for n in valid.shape)
    seen = (difference * valid)[: 8 * h, : 8 * w]
    peaks = seen.reshape(-1, h, seen.shape[1] // w, w).max(axis=(1, 3))
    return float(np.percentile(peaks, 75))


def expected(difference: Field, busy: Field, valid: Mask, at: Field) -> tuple[Field, Field]:
    """Level and spread (dE) of the difference that an honest redraw leaves where the business is ``at`` (N,).

    Noise level function, learned from the whole pictures (H, W): pixels are ranked by ``busy`` into bins; level is
    each bin's median, spread its scaled MAD, interpolated, and never above that of a busier bin: a defect that fills
    the calm places must not pass for their honest level. A floor keeps perfect pairs from exploding.
    """
    values, keys = difference[valid], busy[valid]
    step = max(1, len(values) // 60_000)
    values, keys = values[::step], keys[::step]
    edges = np.quantile(keys, BINS)
    centres, levels, spreads = [], [], []
    for low, high in itertools.pairwise(edges):
        pick = values[(keys >= low) & (keys <= high)]
        if pick.size < 8:
            continue
        middle = float(np.median(pick))
        centres.append(0.5 * float(low + high))
        levels.append(middle)
        spreads.append(1.4826 * float(np.median(np.abs(pick - middle))))
    level = np.minimum.accumulate(np.array(levels)[::-1])[::-1]
    spread = np.maximum(np.minimum.accumulate(np.array(spreads)[::-1])[::-1], 0.25)
    beyond = np.maximum(at / max(centres[-1], 1e-3), 1.0)  # busier than all bins: in proportion
    return (
        (np.interp(at, centres, level) * beyond).astype(np.float32),
        (np.interp(at, centres, spread) * beyond).astype(np.float32),
    )
