"""A file is the old one or the new one, never a part."""

import os
import time

import pytest

from tinymixer.files import write_atomically


def test_bytes_or_a_function_fill_the_file_and_folders_are_made(tmp_path):
    write_atomically(tmp_path / "a" / "b.txt", b"bytes")
    write_atomically(tmp_path / "a" / "c.txt", lambda file: file.write(b"written"))
    assert (tmp_path / "a" / "b.txt").read_bytes() == b"bytes"
    assert (tmp_path / "a" / "c.txt").read_bytes() == b"written"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("a bug")])
def test_a_write_that_fails_half_way_leaves_the_old_file_alone(tmp_path, error):
    path = tmp_path / "x.txt"
    path.write_bytes(b"old")

    def half(file):
        file.write(b"ne")
        raise error

    with pytest.raises(type(error)) as raised:
        write_atomically(path, half)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    if isinstance(error, OSError):
        assert raised.value.filename == str(path)  # the message can say which file


def test_what_a_crash_left_behind_does_not_pile_up(tmp_path):
    for name in (".x.txt.part", ".x.txt.0badcafe.part", ".x.txt.12345678.part"):
        (tmp_path / name).write_bytes(b"half of a file, and then the power went")
        yesterday = time.time() - 86400
        os.utime(tmp_path / name, (yesterday, yesterday))
    write_atomically(tmp_path / "x.txt", b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["x.txt"]
    assert (tmp_path / "x.txt").read_bytes() == b"new"


def test_two_writers_at_once_do_not_meet(tmp_path):
    path = tmp_path / "x.txt"

    def and_meanwhile_another(file):
        file.write(b"fir")
        file.flush()
        write_atomically(path, b"second")
        assert path.read_bytes() == b"second"
        file.write(b"st")

    write_atomically(path, and_meanwhile_another)
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]
