"""Floor 0. Files that are whole: the old one or the new one, never a part."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any


def write_atomically(path: Path, content: bytes | Callable[[IO[bytes]], Any]) -> None:
    """Write `content` to a file beside `path`, sync it to disk, and rename it to `path`.

    `content` is bytes, or a function that writes to the open file it is given.
    If anything fails, `path` is as it was and the OSError goes on to the caller. After a crash
    the next write uses the same name beside `path` again, so nothing piles up.
    """
    part = path.with_name(f".{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with part.open("wb") as file:
            file.write(content) if isinstance(content, bytes) else content(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink()
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    with contextlib.suppress(OSError):  # syncs the rename itself, where folders can be synced
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
