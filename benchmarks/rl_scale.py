"""What a step of reinforcement learning needs, on paper: memory and time for Qwen3-VL-4B from the formulas below.

    python -m benchmarks.rl_scale [--gpus 8] [--server-gpus 2] [--json]

Every figure is an estimate; none of it was measured but what ``anchors`` names. Each input is an option, so a reader
can put in his own. ``--server-gpus 0``: vLLM is colocated, with ``--colocated-share`` of every GPU. Prints Markdown
tables, of which docs/reinforcement_learning.md is made, or JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from benchmarks.shapes import PEAK_FLOPS, SHAPE_4B

GIB = 2**30
TEXT, VISION = SHAPE_4B["text_config"], SHAPE_4B["vision_config"]
CARDS = {"H100": (79.6, 3.35e12), "H200": (139.8, 4.8e12)}
"""Memory (GiB) and its bandwidth (bytes a second), from the data sheets."""
MEASURED = {"tokens_per_second": 5532.0, "peak_gib": 73.2, "without_checkpointing_gib": 122.2, "tokens": 7600}
"""docs/training_speed.md, one H200: one sequence a step, float32 weights, with checkpointing and without."""
PASSES = 4
"""A training step with checkpointing in forward passes: forward, forward again, and backward for two."""


@dataclass(frozen=True)
class Inputs:
    """What the estimate is made from. Every field is an option."""

    gpus: int = 8  # GPUs in all
    gpus_per_machine: int = 8  # GPUs of a machine
    server_gpus: int = 2  # of them, for vLLM (tensor parallel); 0: colocated
    card: str = "H100"  # H100 or H200
    offload: int = 1  # 1: Adam in the host's memory, 0: on the GPUs
    reference: int = 1  # 1: a reference model (beta > 0), 0: none
    groups: int = 2  # tasks of a step on each training process
    group_size: int = 8  # rollouts of a task
    turns: int = 7  # turns of an episode
    new_tokens: int = 250  # sampled tokens of a turn
    images: int = 3  # images of an episode
    tokens: int = 5000  # tokens of an episode, on average
    longest: int = 8192  # tokens of the longest episode
    tool_seconds: float = 60.0  # tools' latency of an episode, all calls together
    straggler: float = 1.5  # the longest episode's time over the average one's
    decode_efficiency: float = 0.5  # of the memory bandwidth, while decoding
    prefill_efficiency: float = 0.4  # of the peak operations, while reading prompts
    step_overhead_ms: float = 5.0  # of one decoding step, beside reading memory
    colocated_share: float = 0.3  # of a GPU's memory, for a colocated vLLM
    server_share: float = 0.9  # of a GPU's memory, for vLLM on GPUs of its own
    wire_gb_s: float = 0.2  # JSON with prepared images that a process of the server reads in a second, GB
    api_servers: int = 1  # processes of the server that read requests
    link_gb_s: float = 200.0  # between the GPUs of a machine, GB/s a GPU
    network_gb_s: float = 40.0  # between machines, GB/s a GPU
    pcie_gb_s: float = 25.0  # between a GPU and its host, GB/s
    host_gb_s: float = 200.0  # host memory, GB/s a machine
    steps: int = 50  # steps of a training (the paper's reward is flat after about 50)


@dataclass(frozen=True)
class Row:
    """One figure: ``value`` in the table's unit, and its formula."""

    name: str
    value: float
    formula: str


def parameters() -> dict[str, int]:
    """Weights of Qwen3-VL-4B: the layers of the language model, its embedding (tied), encoder and projectors."""
    h, ffn, heads, kv, d = (TEXT[k] for k in ("hidden_size", "intermediate_size", "num_attention_heads",
                                              "num_key_value_heads", "head_dim"))  # fmt: skip
    layer = 2 * h * heads * d + 2 * h * kv * d + 3 * h * ffn + 2 * h + 2 * d
    v, v_ffn, merged = VISION["hidden_size"], VISION["intermediate_size"], 4 * VISION["hidden_size"]
    block = 4 * v * v + 2 * v * v_ffn + 4 * v + v + v_ffn + 4 * v
    merger = merged * merged + merged + merged * VISION["out_hidden_size"] + VISION["out_hidden_size"]
    deepstack = len(VISION["deepstack_visual_indexes"]) * (merger + 2 * merged)
    return {
        "layers": TEXT["num_hidden_layers"] * layer + h,
        "embedding": TEXT["vocab_size"] * h,
        "encoder": VISION["depth"] * block + 3 * 2 * 16 * 16 * v + v + VISION["num_position_embeddings"] * v,
        "projectors": merger + 2 * v + deepstack,
    }


def activations(tokens: int, layers: float, saved: float = 1.0) -> float:
    """Bytes: the input of every layer, 2 a value (``saved`` 0: none), and the inside of ``layers``, 4 a value."""
    h, d = TEXT["hidden_size"], TEXT["head_dim"]
    inside = 4 * h + 2 * d * (TEXT["num_attention_heads"] + TEXT["num_key_value_heads"]) + 3 * TEXT["intermediate_size"]
    return tokens * (saved * 2 * TEXT["num_hidden_layers"] * h + layers * 4 * inside)


class Estimate:
    """The rows of an estimate, from its inputs."""

    def __init__(self, inputs: Inputs) -> None:
        i = self.inputs = inputs
        weights = parameters()
        self.p, self.trained = sum(weights.values()), sum(weights.values()) - weights["encoder"]
        self.language = weights["layers"] + weights["embedding"]
        self.trainers = i.gpus - i.server_gpus
        self.here = min(i.gpus_per_machine, self.trainers)  # training processes of a machine
        self.engines, self.split = (1, i.server_gpus) if i.server_gpus else (self.trainers, 1)
        self.card_gib, self.bandwidth = CARDS[i.card]
        self.flops = PEAK_FLOPS[i.card]
        self.rollouts = self.trainers * i.groups * i.group_size
        self.own = i.groups * i.group_size  # rollouts of one process
        self.kv = 2 * TEXT["num_hidden_layers"] * TEXT["num_key_value_heads"] * TEXT["head_dim"] * 2  # bytes a token
        many = self.trainers > i.gpus_per_machine
        self.link = (i.network_gb_s if many else i.link_gb_s) * 1e9
        states = 4 * self.trained + 2 * (self.p - self.trained) + 4 * self.trained + 8 * self.trained
        at = int(MEASURED["tokens"])
        self.rest = MEASURED["peak_gib"] * GIB - states - activations(at, 2)  # bytes that no formula accounts for

    def training_memory(self) -> list[Row]:
        """GiB of one training GPU."""
        i, n = self.inputs, self.trainers
        p, trained = f"{self.p / 1e9:.2f}e9", f"{self.trained / 1e9:.2f}e9"
        rows = [
            Row("weights, bf16", 2 * self.p / n, f"2 x {p} / {n}"),
            Row("gathered weights", 2 * 1e9, "2 x 1e9 (DeepSpeed's stage3_max_live_parameters)"),
            Row("gradients in flight", 2 * 5e8, "2 x 5e8 (DeepSpeed's reduce_bucket_size)"),
        ]
        if not i.offload:
            rows += [
                Row("gradients, bf16", 2 * self.trained / n, f"2 x {trained} / {n}"),
                Row("Adam", 12 * self.trained / n, f"12 x {trained} / {n} (float32 weights, two moments)"),
            ]
        if i.reference:
            rows.append(Row("reference model, bf16", 2 * self.p / n, f"2 x {p} / {n}"))
        h = TEXT["hidden_size"]
        saved = f"{i.longest} x {TEXT['num_hidden_layers']} layers x {h} x 2"
        rows.append(Row("activations, checkpointed", activations(i.longest, 2), f"{saved} + two layers' inside"))
        rows.append(Row("everything else", self.rest, "what the measured peak leaves unexplained (below)"))
        if not i.server_gpus:
            rows.append(Row("colocated vLLM", i.colocated_share * self.card_gib * GIB, f"{i.colocated_share} x card"))
        rows = [Row(row.name, row.value / GIB, row.formula) for row in rows]
        total = sum(row.value for row in rows)
        rows.append(
            Row("together", total, f"of {self.card_gib}: {'fits' if total < self.card_gib else 'DOES NOT FIT'}")
        )
        return rows

    def host_memory(self) -> list[Row]:
        """GiB of one machine's host memory."""
        share = 16 * self.trained * self.here / self.trainers if self.inputs.offload else 0.0
        formula = (
            f"16 x {self.trained / 1e9:.2f}e9 x {self.here}/{self.trainers} (float32 weights, gradients, two moments)"
        )
        return [Row("Adam, offloaded", share / GIB, formula if share else "0 (not offloaded)")]

    def vllm_memory(self) -> list[Row]:
        """GiB of one vLLM engine, all its GPUs together."""
        i = self.inputs
        share = i.server_share if i.server_gpus else i.colocated_share
        room = share * self.card_gib * self.split
        own = 2 * self.p / GIB + 4.0 * self.split
        free = max(room - own, 0.0)
        episode = i.tokens * self.kv / GIB
        return [
            Row("an engine's share", room, f"{share} x {self.card_gib} x {self.split} GPUs"),
            Row("weights and work space", own, f"2 x {self.p / 1e9:.2f}e9 bytes + 4 GiB a GPU"),
            Row(
                "KV cache of an average episode", episode, f"{i.tokens} tokens x {self.kv} bytes (2 x 36 x 8 x 128 x 2)"
            ),
            Row("KV cache of the longest episode", i.longest * self.kv / GIB, f"{i.longest} tokens x {self.kv} bytes"),
            Row(
                "episodes that fit at once (number)", math.floor(free / episode), "(share - weights) / average episode"
            ),
        ]

    def rollout(self) -> dict[str, float]:
        """Episodes at once on an engine, and seconds: a decoding step, an episode, all of them."""
        i = self.inputs
        wanted = math.ceil(self.rollouts / self.engines)
        at_once = max(1, min(wanted, int(self.vllm_memory()[-1].value)))
        sampled = i.turns * i.new_tokens
        read = 2 * self.language * i.tokens / (self.split * self.flops * i.prefill_efficiency)
        wire = self.wire_bytes() / (i.api_servers * i.wire_gb_s * 1e9) if i.server_gpus else 0.0
        hops = 2 * TEXT["num_hidden_layers"] * 15e-6 if self.split > 1 else 0.0
        step, decoding = 0.0, float(at_once)
        for _ in range(100):  # how many decode at a moment depends on how long decoding takes, and back
            moved = 2 * self.language + decoding * i.tokens / 2 * self.kv
            step = moved / (self.split * self.bandwidth * i.decode_efficiency) + i.step_overhead_ms / 1e3 + hops
            busy = sampled * step + at_once * (read + wire)
            decoding = at_once * sampled * step / (busy + i.tool_seconds)
        episode = busy + i.tool_seconds
        whole = episode * (math.ceil(wanted / at_once) - 1 + i.straggler)
        speed = self.engines * decoding / step
        return {"at_once": at_once, "step": step, "episode": episode, "seconds": whole, "tokens_per_second": speed,
                "wire": wire * at_once, "busy": busy}  # fmt: skip

    def wire_bytes(self) -> float:
        """Bytes of prepared images that an episode sends: all it has seen, with every turn, as base64 of bf16."""
        i = self.inputs
        picture = (768 // 16) ** 2 * 3 * 2 * 16 * 16 * 2 * 4 / 3
        return picture * i.turns * (i.images + 1) / 2

    def times(self) -> list[Row]:
        """Seconds of a step."""
        i, out = self.inputs, self.rollout()
        speed, own, mine = MEASURED["tokens_per_second"], self.own, self.trained / self.trainers
        gather, forward, train = 2 * self.p / self.link, i.tokens / (speed * PASSES), i.tokens / speed
        passes = 2 if i.reference else 1
        down = 4 * mine / (i.pcie_gb_s * 1e9) if i.offload else 0.0
        adam = (28 * mine * self.here / (i.host_gb_s * 1e9) + 2 * mine / (i.pcie_gb_s * 1e9)) if i.offload else 0.0
        far = i.network_gb_s * 1e9 if i.gpus > i.gpus_per_machine else self.link
        rounds = math.ceil(math.ceil(self.rollouts / self.engines) / out["at_once"])
        waits = f"tools {i.tool_seconds:g}, reading images {out['wire']:.0f}"
        episodes = f"episode {out['episode']:.0f} s ({waits}) x ({rounds} rounds - 1 + {i.straggler})"
        each = f"max({i.tokens} / {speed * PASSES:.0f} = {forward:.2f}, gather {gather:.2f})"
        both = (
            f"max({i.tokens} / {speed:.0f} = {train:.2f}, 3 gathers + gradients to the host = {3 * gather + down:.2f})"
        )
        share = f"{mine / 1e9:.2f}e9"
        rows = [
            Row("rollouts", out["seconds"], episodes),
            Row("log-probabilities", passes * own * max(forward, gather), f"{passes} models x {own} rollouts x {each}"),
            Row("update", own * max(train, 3 * gather + down), f"{own} rollouts x {both}"),
            Row("Adam in the host", adam, f"28 bytes x {share} x {self.here} / host + 2 bytes x {share} / PCIe"),
            Row("weights to vLLM", gather + 2 * self.p / far + 0.7, "gather and send, 1 ms for each of 700 tensors"),
        ]
        total = sum(row.value for row in rows)
        rows.append(Row("step", total, f"{self.rollouts} rollouts, {self.trainers * i.groups} tasks"))
        rows.append(Row("training, in hours", total * i.steps / 3600, f"{i.steps} steps"))
        return rows

    def anchors(self) -> list[Row]:
        """What was measured, and what the same formulas say of it."""
        at = int(MEASURED["tokens"])
        saved = activations(at, TEXT["num_hidden_layers"], saved=0.0) - activations(at, 2)
        grown = MEASURED["without_checkpointing_gib"] - MEASURED["peak_gib"]
        return [
            Row(
                "measured: tokens/s of an update (H200, checkpointing)",
                MEASURED["tokens_per_second"],
                "the update's rate",
            ),
            Row("measured: GiB that checkpointing saves", grown, f"the activations' formula says {saved / GIB:.1f}"),
            Row("measured: peak GiB", MEASURED["peak_gib"], f"the formulas leave {self.rest / GIB:.1f} unexplained"),
        ]

    def report(self) -> dict[str, Any]:
        """Everything, for JSON."""
        parts = {"training_gpu_gib": self.training_memory(), "host_gib": self.host_memory(),
                 "vllm_gib": self.vllm_memory(), "step_seconds": self.times(), "anchors": self.anchors()}  # fmt: skip
        tables = {name: [asdict(row) for row in rows] for name, rows in parts.items()}
        return {"inputs": asdict(self.inputs), "parameters": parameters(), "rollout": self.rollout(), **tables}

    def markdown(self) -> str:
        """The tables of the documentation."""
        i = self.inputs
        where = f"vLLM on {i.server_gpus}" if i.server_gpus else "vLLM colocated"
        title = f"{i.gpus} x {i.card}, {where}, {self.trainers} training"
        memory = [("a training GPU", self.training_memory()), ("a machine's host memory", self.host_memory()),
                  ("a vLLM engine", self.vllm_memory())]  # fmt: skip
        lines = [f"| estimate for {title}: memory | GiB | formula |", "|---|---|---|"]
        for place, rows in memory:
            lines += [f"| {place}: {row.name} | {_shown(row.value)} | {row.formula} |" for row in rows]
        lines += ["", f"| estimate for {title}: time of a step | s | formula |", "|---|---|---|"]
        lines += [f"| {row.name} | {_shown(row.value)} | {row.formula} |" for row in self.times()]
        return "\n".join(lines)


def _shown(value: float) -> str:
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def parser_of() -> argparse.ArgumentParser:
    """The command's options: one for each input."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rl_scale", description=__doc__.splitlines()[0])
    for field in fields(Inputs):
        kind = type(field.default)
        choices = sorted(CARDS) if field.name == "card" else None
        option = f"--{field.name.replace('_', '-')}"
        parser.add_argument(option, type=kind, choices=choices, default=field.default, help=f"default {field.default}")
    parser.add_argument("--json", action="store_true", help="everything as JSON instead of tables")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = parser_of()
    options = vars(parser.parse_args(argv))
    as_json = options.pop("json")
    inputs = Inputs(**options)
    if not 0 <= inputs.server_gpus < inputs.gpus:
        parser.error(f"--server-gpus {inputs.server_gpus}: at least one of the {inputs.gpus} GPUs has to train")
    estimate = Estimate(inputs)
    print(json.dumps(estimate.report(), indent=2) if as_json else estimate.markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main())
