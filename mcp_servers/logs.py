"""The servers' log on stderr, without keys: what a library writes about a failed request may hold one."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable, Mapping

SECRET_NAMES = re.compile(r"(API_?KEY|TOKEN|SECRET|PASSWORD)$")
"""Environment variables whose values are never written."""
SECRET_FORMS = re.compile(r"\b(?:sk-|xai-|AIza|ghp_|hf_)[\w-]{16,}|(?<=Bearer )[\w.~+/=-]{8,}")
"""What keys of the usual services look like, wherever they come from."""
SHORTEST = 8
"""Characters from which a value is taken for a secret; shorter ones would blot out ordinary words."""


class ScrubbingFormatter(logging.Formatter):
    """Formats a record, traceback included, and replaces every secret by ``***``."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s")
        self._secrets = sorted({secret for secret in secrets if len(secret) >= SHORTEST}, key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        """The record as text without secrets."""
        text = super().format(record)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return SECRET_FORMS.sub("***", text)


def secrets_in(environ: Mapping[str, str]) -> list[str]:
    """The values of the environment that are keys."""
    return [value.strip() for name, value in environ.items() if SECRET_NAMES.search(name) and value.strip()]


def log_to_stderr(secrets: Iterable[str], level: int = logging.WARNING) -> None:
    """Send the log to stderr (stdout is the protocol's), without the given secrets."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(ScrubbingFormatter(secrets))
    logging.basicConfig(handlers=[handler], level=level, force=True)
