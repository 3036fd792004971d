"""Results of a function of pictures, kept for as long as the same pictures keep coming.

Prompt generator, renderer, judge and mask tool look at the same photo one after the other, each knowing nothing of
the others, so what they share is recognised by the pictures' content.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

P = ParamSpec("P")
R = TypeVar("R")


def remember(entries: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator for a pure function whose positional arguments are all arrays: keeps its latest ``entries`` results.

    Callers share a result, so its arrays should be read-only. Safe to call from several threads.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        kept: OrderedDict[bytes, R] = OrderedDict()
        lock = threading.Lock()

        @functools.wraps(function)
        def recalled(*args: P.args, **kwargs: P.kwargs) -> R:
            key = _digest(*args)
            with lock:
                if key in kept:
                    kept.move_to_end(key)
                    return kept[key]
            result = function(*args, **kwargs)
            with lock:
                kept[key] = result
                while len(kept) > entries:
                    kept.popitem(last=False)
            return result

        return recalled

    return decorate


def _digest(*arrays: Any) -> bytes:
    """SHA-256 of the arrays' types, shapes and values."""
    content = hashlib.sha256()
    for array in arrays:
        values: NDArray[Any] = np.ascontiguousarray(array)
        content.update(f"{values.dtype}{values.shape}".encode())
        content.update(values.data)
    return content.digest()
