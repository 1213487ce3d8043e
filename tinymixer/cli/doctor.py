"""tinymixer doctor: what this machine has."""

import argparse
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from threadpoolctl import threadpool_info

import tinymixer
from tinymixer import data
from tinymixer.backend import why_no_gpu
from tinymixer.cli.options import add_data_dir
from tinymixer.errors import counted
from tinymixer.fast.gpu.doctor import gpu_parts
from tinymixer.processors import processors
from tinymixer.train.machine import Machine


def add_options(parser: Any) -> None:
    parser.description = "Show the versions, BLAS, threads, GPU and data sets of this machine."
    parser.set_defaults(func=run)
    add_data_dir(parser)


def run(args: argparse.Namespace) -> int:
    lines = [("tinymixer", tinymixer.__version__), ("Python", platform.python_version())]
    lines += [(name, _version(name)) for name in ("numpy", "matplotlib", "pillow", "tqdm")]
    lines.append(
        (
            "system",
            f"{platform.system()} {platform.machine()}, {counted(processors(), 'processor')}",
        )
    )
    for library in threadpool_info():
        kind = library.get("architecture") or library["user_api"]
        lines.append(
            (
                library["internal_api"],
                f"{library['version']}, {kind}, {counted(library['num_threads'], 'thread')}",
            )
        )
    lines.append(("bits", f"those of {Machine.here()}; with others the last digits may differ"))
    lines.append(("GPU", why_no_gpu() or "ready: use --device gpu"))
    lines += [(f"  {name}", text) for name, text in gpu_parts()]
    for name in data.NAMES:
        found = "built in" if name == "shapes" else data.find(name, args.data_dir) or "not found"
        lines.append((name, str(found)))
    lines.append(("disk", f"{shutil.disk_usage('.').free / 2**30:.1f} GiB free here"))
    for name, text in lines:
        print(f"{name:11s} {text}")
    return 0


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
