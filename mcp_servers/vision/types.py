"""Arrays that the image code passes around."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Image: TypeAlias = NDArray[np.uint8]
"""(H, W, 3) sRGB, uint8."""
Mask: TypeAlias = NDArray[np.bool_]
"""(H, W) bool."""
Field: TypeAlias = NDArray[np.float32]
"""(H, W) float32."""
