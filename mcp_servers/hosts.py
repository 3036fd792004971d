"""``python -m mcp_servers config --host HOST``: the entry that adds these servers to an MCP host's settings.

Prints the JSON; with ``--write`` it is merged into the host's own file, everything else in it is kept, and the file as
it was is copied beside it first.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mcp_servers.backends import BackendChoice, Choices
from mcp_servers.errors import ToolInputError
from mcp_servers.paths import named_folders
from mcp_servers.remote.access import VENDORS, is_plain

ENTRY = "anomaly-agent"
REMOTE = ("url", "headers")
PATHS = ("_home", "_folder", "_file", "_prices", "_workflow")
"""Ends of the names of options and variables that are paths."""
KEYS = tuple(variable for vendor in VENDORS.values() for variable in vendor.variables)


@dataclass(frozen=True, slots=True)
class Host:
    """An MCP host: the key of its servers, what every entry has besides, and where its settings are kept."""

    key: str
    also: Mapping[str, Any]
    where: str


HOSTS = {
    "claude-desktop": Host("mcpServers", {}, "its own folder"),
    "claude-code": Host("mcpServers", {"type": "stdio"}, "the project: .mcp.json"),
    "cursor": Host("mcpServers", {}, "your home: .cursor/mcp.json"),
    "vscode": Host("servers", {"type": "stdio"}, "the project: .vscode/mcp.json"),
}


def settings_file(host: str, environ: Mapping[str, str], platform: str, home: Path, folder: Path) -> Path:
    """Where a host keeps its list of servers: Claude Desktop and Cursor for the user, the others for a project."""
    if host == "claude-code":
        return folder / ".mcp.json"
    if host == "vscode":
        return folder / ".vscode" / "mcp.json"
    if host == "cursor":
        return home / ".cursor" / "mcp.json"
    if platform == "darwin":
        base = home / "Library" / "Application Support"
    elif platform == "win32":
        base = Path(environ.get("APPDATA", str(home / "AppData" / "Roaming")))
    else:
        base = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    return base / "Claude" / "claude_desktop_config.json"


def entry_for(
    host: str, module: str, arguments: Sequence[str], environ: Mapping[str, str], choices: Choices
) -> dict[str, Any]:
    """The host's entry: absolute paths, and the environment that a host would not pass on.

    The keys of the chosen services, and those that this shell has, are named with an empty value, never copied from it
    into a file.
    """
    env = {name: "" for name in KEYS if environ.get(name)}
    env |= {name: "" for choice in choices.values() for name in keys_needed(choice, environ)}
    env |= {
        name: absolute(name, value)
        for name, value in environ.items()
        if name.startswith("ANOMALY_AGENT_") and not name.endswith(("_KEY", "_TOKEN", "_ALLOW"))
    }
    if find_distribution() is None:
        env["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
    command = {"command": sys.executable, "args": ["-m", module, *arguments]}
    return {**HOSTS[host].also, **command, **({"env": env} if env else {})}


def keys_needed(choice: BackendChoice, environ: Mapping[str, str]) -> list[str]:
    """The variables that the keys of a tool's services are read from: of several, one that this shell has."""
    vendors = [VENDORS[name] for name in choice.name.split("+") if name in VENDORS and not is_plain(choice.base_url)]
    return [next(filter(environ.get, vendor.variables), vendor.variables[0]) for vendor in vendors]


def find_distribution() -> str | None:
    """The installed version of this package, None in a checkout that is not installed."""
    try:
        return version("anomaly-agent")
    except PackageNotFoundError:
        return None


def entry_name(module: str) -> str:
    """Under which name a host lists a server: the five tools together, or each under its own."""
    return ENTRY if module == "mcp_servers" else module.replace("mcp_servers.", f"{ENTRY}-").replace("_", "-")


def merged(existing: dict[str, Any], host: str, name: str, entry: dict[str, Any]) -> dict[str, Any]:
    """A host's settings with the entry added, or renewed where there is one.

    What the user has in it besides is kept: other keys, other variables, and the values of API keys. Only what belongs
    to a server at an address goes, since the entry starts one.
    """
    key = HOSTS[host].key
    servers = existing.get(key, {})
    if not isinstance(servers, dict):
        raise ToolInputError(f"{key!r} in the host's settings is no object: mend it by hand")
    found = servers.get(name)
    before = {field: value for field, value in found.items() if field not in REMOTE} if isinstance(found, dict) else {}
    own = before.get("env")
    own = own if isinstance(own, dict) else {}
    filled = {variable: value for variable, value in own.items() if variable in KEYS and value}
    env = {**own, **entry.get("env", {}), **filled}
    entry = {**before, **entry, **({"env": env} if env else {})}
    return {**existing, key: {**servers, name: entry}}


def write_settings(path: Path, host: str, name: str, entry: dict[str, Any]) -> Path | None:
    """Merge the entry into a settings file; the copy of the file as it was, None where there was none.

    A symbolic link stays one: the file that it leads to is written, and the copy lies beside that.
    Raises ToolInputError where the file is no JSON object (comments are not understood) or cannot be written.
    """
    existing: dict[str, Any] = {}
    backup = None
    path = Path(os.path.realpath(path))
    try:
        if path.exists():
            text = path.read_text("utf-8-sig")
            loaded = json.loads(text) if text.strip() else {}
            if not isinstance(loaded, dict):
                raise ToolInputError(f"{path} holds no JSON object: add the entry by hand")
            existing = loaded
        fresh = json.dumps(merged(existing, host, name, entry), indent=2, ensure_ascii=False) + "\n"
        if path.exists():
            stamp = f"{path.name}.{time.strftime('%Y%m%d-%H%M%S')}"
            names = (path.with_name(f"{stamp}-{number}.bak") for number in itertools.count(1))
            backup = next(candidate for candidate in names if not candidate.exists())
            shutil.copy2(path, backup)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_text(fresh, "utf-8")
        if backup is not None:
            shutil.copymode(path, temporary)
        os.replace(temporary, path)
    except ValueError as error:
        if isinstance(error, ToolInputError):
            raise
        raise ToolInputError(f"{path} is not plain JSON (has it comments?): add the entry by hand") from error
    except OSError as error:
        raise ToolInputError(f"{path} cannot be written ({error.strerror}): add the entry by hand") from error
    return backup


def config_command(
    module: str,
    server: argparse.ArgumentParser,
    check: Callable[[argparse.Namespace], Choices],
    argv: Sequence[str],
) -> int:
    """``config --host HOST [--write] [--file FILE] [server options]``.

    ``server`` parses the server's own options; ``check`` reads the backends from them, and raises ToolInputError for
    those that it would not take.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {module} config",
        description="Print the entry for an MCP host; further options are the server's own and go into it.",
    )
    parser.add_argument("--host", required=True, choices=sorted(HOSTS), help="the program that will use the tools")
    parser.add_argument("--write", action="store_true", help="merge it into the host's settings, with a backup")
    parser.add_argument(
        "--file", type=Path, metavar="FILE", help="the host's settings, where they are not at the usual"
    )
    options, rest = parser.parse_known_args(argv)
    checked = server.parse_args(rest)
    if checked.http:
        return _refused(parser, "--http: hosts start the server themselves; leave it out")
    try:
        choices = check(checked)
    except ToolInputError as error:
        return _refused(parser, str(error))
    folders = [str(Path(folder).expanduser().resolve()) for folder in named_folders(checked.allow, os.environ)]
    if not folders:
        return _refused(
            parser, "--allow DIR: name the folder of your photos (a host starts the server in a folder of its own)"
        )
    if missing := [folder for folder in folders if not Path(folder).is_dir()]:
        return _refused(parser, f"--allow {missing[0]}: no such folder; name an existing one")
    checked.allow = folders
    entry = entry_for(options.host, module, arguments_of(server, checked), os.environ, choices)
    name = entry_name(module)
    empty = ", ".join(variable for variable in entry.get("env", {}) if variable in KEYS)
    if not options.write:
        sys.stdout.write(json.dumps({HOSTS[options.host].key: {name: entry}}, indent=2, ensure_ascii=False) + "\n")
        if empty:
            sys.stderr.write(f"fill in {empty} there\n")
        return 0
    path = options.file or settings_file(options.host, os.environ, sys.platform, Path.home(), Path.cwd())
    try:
        backup = write_settings(path, options.host, name, entry)
    except ToolInputError as error:
        return _refused(parser, str(error))
    told = f"; as it was: {backup}" if backup else ""
    keys = f"; fill in {empty} there" if empty else ""
    sys.stderr.write(f"{path} now has {name}{told}{keys}. Restart {options.host}.\n")
    return 0


def _refused(parser: argparse.ArgumentParser, why: str) -> int:
    sys.stderr.write(f"{parser.prog}: error: {why}\n")
    return 2


def arguments_of(server: argparse.ArgumentParser, options: argparse.Namespace) -> list[str]:
    """The command line of a server's options, in full names and with absolute paths."""
    arguments: list[str] = []
    for action in server._actions:
        value = getattr(options, action.dest, None)
        if value is None or value == action.default:
            continue
        for one in value if isinstance(value, list) else [value]:
            arguments += [action.option_strings[-1]]
            arguments += [] if one is True else [absolute(action.dest, str(one))]
    return arguments


def absolute(name: str, value: str) -> str:
    """The value of an option or variable, as an absolute path where it is one: hosts start servers in other folders."""
    path = Path(os.path.abspath(Path(value).expanduser()))
    is_path = name.lower().endswith(PATHS) or (name.lower().endswith("_model") and path.is_file())
    return str(path) if value and is_path else value
