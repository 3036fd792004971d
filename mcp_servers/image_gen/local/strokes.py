"""Lines: wandering paths and the ribbon of pixels around them, with exact distances instead of drawn lines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mcp_servers.vision.types import Field

Points = NDArray[np.float32]
"""(N, 2) x, y in canvas pixels."""


@dataclass(frozen=True, slots=True)
class Ribbon:
    """Pixels around a path: ``offset`` signed distance (px; positive to the right of the direction of travel
    with y down), ``along`` position on the path in [0, 1], ``near`` unsigned distance (px, large far away),
    each (H, W)."""

    offset: Field
    along: Field
    near: Field


def smooth(rng: np.random.Generator, count: int, period: float, octaves: int = 2) -> NDArray[np.float32]:
    """1-D fractal noise with ``count`` samples, zero mean, unit deviation, features of ``period`` samples."""
    total = np.zeros(count)
    amplitude, power = 1.0, 0.0
    for octave in range(octaves):
        step = max(period / 2**octave, 1.0)
        knots = rng.standard_normal(int(np.ceil(count / step)) + 4)
        at = np.arange(count) / step + rng.random()
        low = np.floor(at).astype(int)
        t = at - low
        t = t * t * (3 - 2 * t)
        total += amplitude * (knots[low] * (1 - t) + knots[low + 1] * t)
        power += amplitude**2
        amplitude *= 0.5
    return np.asarray(total / np.sqrt(power) / 0.8, np.float32)


def path(
    rng: np.random.Generator,
    start: tuple[float, float],
    angle: float,
    length: float,
    *,
    bend: float = 0.0,
    wander: float = 0.0,
    kinks: float = 0.0,
    count: int = 64,
) -> Points:
    """A path of ``length`` px from ``start`` at ``angle`` (radians, y down).

    bend: total turn in radians spread over the path; wander: deviation of smooth turning (radians);
    kinks: deviation of abrupt turns (radians) that the path soon corrects, as in a crack.
    """
    heading = angle + bend * (np.linspace(0, 1, count) - 0.5)
    if wander:
        heading = heading + wander * smooth(rng, count, count / 3, 3)
    if kinks:
        hold = rng.integers(2, 6, count)
        turns = np.repeat(rng.standard_normal(count), hold)[:count]
        heading = heading + kinks * turns
    step = length / (count - 1)
    xs = start[0] + np.concatenate([[0.0], np.cumsum(np.cos(heading[:-1]) * step)])
    ys = start[1] + np.concatenate([[0.0], np.cumsum(np.sin(heading[:-1]) * step)])
    return np.stack([xs, ys], 1).astype(np.float32)


def splintered(rng: np.random.Generator, points: Points, amount: float) -> Points:
    """The path with every step broken into three that swerve by up to ``amount`` of the step's length or so."""
    steps = np.diff(points, axis=0)
    aside = np.stack([-steps[:, 1], steps[:, 0]], 1)
    swerve = rng.normal(0, amount, (len(steps), 2))
    first = points[:-1] + 0.33 * steps + swerve[:, :1] * aside
    second = points[:-1] + 0.67 * steps + swerve[:, 1:] * aside
    mixed = np.stack([points[:-1], first, second], 1).reshape(-1, 2)
    return np.asarray(np.concatenate([mixed, points[-1:]]), np.float32)


def centred(points: Points, centre: tuple[float, float]) -> Points:
    """The path moved so that the middle between its ends lies at ``centre``."""
    shift = np.asarray(centre, np.float32) - (points[0] + points[-1]) / 2
    return np.asarray(points + shift, np.float32)


def ribbon(points: Points, shape: tuple[int, int], reach: float) -> Ribbon:
    """Distances of all pixels within ``reach`` px of a path of at least two points."""
    height, width = shape
    near = np.full(shape, 1e6, np.float32)
    offset = np.full(shape, 1e6, np.float32)
    along = np.zeros(shape, np.float32)
    lengths = np.hypot(*np.diff(points, axis=0).T)
    total = max(float(lengths.sum()), 1e-6)
    done = 0.0
    for (x0, y0), (x1, y1), length in zip(points[:-1], points[1:], lengths, strict=True):
        left, right = max(0, int(min(x0, x1) - reach)), min(width, int(max(x0, x1) + reach) + 2)
        top, bottom = max(0, int(min(y0, y1) - reach)), min(height, int(max(y0, y1) + reach) + 2)
        if left < right and top < bottom and length > 1e-6:
            xs = np.arange(left, right, dtype=np.float32)[None, :] - x0
            ys = np.arange(top, bottom, dtype=np.float32)[:, None] - y0
            ux, uy = (x1 - x0) / length, (y1 - y0) / length
            run = xs * ux + ys * uy
            side = ys * ux - xs * uy
            clipped = np.clip(run, 0, length)
            distance = np.hypot(run - clipped, side)
            window = (slice(top, bottom), slice(left, right))
            closer = distance < near[window]
            near[window][closer] = distance[closer]
            offset[window][closer] = np.where(side >= 0, distance, -distance)[closer]
            along[window][closer] = ((done + clipped) / total)[closer]
        done += float(length)
    return Ribbon(offset, along, near)


def sample(profile: NDArray[np.float32], along: Field) -> Field:
    """Value of a 1-D profile (samples over [0, 1]) at each pixel's position along the path."""
    at = np.clip(along, 0, 1) * (len(profile) - 1)
    return np.interp(at.ravel(), np.arange(len(profile)), profile).reshape(along.shape).astype(np.float32)


def taper(count: int, start: float = 0.15, end: float = 0.3) -> NDArray[np.float32]:
    """Profile that rises from 0 over the share ``start`` of the path and falls to 0 over ``end``."""
    t = np.linspace(0, 1, count)
    rise = np.clip(t / max(start, 1e-6), 0, 1) ** 0.7
    fall = np.clip((1 - t) / max(end, 1e-6), 0, 1) ** 0.7
    return (rise * fall).astype(np.float32)
