"""Statistics of the texture in the region's core against those in the ring around it, in the edited photo alone.

Mean-subtracted contrast-normalised coefficients with the shape of their generalised Gaussian and the products of
neighbours (BRISQUE: Mittal, Moorthy and Bovik, 2012), the energies of a pyramid of Gaussian bands, and the noise by
the finest diagonal Haar coefficients (Donoho and Johnstone, 1994).
"""

from __future__ import annotations

from math import gamma

import cv2
import numpy as np

from mcp_servers.quality_eval.statistics.zones import Zones, log_ratio
from mcp_servers.vision.types import Field

BANDS = 3
"""Bands of the pyramid."""
FLOOR = 0.5
"""Grey levels added to every amplitude before amplitudes are compared: 8-bit rounding."""
SHAPES = np.linspace(0.2, 6.0, 291)
RATIOS = np.array([gamma(2 / a) ** 2 / (gamma(1 / a) * gamma(3 / a)) for a in SHAPES])
"""Shapes of the generalised Gaussian (2: Gaussian, 1: Laplacian), and the ratio (E|x|)^2 / E x^2 of each; rising."""


def contrast_statistics(grey: Field, zones: Zones) -> dict[str, float]:
    """Core against ring, of a picture of grey levels (H, W).

    log_shape: logarithm of the generalised Gaussian's shape, difference. neighbours: correlation of coefficients side
    by side and one below the other, difference (below 0: whiter than the photo). neighbours_in: the same in the core.
    log_power: ratio of the coefficients' deviation. activity, calmest: median and 20th percentile of the logarithm of
    the deviation within 7 px, differences. unevenness: what that logarithm varies by, difference.
    """
    mean = cv2.GaussianBlur(grey, (7, 7), 7 / 6)
    spread = np.sqrt(np.maximum(cv2.GaussianBlur(grey * grey, (7, 7), 7 / 6) - mean * mean, 0))
    coefficients = np.asarray((grey - mean) / (spread + 1), np.float32)
    pairs = np.zeros_like(coefficients)
    pairs[:, :-1] += coefficients[:, :-1] * coefficients[:, 1:] / 2
    pairs[:-1] += coefficients[:-1] * coefficients[1:] / 2
    spreads = np.log(spread + FLOOR)
    both = (zones.core, zones.ring)
    shape = [log_shape(coefficients[zone]) for zone in both]
    alike = [float(pairs[zone].mean()) / (float(coefficients[zone].var()) + 0.02) for zone in both]
    power = [float(coefficients[zone].std()) for zone in both]
    median, calm = ([float(np.percentile(spreads[zone], share)) for zone in both] for share in (50, 20))
    varies = [float(np.std(spreads[zone])) for zone in both]
    return {
        "log_shape": zones.trust * (shape[0] - shape[1]),
        "neighbours": zones.trust * (alike[0] - alike[1]),
        "neighbours_in": zones.trust * alike[0] + (1 - zones.trust) * alike[1],
        "log_power": zones.trust * log_ratio(power[0], power[1], 0.1),
        "activity": zones.trust * (median[0] - median[1]),
        "calmest": zones.trust * (calm[0] - calm[1]),
        "unevenness": zones.trust * (varies[0] - varies[1]),
    }


def log_shape(values: Field) -> float:
    """Logarithm of the shape of a generalised Gaussian with the same moments as the values (N,); its largest for none.

    By moment matching (Sharifi and Leon-Garcia, 1995).
    """
    power = float(np.mean(np.square(values)))
    ratio = float(np.mean(np.abs(values))) ** 2 / power if power > 1e-9 else float(RATIOS[-1])
    return float(np.log(np.interp(ratio, RATIOS, SHAPES)))


def band_energies(grey: Field, zones: Zones) -> dict[str, float]:
    """Core against ring: band_0 (finest) to band_2, log ratios of mean amplitudes; haar_noise, of noise; rgb_noise, of
    what the colour channels vary apart from each other within a pixel or two; slope_in: logarithm of the finest over
    the coarsest band in the core.
    """
    both = (zones.core, zones.ring)
    out, amplitudes = {}, []
    current = grey
    for level in range(BANDS):
        soft = np.asarray(cv2.GaussianBlur(current, (0, 0), 0.8 * 2.0**level), np.float32)
        band = np.abs(current - soft)
        amplitudes.append([float(band[zone].mean()) for zone in both])
        out[f"band_{level}"] = zones.trust * log_ratio(amplitudes[-1][0], amplitudes[-1][1], FLOOR)
        current = soft
    slopes = [log_ratio(amplitudes[0][zone], amplitudes[-1][zone], 0.2) for zone in (0, 1)]
    out["slope_in"] = zones.trust * slopes[0] + (1 - zones.trust) * slopes[1]
    haar = np.zeros_like(grey)
    haar[:-1, :-1] = np.abs(grey[:-1, :-1] - grey[1:, :-1] - grey[:-1, 1:] + grey[1:, 1:]) / 2
    noise = [float(np.median(haar[zone])) / 0.6745 for zone in both]
    out["haar_noise"] = zones.trust * log_ratio(noise[0], noise[1], FLOOR)
    red, green, blue = cv2.split(zones.photo.astype(np.float32))
    apart = [one - cv2.GaussianBlur(one, (0, 0), 0.8) for one in (red - green, blue - green)]
    fine = np.hypot(*apart)
    out["rgb_noise"] = zones.trust * log_ratio(float(fine[zones.core].mean()), float(fine[zones.ring].mean()), FLOOR)
    return out
