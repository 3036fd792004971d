"""What README and the examples say is true."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from agent.policies.choose import read_policy
from agent.protocol import FIVE_TOOLS
from agent.run import parser_of
from mcp_servers.cli import server_parser
from mcp_servers.suite import SPECS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_chains_all_five_tools(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "examples/chain_tools.py"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(FIVE_TOOLS)


@pytest.mark.parametrize("name", ["claude_desktop_config.json", "vscode_mcp.json"])
def test_host_configurations_are_valid_json_that_starts_the_suite(name: str) -> None:
    text = (ROOT / "examples" / name).read_text()
    (servers,) = json.loads(text).values()
    assert servers["anomaly-agent"]["args"][:2] == ["-m", "mcp_servers"]


def test_readme_names_only_options_that_exist() -> None:
    known = {option for action in parser_of()._actions for option in action.option_strings}
    known |= {"--allow", "--http", "--port", "--quiet", "--editable", "--data", "--fix"}
    known |= {option for action in server_parser("", SPECS, "")._actions for option in action.option_strings}
    known |= {"--constraint", "--half", "--photos", "--skip", "--quick", "--make-split", "--format", "--config"}
    known |= {"--write", "--file", "--paid", "--from", "--resume"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README)) <= known


def test_every_command_of_the_serving_guide_can_be_used() -> None:
    text = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"^python -m agent\.(?:run|doctor) ([^#\n]*)", text, re.MULTILINE)
    assert len(commands) >= 6
    for command in commands:
        options = parser_of().parse_args(shlex.split(command))
        assert read_policy(options, {"OPENAI_API_KEY": "x"}).name == "openai"


def test_readme_links_and_pictures_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
    for name in re.findall(r"`(examples/[\w./]+)`", README):
        assert (ROOT / name).exists(), name


def test_readme_json_blocks_parse() -> None:
    for block in re.findall(r"```json\n(.*?)```", README, re.DOTALL):
        json.loads(block)
