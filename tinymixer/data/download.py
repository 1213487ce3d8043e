"""Floor 1. Downloads: several sources in turn, resumed, limited in size, checked.

A file gets its name only after its checksum was verified. What was received before the connection
broke is beside it as `.part`, with a tag that tells whether the server still has the same file.
"""

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from tinymixer.errors import DataMissing, counted
from tinymixer.files import folder_for_now, lock, replace


@dataclass(frozen=True)
class Source:
    """Where to download a file, and the MD5 sum (hexadecimal) that it must have."""

    url: str
    md5: str

    @property
    def file(self) -> str:
        return urlsplit(self.url).path.rpartition("/")[2]


@dataclass(frozen=True)
class Limits:
    """When a download is given up."""

    timeout: float = 4.0  # seconds to connect, and between two packets
    patience: float = 6.0  # seconds without any answer, after which the network counts as down
    slow_speed: float = 200e3  # bytes/s: a source that is slower than this ...
    slow_after: float = 10.0  # ... after these seconds is left, as long as others are untried
    attempts: int = 5  # at one source, each resuming where the last one broke off
    size: int = 300_000_000  # bytes at most


class _Failed(Exception):
    """This source cannot be used; the message says why."""


class _Unreachable(_Failed):
    """No connection: there may be no network."""


class _Slow(_Failed):
    """This source is slow: it is used only if the others fail."""


@contextmanager
def alone_in(home: Path) -> Iterator[None]:
    """In its `with` block, only this process stores data sets in the folder `home`; others wait.

    So look again, within it, whether there is still something to do. Raises DataMissing if nothing
    can be written there. No folder is left if nothing was stored.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(lock(home / ".download.lock", f"the data in {home}", wait=True))
        except OSError as error:
            raise _not_writable(home, error) from error
        yield


def _not_writable(folder: Path, error: OSError) -> DataMissing:
    return DataMissing(
        f"{folder}: cannot be written ({error.strerror or error}); choose another folder with "
        "--data-dir"
    )


def fetch(sources: tuple[Source, ...], folder: Path, limits: Limits | None = None) -> Path:
    """The file of the first source that serves it well, downloaded into `folder`.

    Slow sources are tried again at the end. Raises DataMissing that names what was tried; then
    no new folder is left, unless a part is in it with which the next download goes on.
    """
    limits = limits or Limits()
    with ExitStack() as stack:
        try:
            stack.enter_context(folder_for_now(folder))
        except OSError as error:
            raise _not_writable(folder, error) from error
        return _first_good(sources, folder, limits)


def _first_good(sources: tuple[Source, ...], folder: Path, limits: Limits) -> Path:
    tried: dict[str, str] = {}
    slow: list[Source] = []
    start, answered = time.monotonic(), False
    for source in sources:
        if tried and not answered and time.monotonic() - start > limits.patience:
            tried[source.url] = "not tried, because the network does not answer"
            continue
        try:
            return _fetch_from(source, folder, limits, patient=source is sources[-1])
        except _Failed as reason:
            tried[source.url] = str(reason)
            answered |= not isinstance(reason, _Unreachable)
            if isinstance(reason, _Slow):
                slow.append(source)
    for source in slow:
        try:
            return _fetch_from(source, folder, limits, patient=True)
        except _Failed as reason:
            tried[source.url] = str(reason)
    reasons = "; ".join(f"{url}: {reason}" for url, reason in tried.items())
    files = " or ".join(dict.fromkeys(source.file for source in sources))
    raise DataMissing(
        f"{files} could not be downloaded; tried {reasons}. Get it in another way and run "
        "`tinymixer data add FILE`, or train on the built-in images with `--dataset shapes`"
    )


def _fetch_from(source: Source, folder: Path, limits: Limits, patient: bool) -> Path:
    """Receive, and resume after a break as long as there is progress; check; rename."""
    target = folder / source.file
    part = folder / f"{source.file}.part"
    if target.is_file() and _md5(target) == source.md5:
        return target  # of a download that ended before its file was used
    for _ in range(limits.attempts):
        had = _size(part)
        try:
            _receive(source, part, limits, patient)
            break
        except urllib.error.HTTPError as error:
            if error.code != 416 or not had:
                raise _Failed(f"HTTP {error.code} {error.reason}") from error
            part.unlink()  # 416: the file there ends before what we have of it, so it is another
        except urllib.error.URLError as error:
            raise _Unreachable(str(error.reason)) from error
        except (OSError, http.client.HTTPException) as error:
            if _size(part) <= had:
                raise _Failed(str(error)) from error
    else:
        raise _Failed(
            f"broke off {counted(limits.attempts, 'time')}, {counted(_size(part), 'byte')} received"
        )
    md5 = _md5(part)
    if md5 != source.md5:
        part.unlink()
        raise _Failed(f"checksum {md5}, expected {source.md5}")
    replace(part, target)
    _tag(part).unlink(missing_ok=True)
    return target


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _receive(source: Source, part: Path, limits: Limits, patient: bool) -> None:
    """Append to `part` what it lacks of the file; start again if the server has another file."""
    from tqdm import tqdm  # here, because most programs that read data download none

    request = urllib.request.Request(_allowed(source.url))
    request.add_header("User-Agent", "tinymixer")
    offset, validator = _resumable(part, source.url)
    if offset:
        request.add_header("Range", f"bytes={offset}-")
        request.add_header("If-Range", validator)
    with _OPENER.open(request, timeout=limits.timeout) as response:
        resumed = response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
        if response.status != 206 or not resumed:
            offset = 0
        if response.headers.get_content_type() == "text/html":
            raise _Failed("answers with a web page instead of the file")
        length = response.headers.get("Content-Length", "")
        total = offset + int(length) if length.isdecimal() else None
        if (total or 0) > limits.size:
            raise _Failed(f"offers {counted(total or 0, 'byte')}, expected at most {limits.size:,}")
        _remember(part, source.url, response.headers)
        with (
            part.open("ab" if offset else "wb") as out,
            tqdm(
                desc=f"{source.file} from {urlsplit(source.url).hostname}",
                total=total,
                initial=offset,
                unit="B",
                unit_scale=True,
                disable=None,
            ) as bar,
        ):
            received = _copy(response, out, bar, limits, patient, limits.size - offset)
            out.flush()
            os.fsync(out.fileno())
    if total is not None and offset + received < total:
        raise ConnectionError(f"broke off after {offset + received:,} of {counted(total, 'byte')}")


def _copy(
    response: http.client.HTTPResponse,
    out: BinaryIO,
    bar: Any,
    limits: Limits,
    patient: bool,
    room: int,
) -> int:
    """Copy what arrives and measure its speed.  ->  bytes received"""
    received, start = 0, time.monotonic()
    while chunk := response.read1(2**16):
        received += len(chunk)
        if received > room:
            raise _Failed(f"sends more than {counted(limits.size, 'byte')}")
        out.write(chunk)
        bar.update(len(chunk))
        seconds = time.monotonic() - start
        if not patient and seconds > limits.slow_after and received / seconds < limits.slow_speed:
            raise _Slow(f"slow, {received / seconds / 1e3:.0f} kB/s")
    return received


# --- Which addresses are allowed, and what is remembered of a file --------------------------------


def _allowed(url: str) -> str:
    """`url` itself, if it is https or on this machine. Raises _Failed if not."""
    parts = urlsplit(url)
    local = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
    if parts.scheme != "https" and not local:
        raise _Failed(f"leads to {url}, but only https is trusted")
    return url


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):  # its parameters are urllib's
        return super().redirect_request(req, fp, code, msg, headers, _allowed(newurl))


_OPENER = urllib.request.build_opener(_Redirects)


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _tag(part: Path) -> Path:
    return part.with_name(f"{part.name}.tag")


def _remember(part: Path, url: str, headers: Message) -> None:
    """Keep the server's name for this version of the file: a strong ETag, or its date."""
    etag = headers.get("ETag", "W/")
    validator = headers.get("Last-Modified", "") if etag.startswith("W/") else etag
    _tag(part).write_text(f"{url}\n{validator}", encoding="utf-8")


def _resumable(part: Path, url: str) -> tuple[int, str]:
    """The bytes of `url` in `part`, and their version; 0 if that is not known."""
    if not _size(part) or not _tag(part).exists():
        return 0, ""
    tagged, _, validator = _tag(part).read_text(encoding="utf-8").partition("\n")
    return (_size(part), validator) if tagged == url and validator else (0, "")
