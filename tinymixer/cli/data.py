"""tinymixer data: list the data sets, download one, add one that you already have."""

import argparse
from pathlib import Path
from typing import Any

from tinymixer import data
from tinymixer.cli import Parser
from tinymixer.cli.options import add_data_dir
from tinymixer.errors import counted


def add_options(parser: Any) -> None:
    parser.description = (
        "List the data sets and where they are, download one, or add one that you already have. "
        "Pictures of your own need not be added: train on them with --dataset folder:PATH, with a "
        "folder for each class, or on arrays with --dataset npz:FILE."
    )
    parser.set_defaults(func=show)
    add_data_dir(parser)
    actions = parser.add_subparsers(metavar="ACTION", parser_class=Parser)

    action = actions.add_parser(
        "download", help="download a data set from the first source that works"
    )
    action.set_defaults(func=download)
    action.add_argument("name", metavar="NAME", help=f"data set, one of {', '.join(data.NAMES)}")
    add_data_dir(action, default=argparse.SUPPRESS)

    action = actions.add_parser("add", help="check and store what you already have")
    action.set_defaults(func=add)
    action.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="archive or folder of CIFAR-10 or CIFAR-100, in any form and under any name, or with "
        "the IDX files of MNIST, Fashion-MNIST or KMNIST",
    )
    add_data_dir(action, default=argparse.SUPPRESS)


def show(args: argparse.Namespace) -> int:
    for name in data.NAMES:
        found = "built in" if name == "shapes" else data.find(name, args.data_dir)
        print(f"{name:13s} {found or f'not found; tinymixer data download {name}'}")
    print("folder:PATH   your own pictures, a folder for each class")
    print("npz:FILE      your own arrays: images, labels, names of classes")
    return 0


def download(args: argparse.Namespace) -> int:
    dataset = data.download(args.name, args.data_dir)
    print(
        f"{dataset.name}: {len(dataset.train_images):,} training and "
        f"{counted(len(dataset.test_images), 'test image')}, all checked"
    )
    return 0


def add(args: argparse.Namespace) -> int:
    print(f"stored in {data.add(args.file, args.data_dir)}")
    return 0
