"""Floor 0. Errors that a user can fix.

Each message says what went wrong, what was expected, what was got and what to do. The command
line prints it as one line; anything else that escapes is a bug and keeps its traceback.
"""

import warnings


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


class InUseError(TinymixerError):
    """Another process works with the same files."""


class Note(UserWarning):
    """A message that stops nothing. The command line prints it as one line."""


def note(message: str) -> None:
    """Warn with a Note; Python shows the same one once."""
    warnings.warn(printable(message), Note, stacklevel=2)


def printable(text: str, most: int = 2000) -> str:
    """`text` as one line that does nothing to a terminal: of at most `most` characters.

    Characters that move the cursor, change colours, turn the direction of writing, take no space or
    are half of a pair become their escapes, \\x1b; other white space becomes a space. The middle of
    a long text is left out: its beginning says what is wrong, and its end what to do.
    """
    if len(text) > 2 * most:
        text = text[:most] + text[-most:]
    shown = harmless(text)
    if len(shown) <= most:
        return shown
    tail = (most - 3) // 3
    return f"{shown[: most - 3 - tail]}...{shown[len(shown) - tail :]}"


def harmless(text: str, but: str = "") -> str:
    """`text` of any length, with the same characters escaped, except for those in `but`."""
    if text.isprintable():
        return text
    return "".join(x if x.isprintable() or x in but else _escaped(x) for x in text)


def _escaped(character: str) -> str:
    return " " if character.isspace() else character.encode("unicode_escape").decode()


def counted(n: float, noun: str) -> str:
    """ "1 class", "2 classes", "50,000 images", "0.5 epochs": a number and what it counts."""
    number = f"{n:g}" if isinstance(n, float) else f"{n:,}"
    if n == 1:
        return f"{number} {noun}"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        noun = f"{noun[:-1]}ie"
    elif noun.endswith("axis"):
        noun = f"{noun[:-2]}e"
    return f"{number} {noun}{'es' if noun.endswith(('s', 'x', 'tch')) else 's'}"


def brief(reason: object, most: int = 400) -> str:
    """What another library says is wrong, on one line that can be part of a message of ours."""
    return printable(" ".join(str(reason).split()), most)
