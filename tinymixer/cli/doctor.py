"""tinymixer doctor: what this machine has, in plain words."""

import argparse
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from threadpoolctl import threadpool_info

import tinymixer
from tinymixer import data
from tinymixer.backend import why_no_gpu
from tinymixer.fast.gpu.doctor import gpu_parts


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("doctor", help="versions, BLAS, threads, GPU, data: what is here")
    parser.set_defaults(func=run)
    parser.add_argument("--data-dir", metavar="DIR", help="where data sets are")


def run(args: argparse.Namespace) -> int:
    lines = [("tinymixer", tinymixer.__version__), ("Python", platform.python_version())]
    lines += [(name, _version(name)) for name in ("numpy", "matplotlib", "pillow", "tqdm")]
    lines.append(
        ("system", f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors")
    )
    for library in threadpool_info():
        kind = library.get("architecture") or library["user_api"]
        lines.append(
            (
                library["internal_api"],
                f"{library['version']}, {kind}, {library['num_threads']} threads",
            )
        )
    lines.append(("GPU", why_no_gpu() or "ready: use --device gpu"))
    lines += [(f"  {name}", text) for name, text in gpu_parts()]
    for name in data.NAMES:
        place = "built in" if name == "shapes" else data.find(name, args.data_dir) or "not found"
        lines.append((name, str(place)))
    lines.append(("disk", f"{shutil.disk_usage('.').free / 2**30:.1f} GiB free here"))
    for name, text in lines:
        print(f"{name:11s} {text}")
    return 0


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
