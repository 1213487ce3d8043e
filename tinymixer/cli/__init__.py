"""Floor 6. The `tinymixer` command: one file for each group of subcommands.

A mistake of the user's ends in one line on standard error and exit code 2; a traceback is a bug.
"""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import tinymixer
from tinymixer.cli import bench, compare, convert, data, doctor, evaluate, gradcheck, inspect, train
from tinymixer.errors import TinymixerError
from tinymixer.fast.cpu import keep_freed_memory
from tinymixer.train.stopping import Stopped


class Parser(argparse.ArgumentParser):
    """argparse, but a wrong option costs one line instead of a page of usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}. See {self.prog} --help\n")


def build_parser() -> Parser:
    parser = Parser(prog="tinymixer", description=tinymixer.__doc__)
    parser.add_argument("--version", action="version", version=f"tinymixer {tinymixer.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in (train, compare, evaluate, inspect, convert, gradcheck, bench, data, doctor):
        module.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (sys.argv if None) and return its exit code."""
    _prepare_output()
    try:
        args = build_parser().parse_args(argv)
        keep_freed_memory()
        code = args.func(args)
        print(end="", flush=True)  # what cannot be written is heard of here
        return code
    except TinymixerError as error:
        return _complain(str(error))
    except BrokenPipeError:  # the reader of our output, `head` perhaps, has seen enough
        return 0
    except MemoryError as error:
        return _complain(f"not enough memory ({error}); ask for less, or for fewer at once")
    except OSError as error:
        return _complain(f"{error.filename or 'output'}: {error.strerror or error}")
    except Stopped as stop:
        _complain(f"{stop}; the run is saved: tinymixer train --resume {stop.folder}")
        return 128 + stop.signal
    except KeyboardInterrupt:
        _complain("interrupted")
        return 130
    finally:
        _drop_what_cannot_be_written()


def _prepare_output() -> None:
    """Any name can be printed on any terminal, and messages go nowhere if there is no stderr."""
    if sys.stderr is None:  # closed by the shell, 2>&-, and progress bars would write to it
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _drop_what_cannot_be_written() -> None:
    """Python would try again at its end, and complain of it in lines of its own."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(message: str) -> int:
    print(f"tinymixer: {' '.join(message.split())}", file=sys.stderr)
    return 2
