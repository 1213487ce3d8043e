"""What reaches the terminal is text, whatever names, libraries and terminals are like."""

import io
import signal
import subprocess
import sys
import warnings

import pytest
from command_line import call, posix, refused, shell

from tinymixer.cli import output
from tinymixer.cli.options import load_figures
from tinymixer.errors import TinymixerError, note

EVIL = "a\x1b[2J\x9b31m\u202egnp\u200b.png"


@pytest.mark.parametrize("argv", [(EVIL,), ("train", "--model", EVIL), ("plot", "--run", EVIL)])
def test_no_name_reaches_the_terminal_as_it_is(argv, here, capsys):
    refused(capsys, here, argv, "")
    call(*argv)
    assert "gnp" in (said := capsys.readouterr().err)
    assert all(line.isprintable() for line in said.splitlines())


def test_nor_does_one_that_is_printed(here, capsys):
    with output.terminal():
        print(f"wrote {EVIL}\tdone", "half \ud83d")
    said = capsys.readouterr().out
    assert said == "wrote a\\x1b[2J\\x9b31m\\u202egnp\\u200b.png\tdone half \\ud83d\n"


def test_a_message_has_an_end(here, capsys):
    call("plot", "--run", "x" * 10**6)
    said = capsys.readouterr().err
    assert len(said) < 2100
    assert said.count("\n") == 1


def test_libraries_are_silent_and_a_note_is_a_line(capsys):
    code = (
        "import logging, warnings\n"
        "from tinymixer.cli import output\n"
        "from tinymixer.errors import note\n"
        "with output.terminal():\n"
        "    warnings.warn('deprecated', UserWarning)\n"
        "    logging.getLogger('matplotlib').warning('no font')\n"
        "    for _ in range(2): note('a lock is\\nmissing')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "tinymixer: note: a lock is missing\n")


def test_where_warnings_are_errors_they_stay_errors():
    with output.terminal(), warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="told"):
            note("told")


def test_all_is_as_before_afterwards():
    before = sys.stdout, sys.stderr, warnings.showwarning
    with pytest.raises(KeyError), output.terminal():
        raise KeyError
    assert (sys.stdout, sys.stderr, warnings.showwarning) == before


@posix
@pytest.mark.parametrize(
    ("redirected", "expected"), [(">&-", (0, "")), ("2>&-", (0, "")), (">&- 2>&-", (0, ""))]
)
def test_closed_streams_are_no_error(redirected, expected):
    done = shell(f'"$0" "$@" {redirected}', "data")
    assert (done.returncode, done.stderr) == expected


@posix
def test_messages_that_nobody_reads_are_no_traceback():
    done = shell('{ "$0" "$@"; echo "code $?" >&3; } 3>&1 2>&1 >/dev/null | true', "summary", "no")
    assert done.stderr == ""


SETTINGS = [
    *("MPLBACKEND=nonsense", "MATPLOTLIBRC=rc", "MATPLOTLIBRC=bytes", "TQDM_MININTERVAL=much"),
    *("PYTHONIOENCODING=ascii", "COLUMNS=1"),
    *(pytest.param(x, marks=pytest.mark.slow) for x in ("MPLCONFIGDIR=/proc/no", "HOME=/proc/no")),
]


@posix
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_wrong_environment_costs_a_line_at_most(setting, run):
    (run.parent / "rc").write_text("text.usetex: True\nfont.size: nonsense\nfrankly: wrong\n")
    (run.parent / "bytes").write_bytes(b"\xff\xfe\0")
    name, _, value = setting.partition("=")
    done = shell('"$0" "$@"', "plot", "--run", "run", **{name: value})
    if done.returncode:
        assert done.stderr.startswith("tinymixer: ")
        assert done.stderr.count("\n") == 1
    else:
        assert done.stderr == ""
        assert (run / "curves.png").exists()


def test_any_error_of_matplotlib_is_one_sentence(monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("latex could\nnot be found")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", broken)
    with pytest.raises(TinymixerError, match=r"does not start: latex could not be found\. Unset"):
        load_figures()


@posix
def test_an_interrupt_during_the_imports_is_no_traceback(here):
    """They take a while: one after another is broken off."""
    for after in (0.05, 0.2, 0.3, 0.4):
        process = subprocess.Popen(
            [sys.executable, "-m", "tinymixer", "plot", "--run", "nothing"], stderr=subprocess.PIPE
        )
        try:
            said = process.communicate(timeout=after)[1]
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            said = process.communicate()[1]
        if b"tinymixer/cli/__init__.py" in said:  # Python itself and its first imports may say more
            assert b"Traceback" not in said


def test_what_a_terminal_cannot_show_is_escaped(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, "ascii"))
    with output.terminal():
        print("größer")
        sys.stdout.flush()
    assert raw.getvalue() == b"gr\\xf6\\xdfer\n"
