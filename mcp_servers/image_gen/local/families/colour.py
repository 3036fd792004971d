"""Changes of colour without relief: stain."""

from __future__ import annotations

import numpy as np

from mcp_servers.image_gen.local.canvas import Canvas, Layer
from mcp_servers.image_gen.local.shading import ramp, to_linear
from mcp_servers.image_gen.local.shapes import blob
from mcp_servers.image_gen.local.spec import DefectSpec
from mcp_servers.image_gen.local.streams import Streams, fractal


def stain(canvas: Canvas, spec: DefectSpec, streams: Streams) -> Layer:
    """A liquid that soaked in and dried: a thin film that filters the light, darker along its tide line."""
    rng = streams("shape")
    radius = 0.42 * canvas.length
    aspect = float(rng.uniform(1.0, 1.8)) if "round" not in spec.shapes else 1.0
    field = blob(canvas, rng, radius, aspect=aspect, lobes=0.22, rough=0.06)
    edge = max(canvas.hair, 0.05 * radius)
    film = ramp(field, -0.7 * edge, 0.7 * edge)
    tide = np.exp(-(((field - 1.2 * edge) / (1.3 * edge)) ** 2))
    mottle = fractal(streams("texture"), canvas.shape, max(0.6 * radius, 4.0), 4)
    density = film * np.clip(0.75 + 0.45 * tide + 0.14 * mottle, 0.2, 1.6)
    if spec.colour is None:
        filtered = np.array([0.62, 0.55, 0.44], np.float32)
    else:
        pigment = to_linear(np.array([[spec.colour]], np.float32))[0, 0]
        filtered = np.clip(pigment / max(float(pigment.max()), 0.35), 0.03, 1)
    depth = canvas.depth(spec.strength) * 1.3
    gain = np.exp(np.log(filtered)[None, None, :] * (depth * density)[..., None])
    rgb = canvas.base * gain
    if spec.colour is not None:
        veil = np.clip(0.55 * spec.strength * density, 0, 0.8)[..., None]
        rgb = rgb + veil * (0.75 * pigment + 0.25 * canvas.base - rgb)
    return Layer(rgb.astype(np.float32), ramp(field, -1.5 * edge, 0.5 * edge))
