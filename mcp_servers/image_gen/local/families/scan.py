"""Defects as a binarised scan shows them: every pixel black or white, whatever shade the defect has."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mcp_servers.image_gen.local.canvas import Canvas, Layer
from mcp_servers.image_gen.local.shading import luma, ramp, to_srgb
from mcp_servers.image_gen.local.spec import DefectSpec
from mcp_servers.image_gen.local.streams import Streams, fractal

Draw = Callable[[Canvas, DefectSpec, Streams], Layer]

CAUGHT = 0.4
"""Share of a defect's strongest change from which the scanner's threshold turns a pixel over."""


def as_scanned(draw: Draw) -> Draw:
    """The drawing function, with its shades turned to black and white where the photo has no others."""

    def drawn(canvas: Canvas, spec: DefectSpec, streams: Streams) -> Layer:
        layer = draw(canvas, spec, streams)
        return _binarised(canvas, layer, streams) if _is_scan(canvas) else layer

    return drawn


def _is_scan(canvas: Canvas) -> bool:
    """Whether the window is of a picture without grain, all but its borders black or white."""
    tone = luma(to_srgb(canvas.base))
    return canvas.noise < 0.1 and float(np.mean((tone < 40) | (tone > 215))) > 0.85


def _binarised(canvas: Canvas, layer: Layer, streams: Streams) -> Layer:
    """Pixels that a defect changes clearly turn over, those that it changes a little stay."""
    before = luma(to_srgb(canvas.base))
    after = luma(to_srgb(canvas.base + layer.alpha[..., None] * (layer.rgb - canvas.base)))
    change = after - before
    most = float(np.percentile(np.abs(change[layer.alpha > 0.3]), 98)) if (layer.alpha > 0.3).any() else 0.0
    if most < 6:
        return layer
    speckle = 0.12 * fractal(streams("speckle"), canvas.shape, max(2.0 * canvas.scale, 2.0), 1)
    seen = np.abs(change) / most + speckle * (np.abs(change) > 0.1 * most)
    turned = ramp(seen, CAUGHT - 0.06, CAUGHT + 0.06)
    tone = np.where(change > 0, 1.0, 0.0).astype(np.float32)
    rgb = np.repeat(tone[..., None], 3, axis=2)
    rgb = np.where((turned > 0)[..., None], rgb, canvas.base)
    return Layer(np.asarray(rgb, np.float32), turned, 0.0, layer.notes)
