"""Bring the edited photo back onto the normal one: position, sharpness and colour.

Phase correlation gives a first shift; sparse optical flow with RANSAC and ECC refine it to an affine map. Each
is only a candidate: the one that leaves the smallest trimmed residual is taken, so a texture without landmarks
falls back to the shift, and a pair that already aligns stays as it is.
"""

from __future__ import annotations

from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from mcp_servers.vision.pixels import percentile
from mcp_servers.vision.scene import grey
from mcp_servers.vision.types import Field, Image, Mask

Affine = NDArray[np.float32]
"""(2, 3) float32: maps pixels of the normal photo to pixels of the edited one."""
Pixels = TypeVar("Pixels", Field, Image)
LARGE = 400
"""Longer side, in pixels, above which the enhanced correlation coefficient is maximised from coarse to fine."""


def high_pass(luma: Field) -> Field:
    """Luma less its surroundings (sigma 1 against 8 px): free of exposure, keeps what can be aligned."""
    return np.asarray(cv2.GaussianBlur(luma, (0, 0), 1.0) - cv2.GaussianBlur(luma, (0, 0), 8.0))


def align(normal: Image, anomaly: Image) -> Affine:
    """Affine map (2, 3) from normal to edited pixels; the identity where nothing aligns better."""
    a, b = high_pass(grey(normal)), high_pass(grey(anomaly))
    identity = np.eye(2, 3, dtype=np.float32)
    best, cost = identity, residual(a, b, identity)
    window = cv2.createHanningWindow((a.shape[1], a.shape[0]), cv2.CV_32F)
    (dx, dy), _ = cv2.phaseCorrelate(a, b, window)
    limit = 0.08 * max(a.shape)
    if abs(dx) < limit and abs(dy) < limit:
        best, cost = _better(a, b, np.array([[1, 0, dx], [0, 1, dy]], np.float32), best, cost)
    flow = _flow(normal, anomaly, best)
    if flow is not None:
        best, cost = _better(a, b, flow, best, cost)
    ecc = _ecc(a, b, best)
    if ecc is not None:
        best, cost = _better(a, b, ecc, best, cost)
    return best


def _better(a: Field, b: Field, candidate: Affine, best: Affine, cost: float) -> tuple[Affine, float]:
    """The candidate where it is a plausible small motion and lowers the residual by more than 2%."""
    linear = candidate[:, :2] - np.eye(2)
    if float(np.abs(linear).max()) > 0.08:
        return best, cost
    new = residual(a, b, candidate)
    return (candidate, new) if new < 0.98 * cost else (best, cost)


def residual(a: Field, b: Field, affine: Affine) -> float:
    """Trimmed mean (the calmer 80%) of the squared high-pass difference after warping ``b`` onto ``a``."""
    margin = max(4, round(0.03 * min(a.shape)))
    difference = (a - warp(b, affine))[margin:-margin:2, margin:-margin:2] ** 2
    kept = np.sort(difference.ravel())[: max(1, int(0.8 * difference.size))]
    return float(kept.mean())


def warp(picture: Pixels, affine: Affine) -> Pixels:
    """Pull a picture of the edited photo's frame into the normal photo's frame."""
    size = (picture.shape[1], picture.shape[0])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    out: Pixels = cv2.warpAffine(picture, affine, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return out


def _flow(normal: Image, anomaly: Image, start: Affine) -> Affine | None:
    """Similarity map from sparse Lucas-Kanade flow, RANSAC; None where too few points agree."""
    a, b = cv2.cvtColor(normal, cv2.COLOR_RGB2GRAY), cv2.cvtColor(anomaly, cv2.COLOR_RGB2GRAY)
    points = cv2.goodFeaturesToTrack(a, 400, 0.005, max(4, round(0.015 * max(a.shape))))
    if points is None or len(points) < 12:
        return None
    guess = (points[:, 0] @ start[:, :2].T + start[:, 2]).astype(np.float32)[:, None]
    moved, status, _ = cv2.calcOpticalFlowPyrLK(
        a, b, points, guess.copy(), winSize=(21, 21), maxLevel=2, flags=cv2.OPTFLOW_USE_INITIAL_FLOW
    )
    good = status.ravel() == 1
    if np.count_nonzero(good) < 12:
        return None
    cv2.setRNGSeed(7)
    affine, inliers = cv2.estimateAffinePartial2D(points[good], moved[good], ransacReprojThreshold=0.7)
    if affine is None or np.count_nonzero(inliers) < max(10, 0.3 * np.count_nonzero(good)):
        return None
    return np.asarray(affine, np.float32)


def _ecc(a: Field, b: Field, start: Affine) -> Affine | None:
    """Affine map by maximising the enhanced correlation coefficient from ``start``; None where it diverges.

    Pictures of more than ``LARGE`` px are aligned at half their size first, so that few rounds are left to do.
    """
    rounds = 30
    if max(a.shape) > LARGE:
        size = (a.shape[1] // 2, a.shape[0] // 2)
        half_a, half_b = (
            cv2.resize(p[: 2 * size[1], : 2 * size[0]], size, interpolation=cv2.INTER_AREA) for p in (a, b)
        )
        coarse = _ecc(half_a, half_b, rescaled(start, 0.5))
        if coarse is not None:
            start, rounds = rescaled(coarse, 2.0), 6
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, rounds, 1e-4)
    try:
        _, affine = cv2.findTransformECC(a, b, start.copy(), cv2.MOTION_AFFINE, criteria, None, 3)
    except cv2.error:
        return None
    return np.asarray(affine, np.float32)


def rescaled(affine: Affine, scale: float) -> Affine:
    """The same map between copies of the pictures that are ``scale`` times as large (pixels have their centre at 0)."""
    linear, move = affine[:, :2], affine[:, 2]
    move = scale * move + 0.5 * (1 - scale) * (linear.sum(axis=1) - 1)
    return np.column_stack([linear, move]).astype(np.float32)


def match(normal: Image, anomaly: Image, valid: Mask) -> tuple[Field, Field]:
    """Make two aligned photos (H, W, 3) comparable; returns them as float32 RGB in 0-255.

    The colours of the normal photo are put through the edited one's tone curves, so that clipping happens
    alike. Then the sharper one is blurred by the Gaussian that leaves the smallest trimmed residual.
    """
    toned = tone(normal, anomaly, valid)
    other = anomaly.astype(np.float32)
    detail_n, detail_a = (float(np.median(np.abs(_detail(p[..., 1])[valid]))) for p in (toned, other))
    sharper, softer = (toned, other) if detail_n >= detail_a else (other, toned)
    costs = {sigma: _trimmed(_soften(sharper[..., 1], sigma), softer[..., 1], valid) for sigma in SOFTENINGS}
    sharper = _soften(sharper, min(costs, key=lambda s: costs[s]))
    return (sharper, softer) if detail_n >= detail_a else (softer, sharper)


SOFTENINGS = (0.0, 0.5, 0.7, 0.9, 1.2, 1.6)
"""Sigmas (px) tried when one photo is sharper than the other."""


def tone(normal: Image, anomaly: Image, valid: Mask) -> Field:
    """The normal photo with the edited photo's exposure, white balance and contrast; float32 RGB, 0-255.

    Per channel a quadratic tone curve by trimmed least squares: five rounds, the worst 30% of the pixels
    (defects, edges) left out each time. Going from normal to edited, a colour that only the defect has cannot
    bend the curve.
    """
    step = max(1, int(np.sqrt(np.count_nonzero(valid) / 40_000)))
    soft_n, soft_a = (cv2.GaussianBlur(p, (0, 0), 1.0)[::step, ::step] for p in (normal, anomaly))
    pick = valid[::step, ::step]
    x, y = soft_n[pick].T.copy(), soft_a[pick].T / 255  # (3, N): levels of the normal photo, tones of the edited one
    keep = np.ones(x.shape[1], bool)
    for _ in range(5):
        curves = [_curve(x[c, keep], y[c, keep]) for c in range(3)]
        error = sum((curve[x[c]] - y[c]) ** 2 for c, curve in enumerate(curves))
        keep = error <= percentile(error, 70)
    return np.dstack([(255 * curve).astype(np.float32)[normal[..., c]] for c, curve in enumerate(curves)])


def _curve(x: NDArray[np.uint8], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Tone (256,), 0-1, for every level: quadratic least squares of tones ``y`` at levels ``x``, both (N,).

    Drawn towards the identity's slope and no bend where the data do not decide.
    """
    levels = np.arange(256) / 255
    design = np.stack([levels * levels, levels, np.ones(256)], axis=1)
    counts, sums = np.bincount(x, minlength=256), np.bincount(x, weights=y, minlength=256)
    ridge = np.diag([0.01, 0.002, 0.0]) * len(x)
    identity = np.array([0.0, 1.0, 0.0])
    curve = np.linalg.solve((design.T * counts) @ design + ridge, design.T @ sums + ridge @ identity)
    return np.asarray(np.clip(design @ curve, 0, 1))


def _detail(luma: Field) -> Field:
    return np.asarray(luma - cv2.GaussianBlur(luma, (0, 0), 1.0))


def _soften(picture: Field, sigma: float) -> Field:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma)) if sigma > 0 else picture


def _trimmed(a: Field, b: Field, valid: Mask) -> float:
    difference = np.abs(a - b)[valid][::3]
    return float(np.sort(difference)[: max(1, int(0.7 * len(difference)))].mean())
