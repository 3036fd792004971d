"""Reading the price table."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

FIELDS = ("input_per_million", "output_per_million", "per_image", "per_call")


class PriceError(ValueError):
    """A price file that cannot be used; the message names the cure."""


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million prompt tokens, a million completion tokens, one generated image, one call."""

    input_per_million: float = 0.0
    output_per_million: float = 0.0
    per_image: float = 0.0
    per_call: float = 0.0

    def of(self, input_tokens: int = 0, output_tokens: int = 0, images: int = 0) -> float:
        """US dollars of one call."""
        tokens = (input_tokens * self.input_per_million + output_tokens * self.output_per_million) / 1e6
        return tokens + images * self.per_image + self.per_call


def price_of(model: str, environ: Mapping[str, str] = os.environ) -> Price | None:
    """The price of a model by its name, None where neither the user's file nor the table knows it.

    Raises PriceError for a file that cannot be read, unknown fields and prices that are no numbers from 0 on.
    """
    if own := environ.get("ANOMALY_AGENT_PRICES"):
        path = Path(own).expanduser()
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise PriceError(f"ANOMALY_AGENT_PRICES: {path} cannot be used ({error}): mend it or unset it") from error
        if model in table:
            return _price(model, table[model], str(path))
    table = tomllib.loads(files("pricing").joinpath("table.toml").read_text(encoding="utf-8"))
    return _price(model, table[model], "table.toml") if model in table else None


def _price(model: str, entry: Any, where: str) -> Price:
    if not isinstance(entry, dict) or not set(entry) <= set(FIELDS):
        raise PriceError(f'{where}: ["{model}"] may hold {", ".join(FIELDS)} and nothing else')
    for name, value in entry.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
            raise PriceError(f'{where}: {name} of "{model}" must be a number of US dollars from 0 on')
    return Price(**{name: float(value) for name, value in entry.items()})
