"""Supervised fine-tuning through its command, with a tiny real Qwen3-VL on recorded sessions."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import signal
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from agent.chat_template import chat_template, template_hash
from tests.tiny_model import tiny_processor
from tests.tiny_sft import CONFIG, refusal, train, train_with_held_out
from tests.tiny_training import fitted_model, planner_sessions
from training import sft
from training.collate import EpisodeCollator
from training.compat import without_video


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from transformers import AutoModelForImageTextToText

    return dict(AutoModelForImageTextToText.from_pretrained(folder).state_dict())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training with a held-out photo and one episode on it, uninterrupted."""
    return train_with_held_out(tmp_path_factory.mktemp("trained") / "run")


def test_the_loss_falls_and_every_figure_is_in_the_history(trained: Path) -> None:
    history = json.loads((trained / "history.json").read_text())
    losses = [entry["loss"] for entry in history if "loss" in entry]
    assert len(losses) == 4
    assert losses[-1] < losses[0]
    measured = {name for entry in history for name in entry}
    assert {"mean_token_accuracy", "eval_loss", "eval_mean_token_accuracy", "eval_valid_share"} <= measured


def test_cached_vision_features_train_the_same_weights(tmp_path: Path) -> None:
    assert train(tmp_path / "plain", "train.max_steps=2") == 0
    assert train(tmp_path / "cached", "train.max_steps=2", "train.cache_vision_gib=0.1") == 0
    plain, cached = (weights(tmp_path / name / "model") for name in ("plain", "cached"))
    for name, tensor in plain.items():
        torch.testing.assert_close(cached[name], tensor, msg=name)


def test_features_of_an_encoder_that_trains_are_not_cached(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "out", "train.cache_vision_gib=1", "model.freeze_vision=false") == 2
    assert "needs model.freeze_vision" in refusal(capsys)


def test_curves_are_drawn_as_a_picture_and_for_tensorboard(trained: Path) -> None:
    assert (trained / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list((trained / "tensorboard").glob("events.out.tfevents.*"))


def test_held_out_episodes_are_really_run_and_recorded(trained: Path) -> None:
    from agent.session import read_session

    session = read_session(trained / "held_out" / "step-000004" / "000")
    assert session.start["policy"]["name"] == "local"
    calls = session.of_type("model_call")
    assert calls
    assert all(len(call["completion_token_ids"]) == len(call["logprobs"]) <= 8 for call in calls)


def test_the_vision_encoder_stays_as_it_was_and_projector_and_language_model_learn(trained: Path) -> None:
    before, after = weights(fitted_model()), weights(trained / "model")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    encoder = {name for name in before if ".visual." in name and "merger" not in name}
    projector = {name for name in before if "merger" in name}
    assert encoder
    assert not changed & encoder
    assert projector
    assert projector <= changed
    assert any(".language_model.layers." in name for name in changed)


def test_the_folder_handed_over_is_what_servers_load(trained: Path) -> None:
    from transformers import AutoProcessor

    folder = trained / "model"
    without_video()
    processor = AutoProcessor.from_pretrained(folder)
    assert processor.chat_template == chat_template()
    assert set(processor.tokenizer.response_template["fields"]) == {"content"}
    assert processor.image_processor.size["longest_edge"] == 9 * 32 * 32  # model.max_image_tokens of the configuration
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["do_sample"] is True
    assert generation["eos_token_id"] == processor.tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert (folder / "video_preprocessor_config.json").exists()
    assert not (folder / "training_args.bin").exists()


def test_the_model_card_tells_data_figures_versions_and_configuration(trained: Path) -> None:
    card = (trained / "model" / "README.md").read_text()
    assert card.startswith("---\nlicense: ")
    for told in (
        template_hash()[:16],
        "5 train",
        "1 held out",
        "eval_valid_share",
        "transformers 5.",
        '"max_steps": 4',
    ):
        assert told in card


def test_a_resumed_training_ends_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert train(whole) == 0
    assert train(halves, "train.max_steps=2") == 0
    assert train(halves, resume=True) == 0
    assert train(halves, resume=True) == 0, "one that has ended trains no further, and hands over again"
    first, second = weights(whole / "model"), weights(halves / "model")
    assert all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)
    steps = [entry["step"] for entry in json.loads((halves / "history.json").read_text()) if "loss" in entry]
    assert steps == [1, 2, 3, 4]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_leaves_a_checkpoint_and_ends_where_an_uninterrupted_one_does(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    collate, batches = EpisodeCollator.__call__, itertools.count(1)

    def interrupted(self: EpisodeCollator, *rows: Any) -> Any:
        if next(batches) == 3:
            signal.raise_signal(number)
        return collate(self, *rows)

    halves, once = tmp_path / "halves", ("train.save_every=100", "train.workers=0")
    with monkeypatch.context() as patch:
        patch.setattr(EpisodeCollator, "__call__", interrupted)
        assert train(halves, *once) == sft.INTERRUPTED
    assert refusal(capsys) == "error: interrupted: go on with --resume"
    assert 1 <= int(next((halves / "checkpoints").glob("checkpoint-*")).name.split("-")[1]) <= 3
    assert train(halves, *once, resume=True) == 0
    assert train(tmp_path / "whole", *once) == 0
    first, second = weights(tmp_path / "whole" / "model"), weights(halves / "model")
    assert all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)


def test_lora_leaves_an_adapter_and_a_merged_model(tmp_path: Path) -> None:
    shutil.copytree(fitted_model(), tmp_path / "base")
    (tmp_path / "base" / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    output = tmp_path / "lora"
    assert train(output, f"model.path={tmp_path / 'base'}", "lora.rank=4", "lora.alpha=8", "train.max_steps=2") == 0
    adapter = json.loads((output / "adapter" / "adapter_config.json").read_text())
    assert adapter["r"] == 4
    before, after = weights(fitted_model()), weights(output / "model")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.allclose(before[name], after[name])}
    assert any("q_proj" in name for name in changed)
    assert any("merger.linear_fc1" in name for name in changed)
    assert not any(".visual.blocks." in name or "embed_tokens" in name for name in changed)
    card = (output / "model" / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0")
    assert "LoRA, rank 4" in card


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("train.lr=1", "there is no key train.lr"),
        ("train.epochs=-1", "train.epochs is not usable"),
        ("model.image_side=big", "model.image_side is not usable"),
        ("model.path=no/such/model/here", "does not exist: name a model folder"),
        ('data.sessions=["no-such-folder"]', "no session in no-such-folder"),
        ("data.min_score=10.0", "no session can be learned from; left out: score below 10"),
        ("data.max_tokens=10", "raise data.max_tokens to"),
        ("model.dtype=bfloat16", "add a [lora] section"),
        ("model", "write it as KEY=VALUE"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(
    change: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "out", change) == sft.UNUSABLE
    assert complaint in refusal(capsys)


def test_the_help_says_that_it_reads_sessions_itself_and_names_every_filter_there_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from training.config import DataSection

    with pytest.raises(SystemExit):
        sft.main(["--help"])
    told = capsys.readouterr().out
    assert "reads recorded sessions itself" in " ".join(told.split())
    assert all(f"data.{name}" in told for name in DataSection.model_fields)


def test_a_configuration_that_is_missing_or_no_toml_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sft.main([str(tmp_path / "none.toml")]) == sft.UNUSABLE
    assert "cannot be read" in refusal(capsys)
    (tmp_path / "bad.toml").write_text("output = ")
    assert sft.main([str(tmp_path / "bad.toml")]) == sft.UNUSABLE
    assert "not valid TOML" in refusal(capsys)


def test_a_launch_with_deepspeed_where_it_is_not_installed_is_refused_by_the_name_of_its_extra(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    assert train(tmp_path / "out") == sft.UNUSABLE
    told = refusal(capsys)
    extra = re.search(r"\.\[train,(\w+)\]", told)
    assert extra, told
    extras = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert any(requirement.startswith("deepspeed") for requirement in extras[extra[1]])


@pytest.mark.parametrize("name", ["DEEPSPEED", "FSDP"])
def test_episodes_are_refused_where_the_weights_are_spread(name: str) -> None:
    from training.config import ConfigError, SftConfig, check_config, read_toml
    from training.sft_run import _check_launch

    path = CONFIG.with_name("tiny-cpu.toml")
    with pytest.raises(ConfigError, match=r"held_out\.episodes = 0"):
        _check_launch(check_config(read_toml(path), SftConfig, str(path)), name)
    paper = check_config(read_toml(CONFIG.with_name("qwen3-vl-4b.toml")), SftConfig, "paper")
    if name == "DEEPSPEED":
        _check_launch(paper, name)
    else:
        with pytest.raises(ConfigError, match="launch with DeepSpeed"):
            _check_launch(paper, name)


def test_going_on_with_other_data_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "run"
    assert train(output, "train.max_steps=2") == 0
    capsys.readouterr()
    assert train(output, "data.resample=true", resume=True) == sft.UNUSABLE
    assert "another [data]" in refusal(capsys)


def altered(folder: Path, alter: Any) -> Path:
    """A copy of one session whose events were changed."""
    shutil.copytree(next(planner_sessions().iterdir()), folder)
    log = folder / "session.jsonl"
    events = [json.loads(line) for line in log.read_text().splitlines()]
    for event in events:
        alter(event)
    log.write_text("".join(json.dumps(event) + "\n" for event in events))
    return folder


def test_a_session_whose_text_would_stand_for_an_image_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def inject(event: dict[str, Any]) -> None:
        if event.get("role") == "tool":
            event["content"] += "<|image_pad|>"

    session = altered(tmp_path / "session", inject)
    assert train(tmp_path / "out", f'data.sessions=["{session}"]') == sft.UNUSABLE
    assert "holds the control token <|image_pad|>" in refusal(capsys)


def test_a_session_without_images_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def strip(event: dict[str, Any]) -> None:
        if event["type"] == "message":
            event["images"] = []

    session = altered(tmp_path / "session", strip)
    assert train(tmp_path / "out", f'data.sessions=["{session}"]') == sft.UNUSABLE
    assert "does not show the image that was made" in refusal(capsys)


def test_sessions_of_two_protocols_or_of_one_photo_are_refused_without_naming_another_commands_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = altered(tmp_path / "sessions" / "one", lambda event: None)
    place = f'data.sessions=["{one}"]'
    assert train(tmp_path / "out", place, "held_out.share=0.5") == sft.UNUSABLE
    assert "choose --set held_out.share=0" in refusal(capsys)

    def other(event: dict[str, Any]) -> None:
        if event["type"] == "session_start":
            event |= {"protocol_hash": "0" * 64, "task": event["task"] | {"seed": 99}}

    altered(tmp_path / "sessions" / "two", other)
    assert train(tmp_path / "out", f'data.sessions=["{tmp_path / "sessions"}"]') == sft.UNUSABLE
    told = refusal(capsys)
    assert told.endswith("name the sessions of one protocol")


def test_a_picture_too_few_or_too_many_is_refused() -> None:
    from dataclasses import replace

    from training.data import read_examples
    from training.examples import DataError
    from training.sft_data import check_example, control_pattern

    example = read_examples([planner_sessions()])[0]
    control = control_pattern(tiny_processor())
    assert check_example(example, tiny_processor(), control, 96) > 100
    for pictures in (example.pictures[:1], [*example.pictures, example.pictures[0]]):
        with pytest.raises(DataError, match=f"{len(pictures)} pictures for 2 image parts"):
            check_example(replace(example, pictures=pictures), tiny_processor(), control, 96)


def test_labels_are_the_assistants_turns_and_the_token_that_ends_them() -> None:
    from training.collate import EpisodeCollator
    from training.data import Selection, read_examples
    from training.export import to_dataset

    examples = read_examples([planner_sessions()], Selection(side=96))
    rows = to_dataset(examples)
    batch = EpisodeCollator(tiny_processor())([rows[n] for n in range(len(examples))])
    for example, labels in zip(examples, batch["labels"].tolist(), strict=True):
        learned = tiny_processor().tokenizer.decode([label for label in labels if label != -100])
        assert learned == "".join(turn + "<|im_end|>" for turn in example.turns)


def test_a_batch_whose_image_tokens_and_features_differ_is_never_made() -> None:
    from training.encoding import EncodingError, check_image_tokens

    image = tiny_processor().image_token_id
    check_image_tokens([1, image, image], [(1, 2, 4)], tiny_processor())
    with pytest.raises(EncodingError, match="1 image tokens for 2 image features"):
        check_image_tokens([1, image], [(1, 2, 4)], tiny_processor())


def test_the_length_counted_beforehand_is_the_length_trained_on() -> None:
    from training.collate import EpisodeCollator
    from training.data import Selection, read_examples
    from training.export import to_dataset
    from training.sft_data import check_example, control_pattern

    examples = read_examples([planner_sessions()], Selection(side=96))
    batch = EpisodeCollator(tiny_processor())([to_dataset(examples)[n] for n in range(3)])
    control = control_pattern(tiny_processor())
    counted = [check_example(example, tiny_processor(), control, 96) for example in examples[:3]]
    assert batch["attention_mask"].sum(1).tolist() == counted


@pytest.mark.parametrize(
    ("name", "template", "complaint"),
    [
        ("no marks", "{% for m in messages %}{{ m.content[0].text }}{% endfor %}", "no generation marks"),
        ("is no Jinja", "{% generation %}{% for m in messages %}", "cannot be rendered: line 1: "),
        ("cannot be carried out", "{% generation %}{{ messages.a.b }}{% endgeneration %}", "cannot be rendered: "),
        (
            "drops earlier thoughts",
            "{% for m in messages %}<|im_start|>{{ m.role }}\n{% generation %}"
            "{{ m.content[0].text if loop.last or m.role != 'assistant' else '' }}<|im_end|>{% endgeneration %}\n"
            "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
            "not append-only",
        ),
        (
            "opens a thought in the prompt",
            chat_template().replace("add_generation_prompt -%}\n    {{- '<|im_start|>assistant\\n'",
                                    "add_generation_prompt -%}\n    {{- '<|im_start|>assistant\\n<think>'"),
            "generation prompt",
        ),
        (
            "never learns to stop",
            chat_template().replace("{{- body(message.content) ~ '<|im_end|>' -}}\n        {%- endgeneration -%}",
                                    "{{- body(message.content) -}}{%- endgeneration -%}{{- '<|im_end|>' -}}"),
            "a turn would never end",
        ),
    ],
)  # fmt: skip
def test_a_chat_template_that_would_teach_something_else_is_refused(name: str, template: str, complaint: str) -> None:
    import copy

    from training.config import ConfigError
    from training.model import check_template

    processor = copy.copy(tiny_processor())
    processor.chat_template = template
    with pytest.raises(ConfigError, match=complaint):
        check_template(processor)


@pytest.mark.parametrize(("name", "kind"), [("zero3", "DEEPSPEED"), ("zero3-offload", "DEEPSPEED"), ("fsdp2", "FSDP")])
def test_the_launchers_configurations_are_ones_that_accelerate_reads(name: str, kind: str) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(CONFIG.parent / "accelerate" / f"{name}.yaml"))
    assert config.distributed_type == kind


@pytest.mark.parametrize("name", ["tiny-cpu", "qwen3-vl-4b", "qwen3-vl-4b-lora-1gpu"])
def test_the_ready_configurations_are_valid(name: str) -> None:
    from training.config import SftConfig, check_config, read_toml

    path = CONFIG.with_name(f"{name}.toml")
    assert check_config(read_toml(path), SftConfig, str(path)).model.freeze_vision
