"""Outlines: irregular blobs as fields that are positive inside, in pixels from the outline."""

from __future__ import annotations

import numpy as np

from mcp_servers.image_gen.local.canvas import Canvas
from mcp_servers.image_gen.local.streams import fractal
from mcp_servers.vision.types import Field


def blob(
    canvas: Canvas,
    rng: np.random.Generator,
    radius: float,
    *,
    aspect: float = 1.0,
    lobes: float = 0.18,
    rough: float = 0.08,
    centre: tuple[float, float] = (0.0, 0.0),
) -> Field:
    """An irregular closed shape (H, W): roughly the distance to its outline in px, positive inside.

    radius: mean radius (px). aspect: length along canvas.angle over width. lobes: size of the large bulges,
    rough: of the fine raggedness, both as a share of the radius. centre: offset (px) from canvas.centre.
    """
    x, y = canvas.axes()
    x, y = x - np.float32(centre[0]), y - np.float32(centre[1])
    root = float(np.sqrt(aspect))
    x, y = x / root, y * root
    theta = np.arctan2(y, x)
    rho = np.hypot(x, y)
    bulge = np.zeros_like(rho)
    for k in range(2, 6):
        size, phase = rng.normal(0, 1 / k), rng.uniform(0, 2 * np.pi)
        bulge += np.float32(size) * np.cos(k * theta + np.float32(phase))
    ragged = fractal(rng, canvas.shape, max(0.7 * radius, 3.0), 5, 0.6)
    outline = radius * (1 + lobes * bulge + rough * ragged)
    return np.asarray(outline - rho, np.float32)
