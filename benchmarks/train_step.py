"""Speed and memory of supervised fine-tuning at Qwen3-VL-4B's shape, random weights: plain TRL and our settings.

    python -m benchmarks.train_step [--shape 4b|tiny] [--steps 6] [--seconds 400]

Trains on made-up trajectories of the protocol's form (one to four images, a thought and a call a turn) through TRL's
SFTTrainer, one setting after another, each on top of the one before, and prints JSON: tokens a second, model FLOPs
utilisation (MFU), peak memory. Tokens are those of the unpadded sequences, images included. MFU counts 6 x weights x
tokens of the language model (its output layer on supervised tokens only) and causal attention, and neither the vision
encoder nor recomputation, so that all settings are measured by the same useful work. Rows that the time limit left
out, or that ran out of memory, say so.
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")

import numpy as np
import torch
from PIL import Image

from benchmarks.shapes import PEAK_FLOPS, SHAPE_4B
from training.model import freeze_vision
from training.tiny import SIZES, make_tiny
from training.vision_cache import FrozenVisionCache


@dataclass(frozen=True)
class Setting:
    """One row. ``batch`` sequences a device step; gradient accumulation keeps 16 sequences an update."""

    name: str
    frozen: bool = False
    cache: bool = False
    by_length: bool = False
    checkpointing: bool = True
    bf16_weights: bool = False
    attention: str = "sdpa"
    compiled: bool = False
    workers: int = 4
    batch: int = 4


SETTINGS = (
    Setting("plain TRL"),
    Setting("plain TRL, eager attention", attention="eager"),
    Setting("+ frozen vision encoder", frozen=True),
    Setting("+ batches of like length", frozen=True, by_length=True),
    Setting("+ cached vision features", frozen=True, by_length=True, cache=True),
    Setting("+ one sequence a step (no padding, flash kernel)", frozen=True, cache=True, batch=1),
    Setting("+ no gradient checkpointing", frozen=True, cache=True, batch=1, checkpointing=False),
    Setting("+ bf16 weights and optimizer state", frozen=True, cache=True, batch=1, checkpointing=False,
            bf16_weights=True),
)  # fmt: skip
BEST = SETTINGS[6]
EXTRA = (
    replace(BEST, name="no checkpointing, 12 loader workers", workers=12),
    replace(BEST, name="no checkpointing, compiled layers", compiled=True),
)
MIX = (1, 2, 3, 4)
PLANS: dict[str, list[tuple[Setting, tuple[int, ...]]]] = {
    "settings": [(setting, MIX) for setting in SETTINGS],
    "lengths": [(setting, (count,)) for count in (1, 2, 4) for setting in (SETTINGS[0], BEST)],
    "why": [(BEST, MIX), (EXTRA[0], MIX), (BEST, (2,)), (SETTINGS[0], (2,)), (BEST, (4,)), (SETTINGS[0], (4,)),
            (EXTRA[1], MIX)],
}  # fmt: skip
"""Rows: a setting, and how many images its trajectories hold, in turn."""
WORDS = (
    "the",
    "image",
    "shows",
    "a",
    "scratch",
    "on",
    "its",
    "surface",
    "near",
    "an",
    "edge",
    "and",
    "prompt",
    "darker",
)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=("4b", "tiny"), default="4b")
    parser.add_argument("--steps", type=int, default=6, help="updates a row; the first two are not timed")
    parser.add_argument("--sequences", type=int, default=16, help="sequences an update")
    parser.add_argument("--plan", choices=sorted(PLANS), default="settings", help="which rows: see PLANS")
    parser.add_argument("--profile", metavar="FILE", help="write what the first row's last update spent its time on")
    parser.add_argument("--seconds", type=float, default=400, help="no row is begun after so many seconds")
    options = parser.parse_args()
    if options.steps < 3 or options.sequences < 4 or options.sequences % 4:
        parser.error("--steps is at least 3, and --sequences a multiple of 4")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options)
        rows = []
        for setting, images in PLANS[options.plan]:
            if time.perf_counter() - started > options.seconds:
                rows.append({"setting": setting.name, "images": images, "left_out": "time limit"})
                continue
            rows.append(bench.measure(setting, images))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    print(json.dumps({"shape": options.shape, **bench.machine(), "rows": rows}, indent=2))
    return 0


class Bench:
    """A processor, made-up trajectories, and a model of the wanted shape for every row."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        from transformers import AutoProcessor

        self.folder, self.options = folder, options
        self.profiled = False
        self.cuda = torch.cuda.is_available()
        make_tiny(folder / "model", size=SIZES["smallest"])
        self.processor = AutoProcessor.from_pretrained(folder / "model")
        self.side, self.wordiness = (768, 1.0) if options.shape == "4b" else (64, 0.05)

    def machine(self) -> dict[str, Any]:
        import transformers
        import trl

        name = torch.cuda.get_device_name() if self.cuda else "cpu"
        versions = {"torch": torch.__version__, "transformers": transformers.__version__, "trl": trl.__version__}
        return {"device": name, "versions": versions, "sequences_per_update": self.options.sequences}

    def model(self, setting: Setting) -> Any:
        from transformers import AutoConfig, Qwen3VLForConditionalGeneration

        config = AutoConfig.from_pretrained(self.folder / "model")
        if self.options.shape == "4b":
            for part, values in SHAPE_4B.items():
                for name, value in values.items():
                    setattr(getattr(config, part), name, value)
        config._attn_implementation = setting.attention
        torch.manual_seed(0)
        dtype = torch.bfloat16 if setting.bf16_weights else torch.float32
        with torch.device("cuda" if self.cuda else "cpu"):
            model = Qwen3VLForConditionalGeneration(config).to(dtype)
        if setting.frozen:
            freeze_vision(model)
            if not setting.bf16_weights:
                for module in (model.model.visual.patch_embed, model.model.visual.pos_embed, model.model.visual.blocks):
                    module.to(torch.bfloat16 if self.cuda else torch.float32)
        return model

    def measure(self, setting: Setting, images: tuple[int, ...]) -> dict[str, Any]:
        """One row; running out of memory is a result too."""
        gc.collect()
        row: dict[str, Any] = {"setting": setting.name, "images": images, **asdict(setting)}
        del row["name"]
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        try:
            return row | self.train(setting, images)
        except torch.cuda.OutOfMemoryError:
            return row | {"left_out": "out of memory"}

    def train(self, setting: Setting, images: tuple[int, ...]) -> dict[str, Any]:
        from transformers import PrinterCallback, TrainerCallback
        from trl import SFTConfig, SFTTrainer

        class Clock(TrainerCallback):  # type: ignore[misc]
            def __init__(self) -> None:
                self.at: list[float] = []

            def on_step_begin(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
                if profiler and state.global_step == options.steps - 1:
                    profiler.start()

            def on_step_end(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                self.at.append(time.perf_counter())

        options = self.options
        profiler = None
        if options.profile and not self.profiled:
            self.profiled = True
            profiler = torch.profiler.profile()
        examples = trajectories(images, options.sequences, self.side, self.wordiness)
        tokens = [self.tokens(example) for example in examples]
        arguments = SFTConfig(
            output_dir=str(self.folder / "out"),
            per_device_train_batch_size=setting.batch,
            gradient_accumulation_steps=options.sequences // setting.batch,
            max_steps=options.steps,
            activation_checkpointing=setting.checkpointing,
            activation_checkpointing_kwargs={"use_reentrant": False},
            bf16=self.cuda,
            use_cpu=not self.cuda,
            assistant_only_loss=True,
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
            train_sampling_strategy="group_by_length" if setting.by_length else "random",
            length_column_name="length",
            remove_unused_columns=False,
            dataloader_num_workers=setting.workers if self.cuda else 0,
            dataloader_persistent_workers=self.cuda,
            report_to="none",
            logging_steps=1,
            save_strategy="no",
            disable_tqdm=True,
            optim="adamw_torch_fused" if self.cuda else "adamw_torch",
            seed=0,
        )
        clock = Clock()
        model = self.model(setting)
        if setting.compiled:
            for layer in model.model.language_model.layers:
                layer.compile(dynamic=True)
        cache = FrozenVisionCache(model.model.visual) if setting.cache else None
        trainer = SFTTrainer(
            model=model,
            args=arguments,
            train_dataset=dataset(examples, tokens),
            processing_class=self.processor,
            callbacks=[clock],
        )
        trainer.remove_callback(PrinterCallback)  # stdout is for the JSON
        trainer.train()
        if profiler:
            profiler.stop()
            sort = "self_device_time_total" if self.cuda else "self_cpu_time_total"
            Path(options.profile).write_text(profiler.key_averages().table(sort_by=sort, row_limit=40))
        step = statistics.median(np.diff(clock.at)[1:])
        flops = self.useful_flops(model, tokens, [self.supervised(example) for example in examples])
        card = torch.cuda.get_device_name() if self.cuda else ""
        peak = next((rate for name, rate in PEAK_FLOPS.items() if name in card), 0.0)
        return {
            "tokens_per_sequence": {"min": min(tokens), "median": statistics.median(tokens), "max": max(tokens)},
            "seconds_per_update": round(step, 3),
            "tokens_per_second": round(sum(tokens) / step),
            "mfu": round(flops / step / peak, 4) if peak else None,
            "peak_memory_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1) if self.cuda else None,
            "loss": [round(entry["loss"], 3) for entry in trainer.state.log_history if "loss" in entry],
            "cache_hits": cache.hits if cache else None,
        }

    @staticmethod
    def useful_flops(model: Any, tokens: list[int], supervised: list[int]) -> float:
        """Operations of the language model's forward and backward pass over all sequences."""
        sizes = model.config.text_config
        head = sizes.vocab_size * sizes.hidden_size
        body = sum(p.numel() for p in model.model.language_model.parameters()) - head  # the embedding is only looked up
        squares = sum(count * count for count in tokens)
        attention = 6 * sizes.num_hidden_layers * sizes.num_attention_heads * sizes.head_dim * squares
        return float(6 * body * sum(tokens) + 6 * head * sum(supervised) + attention)

    def supervised(self, example: dict[str, Any]) -> int:
        """Tokens of the assistant's turns."""
        turns = [m["content"][0]["text"] for m in example["messages"] if m["role"] == "assistant"]
        return sum(len(self.processor.tokenizer(turn)["input_ids"]) + 1 for turn in turns)

    def tokens(self, example: dict[str, Any]) -> int:
        """Tokens of a sequence, images included, as the processor makes them."""
        text = self.processor.apply_chat_template(example["messages"], tokenize=False)
        return len(self.processor(text=text, images=example["images"])["input_ids"][0])


def trajectories(images: tuple[int, ...], count: int, side: int, wordiness: float) -> list[dict[str, Any]]:
    """Made-up trajectories: so many images each, in turn; several share their photo, as sampled groups do."""

    def text(words: int, rng: np.random.Generator) -> dict[str, str]:
        return {"type": "text", "text": " ".join(rng.choice(WORDS, max(1, round(wordiness * words))))}

    made = []
    for number in range(count):
        rng = np.random.default_rng(number)
        photo = number // 4 * 10
        shown = images[number % len(images)]
        messages = [{"role": "system", "content": [text(700, rng)]}]
        messages.append({"role": "user", "content": [{"type": "image"}, text(120, rng)]})
        for _ in range(shown - 1):
            messages.append({"role": "assistant", "content": [text(160, rng)]})
            messages.append({"role": "user", "content": [{"type": "image"}, text(100, rng)]})
            messages.append({"role": "assistant", "content": [text(120, rng)]})
            messages.append({"role": "user", "content": [text(160, rng)]})
        messages.append({"role": "assistant", "content": [text(160, rng)]})
        made.append({"messages": messages, "images": [picture(photo + index, side) for index in range(shown)]})
    return made


def picture(seed: int, side: int) -> Image.Image:
    """A noisy picture of ``side`` x ``side`` pixels."""
    noise = np.random.default_rng(seed).integers(0, 255, (side // 8, side // 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((side, side))


def dataset(examples: list[dict[str, Any]], tokens: list[int]) -> Any:
    """The examples as a dataset with their lengths, so that batches of like length can be made."""
    from datasets import Dataset, Features, List, Value
    from datasets import Image as ImageFeature

    def png(image: Image.Image) -> dict[str, bytes]:
        stream = io.BytesIO()
        image.save(stream, "PNG")
        return {"bytes": stream.getvalue()}

    part = {"type": Value("string"), "text": Value("string")}
    features = Features(
        {
            "messages": List({"role": Value("string"), "content": List(part)}),
            "images": List(ImageFeature()),
            "length": Value("int64"),
        }
    )
    rows = {
        "messages": [
            [{"role": m["role"], "content": [{"text": None, **p} for p in m["content"]]} for m in e["messages"]]
            for e in examples
        ],
        "images": [[png(image) for image in e["images"]] for e in examples],
        "length": tokens,
    }
    return Dataset.from_dict(rows, features=features)


if __name__ == "__main__":
    sys.exit(main())
