"""Floor 1. What a user has, a folder, an archive or a single file, as named contents.

    for member in members(path):
        member.name, member.size        # "cifar-10-batches-bin/data_batch_1.bin", 30730000
        member.read()                   # its bytes; to be called before the next member is taken

Whether a file is a .tar, a .tar.gz, a .zip or none of these is decided by its first bytes. Nothing
is unpacked to disk and no name from an archive is used as a path, so none can lead elsewhere. All
that is read counts towards a limit; the sizes that an archive states are only upper bounds.
"""

import gzip
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tinymixer.arrays import open_regular, with_small_directory
from tinymixer.errors import brief

MOST_BYTES = 2**28  # unpacked from one archive; the largest that we know has 186 MB
MOST_FILES = 400_000  # in an archive or a folder
MOST_DEPTH = 5  # folders within folders
BLOCK = 512  # bytes of a tar header, and what contents are padded to


class Unreadable(ValueError):
    """This is not an archive that can be read, or not the whole of it; the message says why."""


@dataclass(frozen=True)
class Member:
    """A file in a folder or an archive. whole: it is a regular file, no link, pipe or device."""

    name: str  # with the folders within the archive, divided by /
    size: int  # bytes
    read: Callable[[], bytes]
    whole: bool = True

    @property
    def base(self) -> str:
        return self.name.rpartition("/")[2]

    @property
    def folders(self) -> list[str]:
        return self.name.split("/")[:-1]


def members(path: Path) -> Iterator[Member]:
    """Every file in a folder or an archive, hidden ones left out; of another file, itself.

    Raises Unreadable for what is damaged, encrypted or too large, and OSError.
    """
    if path.is_dir():
        yield from _of_folder(path)
        return
    with open_regular(path) as file:
        start = file.read(BLOCK)
        file.seek(0)
        if reason := foreign(start):
            raise Unreadable(reason)
        if start.startswith(b"PK"):
            with _whole(".zip"):
                yield from _of_zip(file)
        elif start.startswith(b"\x1f\x8b"):
            with _whole(".tar.gz"), gzip.open(file) as unpacked:
                yield from _of_tar(_Limited(unpacked))  # type: ignore[arg-type]
        elif _is_tar(start):
            with _whole(".tar"):
                yield from _of_tar(_Limited(file))
        else:
            size = os.fstat(file.fileno()).st_size
            suffix = ".parquet" if start[:4] == b"PAR1" and path.suffix != ".parquet" else ""
            name = f"{path.name}{suffix}"
            yield Member(name, size, file.read)


@contextmanager
def _whole(kind: str) -> Iterator[None]:
    """What the readers of archives raise for a damaged one becomes Unreadable."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, tarfile.TarError, zlib.error, zipfile.BadZipFile) as error:
        raise Unreadable(f"not a complete {kind} archive ({brief(error)})") from error
    except NotImplementedError as error:  # a .zip of a version to come
        raise Unreadable(f"a {kind} archive that cannot be read ({brief(error)})") from error


def foreign(start: bytes) -> str | None:
    """What a file is that begins with these bytes, if it is known and no archive that we read."""
    if not start:
        return "it is empty"
    if re.match(rb"\s*<(!doctype|html|\?xml)", start, re.IGNORECASE):
        return "it is a web page, not the file that the page offers"
    for first, what in _FOREIGN.items():
        if start.startswith(first):
            return what
    return None


_FOREIGN = {
    b"7z\xbc\xaf\x27\x1c": "it is a 7z archive; unpack it and give the folder",
    b"Rar!": "it is a RAR archive; unpack it and give the folder",
    b"\xfd7zXZ": "it is compressed by xz; unpack it and give the folder",
    b"BZh": "it is compressed by bzip2; unpack it and give the folder",
    b"\x28\xb5\x2f\xfd": "it is compressed by zstd; unpack it and give the folder",
    b"version https://git-lfs": "it is a pointer of Git LFS; fetch the file with `git lfs pull`",
    b"\x89HDF": "it is an HDF5 file",
}


def _of_folder(folder: Path) -> Iterator[Member]:
    """Files in order of their names. Links to folders are followed, but into none twice."""
    count, seen = 0, set()
    waiting = [("", folder)]
    while waiting:
        prefix, place = waiting.pop()
        status = place.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        folders = []
        for entry in entries(place):
            count += 1
            if count > MOST_FILES:
                raise Unreadable(f"it holds more than {MOST_FILES:,} files")
            if entry.is_dir():
                if prefix.count("/") < MOST_DEPTH:
                    folders.append((f"{prefix}{entry.name}/", entry))
                continue
            size, whole = _regular(entry)
            yield Member(f"{prefix}{entry.name}", size, entry.read_bytes, whole)
        waiting += reversed(folders)


def entries(folder: Path) -> list[Path]:
    """What is in a folder, in order of names, without what operating systems add."""
    names = sorted(os.listdir(folder))
    return [folder / name for name in names if not hidden(name)]


def hidden(name: str) -> bool:
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def _regular(path: Path) -> tuple[int, bool]:
    """Size, and whether it is a regular file; a link that leads nowhere is not."""
    try:
        status = path.stat()
    except OSError:
        return 0, False
    return status.st_size, stat.S_ISREG(status.st_mode)


class _Limited:
    """A stream that raises an error after more bytes than any archive of ours holds."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.left = stream, MOST_BYTES

    def read(self, size: int) -> bytes:
        data = self.stream.read(min(size, self.left + 1))
        self.take(len(data))
        return data

    def take(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise Unreadable(f"unpacks to more than {MOST_BYTES >> 20} MiB")


def _is_tar(start: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE)
_WITHOUT_CONTENT = (
    *(tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE),
    *(tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE),
)
_ABOUT_THE_NEXT = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, b"L", b"K")


def _of_tar(stream: _Limited) -> Iterator[Member]:
    """The members one after the other, to the end, because gzip's checksum is there.

    Only plain headers are read: what extended ones say of the next member, a long name or a size in
    decimal, no file that we look for needs.
    """
    count = 0
    while any(head := stream.read(BLOCK)):
        count += 1
        if count > MOST_FILES:
            raise Unreadable(f"it holds more than {MOST_FILES:,} files")
        info = tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
        if info.size < 0:
            raise tarfile.ReadError("a member of negative size")
        left = 0 if info.type in _WITHOUT_CONTENT else info.size

        def read(size: int = left) -> bytes:
            nonlocal left
            with _whole(".tar.gz"):
                content = stream.read(size)
                left -= len(content)
                if len(content) < size:
                    raise EOFError("a member ends too early")
            return content

        name = info.name.removeprefix("./")
        skip = info.isdir() or info.type in _ABOUT_THE_NEXT
        if not skip and not any(map(hidden, name.split("/"))):
            yield Member(name, info.size, read, info.type in _FILES)
        left += -info.size % BLOCK if info.type not in _WITHOUT_CONTENT else 0
        while left > 0:
            skipped = len(stream.read(min(left, 2**20)))
            if not skipped:
                raise EOFError("a member ends too early")
            left -= skipped
    while stream.read(2**20):
        pass


def _of_zip(file: IO[bytes]) -> Iterator[Member]:
    try:
        archive = zipfile.ZipFile(with_small_directory(file, MOST_FILES))
    except ValueError as error:
        raise zipfile.BadZipFile(str(error)) from error
    limit = _Limited(file)
    with archive:
        for info in archive.infolist():
            if info.is_dir() or any(map(hidden, info.filename.split("/"))):
                continue
            if info.flag_bits & 1:
                raise Unreadable("it is an encrypted .zip archive; unpack it and give the folder")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise Unreadable(
                    "it is a .zip archive with another compression than deflate; unpack it and "
                    "give the folder"
                )

            def read(info: zipfile.ZipInfo = info) -> bytes:
                limit.take(info.file_size)
                with _whole(".zip"), archive.open(info) as content:
                    return content.read(info.file_size)

            kind = info.external_attr >> 16  # of Unix; 0 where the archive was made elsewhere
            whole = stat.S_IFMT(kind) in (0, stat.S_IFREG)
            yield Member(info.filename.removeprefix("./"), info.file_size, read, whole)
