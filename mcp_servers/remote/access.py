"""Whether a service can be used: the package that speaks to it, and the key that opens it.

A key comes from the user's own choice (``ANOMALY_AGENT_EDITOR_API_KEY`` and its siblings), else from the vendor's
variable. The vendor's key goes to the vendor, or over TLS to the address that the user named; a server named by a plain
``http://`` address needs no key and is never sent the vendor's.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from mcp_servers.backends import BackendChoice


@dataclass(frozen=True, slots=True)
class Vendor:
    """A service: its name, the module that speaks to it, the extra that brings the module, its keys' variables."""

    title: str
    module: str
    extra: str
    variables: tuple[str, ...]


VENDORS = {
    "gemini": Vendor("Gemini", "google.genai", "gemini", ("GEMINI_API_KEY", "GOOGLE_API_KEY")),
    "openai": Vendor("OpenAI", "openai", "", ("OPENAI_API_KEY",)),
    "xai": Vendor("xAI", "xai_sdk", "xai", ("XAI_API_KEY",)),
}
NO_KEY = "none"
"""What is sent in place of a key to servers that need none: the SDKs insist on one."""


def key_of(vendor: str, choice: BackendChoice, environ: Mapping[str, str] = os.environ) -> str:
    """The key for the chosen service, "" where there is none."""
    if choice.api_key:
        return choice.api_key
    if is_plain(choice.base_url):
        return ""
    return next((value for name in VENDORS[vendor].variables if (value := environ.get(name, "").strip())), "")


def is_plain(base_url: str) -> bool:
    """Whether an address is one without TLS."""
    return urlsplit(base_url).scheme == "http"


def is_on_this_machine(base_url: str) -> bool:
    """Whether an address names this machine: what is served here costs nothing unless the user lists a price."""
    host = urlsplit(base_url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def service_of(vendor: str, choice: BackendChoice) -> str:
    """How messages name the service: the vendor, or the server at the address that the user gave."""
    return f"the server at {urlsplit(choice.base_url).netloc}" if choice.base_url else VENDORS[vendor].title


def problem_of(vendor: str, role: str, choice: BackendChoice, environ: Mapping[str, str] = os.environ) -> str:
    """Why the service cannot be used, in one line that names the cure; "" where it can.

    ``role``: the tool's role (editor, judge, ...), under which the user chooses.
    """
    known = VENDORS[vendor]
    if not _installed(known.module):
        return f"{known.module} is not installed: pip install 'anomaly-agent[{known.extra}]'"
    if choice.base_url:
        parts = urlsplit(choice.base_url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            return f"--{role}-base-url {choice.base_url[:120]}: give an address that begins with http:// or https://"
    if is_plain(choice.base_url) or key_of(vendor, choice, environ):
        return ""
    own = f"ANOMALY_AGENT_{role.upper()}_API_KEY"
    return f"{known.title} needs a key: set {' or '.join(known.variables)} (or {own})"


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the parent package is absent too
        return False
