"""Floor 0. Files that are whole: the old one or the new one, never a part."""

import contextlib
import glob
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

STALE = 3600  # seconds since the last write after which a part is taken for left by a crash


def write_atomically(path: Path, content: bytes | Callable[[IO[bytes]], Any]) -> None:
    """Write `content` to a file beside `path`, sync it to disk, and rename it to `path`.

    `content` is bytes, or a function that writes to the open file it is given.
    If anything fails, `path` is as it was and the OSError goes on to the caller. Each write has a
    file of its own beside `path`, so that several processes can write at once.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale_parts(path)
    try:
        with part.open("xb") as file:
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


def _remove_stale_parts(path: Path) -> None:
    """Remove what writers of `path` left beside it when they crashed, so that nothing piles up."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*part"):
        with contextlib.suppress(OSError):  # another process may be removing it too
            if time.time() - part.stat().st_mtime > STALE:
                part.unlink()
