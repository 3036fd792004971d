"""Damage in depth: hole."""

from __future__ import annotations

import cv2
import numpy as np

from mcp_servers.image_gen.local.canvas import Canvas, Layer
from mcp_servers.image_gen.local.shading import ramp, relief_gain
from mcp_servers.image_gen.local.shapes import blob
from mcp_servers.image_gen.local.spec import DefectSpec
from mcp_servers.image_gen.local.streams import Streams, fractal


def hole(canvas: Canvas, spec: DefectSpec, streams: Streams) -> Layer:
    """A pit: ragged mouth with a raised lip, wall in shadow on the lamp's side, lit wall opposite, dark floor."""
    rng = streams("shape")
    radius = max(0.45 * canvas.length, 1.1 * canvas.hair)
    round_ = "round" in spec.shapes
    aspect = 1.0 if round_ else float(rng.uniform(1.0, 1.7))
    field = blob(canvas, rng, radius, aspect=aspect, lobes=0.05 if round_ else 0.2, rough=0.05 if round_ else 0.1)
    wall = max(0.35 * radius, canvas.hair)
    depth = 0.9 * radius
    grit = fractal(streams("texture"), canvas.shape, max(0.5 * radius, 3.0), 5, 0.65)
    inside = ramp(field, -0.25 * wall, 0.35 * wall)
    bowl = ramp(field, 0.0, 1.4 * wall)
    lip = np.exp(-(((field + 0.25 * wall) / (0.45 * wall)) ** 2))
    height = -depth * bowl * (1 + 0.08 * grit) + 0.10 * wall * lip + 0.05 * radius * grit * inside
    strength = canvas.depth(spec.strength)
    gain = relief_gain(cv2.GaussianBlur(height, (0, 0), max(0.5 * canvas.scale, 0.6)), canvas.light, 0.8 * strength)
    lx, ly = canvas.light[0], canvas.light[1]
    x, y = canvas.grid()
    towards = (x * lx + y * ly) / (radius * max(float(np.hypot(lx, ly)), 1e-3))
    dark = inside * (1.1 + 0.45 * np.clip(towards, -1, 1)) + 0.6 * bowl
    gain = gain * np.exp(-strength * 1.25 * dark * (1 + 0.12 * grit))
    support = np.maximum(inside, ramp(np.abs(np.log(gain)) / max(strength, 0.02), 0.04, 0.25))
    support *= ramp(field, -1.6 * wall, -0.8 * wall)
    return Layer(canvas.shaded(gain), support, keep=np.asarray(1 - 0.5 * inside, np.float32))
