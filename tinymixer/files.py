"""Floor 0. Files that are whole, the old one or the new one; and locks that a crash releases."""

import contextlib
import errno
import glob
import math
import os
import platform
import secrets
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from tinymixer.errors import InUseError, note, printable

STALE = 3600  # seconds without a write that make a part a leftover, where files cannot be locked
LOOK_AGAIN = 0.1  # seconds between two looks at a lock that another process holds
LOCKED = 2**30  # the byte that Windows locks, far behind those that others read
PATIENCE = 10  # seconds for which a file that Windows does not replace is tried again

# --- Whole files --------------------------------------------------------------------------------


def write_atomically(path: Path, content: bytes | Callable[[IO[bytes]], Any]) -> None:
    """Write `content` to a file beside `path`, sync it to disk, and rename it to `path`.

    `content` is bytes, or a function that writes to the open file it is given.
    If anything fails, `path` is as it was and the OSError goes on to the caller. Each write has a
    file of its own beside `path`, so that several processes can write at once; it is locked until
    it is renamed, so that nothing takes it for a leftover.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    try:
        number, _ = _open_locked(part, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        with os.fdopen(number, "wb") as file:
            file.write(content) if isinstance(content, bytes) else content(file)
            file.flush()
            os.fsync(file.fileno())
            if _on_windows():
                file.close()  # it renames no open file
            replace(part, path)
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


def replace(source: Path, target: Path) -> None:
    """Rename a file; it replaces `target` if that exists.

    Windows refuses it while another process reads one of them: it is tried again for PATIENCE
    seconds. Raises OSError.
    """
    begin = time.monotonic()
    while True:
        try:
            os.replace(source, target)
            return
        except PermissionError:
            if not _on_windows() or time.monotonic() - begin > PATIENCE:
                raise
            time.sleep(LOOK_AGAIN)


def _remove_leftovers(path: Path) -> None:
    """Remove what writers of `path` left beside it when they crashed, so that nothing piles up.

    A part is left over if no process holds its lock; where there are no locks, its age decides. On
    Windows a part loses its lock before it is renamed, and is left over a while later.
    """
    unlocked = 2 * PATIENCE if _on_windows() else -math.inf
    oldest = {True: unlocked, None: STALE, False: math.inf}
    for part in path.parent.glob(f".{glob.escape(path.name)}.*part"):
        with contextlib.suppress(OSError):  # another process may be removing it too
            if not stat.S_ISREG(part.lstat().st_mode):
                continue
            number, ours = _open_locked(part, os.O_RDWR)
            os.close(number)  # Windows removes no open file
            if time.time() - part.stat().st_mtime > oldest[ours]:
                part.unlink()


def _on_windows() -> bool:
    return sys.platform == "win32"


# --- Locks --------------------------------------------------------------------------------------

_held: dict[tuple[int, int], int] = {}  # the lock files of this process: (device, inode) -> number


def _forget_in_child() -> None:
    """A forked child has its parent's files, and would hold its locks for as long as it lives."""
    for number in _held.values():
        os.close(number)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)


@contextlib.contextmanager
def lock(path: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock of the file `path` in its `with` block: one holder at a time, in any process.

    The operating system keeps the lock, and releases it if this process dies. The file says who
    holds it, and is removed at the end, with the folders that were made for it if nothing else is
    in them. `what` the lock protects is part of every message. If another process holds it, `wait`
    for it and say so; or raise InUseError, which says who it is. Where files cannot be locked, a
    note says that nothing is protected. Raises OSError if the lock file cannot be made.
    """
    with contextlib.ExitStack() as stack:
        number, ours = _acquired(path, what, wait, stack)
        key = _key(number)
        _held[key] = number
        try:
            if ours is None:
                note(
                    f"files in {path.parent} cannot be locked: nothing keeps another process from "
                    f"{what} meanwhile"
                )
            with contextlib.suppress(OSError):  # a full disk: then the file does not say who
                os.ftruncate(number, 0)
                os.write(number, _this_process().encode())
            yield
        finally:
            if _held.get(key) == number:  # not in a forked child
                del _held[key]
                _release(path, number)


@contextlib.contextmanager
def folder_for_now(folder: Path) -> Iterator[None]:
    """Make `folder`. At the end what was made for it is removed again, if nothing is in it.

    Raises OSError if it cannot be made.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]  # the innermost first
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for path in made:
            with contextlib.suppress(OSError):  # something else is in it: it stays
                path.rmdir()


def _acquired(
    path: Path, what: str, wait: bool, stack: contextlib.ExitStack
) -> tuple[int, bool | None]:
    """The lock file, open, and whether it is locked; None where files cannot be."""
    told, tries = False, 0
    while True:
        try:
            stack.enter_context(folder_for_now(path.parent))
            number, ours = _open_locked(path, os.O_RDWR | os.O_CREAT)
        except (FileNotFoundError, PermissionError):  # another process has just removed the folder,
            tries += 1  # or removes it, on Windows
            if tries == 10:
                raise
            time.sleep(LOOK_AGAIN / 10)
            continue
        if ours is not False and _key(number) not in _held:
            return number, ours
        holder = _holder(number)
        os.close(number)
        if not wait:
            raise InUseError(
                f"{what} is in use by {holder}. Wait until it ends, or choose another folder"
            )
        if not told:
            note(f"waiting for {what}, in use by {holder}")
            told = True
        time.sleep(LOOK_AGAIN)


def _open_locked(path: Path, flags: int) -> tuple[int, bool | None]:
    """The regular file `path`, open, and whether it is locked now: False if another process holds
    the lock, None where files cannot be locked.
    """
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    while True:
        number = os.open(path, flags, 0o666)
        try:
            opened = os.fstat(number)
            if not stat.S_ISREG(opened.st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file", str(path))
            ours = _lock_now(number)
            with contextlib.suppress(FileNotFoundError):
                # On Windows no open file is removed, and its two numbers may differ by how one asks
                if _on_windows() or os.path.samestat(opened, os.stat(path)):
                    return number, ours
        except BaseException:
            os.close(number)
            raise
        os.close(number)  # its holder has removed it: there is another file now, or none


def _lock_now(number: int) -> bool | None:
    """Lock an open file, without waiting."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(number, LOCKED, os.SEEK_SET)
            msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
            os.lseek(number, 0, os.SEEK_SET)
        else:
            import fcntl  # which Python in a browser does not have

            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        return None
    except OSError as error:
        busy = error.errno in (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)
        return False if busy else None
    return True


def _release(path: Path, number: int) -> None:
    """Remove the lock file while it is locked, before another process can hold it; then close it.

    Windows removes no open file: neither this one before it is closed, nor another process's.
    """
    if sys.platform == "win32":
        import msvcrt

        os.lseek(number, LOCKED, os.SEEK_SET)
        msvcrt.locking(number, msvcrt.LK_UNLCK, 1)  # closing unlocks it, but not at once
        os.close(number)
        with contextlib.suppress(OSError):
            path.unlink()
        return
    with contextlib.suppress(OSError):
        if os.path.samestat(os.fstat(number), os.stat(path)):
            path.unlink()
    os.close(number)


def _key(number: int) -> tuple[int, int]:
    found = os.fstat(number)
    return found.st_dev, found.st_ino


def _this_process() -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return f"process {os.getpid()} on {platform.node() or 'this machine'} since {since}"


def _holder(number: int) -> str:
    """What the process that holds a lock wrote into its file."""
    os.lseek(number, 0, os.SEEK_SET)
    said = os.read(number, 400).decode("utf-8", "replace").strip()
    return printable(said, 120) if said else "another process"
