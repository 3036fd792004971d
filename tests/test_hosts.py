"""What hosts, registries and skills are told of the servers: complete, mergeable, and in step with the project."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from agent.protocol import FIVE_TOOLS
from mcp_servers.cli import server_parser
from mcp_servers.hosts import HOSTS, entry_for, settings_file
from mcp_servers.suite import SPECS

ROOT = Path(__file__).resolve().parent.parent
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def config(
    *arguments: str, cwd: Path = ROOT, module: str = "mcp_servers", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, "config", *arguments]
    environment = os.environ | (env or {})
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, env=environment)


def test_the_printed_entry_starts_a_server_from_any_folder(tmp_path: Path, home: Path) -> None:
    done = config("--host", "claude-desktop", "--allow", str(tmp_path), "--judge", "local")
    entry = json.loads(done.stdout)["mcpServers"]["anomaly-agent"]
    assert entry["args"] == ["-m", "mcp_servers", "--allow", str(tmp_path), "--judge", "local"]

    async def main() -> set[str]:
        command = StdioServerParameters(
            command=entry["command"], args=entry["args"], env=entry.get("env"), cwd=str(tmp_path)
        )
        async with Client(command) as client:
            return {tool.name for tool in (await client.list_tools()).tools}

    assert anyio.run(main) == set(FIVE_TOOLS)


def test_paths_in_the_entry_mean_the_same_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("ANOMALY_AGENT_HOME", "store")
    monkeypatch.setenv("ANOMALY_AGENT_JUDGE_MODEL", "judge.pt")
    for folder in ("photos", "kb"):
        (tmp_path / folder).mkdir()
    for file in ("judge.pt", "masker.pt"):
        (tmp_path / file).touch()
    given = ["--knowledge=local+folder", "--knowledge-fol", "kb", "--masker-model", "masker.pt", "--no-inline-images"]
    done = config("--host", "cursor", "--allow", "photos", *given, "--prompter-model", "qwen/qwen3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    entry = json.loads(done.stdout)["mcpServers"]["anomaly-agent"]
    options = dict(zip(entry["args"][2::2], entry["args"][3::2], strict=False))
    assert options["--allow"] == str(tmp_path / "photos")
    assert f"--knowledge-folder {tmp_path / 'kb'}" in " ".join(entry["args"])
    assert f"--masker-model {tmp_path / 'masker.pt'}" in " ".join(entry["args"])
    assert "--no-inline-images" in entry["args"]
    assert entry["env"]["ANOMALY_AGENT_HOME"] == str(tmp_path / "store")
    assert entry["env"]["ANOMALY_AGENT_JUDGE_MODEL"] == str(tmp_path / "judge.pt")


@pytest.mark.parametrize("host", sorted(HOSTS))
def test_writing_keeps_what_is_there_and_leaves_a_copy_of_it(host: str, tmp_path: Path) -> None:
    file = tmp_path / "settings" / "mcp.json"
    key = HOSTS[host].key
    before = {key: {"other": {"command": "x"}}, "theme": "dark"}
    file.parent.mkdir()
    file.write_text(json.dumps(before))
    for _ in range(2):
        done = config("--host", host, "--allow", str(tmp_path), "--write", "--file", str(file))
        assert done.returncode == 0, done.stderr
    after = json.loads(file.read_text())
    assert after["theme"] == "dark"
    assert after[key]["other"] == {"command": "x"}
    assert after[key]["anomaly-agent"]["args"][:2] == ["-m", "mcp_servers"]
    assert any(json.loads(copy.read_text()) == before for copy in file.parent.glob("*.bak"))


def test_what_the_user_has_in_the_entry_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    env = {"GEMINI_API_KEY": "the user's", "HTTPS_PROXY": "http://proxy", "ANOMALY_AGENT_HOME": "/old"}
    own = {"command": "old", "url": "http://old", "disabled": True, "timeout": 90, "env": env}
    file.write_text(json.dumps({"mcpServers": {"anomaly-agent": own}}))
    command = ["--host", "cursor", "--allow", str(tmp_path), "--write", "--file", str(file)]
    done = config(*command, env={"ANOMALY_AGENT_HOME": "/new", "GEMINI_API_KEY": "of the shell"})
    assert done.returncode == 0, done.stderr
    entry = json.loads(file.read_text())["mcpServers"]["anomaly-agent"]
    assert entry["command"] == sys.executable
    assert (entry["disabled"], entry["timeout"], "url" in entry) == (True, 90, False)
    assert {name: entry["env"][name] for name in env} == env | {"ANOMALY_AGENT_HOME": "/new"}


def test_a_link_to_the_settings_stays_a_link(tmp_path: Path) -> None:
    target = tmp_path / "dotfiles" / "mcp.json"
    target.parent.mkdir()
    target.write_text('\ufeff{"theme": "dark"}')  # with the mark that some editors on Windows write first
    link = tmp_path / "mcp.json"
    link.symlink_to(target)
    done = config("--host", "cursor", "--allow", str(tmp_path), "--write", "--file", str(link))
    assert done.returncode == 0, done.stderr
    assert link.is_symlink()
    written = json.loads(target.read_text())
    assert written["theme"] == "dark"
    assert "anomaly-agent" in written["mcpServers"]
    assert len(list(target.parent.glob("*.bak"))) == 1


def test_folders_may_also_come_from_the_environment(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    env = {"ANOMALY_AGENT_ALLOW": f"a{os.pathsep}{tmp_path / 'b'}", "PYTHONPATH": str(ROOT)}
    done = config("--host", "cursor", cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    entry = json.loads(done.stdout)["mcpServers"]["anomaly-agent"]
    assert entry["args"][2:] == ["--allow", str(tmp_path / "a"), "--allow", str(tmp_path / "b")]
    assert "ANOMALY_AGENT_ALLOW" not in entry.get("env", {})


def test_a_server_of_one_tool_has_an_entry_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    for module in ("mcp_servers", "mcp_servers.mask_gen"):
        command = ["--host", "cursor", "--allow", str(tmp_path), "--write", "--file", str(file)]
        assert config(*command, module=module).returncode == 0
    entries = json.loads(file.read_text())["mcpServers"]
    assert {name: entry["args"][1] for name, entry in entries.items()} == {
        "anomaly-agent": "mcp_servers",
        "anomaly-agent-mask-gen": "mcp_servers.mask_gen",
    }


@pytest.mark.parametrize(
    ("content", "arguments", "says"),
    [
        ("{ // a comment\n}", [], "is not plain JSON"),
        ("[]", [], "no JSON object"),
        ('{"mcpServers": []}', [], "mend it by hand"),
        ("{}", ["--http"], "leave it out"),
        ("{}", ["--judge", "nobody"], "no such backend"),
    ],
)
def test_settings_that_cannot_be_merged_stay_as_they_are(
    tmp_path: Path, content: str, arguments: list[str], says: str
) -> None:
    file = tmp_path / "mcp.json"
    file.write_text(content)
    done = config("--host", "cursor", "--allow", str(tmp_path), "--write", "--file", str(file), *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert file.read_text() == content


def test_keys_are_named_and_never_copied_into_the_entry() -> None:
    environ = {"GEMINI_API_KEY": "secret", "ANOMALY_AGENT_TOKEN": "secret", "ANOMALY_AGENT_EDITOR_API_KEY": "secret"}
    entry = entry_for("vscode", "mcp_servers", [], environ | {"ANOMALY_AGENT_HOME": "/store"}, {})
    assert "secret" not in json.dumps(entry)
    assert entry["env"]["GEMINI_API_KEY"] == ""
    assert entry["env"]["ANOMALY_AGENT_HOME"] == "/store"
    assert entry["type"] == "stdio"


def test_the_keys_of_the_chosen_services_are_asked_for_where_this_shell_has_none(tmp_path: Path) -> None:
    given = ("--host", "cursor", "--allow", str(tmp_path), "--judge", "local+openai", "--masker", "local")
    none = {"OPENAI_API_KEY": "", "GEMINI_API_KEY": "", "GOOGLE_API_KEY": "", "XAI_API_KEY": ""}
    done = config(*given, env=none | {"ANOMALY_AGENT_EDITOR": "gemini"})
    assert done.stderr == "fill in GEMINI_API_KEY, OPENAI_API_KEY there\n"
    named = json.loads(done.stdout)["mcpServers"]["anomaly-agent"]["env"]
    assert {name: value for name, value in named.items() if name in none} == {
        "GEMINI_API_KEY": "",
        "OPENAI_API_KEY": "",
    }
    done = config(*given, env=none | {"ANOMALY_AGENT_EDITOR": "gemini", "GOOGLE_API_KEY": "secret"})
    assert done.stderr == "fill in GOOGLE_API_KEY, OPENAI_API_KEY there\n"
    local = config(*given, "--judge-base-url", "http://127.0.0.1:9/v1", "--judge-model", "m", env=none)
    assert local.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--port", "9"], "--port is for servers over HTTP: add --http, or leave --port out"),
        (["--editor", "foo"], "--editor foo: no such backend"),
        (["--http"], "--http: hosts start the server themselves"),
    ],
)
def test_an_entry_that_would_not_work_is_refused_in_one_line(tmp_path: Path, arguments: list[str], says: str) -> None:
    done = config("--host", "cursor", "--allow", str(tmp_path), *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_settings_are_where_each_host_looks_for_them() -> None:
    home, here = Path("/home/u"), Path("/project")
    found = {
        platform: settings_file("claude-desktop", {}, platform, home, here).as_posix()
        for platform in ("darwin", "linux", "win32")
    }
    assert found == {
        "darwin": "/home/u/Library/Application Support/Claude/claude_desktop_config.json",
        "linux": "/home/u/.config/Claude/claude_desktop_config.json",
        "win32": "/home/u/AppData/Roaming/Claude/claude_desktop_config.json",
    }
    assert settings_file("vscode", {}, "linux", home, here).as_posix() == "/project/.vscode/mcp.json"


@pytest.mark.parametrize("name", ["claude_desktop_config", "claude_code_mcp", "cursor_mcp", "vscode_mcp"])
def test_the_examples_have_the_form_that_is_printed(name: str) -> None:
    host = {"claude_desktop_config": "claude-desktop", "claude_code_mcp": "claude-code", "cursor_mcp": "cursor"}
    known = HOSTS[host.get(name, "vscode")]
    example = json.loads((ROOT / "examples" / f"{name}.json").read_text())[known.key]["anomaly-agent"]
    assert {key: example.get(key) for key in known.also} == dict(known.also)
    assert example["args"][:3] == ["-m", "mcp_servers", "--allow"]


def test_bundle_and_registry_entry_follow_the_projects_version_and_tools(tmp_path: Path) -> None:
    manifest: dict[str, Any] = json.loads((ROOT / "packaging" / "manifest.json").read_text())
    assert manifest["version"] == VERSION
    assert {tool["name"] for tool in manifest["tools"]} == set(FIVE_TOOLS)
    used = set(re.findall(r"\$\{user_config\.(\w+)\}", json.dumps(manifest["server"])))
    assert used == set(manifest["user_config"])
    assert all(option["sensitive"] for name, option in manifest["user_config"].items() if name.endswith("_key"))
    registry = json.loads((ROOT / "packaging" / "server.json").read_text())
    assert registry["version"] == registry["packages"][0]["version"] == VERSION
    assert len(registry["description"]) <= 100


def test_the_bundle_holds_a_server_that_starts(tmp_path: Path, home: Path) -> None:
    bundle = tmp_path / "bundle"
    subprocess.run([sys.executable, str(ROOT / "scripts" / "make_bundle"), str(bundle)], check=True)
    packaged = tomllib.loads((bundle / "pyproject.toml").read_text())
    assert packaged["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["mcp_servers", "pricing"]

    async def main() -> int:
        env = {"PYTHONPATH": str(bundle), "ANOMALY_AGENT_HOME": str(home)}
        command = ["-m", "mcp_servers", "--allow", str(tmp_path)]
        async with Client(
            StdioServerParameters(command=sys.executable, args=command, env=env, cwd=str(bundle))
        ) as client:
            return len((await client.list_tools()).tools)

    assert anyio.run(main) == 5


def test_the_manual_names_only_options_that_exist() -> None:
    options = server_parser("mcp_servers", SPECS, "")._actions
    known = {name for action in options for name in action.option_strings} | {"--write", "--file"}
    manual = (ROOT / "docs" / "mcp.md").read_text()
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", manual)) <= known


def test_the_skill_names_every_tool_and_has_what_hosts_read() -> None:
    text = (ROOT / "skills" / "anomaly-agent" / "SKILL.md").read_text()
    head = text.split("---")[1]
    assert re.search(r"^name: anomaly-agent$", head, re.MULTILINE)
    described = re.search(r"^description: (.+)$", head, re.MULTILINE)
    assert described is not None
    assert len(described[1]) <= 1024
    assert all(f"`{tool}" in text for tool in FIVE_TOOLS)
