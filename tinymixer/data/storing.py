"""Floor 1. Storing a data set: all of its files, or none."""

import os
import shutil
from pathlib import Path

from tinymixer.errors import DataError
from tinymixer.files import replace, write_atomically


def write_folder(folder: Path, contents: dict[str, bytes], title: str) -> Path:
    """Write files by their names. None in `folder` is replaced before all are on disk.

    Raises DataError if the folder cannot be written to; then existing files are unchanged. What a
    crash leaves is in a folder of another name, which the next call uses again.
    """
    part = folder.with_name(f".{folder.name}.part")
    try:
        for name, content in contents.items():
            write_atomically(part / name, content)
        if not folder.exists():
            os.rename(part, folder)  # so that it is never seen with only some of its files
        else:
            for name in contents:
                replace(part / name, folder / name)
    except OSError as error:
        size = sum(map(len, contents.values())) / 1e6
        raise DataError(
            f"{folder}: cannot be written ({error.strerror or error}). {title} needs {size:.0f} MB "
            "in a folder that you can write to; choose another one with --data-dir"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder
