"""Ending a training early without losing it: Ctrl-C and SIGTERM, which schedulers send, both leave a checkpoint."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from transformers import TrainerCallback

logger = logging.getLogger("training")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt(TrainerCallback):
    """Raises KeyboardInterrupt for the first signal, at once or when the step under way is whole; the next one kills.

    While weights are updated, a step is logged and its checkpoint written, the first signal only has the training end
    after the step, with a checkpoint. At any other time weights, optimizer and state are those of the last whole step,
    so that ``keep`` can save them afterwards. A context manager around the training, to be added to the trainer before
    callbacks that measure; outside the main thread signals are left as they are, and processes that load data leave
    them to the training's. ``came``: whether there was one.
    """

    def __init__(self) -> None:
        self.came = False
        self._began = self._updating = self._alone = False
        self._saved, self._process = -1, os.getpid()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._signal) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        self.came, name = True, signal.Signals(number).name
        kept = " with a checkpoint" if self._updating or (self._began and self._alone) else ""
        logger.warning("%s: the training ends%s; once more ends it at once", name, kept)
        if not self._updating:
            raise KeyboardInterrupt

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """What runs inside is broken off by the first signal; the training then ends after the step."""
        updating, self._updating = self._updating, False
        try:
            yield
        except KeyboardInterrupt:
            if not (self.came and updating):
                raise
        finally:
            self._updating = updating

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Weights and state are those that training begins with: its checkpoint, if any, is there already."""
        self._began, self._alone = True, args.world_size == 1
        if (Path(args.output_dir) / f"checkpoint-{state.global_step}").is_dir():
            self._saved = state.global_step

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """From here to the next step nothing may be broken off."""
        self._updating = True

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """End after this step where a signal came."""
        if self.came:
            control.should_save = control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Know what is saved."""
        self._saved = state.global_step

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The step before is whole and logged. Raises KeyboardInterrupt where a signal came since it ended."""
        self._updating = False
        if self.came:
            raise KeyboardInterrupt

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Nothing is updated any more."""
        self._updating = False

    def keep(self, trainer: Any) -> bool:
        """Save a checkpoint of the last whole step where there is none; whether there is one now.

        Several processes save together or not at all, and those that were interrupted are not together. Raises OSError.
        """
        state = trainer.state
        if not self._began or self._saved == state.global_step:
            return self._began
        if self._updating or trainer.accelerator.num_processes > 1:
            return self._saved >= 0
        trainer._save_checkpoint(trainer.model, trial=None)
        trainer.callback_handler.on_save(trainer.args, state, trainer.control)
        return True
