"""One process at a time: locks that a crash releases, and that nothing else does."""

import errno
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
from command_line import posix

from tinymixer import files
from tinymixer.errors import InUseError, Note
from tinymixer.files import lock, write_atomically

HOLD = """
import sys, time
from pathlib import Path
from tinymixer.files import lock
with lock(Path(sys.argv[1]), "the box"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / ".lock"


@pytest.fixture
def holder(path):
    """Another process, in the lock."""
    command = [sys.executable, "-c", HOLD, path]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.communicate()


def let_go(process):
    process.communicate(timeout=20)


def test_a_lock_is_for_one_and_leaves_nothing(path):
    with lock(path, "the box"):
        assert path.exists()
        with pytest.raises(InUseError), lock(path, "the box"):
            pass
        assert path.exists()
    assert not path.parent.exists()
    with lock(path, "the box"):
        (path.parent / "kept").touch()
    assert os.listdir(path.parent) == ["kept"]


def test_it_is_released_by_an_error(path):
    with pytest.raises(KeyboardInterrupt), lock(path, "the box"):
        raise KeyboardInterrupt
    with lock(path, "the box"):
        pass


def test_another_process_is_told_who_holds_it_and_what_to_do(path, holder):
    with pytest.raises(InUseError) as refusal, lock(path, "the box"):
        pass
    said = str(refusal.value)
    assert said.startswith(f"the box is in use by process {holder.pid} on ")
    assert re.search(r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\. Wait until it ends", said)
    let_go(holder)
    with lock(path, "the box"):
        pass


def test_a_crash_releases_it(path, holder):
    holder.kill()
    holder.wait()
    assert path.exists()  # it had no time to remove it
    with lock(path, "the box"):
        pass
    assert not path.exists()


def test_one_that_waits_says_so_once_and_gets_it(path, holder):
    got = threading.Event()

    def wait():
        told = pytest.warns(Note, match=f"waiting for the box, in use by process {holder.pid}")
        with told, lock(path, "the box", wait=True):
            got.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert not got.wait(3 * files.LOOK_AGAIN)
    let_go(holder)
    assert got.wait(20)
    thread.join()


CRASH = """
import os, sys, time
from pathlib import Path
from tinymixer.files import lock
with lock(Path(sys.argv[1]), "the box"):
    child = os.fork()
    if child:
        print(child, flush=True)
        os._exit(1)
    os.close(1)
    time.sleep(60)
"""


@posix
def test_a_forked_child_does_not_keep_the_lock_of_a_parent_that_crashed(path):
    done = subprocess.run([sys.executable, "-c", CRASH, path], stdout=subprocess.PIPE)
    try:
        assert path.exists()
        with lock(path, "the box"):
            pass
    finally:
        os.kill(int(done.stdout), signal.SIGKILL)


@posix
def test_a_forked_child_that_leaves_the_lock_leaves_it_to_its_parent(path):
    with lock(path, "the box"):
        try:
            child = os.fork()
            if not child:
                raise SystemExit
        except SystemExit:
            pass
        else:
            os.waitpid(child, 0)
            assert path.exists()
            with pytest.raises(InUseError), lock(path, "the box"):
                pass
            return
    os._exit(0)


def count(folder, rounds):
    """Read, add one, write: what is lost where two are in the lock at once."""
    for _ in range(rounds):
        with lock(folder / ".lock", "the number", wait=True):
            number = int((folder / "number").read_text())
            time.sleep(0.001)
            (folder / "number").write_text(str(number + 1))


def test_nothing_is_lost_between_many(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LOOK_AGAIN", 0.001)
    monkeypatch.setattr(files, "note", lambda message: None)
    (tmp_path / "number").write_text("0")
    context = multiprocessing.get_context("fork" if os.name == "posix" else "spawn")
    processes = [context.Process(target=count, args=(tmp_path, 30)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert (tmp_path / "number").read_text() == "120"
    assert os.listdir(tmp_path) == ["number"]


@pytest.mark.parametrize("answer", [ImportError(), OSError(errno.ENOLCK, "no locks available")])
def test_where_files_cannot_be_locked_a_note_says_so_and_it_goes_on(path, monkeypatch, answer):
    def without(number, how):
        raise answer

    monkeypatch.setattr("fcntl.flock", without)
    noted = pytest.warns(Note, match="cannot be locked: nothing keeps")
    refused = pytest.raises(InUseError)  # within one process it holds all the same
    with noted, lock(path, "the box"), refused, lock(path, "the box"):
        pass
    assert not path.exists()


@posix
@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
def test_what_is_no_file_to_lock_is_named(path, kind):
    path.parent.mkdir()
    {"folder": os.mkdir, "pipe": os.mkfifo, "link": lambda link: link.symlink_to("/etc/passwd")}[
        kind
    ](path)
    with pytest.raises(OSError, match=str(path)), lock(path, "the box"):
        pass
    assert os.path.lexists(path)


def test_what_a_lock_file_says_is_made_harmless(path, holder):
    path.write_text("process 1\x1b[2J on \u202eevil\nmachine")
    with pytest.raises(InUseError) as refusal, lock(path, "the box"):
        pass
    assert str(refusal.value).isprintable()


# --- Parts of files that are being written ------------------------------------------------------


def test_a_part_left_by_a_crash_goes_at_once_and_one_that_is_written_stays(tmp_path):
    left = tmp_path / ".x.0badcafe.part"
    left.write_bytes(b"half")

    def and_meanwhile_another(file):
        file.write(b"fir")
        (part,) = tmp_path.glob(".x.*.part")
        os.utime(part, (0, 0))  # however long ago it was written
        write_atomically(tmp_path / "x", b"second")
        assert part.exists()
        file.write(b"st")

    write_atomically(tmp_path / "x", and_meanwhile_another)
    assert (tmp_path / "x").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize(("age", "left"), [(60, True), (86400, False)])
def test_where_there_are_no_locks_the_age_of_a_part_decides(tmp_path, monkeypatch, age, left):
    monkeypatch.setattr(files, "_lock_now", lambda number: None)
    part = tmp_path / ".x.0badcafe.part"
    part.write_bytes(b"half")
    os.utime(part, (time.time() - age,) * 2)
    write_atomically(tmp_path / "x", b"new")
    assert part.exists() == left


# --- Windows ------------------------------------------------------------------------------------


class Msvcrt:
    """The locks of Windows, which holds one for each open file, by those of this system."""

    LK_NBLCK, LK_UNLCK = "lock", "unlock"

    def locking(self, number, how, n):
        import fcntl

        assert (os.lseek(number, 0, os.SEEK_CUR), n) == (files.LOCKED, 1)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB if how == "lock" else fcntl.LOCK_UN)
        except BlockingIOError:
            raise PermissionError(errno.EACCES, "Permission denied") from None


@pytest.fixture
def windows(monkeypatch):
    """Windows as far as a file is concerned: it removes and replaces none that is open here."""
    opened, unlink, replace = set(), os.unlink, os.replace
    open_, close = os.open, os.close

    def opening(path, *arguments, **named):
        number = open_(path, *arguments, **named)
        opened.add((number, os.path.abspath(path)))
        return number

    def closing(number):
        opened.difference_update([pair for pair in opened if pair[0] == number])
        close(number)

    def refused(path):
        paths = set()
        for number, name in [*opened]:
            try:
                os.fstat(number)
                paths.add(name)
            except OSError:
                opened.discard((number, name))
        if os.path.abspath(path) in paths:
            raise PermissionError(errno.EACCES, "Access is denied", str(path))

    def removing(path, **named):
        refused(path)
        unlink(path, **named)

    def replacing(source, target):
        refused(source)
        refused(target)
        replace(source, target)

    for name, new in {
        "open": opening,
        "close": closing,
        "unlink": removing,
        "replace": replacing,
    }.items():
        monkeypatch.setattr(os, name, new)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "msvcrt", Msvcrt())
    monkeypatch.setattr(files, "PATIENCE", 2)
    return opened


@posix
def test_on_windows_a_lock_is_for_one_and_leaves_nothing(path, windows):
    test_a_lock_is_for_one_and_leaves_nothing(path)
    assert not windows


@posix
def test_on_windows_a_file_may_seem_another_one_by_its_name(path, windows, monkeypatch):
    """`os.stat` and `os.fstat` have had other numbers for one file, which looked like a new one."""
    monkeypatch.setattr(os.path, "samestat", lambda a, b: False)
    with lock(path, "the box"):
        pass


@posix
def test_on_windows_a_file_is_replaced_as_soon_as_its_reader_has_left(tmp_path, windows):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    number = os.open(path, os.O_RDONLY)
    threading.Timer(3 * files.LOOK_AGAIN, os.close, [number]).start()
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["x"]


@posix
def test_on_windows_a_reader_that_stays_is_waited_for_in_vain(tmp_path, windows, monkeypatch):
    monkeypatch.setattr(files, "PATIENCE", 0.2)
    path = tmp_path / "x"
    path.write_bytes(b"old")
    number = os.open(path, os.O_RDONLY)
    with pytest.raises(PermissionError, match="Access is denied"):
        write_atomically(path, b"new")
    os.close(number)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]


def test_elsewhere_a_file_that_may_not_be_replaced_is_not_tried_again(tmp_path, monkeypatch):
    tries = []

    def refuse(source, target):
        tries.append(source)
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(PermissionError):
        write_atomically(tmp_path / "x", b"new")
    assert len(tries) == 1


@posix
@pytest.mark.parametrize(("age", "left"), [(1, True), (60, False)])
def test_on_windows_a_part_that_is_about_to_be_renamed_stays(tmp_path, windows, age, left):
    part = tmp_path / ".x.0badcafe.part"
    part.write_bytes(b"whole, closed and unlocked")
    os.utime(part, (time.time() - age,) * 2)
    write_atomically(tmp_path / "x", b"new")
    assert part.exists() == left
