"""One supervised fine-tuning, from a checked configuration to the folder that servers load."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.task import Task
from training.card import model_card
from training.checkpoints import check_whole
from training.collate import EpisodeCollator
from training.config import ConfigError, SftConfig
from training.curves import plot
from training.encoding import Encoder
from training.generation import Sampling
from training.handover import hand_over
from training.held_out import AT_ONCE, measure
from training.local_policy import Batcher
from training.model import load_model, load_processor, lora_config, parameter_counts
from training.output_folder import SFT, check_apart, checkpoint_of, same_training
from training.resuming import KEPT, Resumes
from training.sft_data import TOKENS, Prepared, load, prepare
from training.stages import begin, go_on, stages

if TYPE_CHECKING:
    from training.interrupt import Interrupt

logger = logging.getLogger("training")
SAME = ("model", "lora", "data", "held_out.share", "held_out.max_turns", *KEPT, "train.batch_size", "train.accumulate")
"""What a training that is gone on with has to keep of its configuration."""
MEMORY = (
    "the GPU's memory does not suffice: lower train.batch_size, model.image_side or data.max_tokens, or add a [lora] "
    "section"
)


def run(config: SftConfig, resume: bool) -> dict[str, float]:
    """Train, measure and hand over; the last figures.

    Raises ConfigError, DataError, EncodingError, ToolboxError or OSError, and KeyboardInterrupt for SIGTERM too. One
    process alone leaves a checkpoint where it was interrupted.
    """
    import torch

    from training.interrupt import Interrupt

    with Interrupt() as interrupt:
        try:
            return _run(config, resume, interrupt)
        except torch.OutOfMemoryError as error:
            raise ConfigError(MEMORY) from error


def _run(config: SftConfig, resume: bool, interrupt: Interrupt) -> dict[str, float]:
    from accelerate import PartialState

    output = config.output
    check_apart(output, config.data.sessions)
    checkpoint = checkpoint_of(output, resume, SFT)
    if resume:
        same_training(config, output, SAME)
    step = check_whole(checkpoint) if checkpoint else 0
    state = PartialState()
    _check_launch(config, str(state.distributed_type.value))
    state.wait_for_everyone()
    processor = load_processor(config.model)
    if state.is_main_process and not resume:
        prepare(config.data, config.held_out, processor, config.model.image_side, output, config.train.seed)
        begin(output, config)
    elif state.is_main_process:
        go_on(output, step, config)
    state.wait_for_everyone()
    trainer = trainer_of(config, processor, load(output), interrupt)
    trains, total = parameter_counts(trainer.model)
    logger.info("%d of %d weights train on %d sessions", trains, total, len(trainer.train_dataset))
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except KeyboardInterrupt:
        interrupt.keep(trainer)
        raise
    if interrupt.came:  # it ended after the step that was under way, with a checkpoint
        raise KeyboardInterrupt
    history = trainer.state.log_history
    measured = max((entry["step"] for entry in history if "eval_loss" in entry), default=-1)
    if trainer.eval_dataset is not None and measured < trainer.state.global_step:
        trainer.evaluate()
    figures = last_figures(trainer.state.log_history)
    card = model_card(config, load(output).facts, figures, stages(output, trainer.state.global_step))
    hand_over(trainer, processor, config.model, output, card, adapter=config.lora is not None)
    if state.is_main_process:
        draw(trainer, output)
    return figures


def trainer_of(config: SftConfig, processor: Any, data: Prepared, interrupt: Interrupt) -> Any:
    """TRL's trainer over the data, which also runs the held-out episodes whenever it evaluates. Raises ConfigError."""
    from trl import SFTTrainer

    args = arguments(config, held_out=data.held_out is not None)  # before the model: it sets up DeepSpeed
    tasks = data.tasks[: config.held_out.episodes]

    class Trainer(Resumes, SFTTrainer):
        """SFTTrainer whose evaluation includes episodes, and draws the curves."""

        def evaluate(self, *positional: Any, **named: Any) -> dict[str, float]:
            metrics: dict[str, float] = {}
            with interrupt.allowed():
                metrics |= super().evaluate(*positional, **named)
                if tasks and self.accelerator.is_main_process:
                    shares = episodes(config, self, processor, tasks)
                    metrics |= shares
                    self.log(dict(shares))
            if self.accelerator.is_main_process:
                draw(self, config.output)
            self.accelerator.wait_for_everyone()
            return metrics

    model = load_model(config.model)
    if config.train.cache_vision_gib:
        cache_vision(config, model)
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=data.train,
        eval_dataset=data.held_out,
        processing_class=processor,
        data_collator=EpisodeCollator(processor),
        peft_config=lora_config(config.lora) if config.lora else None,
    )
    trainer.add_callback(interrupt)
    return trainer


def cache_vision(config: SftConfig, model: Any) -> None:
    """Have the vision encoder run once an image. Raises ConfigError where it trains, or lies on several GPUs."""
    from accelerate import PartialState

    from training.vision_cache import FrozenVisionCache

    if not config.model.freeze_vision:
        raise ConfigError(
            "train.cache_vision_gib needs model.freeze_vision: an encoder that trains changes its features"
        )
    if (kind := str(PartialState().distributed_type.value)) in ("DEEPSPEED", "FSDP"):
        raise ConfigError(
            f"train.cache_vision_gib is not for {kind}: ranks that know their images would leave the others waiting; "
            "set it to 0"
        )
    FrozenVisionCache(model.model.visual, int(config.train.cache_vision_gib * 2**30), offload=True)


def arguments(config: SftConfig, held_out: bool) -> Any:
    """The trainer's arguments. Raises ConfigError where this machine cannot do what they ask for."""
    import torch
    from trl import SFTConfig

    train = config.train
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(config.output / "tensorboard")
    try:
        return SFTConfig(
            output_dir=str(config.output / "checkpoints"),
            num_train_epochs=train.epochs,
            max_steps=train.max_steps or -1,
            learning_rate=train.learning_rate,
            lr_scheduler_type=train.schedule,
            warmup_steps=train.warmup,
            per_device_train_batch_size=train.batch_size,
            per_device_eval_batch_size=train.batch_size,
            gradient_accumulation_steps=train.accumulate,
            weight_decay=train.weight_decay,
            max_grad_norm=train.max_grad_norm,
            activation_checkpointing=train.gradient_checkpointing,
            activation_checkpointing_kwargs={"use_reentrant": False} if train.gradient_checkpointing else None,
            bf16=train.bf16,
            seed=train.seed,
            logging_steps=train.log_every,
            logging_first_step=True,
            eval_strategy="steps" if held_out else "no",
            eval_steps=config.held_out.every,
            save_steps=train.save_every,
            save_total_limit=train.keep_checkpoints,
            dataloader_num_workers=train.workers,
            dataloader_pin_memory=torch.cuda.is_available(),
            train_sampling_strategy="group_by_length",
            length_column_name=TOKENS,
            remove_unused_columns=False,
            report_to=["tensorboard"],
            max_length=None,
            assistant_only_loss=True,
            dataset_kwargs={"skip_prepare_dataset": True},
        )
    except ValueError as error:
        raise ConfigError(f"the training cannot be set up here: {str(error).splitlines()[0]}") from error


def episodes(config: SftConfig, trainer: Any, processor: Any, tasks: Sequence[Task]) -> dict[str, float]:
    """Run the held-out tasks with the model as it is now; their figures, named as the trainer logs them."""
    sampling = Sampling(0.0, config.held_out.max_new_tokens)
    model = trainer.accelerator.unwrap_model(trainer.model)
    batcher = Batcher(model, Encoder(processor, config.model.image_side), sampling, AT_ONCE)
    folder = config.output / "held_out" / f"step-{trainer.state.global_step:06d}"
    if folder.exists():  # measured before, and resumed from an earlier checkpoint
        shutil.rmtree(folder)
    result = measure(batcher, tasks, folder, config.output.name)
    return {f"eval_{name}": value for name, value in result.figures().items()}


def draw(trainer: Any, output: Path) -> None:
    """Write the history of figures and its curves."""
    history = trainer.state.log_history
    (output / "history.json").write_text(json.dumps(history, indent=1), encoding="utf-8")
    plot(history, output / "curves.png")


def last_figures(history: list[dict[str, Any]]) -> dict[str, float]:
    """The last value of every figure that says what the model can do; what is measured, at the last step alone."""
    names = ("loss", "mean_token_accuracy", "eval_loss", "eval_mean_token_accuracy", "eval_valid_share",
             "eval_answered_share", "eval_passed_share", "eval_mean_score")  # fmt: skip
    steps = max((entry["step"] for entry in history), default=0)
    figures = {
        name: entry[name]
        for entry in history
        for name in names
        if name in entry and (entry["step"] == steps or not name.startswith("eval_"))
    }
    return {"steps": float(steps)} | figures


def _check_launch(config: SftConfig, distributed: str) -> None:
    """Refuse what the way of launching cannot do. ``distributed``: accelerate's name of it, such as "DEEPSPEED"."""
    if config.lora is None and config.model.dtype == "bfloat16" and distributed != "DEEPSPEED":
        raise ConfigError(
            'weights in bfloat16 lose most updates of this size: set model.dtype = "float32", add a [lora] section, or '
            "launch with DeepSpeed (extra deepspeed), which keeps float32 copies"
        )
    if distributed in ("DEEPSPEED", "FSDP") and config.held_out.share and config.held_out.episodes:
        raise ConfigError(
            "episodes cannot be run while the weights are spread over GPUs: set held_out.episodes = 0, and measure "
            f"afterwards: python -m training.held_out {config.output}/model --from {config.output} --out DIR"
        )
