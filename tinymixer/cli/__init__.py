"""Floor 6. The `tinymixer` command."""

import argparse
import sys

from tinymixer.cli import gradcheck
from tinymixer.errors import TinymixerError


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tinymixer")
    subparsers = parser.add_subparsers(required=True)
    gradcheck.add_parser(subparsers)
    args = parser.parse_args(argv)
    try:
        return args.func(args)
    except TinymixerError as error:
        print(f"tinymixer: {error}", file=sys.stderr)
        return 2
