"""Every bad input that users and attackers send, over stdio and HTTP: a clear line, and nothing of the server's own."""

from __future__ import annotations

import base64
import json
import logging
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.shared.exceptions import MCPError

from mcp_servers.logs import ScrubbingFormatter, secrets_in
from tests.bad_files import EVIL, bad_files, write_bad_files
from tests.servers.running import running

ROOT = Path(__file__).resolve().parent.parent
KEY = "sk-verysecretverysecret0123456789"
PROMPT = "Using the provided image, change only the surface of the plate to introduce a large, pronounced scratch."
TASK = {"item_name": "plate", "anomaly_type": "scratch"}
EDIT = {"prompt": PROMPT, "target_image": "plate.png"}
UNKNOWN = "img_" + "0" * 32


def look(image: Any) -> tuple[str, dict[str, Any]]:
    return "prompt_gen", {"image": image, **TASK}


def edit(**changed: Any) -> tuple[str, dict[str, Any]]:
    return "image_gen", EDIT | changed


CASES: list[tuple[tuple[str, dict[str, Any]], str]] = [
    *((look(name), "") for name in bad_files()),
    (look(UNKNOWN), "unknown or no longer stored"),
    (look("img_zz"), "is not an image handle"),
    *((look(index), "is not usable") for index in (0, -1, 99, None, ["plate.png"], {"a": 1}, 1.5, True)),
    (look("abc"), "does not exist"),
    (look(""), "empty"),
    (look("../../etc/passwd"), "outside the folders"),
    (look("/etc/passwd"), "outside the folders"),
    (look("link.png"), "outside the folders"),
    (look("~root/.ssh/id_rsa"), "outside the folders"),
    (look("~nobody-of-that-name/x.png"), "not a usable path"),
    (look("a\0b.png"), "not a usable path"),
    (look("x" * 100_000), "not a usable path"),
    (look("file:///etc/passwd"), "URLs are not fetched"),
    (look("http://169.254.169.254/latest/meta-data"), "URLs are not fetched"),
    (look("http://localhost:1/a.png"), "URLs are not fetched"),
    (look("image://../../etc/passwd"), "outside the folders"),
    (look("data:image/png;base64,@@@"), "damaged"),
    (look("data:image/svg+xml,<svg/>"), "base64"),
    (look("data:image/png;base64," + base64.b64encode(bad_files()["bomb.png"]).decode()), "megapixels"),
    (edit(steps=10**9), "there is no argument 'steps'"),
    (edit(seed=float("nan")), "'seed' is not usable"),
    (edit(seed=-1), "'seed' is not usable"),
    (edit(seed=2**70), "'seed' is not usable"),
    (edit(seed="abc"), "'seed' is not usable"),
    (edit(count=10**9), "'count' is not usable"),
    (edit(size="gigantic"), "'size' is not usable"),
    (edit(prompt="x" * 1_000_000), "'prompt' is not usable"),
    (edit(prompt=""), ""),
    (edit(region="500,500,10,10"), "outside the image"),
    (edit(region="0,0,0,0"), "is empty"),
    (edit(region="nan,nan,nan,nan"), "is not a box"),
    (edit(region="1e309,0,1,1"), "is not a box"),
    (edit(region="small.png"), ""),
    (edit(example_image="plate.png", example_mask="small.png"), ""),
    (("mask_gen", {"anomaly_image": "plate.png", "normal_image": "small.png"}), "differ in size"),
    (("mask_gen", {"anomaly_image": "plate.png", "normal_image": "plate.png", "margin": -5}), "'margin' is not usable"),
    (("quality_eval", {"anomaly_image": "plate.png", "normal_image": "small.png", **TASK}), "differ in size"),
    (
        ("quality_eval", {"anomaly_image": "plate.png", "normal_image": "plate.png", **TASK, "threshold": 1e400}),
        "'threshold' is not usable",
    ),
    (("knowledge_retrieval", {"item_name": "x" * 5000, "anomaly_type": "scratch"}), "'item_name' is not usable"),
    (("knowledge_retrieval", {"item_name": "a\nb", "anomaly_type": "scratch"}), "on one line"),
    (("knowledge_retrieval", {"item_name": "bottle"}), "'anomaly_type' is missing"),
    (("knowledge_retrieval", {}), "'item_name' is missing"),
]
RESOURCES = (
    "image://../../etc/passwd", "image://%2e%2e%2f.key", "image://..%2f..%2fetc%2fpasswd", "image://.key",
    f"image://{UNKNOWN}", f"image://{UNKNOWN}%00", "image://%00", "image://-1", "image://0", "file:///etc/passwd",
    "photo://%2Fetc%2Fpasswd", "photo://..%2F..%2Fetc%2Fpasswd", "photo://link.png", "photo://a%00b", "photo://bomb.png",
    "knowledge://../words", "knowledge://%2e%2e", "report://%2Fetc", "report://.", "ui://anomaly-agent/other.html",
)  # fmt: skip


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder that is allowed, and the store."""
    folder, home = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("home")
    write_bad_files(folder)
    return folder, home


@asynccontextmanager
async def connected(transport: str, folder: Path, home: Path) -> AsyncIterator[Client]:
    env = {"PYTHONPATH": str(ROOT), "ANOMALY_AGENT_HOME": str(home), "OPENAI_API_KEY": KEY}
    arguments = ["--allow", str(folder)]
    if transport == "stdio":
        command = StdioServerParameters(command=sys.executable, args=["-m", "mcp_servers", *arguments], env=env)
        async with Client(command) as client:
            yield client
    else:
        with running(arguments, env=env) as server:
            async with Client(server.url) as client:
                yield client


@pytest.mark.parametrize("transport", ["stdio", "http"])
def test_every_bad_input_gets_one_clear_line_and_the_server_goes_on(transport: str, places: tuple[Path, Path]) -> None:
    folder, home = places
    wrong: list[str] = []

    def check(asked: object, answer: str, says: str) -> None:
        leaked = [part for part in (str(home), str(ROOT), KEY, "Traceback", ".py") if part in answer]
        if not answer or says not in answer or "\n" in answer or len(answer) > 700 or leaked:
            wrong.append(f"{str(asked)[:120]}: {answer[:300]!r} (expected {says!r}, leaked {leaked})")

    async def main() -> None:
        async with connected(transport, folder, home) as client:
            for (tool, arguments), says in CASES:
                with anyio.fail_after(60):
                    result = await client.call_tool(tool, arguments)
                text = result.content[0].text  # type: ignore[union-attr]
                if not result.is_error:
                    wrong.append(f"{tool} {str(arguments)[:120]}: accepted")
                check((tool, arguments), text, says)
            for uri in RESOURCES:
                with anyio.fail_after(60):
                    try:
                        await client.read_resource(uri)
                        wrong.append(f"{uri}: read")
                    except MCPError as error:
                        check(uri, error.message, "")
            unknown = await client.call_tool("no_such_tool", {})
            check("no_such_tool", unknown.content[0].text, "no_such_tool")  # type: ignore[union-attr]
            assert not (await client.call_tool(*look("plate.png"))).is_error

    anyio.run(main)
    assert not wrong, "\n".join(wrong)


def test_words_in_a_photos_metadata_reach_nobody(places: tuple[Path, Path]) -> None:
    folder, home = places

    async def main() -> tuple[str, bytes]:
        async with connected("stdio", folder, home) as client:
            result = await client.call_tool("image_gen", EDIT | {"target_image": "plate.jpg"})
            made = json.loads(result.content[0].text)  # type: ignore[union-attr]
            blob = (await client.read_resource(f"image://{made['image']}")).contents[0].blob  # type: ignore[union-attr]
            return result.model_dump_json(), base64.b64decode(blob)

    result, stored = anyio.run(main)
    assert EVIL.encode() in (folder / "plate.jpg").read_bytes()
    assert EVIL not in result
    assert b"ignore previous" not in stored


def test_three_calls_at_once_each_get_their_own_answer(places: tuple[Path, Path]) -> None:
    folder, home = places

    async def main() -> dict[str, str]:
        answers: dict[str, str] = {}
        async with connected("stdio", folder, home) as client, anyio.create_task_group() as group:

            async def ask(item: str) -> None:
                found = await client.call_tool("knowledge_retrieval", {"item_name": item, "anomaly_type": "scratch"})
                assert found.structured_content is not None
                answers[item] = found.structured_content["item_name"]

            for item in ("bottle", "screw", "tile"):
                group.start_soon(ask, item)
        return answers

    assert anyio.run(main) == {item: item for item in ("bottle", "screw", "tile")}


def test_keys_are_cut_out_of_the_log_also_of_tracebacks() -> None:
    formatter = ScrubbingFormatter(secrets_in({"OPENAI_API_KEY": "a-key-of-no-known-form", "PATH": "/usr/bin/env"}))
    record = logging.LogRecord(
        "x", logging.ERROR, "", 0, "asked with %s in /usr/bin/env", ("Bearer abcdefgh12345",), None
    )
    try:
        raise RuntimeError(f"401 for a-key-of-no-known-form and {KEY}")
    except RuntimeError:
        record.exc_info = sys.exc_info()
    text = formatter.format(record)
    assert "RuntimeError: 401 for *** and ***" in text
    assert "asked with Bearer *** in /usr/bin/env" in text


def test_a_secret_in_an_exception_reaches_neither_the_client_nor_the_log(tmp_path: Path, home: Path) -> None:
    script = str(ROOT / "tests" / "servers" / "faulty.py")
    env = {"PYTHONPATH": str(ROOT), "ANOMALY_AGENT_HOME": os.environ["ANOMALY_AGENT_HOME"]}

    async def main() -> Any:
        command = StdioServerParameters(command=sys.executable, args=[script, "crashes", str(tmp_path)], env=env)
        async with Client(command) as client:
            return await client.call_tool("image_gen", {"prompt": "x", "target_image": "y"})

    result = anyio.run(main)
    assert result.content[0].text == "Error executing tool image_gen"
