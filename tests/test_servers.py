"""The tool servers as any MCP client meets them: each alone and all together, over stdio and over HTTP."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import cv2
import numpy as np
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.shared.exceptions import MCPError

from agent.protocol import FIVE_TOOLS
from mcp_servers.images import decode
from mcp_servers.serving import build_server, store_from
from mcp_servers.store import Store
from mcp_servers.suite import SPECS

ROOT = Path(__file__).resolve().parent.parent
PROMPT = (
    "Using the provided image, change only the surface of the plate to introduce a scratch. The defect is "
    "medium-sized and pronounced. Everything else stays exactly as it is."
)
MODULES = {"mcp_servers": set(FIVE_TOOLS)} | {f"mcp_servers.{name}": {name} for name in FIVE_TOOLS}


def parameters(module: str, allow: Path) -> StdioServerParameters:
    env = {"PYTHONPATH": str(ROOT), "ANOMALY_AGENT_HOME": os.environ["ANOMALY_AGENT_HOME"]}
    return StdioServerParameters(command=sys.executable, args=["-m", module, "--allow", str(allow)], env=env)


@asynccontextmanager
async def in_memory(store: Store) -> AsyncIterator[Client]:
    async with Client(build_server("suite", store, SPECS, "")) as client:
        yield client


def facts(result: Any) -> dict[str, Any]:
    assert not result.is_error, result.content[0].text
    payload = json.loads(result.content[0].text)
    assert isinstance(payload, dict)
    return payload


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_every_server_starts_over_stdio_and_lists_its_tools(module: str, mode: str, home: Path, tmp_path: Path) -> None:
    async def main() -> set[str]:
        async with Client(parameters(module, tmp_path), mode=mode) as client:
            return {tool.name for tool in (await client.list_tools()).tools}

    assert anyio.run(main) == MODULES[module]


def test_schemas_are_flat_strict_and_described(store: Store) -> None:
    async def main() -> list[Any]:
        async with in_memory(store) as client:
            return list((await client.list_tools()).tools)

    for tool in anyio.run(main):
        assert tool.title
        assert tool.description
        assert tool.annotations is not None
        assert tool.input_schema["additionalProperties"] is False
        assert "$defs" not in tool.input_schema
        for schema in tool.input_schema["properties"].values():
            assert schema["type"] in ("string", "integer", "number")
            assert schema["description"]
        structured = tool.name in ("prompt_gen", "quality_eval", "knowledge_retrieval")
        assert (tool.output_schema is not None) == structured


def test_servers_in_separate_processes_share_images_by_handle(home: Path, photo_file: Path) -> None:
    async def main() -> None:
        async with (
            Client(parameters("mcp_servers.prompt_gen", photo_file.parent)) as prompts,
            Client(parameters("mcp_servers.image_gen", photo_file.parent)) as images,
            Client(parameters("mcp_servers.quality_eval", photo_file.parent)) as judges,
            Client(parameters("mcp_servers.mask_gen", photo_file.parent)) as masks,
        ):
            task = {"item_name": "plate", "anomaly_type": "scratch"}
            prompt = (await prompts.call_tool("prompt_gen", {"image": "plate.png", **task})).structured_content
            assert prompt is not None
            edit = {"prompt": prompt["prompt"], "target_image": prompt["image"]}
            made = facts(await images.call_tool("image_gen", edit))
            pair = {"anomaly_image": made["image"], "normal_image": prompt["image"]}
            verdict = (await judges.call_tool("quality_eval", {**pair, **task})).structured_content
            assert verdict is not None
            assert 0 <= verdict["score"] <= 10
            assert verdict["score"] == pytest.approx(verdict["location_score"] + verdict["quality_score"], abs=0.02)
            mask = facts(await masks.call_tool("mask_gen", pair))
            assert mask["found"]
            png = (await masks.read_resource(f"image://{mask['mask']}")).contents[0]
            pixels = decode(base64.b64decode(png.blob), "mask").pixels  # type: ignore[union-attr]
            assert set(np.unique(pixels)) == {0, 255}
            assert (pixels > 0).mean() == pytest.approx(mask["area_fraction"], abs=1e-5)

    anyio.run(main)


def test_image_results_carry_facts_preview_and_link_but_no_structured_content(store: Store, photo_file: Path) -> None:
    async def main() -> Any:
        async with in_memory(store) as client:
            return await client.call_tool("image_gen", {"prompt": PROMPT, "target_image": str(photo_file)})

    result = anyio.run(main)
    assert [block.type for block in result.content] == ["text", "image", "resource_link"]
    assert result.structured_content is None
    assert facts(result)["image"] in result.content[2].uri
    assert len(base64.b64decode(result.content[1].data)) < 1_000_000


def edit(store: Store, reference: str, **options: Any) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Original and edited pixels (alpha included) as the store holds them, and the tool's facts."""

    async def main() -> Any:
        async with in_memory(store) as client:
            return await client.call_tool("image_gen", {"prompt": PROMPT, "target_image": reference, **options})

    made = facts(anyio.run(main))
    planes = []
    for handle in (made["target_image"], made["image"]):
        image = store.get(handle)
        colour = image.pixels if image.pixels.ndim == 3 else image.pixels[:, :, None]
        planes.append(colour if image.alpha is None else np.dstack([colour, image.alpha]))
    return planes[0], planes[1], made


def variants(rgb: np.ndarray) -> dict[str, bytes]:
    """One photo as every kind of file that must come back at its own size and depth."""
    import io

    from PIL import Image as PILImage

    picture = PILImage.fromarray(rgb)
    exif = PILImage.Exif()
    exif[274] = 6
    alpha = np.full(rgb.shape[:2], 200, np.uint8)
    kinds: dict[str, tuple[PILImage.Image, str, dict[str, Any]]] = {
        "rgb.png": (picture, "PNG", {}),
        "grey.png": (picture.convert("L"), "PNG", {}),
        "rgba.png": (PILImage.fromarray(np.dstack([rgb, alpha])), "PNG", {}),
        "palette.png": (picture.quantize(64), "PNG", {}),
        "photo.jpg": (picture, "JPEG", {"quality": 92}),
        "rotated.jpg": (picture, "JPEG", {"quality": 92, "exif": exif.tobytes()}),
        "deep.png": (PILImage.fromarray(rgb[:, :, 0].astype(np.uint16) * 257), "PNG", {}),
    }
    files = {}
    for name, (image, kind, options) in kinds.items():
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        files[name] = buffer.getvalue()
    files["deep_rgb.png"] = cv2.imencode(".png", rgb[:, :, ::-1].astype(np.uint16) * 257)[1].tobytes()
    return files


def test_pixels_outside_the_defect_are_identical_for_every_kind_of_photo(
    store: Store, photo: np.ndarray, tmp_path: Path
) -> None:
    for name, data in variants(photo).items():
        (tmp_path / name).write_bytes(data)
        before, after, made = edit(store, name)
        height, width = (160, 128) if name == "rotated.jpg" else (128, 160)
        assert before.shape == after.shape, name
        assert before.shape[:2] == (height, width), name
        assert before.dtype == after.dtype == (np.uint16 if "deep" in name else np.uint8), name
        changed = (before != after).any(axis=2)
        x, y, w, h = made["changed"]["box"]
        outside = np.ones_like(changed)
        outside[y : y + h, x : x + w] = False
        assert changed.any(), name
        assert not changed[outside].any(), name
        assert changed.mean() <= made["changed"]["area_fraction"] + 1e-6, name


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_defect(store: Store, photo_file: Path) -> None:
    first, again, other = (edit(store, str(photo_file), seed=seed)[2]["image"] for seed in (1, 1, 2))
    assert first == again != other
    elsewhere = Store(home=store.home.parent / "elsewhere", allowed=store.allowed)
    assert elsewhere.png(edit(elsewhere, str(photo_file), seed=1)[2]["image"]) == store.png(first)


def test_a_region_keeps_the_defect_inside_it(store: Store, photo_file: Path) -> None:
    before, after, _ = edit(store, str(photo_file), region="40,40,50,40")
    changed = (before != after).any(axis=2)
    assert changed[40:80, 40:90].any()
    changed[40:80, 40:90] = False
    assert not changed.any()


@pytest.mark.parametrize(
    ("tool", "arguments", "says"),
    [
        ("image_gen", {"prompt": PROMPT, "target_image": "nowhere.png"}, "does not exist"),
        ("image_gen", {"prompt": PROMPT, "target_image": "/etc/passwd"}, "outside the folders"),
        ("image_gen", {"prompt": PROMPT, "target_image": "img_" + "a" * 32}, "unknown"),
        ("image_gen", {"prompt": "Make it pretty.", "target_image": "plate.png"}, "no defect named"),
        ("image_gen", {"prompt": PROMPT, "target_image": "plate.png", "steps": 3}, "there is no argument 'steps'"),
        ("image_gen", {"prompt": PROMPT, "target_image": "plate.png", "seed": -1}, "'seed' is not usable"),
        ("image_gen", {"prompt": PROMPT, "target_image": "plate.png", "region": "150,100,40,40"}, "outside the image"),
        ("image_gen", {"prompt": PROMPT, "target_image": "plate.png", "region": "0,0,0,9"}, "is empty"),
        ("image_gen", {"prompt": PROMPT, "target_image": "plate.png", "region": "1,2,3"}, "is not a box"),
        ("image_gen", {"prompt": PROMPT, "target_image": "plate.png", "region": "nan,0,1,1"}, "is not a box"),
        ("prompt_gen", {"image": "plate.png", "item_name": "a\nb", "anomaly_type": "scratch"}, "on one line"),
        ("image_gen", {"prompt": "x" * 1_000_000, "target_image": "plate.png"}, "'prompt' is not usable"),
        ("prompt_gen", {"image": "plate.png", "item_name": "plate"}, "'anomaly_type' is missing"),
        ("prompt_gen", {"image": "plate.png", "item_name": "plate", "anomaly_type": "sadness"}, "sadness"),
        ("quality_eval", {"anomaly_image": "small.png", "normal_image": "plate.png", "item_name": "plate",
                          "anomaly_type": "scratch"}, "differ in size"),
        ("mask_gen", {"anomaly_image": "plate.png", "normal_image": "small.png"}, "differ in size"),
        ("mask_gen", {"anomaly_image": "empty.png", "normal_image": "plate.png"}, "empty"),
    ],
)  # fmt: skip
def test_bad_arguments_get_one_line_that_names_the_cure(
    store: Store, photo_file: Path, photo: np.ndarray, tool: str, arguments: dict[str, Any], says: str
) -> None:
    store.allowed = [photo_file.parent]
    cv2.imwrite(str(photo_file.parent / "small.png"), photo[:64, :64])
    (photo_file.parent / "empty.png").touch()

    async def main() -> Any:
        async with in_memory(store) as client:
            return await client.call_tool(tool, arguments)

    result = anyio.run(main)
    assert result.is_error
    text = result.content[0].text
    assert says in text
    assert "\n" not in text
    assert len(text) < 600
    assert "Traceback" not in text


def test_the_image_resource_serves_handles_only(store: Store, photo_file: Path) -> None:
    async def main() -> None:
        async with in_memory(store) as client:
            for uri in ("image://../../etc/passwd", "image://%2e%2e%2f.key", "image://.key", "image://img_00"):
                with pytest.raises(MCPError):
                    await client.read_resource(uri)
            with pytest.raises(MCPError, match="outside the folders"):
                await client.read_resource("photo://%2Fetc%2Fpasswd")

    anyio.run(main)


def test_comparing_a_photo_with_itself_finds_no_defect_and_says_so(store: Store, photo_file: Path) -> None:
    async def main() -> tuple[Any, Any]:
        async with in_memory(store) as client:
            pair = {"anomaly_image": str(photo_file), "normal_image": str(photo_file)}
            task = {"item_name": "plate", "anomaly_type": "scratch"}
            return await client.call_tool("mask_gen", pair), await client.call_tool("quality_eval", {**pair, **task})

    mask, verdict = anyio.run(main)
    assert facts(mask)["found"] is False
    assert facts(mask)["mask"] is None
    assert len(mask.content) == 1
    assert verdict.structured_content["score"] == 0
    assert not verdict.structured_content["passed"]


def test_all_tools_work_over_http_on_loopback(home: Path, photo_file: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mcp_servers", "--http", "--port", str(port), "--allow", str(photo_file.parent)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for line in process.stderr:  # the server says so when it listens
            if "running on" in line:
                break

        async def main() -> None:
            async with Client(f"http://127.0.0.1:{port}/mcp") as client:
                assert {tool.name for tool in (await client.list_tools()).tools} == set(FIVE_TOOLS)
                made = facts(await client.call_tool("image_gen", {"prompt": PROMPT, "target_image": "plate.png"}))
                blob = (await client.read_resource(f"image://{made['image']}")).contents[0]
                assert base64.b64decode(blob.blob).startswith(b"\x89PNG")  # type: ignore[union-attr]

        anyio.run(main)
    finally:
        process.terminate()
        process.wait(timeout=20)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--http", "--host", "0.0.0.0"], "give a token"),
        (["--http", "--port", "99999"], "choose a port"),
        (["--allow", "/no/such/folder"], "no such folder"),
        (["--token-file", "token"], "--token-file is for servers over HTTP: add --http"),
        (
            ["--editor", "openai", "--editor-base-url", "http://u:secretpw@h/v1"],
            "put the key into ANOMALY_AGENT_EDITOR",
        ),
        (["--editor", "openai", "--editor-base-url", "http://[::1"], "--editor-base-url is no address"),
        (["--judge", "local+local"], "--judge local+local: name each backend once"),
    ],
)
def test_a_server_with_unusable_options_says_why_and_exits(home: Path, arguments: list[str], says: str) -> None:
    command = [sys.executable, "-m", "mcp_servers", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert says in done.stderr
    assert "secretpw" not in done.stderr
    assert done.stderr.count("\n") == 1, "no usage before the line that matters"


def test_a_server_whose_store_cannot_be_used_says_so_and_exits(photo_file: Path) -> None:
    env = os.environ | {"ANOMALY_AGENT_HOME": str(photo_file / "store")}
    command = [sys.executable, "-m", "mcp_servers", "--allow", str(photo_file.parent)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    assert "set ANOMALY_AGENT_HOME to a writable folder" in done.stderr.splitlines()[-1]


def test_without_allow_only_the_working_folder_is_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert list(store_from([], {}).allowed) == [tmp_path]
    monkeypatch.chdir("/")
    assert list(store_from([], {}).allowed) == []


def test_neither_the_tools_nor_the_agent_import_torch() -> None:
    code = (
        "import sys, agent.run, mcp_servers.suite; print(sorted(m for m in sys.modules if re.match('torch|scipy', m)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", "import re, " + code.removeprefix("import ")], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_the_agent_never_imports_the_servers() -> None:
    for path in (ROOT / "agent").rglob("*.py"):
        assert not re.search(r"^\s*(from|import) mcp_servers", path.read_text(), re.MULTILINE), path
