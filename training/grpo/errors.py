"""What ends a training by acting."""


class RolloutError(RuntimeError):
    """No rollout can be learned from, and no tool is to blame; the message says what ended the last one."""
