"""Floor 0. The errors that a user can mend.

Each message says what went wrong, what was expected, what was got and what to do. The command
line prints it as one line; anything else that escapes is a bug and keeps its traceback.
"""


class TinymixerError(ValueError):
    """Something the user gave cannot be used, and the message says what to do about it."""


class DataError(TinymixerError):
    """A data set is missing, damaged or not what it claims to be."""


class DataMissing(DataError):
    """A data set is neither here nor can it be downloaded; nothing that is here is damaged."""


class CheckpointError(TinymixerError):
    """A checkpoint cannot be read, or does not belong to this run."""


class NonFiniteError(TinymixerError):
    """Training met a loss or a gradient that is not finite."""


def brief(reason: object, most: int = 400) -> str:
    """What another library says is wrong, on one line that can be part of a message of ours."""
    text = " ".join(str(reason).split())
    return text if len(text) <= most else text[: most - 3] + "..."
