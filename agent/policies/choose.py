"""The choice of a policy: its options, read and checked, and the policies built from them.

options = parser.parse_args(...)            # after add_policy_options(parser)
async with Policies(read_policy(options, os.environ)) as policies:
    policy = policies.make(task)            # one a task; all share the server's connections
"""

from __future__ import annotations

import argparse
import ipaddress
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agent.policies import Policy
from agent.policies.context import ContextLimits
from agent.policies.pictures import IMAGE_SIDE
from agent.policies.planner import Planner
from agent.policies.sampling import MAX_TOKENS, RETRIES, TIMEOUT, Sampling
from agent.task import Task
from pricing import Price, PriceError, price_of

if TYPE_CHECKING:
    from agent.policies.endpoint import Endpoint

HOSTED = "https://api.openai.com/v1"
KEY_VARIABLE = "ANOMALY_AGENT_POLICY_API_KEY"


class PolicyOptionError(ValueError):
    """An option of the policy that cannot be used; the message is one line and names the cure."""


@dataclass(frozen=True, slots=True)
class PolicyChoice:
    """A policy as its user chose it. ``price`` is None where it is not known."""

    name: str = "planner"
    base_url: str = ""
    model: str = ""
    api_key: str = field(default="", repr=False)
    dialect: str = "text"
    sampling: Sampling = field(default_factory=Sampling)
    limits: ContextLimits = field(default_factory=ContextLimits)
    price: Price | None = None
    stop: bool = True
    record_tokens: bool = False
    timeout: float = TIMEOUT
    retries: int = RETRIES

    def note(self) -> str:
        """What the user should know of this choice; "" where there is nothing."""
        if self.name == "planner" or self.price is not None:
            return ""
        return f"the price of {self.model} is not known, so that it counts as 0: name it with --policy-price"


class Policies:
    """Makes the policies of a choice, one a task, over one shared server; an async context manager."""

    def __init__(self, choice: PolicyChoice) -> None:
        self.choice = choice
        self._endpoint: Endpoint | None = None

    @property
    def endpoint(self) -> Endpoint:
        """The policies' server (made on first use: the SDK takes a second to load)."""
        if self._endpoint is None:
            from agent.policies.endpoint import Endpoint

            choice = self.choice
            self._endpoint = Endpoint(choice.base_url, choice.model, choice.api_key, choice.timeout, choice.retries)
        return self._endpoint

    async def __aenter__(self) -> Policies:
        return self

    async def __aexit__(self, *exc: Any) -> None:
        if self._endpoint is not None:
            await self._endpoint.aclose()

    def make(self, task: Task, on_text: Callable[[str], None] | None = None) -> Policy:
        """The policy for one task. ``on_text`` is handed a model's words as they come (it is streamed then)."""
        choice = self.choice
        if choice.name == "planner":
            return Planner(task)
        from agent.policies.openai import OpenAIPolicy

        return OpenAIPolicy(
            self.endpoint,
            choice.sampling.for_task(task.seed),
            dialect=choice.dialect,
            limits=choice.limits,
            price=choice.price,
            stop=choice.stop,
            record_tokens=choice.record_tokens,
            on_text=on_text,
        )


def add_policy_options(parser: argparse.ArgumentParser) -> None:
    """The policy's options, in a group of their own."""
    group = parser.add_argument_group(
        "policy", f"what decides the next step; a server's key comes from {KEY_VARIABLE} or OPENAI_API_KEY"
    )
    group.add_argument("--policy", choices=("planner", "openai"), help="planner, or openai (default where --model is)")
    group.add_argument("--model", metavar="ID", help="the model's name on the server")
    group.add_argument("--base-url", metavar="URL", help=f"OpenAI-compatible server (default: {HOSTED})")
    group.add_argument("--dialect", choices=("text", "native"), default="text", help="tags (default) or functions")
    group.add_argument("--temperature", type=float, metavar="T", help="0 to 2 (default: the server's)")
    group.add_argument("--top-p", type=float, metavar="P", help="above 0 to 1 (default: the server's)")
    group.add_argument("--policy-seed", type=int, metavar="N", help="seed of the sampling (default: --seed)")
    group.add_argument(
        "--max-tokens", type=int, default=MAX_TOKENS, metavar="N", help=f"tokens a turn may have (default {MAX_TOKENS})"
    )
    group.add_argument(
        "--image-side", type=int, default=IMAGE_SIDE, metavar="PX", help=f"longest side shown (default {IMAGE_SIDE})"
    )
    group.add_argument(
        "--max-context-images", type=int, default=8, metavar="N", help="images shown at a time (default 8)"
    )
    group.add_argument(
        "--max-context-tokens", type=int, default=0, metavar="N", help="tokens of prompt and turn (default: no limit)"
    )
    group.add_argument("--stop", choices=("on", "off"), default="on", help="stop strings in the text dialect")
    group.add_argument("--record-tokens", action="store_true", help="record token ids and log-probabilities (vLLM)")
    group.add_argument(
        "--policy-timeout", type=float, default=TIMEOUT, metavar="S", help=f"seconds a turn may take ({TIMEOUT:g})"
    )
    group.add_argument(
        "--policy-retries", type=int, default=RETRIES, metavar="N", help=f"repetitions after a failure ({RETRIES})"
    )
    group.add_argument("--policy-price", metavar="IN,OUT", help="US dollars for a million tokens read and written")


def read_policy(options: argparse.Namespace, environ: Mapping[str, str]) -> PolicyChoice:
    """Check the options. Raises PolicyOptionError."""
    name = options.policy or ("openai" if options.model or options.base_url else "planner")
    for option, value, known in (
        ("policy", name, ("planner", "openai")),
        ("dialect", options.dialect, ("text", "native")),
        ("stop", options.stop, ("on", "off")),
    ):
        if value not in known:  # from the environment or a file, which the parser does not check
            raise PolicyOptionError(f"--{option} {value}: choose {' or '.join(known)}")
    if name == "planner":
        return PolicyChoice()
    if not options.model:
        raise PolicyOptionError("--model is missing: name a model of the policy's server")
    base_url = (options.base_url or environ.get("OPENAI_BASE_URL") or HOSTED).rstrip("/")
    _check_url(base_url)
    api_key = _key(base_url, environ)
    if base_url == HOSTED and not api_key and not getattr(options, "replay", None):
        raise PolicyOptionError(
            "no key for the policy's server: set OPENAI_API_KEY, or name a local server: --base-url"
        )
    limits: tuple[tuple[str, float, float], ...] = (
        ("temperature", 0, 2),
        ("top_p", 1e-6, 1),
        ("policy_seed", 0, 2**63 - 1),
        ("max_tokens", 1, 10**6),
        ("image_side", 28, 8192),
        ("max_context_images", 2, 1000),
        ("max_context_tokens", 0, 10**8),
        ("policy_timeout", 1e-3, 86400),
        ("policy_retries", 0, 20),
    )
    for option, low, high in limits:
        value = getattr(options, option)
        if value is not None and not low <= value <= high:
            raise PolicyOptionError(f"--{option.replace('_', '-')} {value} is out of range: choose {low:g} to {high:g}")
    return PolicyChoice(
        name=name,
        base_url=base_url,
        model=options.model,
        api_key=api_key,
        dialect=options.dialect,
        sampling=Sampling(options.max_tokens, options.temperature, options.top_p, options.policy_seed),
        limits=ContextLimits(options.image_side, options.max_context_images, options.max_context_tokens),
        price=_price(options.policy_price, options.model, base_url, environ),
        stop=options.stop == "on",
        record_tokens=options.record_tokens,
        timeout=options.policy_timeout,
        retries=options.policy_retries,
    )


def is_loopback(url: str) -> bool:
    """Whether a URL names this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable, parts = False, None
    if parts is not None and (parts.username or parts.password):
        raise PolicyOptionError(f"--base-url holds a name or password: put the key into {KEY_VARIABLE}")
    if parts is not None and (parts.query or parts.fragment):
        raise PolicyOptionError(
            f"--base-url holds more than an address: leave out what follows ?, keys go into {KEY_VARIABLE}"
        )
    if not usable:
        raise PolicyOptionError(f"--base-url {url} is no URL of a server: write it as http://127.0.0.1:8000/v1")


def _key(base_url: str, environ: Mapping[str, str]) -> str:
    """The server's key. OPENAI_API_KEY is not sent in the clear to other machines; the policy's own key is."""
    if own := environ.get(KEY_VARIABLE, "").strip():
        return own
    safe = base_url.startswith("https://") or is_loopback(base_url)
    return environ.get("OPENAI_API_KEY", "").strip() if safe else ""


def _price(given: str | None, model: str, base_url: str, environ: Mapping[str, str]) -> Price | None:
    if given:
        try:
            read, written = (float(part) for part in given.split(","))
        except ValueError:
            read = written = math.nan
        if not (0 <= read < 1e9 and 0 <= written < 1e9):
            raise PolicyOptionError(f"--policy-price {given}: write two prices as 0.4,1.6")
        return Price(input_per_million=read, output_per_million=written)
    if is_loopback(base_url):
        return Price()
    try:
        return price_of(model, environ)
    except PriceError as error:
        raise PolicyOptionError(str(error)) from error
