"""Output to the terminal: printable text, and nothing from other libraries."""

import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from tinymixer.errors import Note, harmless, printable


class Harmless:
    """A text stream that passes on lines of printable characters, and escapes all others.

    Whatever is printed goes through it: a file name or a class name cannot control the terminal.
    `but` are other characters that pass: progress bars need the carriage return.
    """

    def __init__(self, stream: TextIO, but: str = "\n\t"):
        self._stream, self._but = stream, but

    def write(self, text: str) -> int:
        self._stream.write(harmless(text, self._but))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def terminal() -> Iterator[None]:
    """In its `with` block, any name can be printed on any terminal, and only tinymixer prints.

    Without a standard error messages are dropped. Warnings and log messages of libraries are
    dropped; a Note of ours is a line.
    """
    before = sys.stdout, sys.stderr, warnings.showwarning
    silent = logging.NullHandler()
    logging.getLogger().addHandler(silent)
    warnings.showwarning = _show  # type: ignore[assignment]
    if sys.stderr is None:  # closed by the shell, 2>&-, and progress bars would write to it
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.stdout = sys.stdout and Harmless(sys.stdout)  # type: ignore[assignment]
    sys.stderr = Harmless(sys.stderr, but="\n\t\r")  # type: ignore[assignment]
    try:
        yield
    finally:
        _drop_what_cannot_be_written()
        sys.stdout, sys.stderr, warnings.showwarning = before
        logging.getLogger().removeHandler(silent)


def complain(message: str) -> int:
    """Print one line on standard error and return the exit code of a user's mistake."""
    with suppress(OSError):  # its reader has left: the exit code says it
        print(f"tinymixer: {printable(' '.join(message.split()))}", file=sys.stderr)
    return 2


def _show(message: Warning | str, category: type[Warning], *where: Any) -> None:
    if issubclass(category, Note):
        complain(f"note: {message}")


def _drop_what_cannot_be_written() -> None:
    """Otherwise Python would try to write it again at its end, and print an error of its own."""
    for stream in (sys.stdout, sys.stderr):
        try:
            print(end="", flush=True, file=stream)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
