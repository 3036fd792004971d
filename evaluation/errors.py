"""The one kind of failure that a caller can mend."""


class EvaluationError(ValueError):
    """What was asked for cannot be measured as it stands; the message is one line and names the cure."""
