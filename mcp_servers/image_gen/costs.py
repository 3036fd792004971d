"""What an edit costs: from the tokens that the service reports, else from the price of an image."""

from __future__ import annotations

from mcp_servers.remote.access import is_on_this_machine
from pricing import Price, PriceError, price_of

MOST_INPUT = 8000
"""Tokens that a prompt and two pictures come to at most."""


def cost_of(
    model: str, input_tokens: int | None, output_tokens: int | None, images: int = 1, base_url: str = ""
) -> float | None:
    """US dollars of one answered request, None where the model's price is not known.

    With a price for output tokens and their number, tokens alone count; else input tokens and images.
    """
    price = known_price(model, base_url)
    if price is None:
        return None
    if price.output_per_million and output_tokens:
        return price.of(input_tokens or 0, output_tokens)
    return price.of(input_tokens or 0, 0, images)


def most_of(model: str, base_url: str = "") -> float | None:
    """The most that one edit may cost in US dollars, None where the model's price is not known."""
    price = known_price(model, base_url)
    return None if price is None else round(price.of(MOST_INPUT, 0, 1), 6)


def price_problem(model: str) -> str:
    """Why the user's price file cannot be used, "" where it can (or where there is none)."""
    try:
        price_of(model)
    except PriceError as error:
        return str(error)
    return ""


def known_price(model: str, base_url: str = "") -> Price | None:
    """The model's price; None where it is not known or the user's file is damaged (see `price_problem`).

    ``base_url``: where the user has it served; on this machine it is free unless listed.
    """
    try:
        price = price_of(model)
        return Price() if price is None and is_on_this_machine(base_url) else price
    except PriceError:
        return None
