"""SIGINT and SIGTERM: noted at once, and acted on when a run can save its position.

SIGBREAK is what Windows sends for Ctrl-Break, and when the window is closed.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ASKS = ("SIGINT", "SIGTERM", "SIGBREAK")  # those that the system has


class Stopped(Exception):
    """A signal, by its number, asked the run in `folder` to stop; its position is saved."""

    def __init__(self, number: int, folder: Path | None):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.signal, self.folder = number, folder


class StopSignal:
    """`number` is that of the signal which asked for a stop, and 0 until one has."""

    def __init__(self) -> None:
        self.number = 0

    @contextmanager
    def heard(self, folder: Path | None) -> Iterator[None]:
        """In its `with` block, the first of these signals is noted; a second one stops at once.

        At the end Stopped is raised if one was noted, so that none is lost, even if the run in
        `folder` was as good as done: what comes after it has to stop too. A signal that is ignored
        stays ignored. Python handles signals in its main thread only, so in another thread this
        does nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, frame: Any) -> None:
            self.number = number
            signal.signal(number, before[number])

        asks = [getattr(signal, name) for name in ASKS if hasattr(signal, name)]
        self.number = 0  # one that was obeyed already, of a run that goes on
        before = {
            int(n): signal.signal(n, note)
            for n in asks
            if signal.getsignal(n) != signal.SIG_IGN  # by nohup, or a script that must not stop
        }
        try:
            yield
        finally:
            for n, handler in before.items():
                signal.signal(n, handler)
        if self.number:
            raise Stopped(self.number, folder)
