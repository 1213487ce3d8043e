"""What `tinymixer lessons` copies, and what it leaves as it is."""

import os

import pytest
from command_line import call, contents, posix, refused
from notebooks import LESSONS, ROOT

COURSE = {path.name: path.read_bytes() for path in (ROOT / "lessons").iterdir() if path.is_file()}


@pytest.fixture
def copied(here, capsys):
    assert call("lessons", "mine/course") == 0
    return here / "mine" / "course"


def test_the_whole_course_is_copied(copied, capsys):
    assert {path.name: content for path, content in contents(copied).items()} == COURSE
    assert f"copied {len(COURSE)} of {len(COURSE)} files" in (said := capsys.readouterr().out)
    assert f"jupyter lab {os.path.join('mine', 'course', LESSONS[0].name)}" in said


def test_what_a_learner_changed_is_kept_and_what_is_missing_is_copied(copied, capsys):
    (copied / LESSONS[2].name).write_text("my answers")
    (copied / LESSONS[3].name).unlink()
    (copied / "notes.txt").write_text("my notes")
    capsys.readouterr()
    assert call("lessons", copied) == 0
    said = capsys.readouterr().out
    assert f"copied 1 of {len(COURSE)} files" in said
    assert f"differ from the course: {LESSONS[2].name}. " in said
    mine = {LESSONS[2].name: b"my answers", "notes.txt": b"my notes"}
    assert {path.name: content for path, content in contents(copied).items()} == COURSE | mine


@posix
@pytest.mark.parametrize("kind", ["a link that leads nowhere", "a pipe", "a folder"])
def test_what_is_no_file_is_kept_too(kind, here, capsys):
    there = here / LESSONS[0].name
    {
        "a link that leads nowhere": lambda: there.symlink_to("nowhere"),
        "a pipe": lambda: os.mkfifo(there),
        "a folder": there.mkdir,
    }[kind]()
    before = there.lstat().st_mode
    assert call("lessons", ".") == 0
    assert f"differ from the course: {there.name}. " in capsys.readouterr().out
    assert there.lstat().st_mode == before
    assert not (here / "nowhere").exists()


def test_copying_the_course_onto_itself_changes_nothing(capsys):
    before = contents(ROOT / "lessons")
    assert call("lessons", ROOT / "lessons") == 0
    assert f"copied 0 of {len(COURSE)} files" in (said := capsys.readouterr().out)
    assert "differ" not in said
    assert contents(ROOT / "lessons") == before


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (("lessons",), "DIR"),
        (("lessons", "file"), "cannot make the folder file: "),
        (("lessons", "file/in"), "; name another"),
    ],
)
def test_a_folder_that_cannot_be_is_named(argv, named, here, capsys):
    (here / "file").write_text("in the way")
    refused(capsys, here, argv, named)


def test_a_package_without_lessons_says_so(here, capsys, monkeypatch):
    (here / "tinymixer").mkdir()
    monkeypatch.setattr("tinymixer.__file__", str(here / "tinymixer" / "__init__.py"))
    refused(capsys, here, ("lessons", "."), "has no lessons")
