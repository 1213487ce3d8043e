"""Floor 6. The `tinymixer` command: one file for each group of subcommands.

A mistake of the user's ends in one line on standard error and exit code 2; a traceback is a bug.
"""

import argparse
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
    args = build_parser().parse_args(argv)
    keep_freed_memory()
    try:
        return args.func(args)
    except TinymixerError as error:
        return _complain(str(error))
    except BrokenPipeError:  # the reader of our output, `head` perhaps, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _complain(f"{error.filename or 'file'}: {error.strerror or error}")
    except Stopped as stop:
        _complain(f"{stop}; the run is saved: tinymixer train --resume {stop.folder}")
        return 128 + stop.signal
    except KeyboardInterrupt:
        _complain("interrupted")
        return 130


def _complain(message: str) -> int:
    print(f"tinymixer: {' '.join(message.split())}", file=sys.stderr)
    return 2
