"""Published ways of making anomalies without a model, written afresh from their papers' parameters.

Each module has ``generate(normal_images, rng) -> (image, mask)``: uint8 (H, W, 3) sRGB and bool (H, W), True where the
paper's own label is, never empty. numpy and OpenCV only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from evaluation.baselines import cutpaste, draem, nsa
from evaluation.data import Image, Mask

Baseline: TypeAlias = Callable[[Sequence[Image], np.random.Generator], tuple[Image, Mask]]
"""One anomalous picture of one of the normal photos (H, W, 3), drawn with the generator of random numbers."""

BASELINES: dict[str, Baseline] = {"cutpaste": cutpaste.generate, "draem": draem.generate, "nsa": nsa.generate}
"""The baselines that see normal photos only. ``croppaste`` needs real defects: see ``croppaste.from_defects``."""
