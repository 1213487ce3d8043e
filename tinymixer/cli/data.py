"""tinymixer data: list the data sets, download one, add an archive."""

import argparse
from pathlib import Path
from typing import Any

from tinymixer import data
from tinymixer.cli import Parser
from tinymixer.cli.options import add_data_dir


def add_options(parser: Any) -> None:
    parser.description = "List the data sets and where they are, download one, or add an archive."
    parser.set_defaults(func=show)
    add_data_dir(parser)
    actions = parser.add_subparsers(metavar="ACTION", parser_class=Parser)

    action = actions.add_parser(
        "download", help="download a data set from the first source that works"
    )
    action.set_defaults(func=download)
    action.add_argument("name", metavar="NAME", help=f"data set, one of {', '.join(data.NAMES)}")
    add_data_dir(action, default=argparse.SUPPRESS)

    action = actions.add_parser("add", help="check and store an archive that you already have")
    action.set_defaults(func=add)
    action.add_argument(
        "file", type=Path, metavar="FILE", help="archive of CIFAR-10 or CIFAR-100, as published"
    )
    add_data_dir(action, default=argparse.SUPPRESS)


def show(args: argparse.Namespace) -> int:
    for name in data.NAMES:
        found = "built in" if name == "shapes" else data.find(name, args.data_dir)
        print(f"{name:10s} {found or f'not found; tinymixer data download {name}'}")
    return 0


def download(args: argparse.Namespace) -> int:
    dataset = data.load(args.name, args.data_dir, download=True)
    print(
        f"{dataset.name}: {len(dataset.train_images):,} training and "
        f"{len(dataset.test_images):,} test images, all checked"
    )
    return 0


def add(args: argparse.Namespace) -> int:
    print(f"stored in {data.add(args.file, args.data_dir)}")
    return 0
