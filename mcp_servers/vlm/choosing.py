"""Which model answers for a tool: names and prices, the halves of a combined choice, and why one cannot be used."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mcp_servers.backends import BackendChoice, BackendFacts
from mcp_servers.fingerprint import local_version
from mcp_servers.remote import problem_of
from mcp_servers.remote.access import is_on_this_machine
from mcp_servers.vlm.asking import ASKS
from pricing import Price, PriceError, price_of

MODELS: Mapping[str, str] = {"gemini": "gemini-3.1-pro-preview", "openai": "gpt-5.4"}
"""Service -> the model it is asked for where the user names none."""
MAX_OUTPUT_TOKENS = 8192
"""Most tokens of one reply, a reasoning model's thoughts included."""
TEXT_TOKENS = 4000
"""Upper bound of what the words of a question and of earlier replies come to."""
PICTURE_TOKENS = 3000
"""Upper bound of what services count for a picture of 1024 pixels (by tiles or by patches)."""


def model_of(choice: BackendChoice, models: Mapping[str, str] = MODELS) -> str:
    """The model's name: the user's, else the service's default; "" where a server of the user's own names none."""
    return choice.model or ("" if choice.base_url and choice.name == "openai" else models.get(choice.name, ""))


def price_for(choice: BackendChoice, model: str) -> Price | None:
    """The price of the chosen model, None where it is not known; a server on this machine is free unless listed.

    Raises PriceError for the user's own table where it cannot be used.
    """
    price = price_of(model)
    return Price() if price is None and is_on_this_machine(choice.base_url) else price


def max_cost(choice: BackendChoice, model: str, pictures: int) -> float | None:
    """The most that one question with so many pictures may cost (US dollars), None where the price is not known."""
    price = price_for(choice, model)
    return None if price is None else ASKS * price.of(TEXT_TOKENS + pictures * PICTURE_TOKENS, MAX_OUTPUT_TOKENS)


def parts_of(choice: BackendChoice) -> list[BackendChoice]:
    """The backends of a choice, one each; model and address belong to the service among them.

    Where there are several services, model and address name one for each, joined by "+" in the same order ("" for the
    default), and no key of the user's own is passed on, since it could reach the wrong one.
    """
    names = choice.name.split("+")
    services = [name for name in names if name in MODELS]
    models, urls = [choice.model], [choice.base_url]
    if len(services) > 1:
        models, urls = (text.split("+") if text else [""] * len(services) for text in (choice.model, choice.base_url))
    given = dict(zip(services, zip(models, urls, strict=False), strict=False))
    parts = []
    for name in names:
        model, url = given.get(name, ("", "") if services else (choice.model, choice.base_url))
        key = choice.api_key if len(services) < 2 else ""
        parts.append(replace(choice, name=name, model=model, base_url=url, api_key=key))
    return parts


def facts_of(
    tool: str, role: str, choice: BackendChoice, pictures: int, models: Mapping[str, str] = MODELS
) -> BackendFacts:
    """What a client is told of a choice with services in it: models, version, price, and what is wrong with it.

    ``pictures``: how many one question holds.
    """
    parts = [part for part in parts_of(choice) if part.name in MODELS]
    named = [model_of(part) for part in parts]
    told = "\0".join([local_version(tool, "mask_gen", "vlm", "remote"), *(part.base_url for part in parts)])
    problem = _mismatch(role, choice, len(parts))
    cost: float | None = 0.0
    for part, model in zip(parts, named, strict=True):
        problem = problem or problem_of(part.name, role, part)
        if not model:
            problem = problem or f"--{role}-model is missing: name the model that {part.base_url} serves"
        try:
            most = max_cost(part, model, pictures)
        except PriceError as error:
            most, problem = None, problem or str(error)
        cost = None if cost is None or most is None else cost + most
    version = hashlib.sha256(told.encode()).hexdigest()[:12]
    return BackendFacts(choice.name, "+".join(named), version, cost, problem, open_world=True)


def _mismatch(role: str, choice: BackendChoice, services: int) -> str:
    if services < 2:
        return ""
    for option, text in (("model", choice.model), ("base-url", choice.base_url)):
        if text and len(text.split("+")) != services:
            return f"--{role}-{option} {text[:120]}: name one for each of {choice.name}, joined by + in that order"
    if choice.api_key:
        own = f"ANOMALY_AGENT_{role.upper()}_API_KEY"
        return f"{own} is for one service and {choice.name} uses {services}: set each vendor's own variable instead"
    return ""


def notes_on_price(parts: Sequence[BackendChoice]) -> list[str]:
    """What a result's user should know where a model's price is not listed: its cost is told as 0."""
    unknown = [model_of(part) for part in parts if part.name in MODELS and price_for(part, model_of(part)) is None]
    return [
        f"the price of {model} is not known and its cost told as 0: list it in ANOMALY_AGENT_PRICES"
        for model in unknown
    ]
