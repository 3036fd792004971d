"""One GRPO training, from a checked configuration to the folder that servers load."""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from agent.toolbox import ToolboxError
from training.card import grpo_card
from training.checkpoints import check_whole
from training.config import ConfigError
from training.encoding import Encoder
from training.grpo.config import GrpoConfig
from training.grpo.errors import RolloutError
from training.grpo.rollouts import Rollouts
from training.grpo.tasks import TaskSets, load, prepare
from training.handover import hand_over
from training.model import load_model, load_processor, lora_config, parameter_counts
from training.output_folder import GRPO, checkpoint_of, same_training
from training.resuming import KEPT
from training.stages import begin, go_on, stages

if TYPE_CHECKING:
    from training.interrupt import Interrupt

logger = logging.getLogger("training")
SAME = (
    "model", "lora", "tasks", "tools.servers", "tools.backends", "grpo", "replay", "rollout", "reward",
    "held_out.share", "held_out.files", *KEPT,
)  # fmt: skip
"""What a training that is gone on with has to keep of its configuration."""
REPORTS = ("held_out.judge", "held_out.judge_model", "held_out.judge_base_url")
"""And what it has to keep where it measures: the judge that reports."""
MEMORY = (
    "the GPU's memory does not suffice; what helps, in this order: train.batch_size = 1, "
    "train.gradient_checkpointing = true, a lower rollout.max_tokens, model.image_side or rollout.batch, grpo.beta = 0 "
    "(no reference model), a [lora] section, more GPUs with training/configs/accelerate/zero3-offload.yaml"
)


def run(config: GrpoConfig, resume: bool) -> dict[str, float]:
    """Train, measure and hand over; the last figures.

    Raises ConfigError, NotFiniteError, EncodingError, SessionError, ToolboxError, RolloutError or OSError, and
    KeyboardInterrupt for SIGTERM too. One process alone leaves a checkpoint where it was interrupted or tools failed.
    """
    import torch

    from training.interrupt import Interrupt

    with Interrupt() as interrupt:
        try:
            return _run(config, resume, interrupt)
        except torch.OutOfMemoryError as error:
            raise ConfigError(MEMORY) from error


def _run(config: GrpoConfig, resume: bool, interrupt: Interrupt) -> dict[str, float]:
    from accelerate import PartialState

    output = config.output
    checkpoint = checkpoint_of(output, resume, GRPO)
    if resume:
        same_training(config, output, SAME + (REPORTS if config.held_out.episodes else ()))
    step = check_whole(checkpoint) if checkpoint else 0
    state = PartialState()
    check_launch(config, str(state.distributed_type.value), state.num_processes)
    processor = load_processor(config.model)
    if state.is_main_process and not resume:
        GRPO.begin(output)
        prepare(config, output, state.num_processes)
        begin(output, config)
    elif state.is_main_process:
        go_on(output, step, config)
    state.wait_for_everyone()
    tasks = load(output)
    folder = output / "rollouts" / (f"process-{state.process_index}" if state.num_processes > 1 else "")
    with Rollouts(config, tasks.train, folder, state.process_index) as rollouts:
        trainer = trainer_of(config, processor, tasks, rollouts, interrupt)
        trains, total = parameter_counts(trainer.model)
        logger.info("%d of %d weights train on %d tasks", trains, total, len(tasks.train))
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            rollouts.check()
        except (KeyboardInterrupt, ToolboxError, RolloutError):
            trainer.forget_unfinished_step()
            interrupt.keep(trainer)
            raise
        if interrupt.came:  # it ended after the step that was under way, with a checkpoint
            raise KeyboardInterrupt
    from training.grpo.observe import last_figures

    figures = last_figures(trainer.state.log_history)
    went = stages(output, trainer.state.global_step)
    card = grpo_card(config, len(tasks.train), len(tasks.held_out), figures, went)
    hand_over(trainer, processor, config.model, output, card, adapter=config.lora is not None)
    return figures


def trainer_of(
    config: GrpoConfig, processor: Any, tasks: TaskSets, rollouts: Rollouts, interrupt: Interrupt | None = None
) -> Any:
    """The trainer over the tasks, which also measures, draws and keeps samples. Raises ConfigError."""
    import datasets
    from transformers import ProgressCallback

    from training.grpo.observe import Observer
    from training.grpo.trainer import EpisodeGRPOTrainer
    from training.interrupt import Interrupt

    args = arguments(config)  # before the model: it sets up DeepSpeed
    rows = [
        {"prompt": [{"role": "user", "content": f"{task.anomaly_type} on {task.item_name}"}], "task": number}
        for number, task in enumerate(tasks.train)
    ]
    encoder = Encoder(processor, config.model.image_side)
    trainer = EpisodeGRPOTrainer(
        config=config,
        rollouts=rollouts,
        encoder=encoder,
        model=load_model(config.model),
        args=args,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=processor,
        peft_config=lora_config(config.lora) if config.lora else None,
    )
    trainer.remove_callback(ProgressCallback)  # the observer's line a step says what matters
    interrupt = interrupt or Interrupt()
    trainer.add_callback(interrupt)
    trainer.add_callback(Observer(config, trainer, encoder, tasks.held_out, interrupt))
    return trainer


def arguments(config: GrpoConfig) -> Any:
    """The trainer's arguments. Raises ConfigError where this machine cannot do what they ask for."""
    import torch
    from trl import GRPOConfig

    train, grpo = config.train, config.grpo
    forward = grpo.group_size * grpo.groups // train.batch_size
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(config.output / "tensorboard")
    try:
        return GRPOConfig(
            output_dir=str(config.output / "checkpoints"),
            num_train_epochs=train.epochs,
            max_steps=train.max_steps or -1,
            learning_rate=train.learning_rate,
            lr_scheduler_type=train.schedule,
            warmup_steps=train.warmup,
            per_device_train_batch_size=train.batch_size,
            gradient_accumulation_steps=forward,
            steps_per_generation=forward,
            num_generations=grpo.group_size,
            num_iterations=grpo.iterations,
            beta=grpo.beta,
            use_bias_correction_kl=False,  # as in the paper; the trainer adds it for replayed rollouts
            epsilon=grpo.epsilon,
            epsilon_high=grpo.epsilon_high,
            loss_type=grpo.loss,
            scale_rewards=grpo.scale,
            temperature=config.rollout.temperature,
            **_vllm_arguments(config),
            max_completion_length=config.rollout.max_tokens,
            weight_decay=train.weight_decay,
            max_grad_norm=train.max_grad_norm,
            gradient_checkpointing=train.gradient_checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False} if train.gradient_checkpointing else None,
            bf16=train.bf16,
            seed=train.seed,
            logging_steps=1,
            save_steps=train.save_every,
            save_total_limit=train.keep_checkpoints,
            dataloader_pin_memory=torch.cuda.is_available(),
            remove_unused_columns=False,
            report_to=["tensorboard"],
        )
    except ValueError as error:
        raise ConfigError(f"the training cannot be set up here: {str(error).splitlines()[0]}") from error


def _vllm_arguments(config: GrpoConfig) -> dict[str, Any]:
    """TRL's arguments for rollouts by vLLM. Raises ConfigError where it is not installed."""
    if (vllm := config.vllm) is None:
        return {}
    if find_spec("vllm") is None:
        raise ConfigError("the [vllm] section needs vLLM, which is not installed: pip install vllm, or leave it out")
    return {
        "use_vllm": True,
        "vllm_mode": vllm.mode,
        "vllm_server_base_url": vllm.base_url,
        "vllm_gpu_memory_utilization": vllm.gpu_memory,
        "vllm_max_model_length": config.rollout.max_tokens,
        "vllm_importance_sampling_correction": vllm.importance_sampling,
        "vllm_importance_sampling_mode": "token_truncate",
        "vllm_importance_sampling_clip_max": vllm.importance_cap,
    }


def check_launch(config: GrpoConfig, distributed: str, processes: int) -> None:
    """Refuse what the way of launching cannot do. ``distributed``: accelerate's name of it, such as "DEEPSPEED"."""
    if config.lora is None and config.model.dtype == "bfloat16" and distributed != "DEEPSPEED":
        raise ConfigError(
            'weights in bfloat16 lose most updates of this size: set model.dtype = "float32", add a [lora] section, or '
            "launch with DeepSpeed (extra deepspeed), which keeps float32 copies"
        )
    if distributed == "FSDP" and config.vllm is None:
        raise ConfigError(
            "with FSDP, processes whose episodes differ in turns would wait for each other for ever: add a [vllm] "
            "section, or launch with DeepSpeed"
        )
    if processes > 1 and config.held_out.episodes:
        raise ConfigError(
            "episodes cannot be measured while the weights are on several processes: set held_out.episodes = 0, and "
            f"measure afterwards: python -m training.held_out {config.output}/model --from {config.output} --out DIR"
        )
