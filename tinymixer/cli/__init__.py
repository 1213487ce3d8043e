"""Floor 6. The `tinymixer` command: one file for each of its commands.

A user's mistake ends in one line on standard error and exit code 2; a traceback is a bug.
"""

import argparse
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from typing import Any, NoReturn

import tinymixer
from tinymixer.cli.output import complain, terminal
from tinymixer.errors import TinymixerError, brief, printable
from tinymixer.launcher import launched

__all__ = ["COMMANDS", "CommandParser", "Parser", "build_parser", "complain", "main"]

# Each is the module of that name (lr_find for lr-find): `add_options(parser)` gives its parser
# options and sets `func`, which takes the parsed arguments and returns the exit code. It is
# imported when it is called.
COMMANDS = {
    "train": "train a model",
    "lr-find": "find a learning rate to begin with",
    "compare": "train several models under one budget and compare them",
    "eval": "accuracy by class, confusion matrix and worst mistakes of a trained model",
    "predict": "what a trained model sees in your pictures",
    "summary": "layers, shapes, parameters, multiply-accumulates and memory of a model",
    "plot": "a run's curves and, of a Mixer, its token-mixing weights and patch filters",
    "convert": "convert weights between the layouts of a system's authors, timm and tinymixer",
    "gradcheck": "check every hand-written gradient numerically",
    "bench": "measure the speed of training and inference, and where the time goes",
    "data": "list the data sets, download one, or add an archive",
    "lessons": "copy the lessons into a folder of your own",
    "doctor": "versions, BLAS, threads, GPU and data sets of this machine",
}


class Parser(argparse.ArgumentParser):
    """argparse, but a wrong option costs one line instead of a page of usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {printable(message)}. See {self.prog} --help\n")


class CommandParser(Parser):
    """The parser of one command, which gets its options when it parses: so `tinymixer --help` and
    every other command do without the imports that they need.
    """

    def __init__(self, *, module: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.module = module

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.add_options()
        found, rest = super().parse_known_args(args, namespace)
        import_module("tinymixer.cli.options").require_other_outputs(self._actions, found)
        return found, rest

    def add_options(self) -> None:
        try:
            command = import_module(self.module)
        except (ImportError, ValueError) as error:  # of a library: TQDM_MININTERVAL=much
            raise TinymixerError(
                f"a library does not start: {brief(error)}. Install tinymixer again, and look for "
                "variables of the environment with the library's name"
            ) from error
        command.add_options(self)


def build_parser() -> Parser:
    parser = Parser(prog="tinymixer", description=tinymixer.__doc__)
    parser.add_argument("--version", action="version", version=f"tinymixer {tinymixer.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=CommandParser)
    for name, line in COMMANDS.items():
        commands.add_parser(name, help=line, module=f"tinymixer.cli.{name.replace('-', '_')}")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (sys.argv if None) and return its exit code.

    Of several processes that a launcher started, only the first one prints.
    """
    processes, rank, _ = launched()
    with terminal() if rank == 0 else _silence():
        try:
            with _dying_at_once():
                args = build_parser().parse_args(argv)
                if processes > 1 and not getattr(args, "for_ranks", False):
                    raise TinymixerError(
                        f"started as {processes} processes, but this command is for one: leave out "
                        "mpiexec. `train` and `bench` are for several"
                    )
                from tinymixer.fast.cpu import keep_freed_memory  # --version needs no NumPy
            keep_freed_memory()
            code = args.func(args)
            print(end="", flush=True)  # raises OSError here if something cannot be written
            return code
        except TinymixerError as error:
            return complain(str(error))
        except BrokenPipeError:  # the reader of our output, `head` for instance, has stopped
            return 0
        except MemoryError as error:
            return complain(f"not enough memory ({error}); use a smaller model, batch or data set")
        except OSError as error:
            return complain(f"{error.filename or 'output'}: {error.strerror or error}")
        except KeyboardInterrupt:
            complain("interrupted")
            return 130


@contextmanager
def _silence() -> Iterator[None]:
    with open(os.devnull, "w") as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
        yield


@contextmanager
def _dying_at_once() -> Iterator[None]:
    """Ctrl-C in its `with` block ends the process: a broken import can fail with any error."""
    usual = (signal.default_int_handler, signal.SIG_DFL)  # not of nohup, or of a caller of ours
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) not in usual:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
