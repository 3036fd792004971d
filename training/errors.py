"""The one kind of failure that a caller can mend."""


class TrainingError(ValueError):
    """What was asked for cannot be done as it stands; the message is one line and names the cure."""
