"""tinymixer data: see what is here, download, add an archive."""

import argparse
from pathlib import Path
from typing import Any

from tinymixer import data


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("data", help="data sets: which are here, download, add an archive")
    parser.set_defaults(func=show)
    parser.add_argument("--data-dir", metavar="DIR", help="where data sets are")
    actions = parser.add_subparsers(metavar="ACTION")

    action = actions.add_parser(
        "download", help="fetch a data set from the first source that works"
    )
    action.set_defaults(func=download)
    action.add_argument("name", metavar="NAME", help=", ".join(data.NAMES))
    action.add_argument("--data-dir", metavar="DIR", default=argparse.SUPPRESS)

    action = actions.add_parser("add", help="take an archive that you already have")
    action.set_defaults(func=add)
    action.add_argument("file", type=Path, metavar="FILE")
    action.add_argument("--data-dir", metavar="DIR", default=argparse.SUPPRESS)


def show(args: argparse.Namespace) -> int:
    for name in data.NAMES:
        place = "built in" if name == "shapes" else data.find(name, args.data_dir)
        print(f"{name:10s} {place or f'not found; tinymixer data download {name}'}")
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
