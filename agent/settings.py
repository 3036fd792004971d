"""Where options come from: command line, then environment (``ANOMALY_AGENT_*``), then ``anomaly-agent.toml``."""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Mapping
from pathlib import Path

SETTINGS_FILE = "anomaly-agent.toml"


class SettingsError(ValueError):
    """A settings file that cannot be used; the message names the cure."""


def apply_settings(parser: argparse.ArgumentParser, section: str, environ: Mapping[str, str], folder: Path) -> None:
    """Turn the environment and the file's ``[section]`` into defaults of the parser's options.

    An option ``--max-images`` reads ``ANOMALY_AGENT_MAX_IMAGES`` and the key ``max_images``. Raises
    SettingsError for a damaged file or an unknown key.
    """
    options = {
        action.dest: action
        for action in parser._actions
        if action.option_strings and action.dest not in ("help", "demo")
    }
    values: dict[str, str] = {}
    path = folder / SETTINGS_FILE
    if path.is_file():
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8")).get(section, {})
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
            raise SettingsError(f"{path}: {error}: mend the file or remove it") from error
        for key, value in table.items():
            if key not in options:
                raise SettingsError(f"{path}: unknown key {key!r} in [{section}]: use {', '.join(sorted(options))}")
            values[key] = str(value)
    for key in options:
        if (value := environ.get(f"ANOMALY_AGENT_{key.upper()}")) is not None:
            values[key] = value
    for key, text in values.items():
        kind = options[key].type
        if isinstance(kind, type) and not _reads(kind, text):
            where = "ANOMALY_AGENT_" + key.upper() if f"ANOMALY_AGENT_{key.upper()}" in environ else str(path)
            raise SettingsError(f"{where}: {text!r} is no usable value for {key}")
        if options[key].nargs == 0:
            parser.set_defaults(**{key: text.lower() in ("1", "true", "yes", "on")})
        elif isinstance(options[key].default, list):
            parser.set_defaults(**{key: [text]})
        else:
            parser.set_defaults(**{key: text})


def _reads(kind: type, text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True
