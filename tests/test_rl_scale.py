"""The estimate of what reinforcement learning needs, and the guide that shows it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from benchmarks import rl_scale
from benchmarks.rl_scale import Estimate, Inputs
from benchmarks.shapes import SHAPE_4B

ROOT = Path(__file__).resolve().parent.parent
GUIDE = (ROOT / "docs" / "reinforcement_learning.md").read_text(encoding="utf-8")
SHOWN = (
    [],
    ["--server-gpus", "0"],
    ["--gpus", "64", "--server-gpus", "8", "--groups", "1", "--api-servers", "8"],
    ["--gpus", "64", "--server-gpus", "0", "--groups", "1"],
)


def report(*options: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert rl_scale.main([*options, "--json"]) == 0
    read: dict[str, Any] = json.loads(capsys.readouterr().out)
    return read


def values(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {row["name"]: row["value"] for row in rows}


def test_the_weights_are_those_of_the_model_itself() -> None:
    import torch
    from transformers import AutoConfig, Qwen3VLForConditionalGeneration

    from tests.tiny_model import tiny_folder

    config = AutoConfig.from_pretrained(tiny_folder())
    for part, fields in SHAPE_4B.items():
        for name, value in fields.items():
            setattr(getattr(config, part), name, value)
    with torch.device("meta"):
        model = Qwen3VLForConditionalGeneration(config)
    encoder = sum(p.numel() for name, p in model.model.visual.named_parameters() if "merger" not in name)
    assert rl_scale.parameters()["encoder"] == encoder
    assert sum(rl_scale.parameters().values()) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("options", SHOWN, ids=" ".join)
def test_the_guides_tables_are_the_commands_output(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert rl_scale.main(options) == 0
    assert capsys.readouterr().out.strip() in GUIDE


def test_the_formulas_agree_with_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    anchors = report(capsys=capsys)["anchors"]
    assert values(anchors)["measured: GiB that checkpointing saves"] == pytest.approx(49.0)
    (formula,) = (row["formula"] for row in anchors if "checkpointing saves" in row["name"])
    assert float(formula.split()[-1]) == pytest.approx(49.0, rel=0.1)
    left = Estimate(Inputs()).rest / rl_scale.GIB
    assert 0 < left < 0.1 * 73.2  # GiB that no formula accounts for


def test_adam_moves_between_host_and_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    there, here = (report("--offload", flag, capsys=capsys) for flag in ("1", "0"))
    assert values(there["host_gib"])["Adam, offloaded"] == pytest.approx(16 * 4.1316e9 / 2**30, rel=1e-3)
    assert values(here["host_gib"])["Adam, offloaded"] == 0
    grown = values(here["training_gpu_gib"])["together"] - values(there["training_gpu_gib"])["together"]
    assert grown == pytest.approx(14 * 4.1316e9 / 6 / 2**30, rel=1e-3)


def test_an_episodes_kv_cache_is_144_kib_a_token(capsys: pytest.CaptureFixture[str]) -> None:
    vllm = values(report("--longest", "1024", capsys=capsys)["vllm_gib"])
    assert vllm["KV cache of the longest episode"] == pytest.approx(1024 * 144 / 2**20)


def test_what_costs_time_is_seen_in_the_step(capsys: pytest.CaptureFixture[str]) -> None:
    base = values(report(capsys=capsys)["step_seconds"])
    assert sum(base[name] for name in base if name not in ("step", "training, in hours")) == pytest.approx(base["step"])
    slow = values(report("--tool-seconds", "160", capsys=capsys)["step_seconds"])
    assert slow["rollouts"] - base["rollouts"] == pytest.approx(100 * 1.5, rel=0.1)
    alone = values(report("--reference", "0", capsys=capsys)["step_seconds"])
    assert alone["log-probabilities"] == pytest.approx(base["log-probabilities"] / 2)
    crowded = report("--gpus", "64", "--server-gpus", "1", capsys=capsys)
    assert crowded["rollout"]["at_once"] < 63 * 16
    assert crowded["rollout"]["seconds"] > 3 * crowded["rollout"]["episode"]


def test_too_little_memory_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    rows = report("--longest", "200000", capsys=capsys)["training_gpu_gib"]
    assert rows[-1]["formula"].endswith("DOES NOT FIT")


def test_a_machine_without_a_gpu_that_trains_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        rl_scale.main(["--gpus", "2", "--server-gpus", "2"])
    assert "at least one of the 2 GPUs has to train" in capsys.readouterr().err


def commands(program: str) -> list[list[str]]:
    """The guide's commands of a program, their arguments split, environment variables filled in."""
    text = GUIDE.replace("\\\n", " ")
    for name in ("RANK", "TRAIN0", "SERVER"):
        text = text.replace(f"${name}", "1")
    found = re.findall(rf"^(?:[A-Z_0-9]+=\S+ +)*{program} ([^#\n]*)", text, re.MULTILINE)
    return [shlex.split(arguments) for arguments in found]


def test_every_launch_in_the_guide_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    from training.config import check_config, read_toml
    from training.grpo.__main__ import parser_of
    from training.grpo.config import GrpoConfig
    from training.sft import changed

    monkeypatch.chdir(ROOT)
    launches = commands("accelerate launch")
    assert len(launches) == 5
    for arguments in launches:
        launch = launch_command_parser().parse_args(arguments)
        load_config_from_file(launch.config_file)
        assert (launch.module, launch.training_script) == (True, "training.grpo")
        options = parser_of().parse_args(launch.training_script_args)
        config = check_config(changed(read_toml(options.config), options.set), GrpoConfig, "the guide")
        assert config.vllm is not None
        assert config.model.dtype == ("float32" if "fsdp2" in launch.config_file else "bfloat16")


def test_the_server_is_started_with_everything_that_trl_would_set(monkeypatch: pytest.MonkeyPatch) -> None:
    from trl.scripts import vllm_serve

    monkeypatch.setattr(vllm_serve, "is_vllm_available", lambda **_: True)
    theirs = vllm_serve.build_command(vllm_serve.ScriptArguments("model"))
    imposed = theirs[theirs.index("--enable-scale-out") :]
    servers = commands("vllm serve")
    assert len(servers) == 2
    for arguments in servers:
        pairs = list(zip(arguments, [*arguments[1:], ""], strict=True))
        assert "--enable-scale-out" in arguments
        for option, value in zip(imposed[1::2], imposed[2::2], strict=True):
            assert (option, value) in pairs
        assert ("--limit-mm-per-prompt", '{"image": 8, "video": 0}') in pairs
