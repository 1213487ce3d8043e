"""The folder of a run: its checkpoints and figures, written by one process at a time."""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from tinymixer.errors import CheckpointError
from tinymixer.files import lock, write_atomically
from tinymixer.train import checkpoint
from tinymixer.train.checkpoint import Checkpoint
from tinymixer.train.config import Config
from tinymixer.train.records import DatasetRecord, EpochFigures

DRAW_EVERY = 10.0  # seconds: a picture takes as long as a short epoch


class RunFolder:
    """What a run leaves in the folder `path`; nothing where that is None.

    `latest` is the latest checkpoint there, as this run left or found it; None if it has none yet.
    """

    def __init__(self, path: Path | None, latest: tuple[str, int, int] | None = None):
        self.path, self._latest = path, latest
        self._drawn, self._drawn_at = 0, -math.inf  # epochs that are in the picture, since when

    @contextmanager
    def held(self, begin: Callable[[], None]) -> Iterator[None]:
        """In its `with` block, only this run uses the folder, as it left it.

        A new run saves its beginning, by `begin()`. A run that goes on has its checkpoint already.
        Raises InUseError if another process has the folder, and CheckpointError if another run is
        there, or if this one went on elsewhere.
        """
        if self.path is None:
            yield
            return
        with lock(self.path / ".lock", f"the run in {self.path}"):
            if self._latest is None:
                checkpoint.require_unused(self.path)
                begin()
            elif self._latest != latest_in(self.path):
                raise CheckpointError(
                    f"the run in {self.path} was changed since it was read; resume it again"
                )
            yield

    def save(self, name: str, position: Checkpoint) -> None:
        """Write where the run stands as the checkpoint `name`."""
        if self.path is not None:
            groups = position.weights, position.ema, position.optimizer
            checkpoint.save(self.path / f"{name}.npz", position.header, *groups)
            self._latest = latest_in(self.path)

    def report(
        self, config: Config, dataset: DatasetRecord, history: Sequence[EpochFigures], last: bool
    ) -> None:
        """Write config.json and metrics.jsonl for the history so far, and draw it now and then."""
        if self.path is None:
            return
        lines = "".join(json.dumps(epoch.to_json()) + "\n" for epoch in history)
        write_atomically(self.path / "metrics.jsonl", lines.encode())
        said = {**asdict(config), "dataset": dataset.to_json()}
        write_atomically(self.path / "config.json", (json.dumps(said, indent=2) + "\n").encode())
        if last or time.monotonic() - self._drawn_at > DRAW_EVERY:
            self.draw(history)

    def draw(self, history: Sequence[EpochFigures]) -> None:
        """Draw curves.png, if there are epochs that are not in it."""
        if self.path is not None and len(history) > self._drawn:
            from tinymixer.train import figures  # only here: matplotlib takes a second to import

            figures.save(figures.curves(history), self.path / "curves.png")
            self._drawn, self._drawn_at = len(history), time.monotonic()


def latest_in(folder: Path) -> tuple[str, int, int] | None:
    """Which file the latest checkpoint in `folder` is, to notice another one in its place."""
    path = checkpoint.of_run(folder)
    if path is None:
        return None
    found = path.stat()
    return path.name, found.st_ino, found.st_mtime_ns
