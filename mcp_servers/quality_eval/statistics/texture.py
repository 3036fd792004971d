"""Statistics of the texture in the region's core against those in the ring around it, in the edited photo alone.

Mean-subtracted contrast-normalised coefficients with the shape of their generalised Gaussian and the products of
neighbours (BRISQUE: Mittal, Moorthy and Bovik, 2012), and the noise by the finest diagonal Haar coefficients (Donoho
and Johnstone, 1994).
"""

from __future__ import annotations

from math import gamma

import cv2
import numpy as np

from mcp_servers.quality_eval.statistics.zones import Zones, log_ratio
from mcp_servers.vision.types import Field

FLOOR = 0.5
"""Grey levels added to every amplitude before amplitudes are compared: 8-bit rounding."""
SHAPES = np.linspace(0.2, 6.0, 291)
RATIOS = np.array([gamma(2 / a) ** 2 / (gamma(1 / a) * gamma(3 / a)) for a in SHAPES])
"""Shapes of the generalised Gaussian (2: Gaussian, 1: Laplacian), and the ratio (E|x|)^2 / E x^2 of each; rising."""


def texture_statistics(grey: Field, zones: Zones) -> dict[str, float]:
    """Core against ring, of a picture of grey levels (H, W).

    log_shape: logarithm of the generalised Gaussian's shape, difference. neighbours: correlation of coefficients side
    by side and one below the other, difference (below 0: whiter than the photo). unevenness: standard deviation of the
    logarithm of local contrast, difference. haar_noise: log ratio of the noise.
    """
    mean = cv2.GaussianBlur(grey, (7, 7), 7 / 6)
    spread = np.sqrt(np.maximum(cv2.GaussianBlur(grey * grey, (7, 7), 7 / 6) - mean * mean, 0))
    coefficients = np.asarray((grey - mean) / (spread + 1), np.float32)
    pairs = np.zeros_like(coefficients)
    pairs[:, :-1] += coefficients[:, :-1] * coefficients[:, 1:] / 2
    pairs[:-1] += coefficients[:-1] * coefficients[1:] / 2
    haar = np.zeros_like(grey)
    haar[:-1, :-1] = np.abs(grey[:-1, :-1] - grey[1:, :-1] - grey[:-1, 1:] + grey[1:, 1:]) / 2
    both = (zones.core, zones.ring)
    shapes = [log_shape(coefficients[zone]) for zone in both]
    alike = [float(pairs[zone].mean()) / (float(coefficients[zone].var()) + 0.02) for zone in both]
    varies = [float(np.std(np.log(spread[zone] + FLOOR))) for zone in both]
    noise = [float(np.median(haar[zone])) / 0.6745 for zone in both]
    return {
        "log_shape": zones.trust * (shapes[0] - shapes[1]),
        "neighbours": zones.trust * (alike[0] - alike[1]),
        "unevenness": zones.trust * (varies[0] - varies[1]),
        "haar_noise": zones.trust * log_ratio(noise[0], noise[1], FLOOR),
    }


def log_shape(values: Field) -> float:
    """Logarithm of the shape of a generalised Gaussian with the same moments as the values (N,).

    By moment matching (Sharifi and Leon-Garcia, 1995); the largest of `SHAPES` where all values are 0.
    """
    power = float(np.mean(np.square(values)))
    ratio = float(np.mean(np.abs(values))) ** 2 / power if power > 1e-9 else float(RATIOS[-1])
    return float(np.log(np.interp(ratio, RATIOS, SHAPES)))
