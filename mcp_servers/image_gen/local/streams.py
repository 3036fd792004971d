"""Random numbers: one independent stream per aspect, so that changing one aspect leaves the others alone."""

from __future__ import annotations

import zlib

import cv2
import numpy as np

from mcp_servers.vision.types import Field


class Streams:
    """Generators keyed by (seed, aspect).

    ``streams("shape")`` starts the same stream every time it is asked for, whatever was drawn from other
    streams before; ``part`` gives the streams of one defect among several.
    """

    def __init__(self, seed: int, *path: int) -> None:
        self._seed, self._path = seed, path

    def __call__(self, aspect: str) -> np.random.Generator:
        key = (abs(self._seed), int(self._seed < 0), zlib.crc32(aspect.encode()), *self._path)
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))

    def part(self, index: int) -> Streams:
        """Streams of defect number ``index`` (0 or more)."""
        return Streams(self._seed, *self._path, index)


def fractal(
    rng: np.random.Generator,
    shape: tuple[int, int],
    period: float,
    octaves: int = 4,
    gain: float = 0.5,
    stretch: tuple[float, float] = (1.0, 1.0),
) -> Field:
    """Smooth fractal noise (H, W) with zero mean and unit standard deviation.

    rng: the stream. period: pixels between the coarsest features. octaves: halvings of the period, fewer
    where the period falls under 2 px. gain: amplitude of each octave relative to the last. stretch: factors
    (x, y) on the period.
    """
    height, width = shape
    total = np.zeros(shape, np.float32)
    amplitude, power = 1.0, 0.0
    for octave in range(octaves):
        step_x, step_y = period * stretch[0] / 2**octave, period * stretch[1] / 2**octave
        if octave and max(step_x, step_y) < 2:
            break
        nx, ny = int(np.ceil(width / max(step_x, 1.0))) + 4, int(np.ceil(height / max(step_y, 1.0))) + 4
        grid = rng.standard_normal((ny, nx)).astype(np.float32)
        map_x = np.arange(width, dtype=np.float32) / max(step_x, 1.0) + np.float32(1 + rng.random())
        map_y = np.arange(height, dtype=np.float32) / max(step_y, 1.0) + np.float32(1 + rng.random())
        at_x, at_y = np.meshgrid(map_x, map_y)
        layer = cv2.remap(grid, at_x, at_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        total += amplitude * layer
        power += amplitude**2
        amplitude *= gain
    return total / np.float32(np.sqrt(power) * 0.72)
