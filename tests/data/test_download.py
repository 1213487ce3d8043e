"""Downloads from a server on this machine that behaves badly in one way at a time."""

import hashlib
import http.server
import threading
import time
import warnings

import numpy as np
import pytest

from tinymixer.data.download import Limits, Source, alone_in, fetch
from tinymixer.errors import DataError, Note

CONTENT = np.random.default_rng(0).bytes(300_000)
MD5 = hashlib.md5(CONTENT).hexdigest()
QUICK = Limits(timeout=2.0, slow_after=0.2, slow_speed=1e6)


class Handler(http.server.BaseHTTPRequestHandler):
    """The path says how to misbehave; the server remembers what was asked."""

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Range")))
        getattr(self, self.path.split("/")[1])()

    def reply(self, body, total=None, status=200, etag='"one"', **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if total is None else total))
        if etag:
            self.send_header("ETag", etag)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def good(self, cut=None, etag='"one"'):
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        if self.headers.get("If-Range", etag) != etag:
            start = 0
        body = CONTENT[start:]
        header = {"Content_Range": f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"}
        status, header = (206, header) if start else (200, {})
        self.reply(body[:cut], len(body), status, etag, **header)

    def cut(self):
        """Ends each answer after 100,000 bytes."""
        self.good(cut=100_000)

    def cut_and_changed(self):
        """The file on the server is another one at each request."""
        self.good(cut=100_000 * len(self.server.asked), etag=f'"{len(self.server.asked)}"')

    def cut_without_range(self):
        self.reply(CONTENT[: 100_000 * len(self.server.asked)], len(CONTENT))

    def shrunk(self):
        """Refuses to go on: what is asked for lies beyond the end of the file."""
        if self.headers.get("Range"):
            self.send_error(416)
        else:
            self.good(cut=100_000 if len(self.server.asked) == 1 else None)

    def from_the_start(self):
        """Answers a Range with the whole file, as if that had been asked for."""
        if self.headers.get("Range"):
            header = {"Content_Range": f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}"}
            self.reply(CONTENT, len(CONTENT), 206, **header)
        else:
            self.good(cut=100_000)

    def cut_at_once(self):
        self.reply(b"", len(CONTENT))

    def wrong(self):
        self.reply(CONTENT[:-1] + b"x")

    def page(self):
        self.reply(b"<html>Please log in</html>", Content_Type="text/html; charset=utf-8")

    def huge(self):
        self.reply(b"x", 10**12)

    def endless(self):
        self.send_response(200)
        self.end_headers()
        for _ in range(100):
            self.wfile.write(CONTENT[:100_000])

    def longer(self):
        """Goes on from where it was cut, and sends 50,000 bytes too many."""
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        if not start:
            return self.good(cut=100_000)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()
        return self.wfile.write(CONTENT[start:] + bytes(50_000))

    def missing(self):
        self.send_error(404)

    def elsewhere(self):
        self.send_response(302)
        self.send_header("Location", "http://example.com/file.tar.gz")
        self.end_headers()

    def moved(self):
        self.send_response(302)
        self.send_header("Location", "/good/file.tar.gz")
        self.end_headers()

    def slow(self):
        """300 kB/s, and resumable."""
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        header = {"Content_Range": f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"}
        body = CONTENT[start:]
        self.reply(b"", len(body), 206 if start else 200, **(header if start else {}))
        for i in range(0, len(body), 15_000):
            self.wfile.write(body[i : i + 15_000])
            time.sleep(0.05)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass  # a client that hangs up is what these tests are about


@pytest.fixture
def server():
    with Server(("127.0.0.1", 0), Handler) as server:
        server.asked = []
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def sources(server, *kinds, md5=MD5):
    return tuple(Source(f"{server.url}/{kind}/file.tar.gz", md5) for kind in kinds)


def assert_fetched(path, folder):
    assert path == folder / "file.tar.gz"
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in folder.iterdir()] == ["file.tar.gz"]


@pytest.mark.parametrize("kind", ["good", "moved"])
def test_a_good_source_is_enough(server, tmp_path, kind):
    assert_fetched(
        fetch(sources(server, kind, "missing"), tmp_path / "new", QUICK), tmp_path / "new"
    )
    assert not any(path.startswith("/missing") for path, _ in server.asked)


def test_a_cut_download_goes_on_where_it_was(server, tmp_path):
    assert_fetched(fetch(sources(server, "cut"), tmp_path, QUICK), tmp_path)
    assert [asked for _, asked in server.asked] == [None, "bytes=100000-", "bytes=200000-"]


def test_a_download_goes_on_in_another_process(server, tmp_path):
    with pytest.raises(DataError, match="broke off 1 time, 100,000 bytes"):
        fetch(sources(server, "cut"), tmp_path, Limits(attempts=1))
    assert not (tmp_path / "file.tar.gz").exists()
    assert_fetched(fetch(sources(server, "cut"), tmp_path, QUICK), tmp_path)
    assert server.asked[1][1] == "bytes=100000-"


@pytest.mark.parametrize("kind", ["cut_and_changed", "cut_without_range"])
def test_a_server_that_cannot_resume_is_asked_for_all(server, tmp_path, kind):
    assert_fetched(fetch(sources(server, kind), tmp_path, QUICK), tmp_path)
    assert len(server.asked) == 3


def test_what_the_server_cannot_continue_is_begun_again(server, tmp_path):
    """HTTP 416: the part is longer than the file, so it is not a part of it."""
    assert_fetched(fetch(sources(server, "shrunk"), tmp_path, QUICK), tmp_path)
    assert [asked for _, asked in server.asked] == [None, "bytes=100000-", None]


def test_an_answer_from_another_place_is_not_appended(server, tmp_path):
    assert_fetched(fetch(sources(server, "from_the_start"), tmp_path, QUICK), tmp_path)


def test_a_damaged_part_is_thrown_away_and_the_next_download_begins_anew(server, tmp_path):
    with pytest.raises(DataError, match="broke off 1 time,"):
        fetch(sources(server, "cut"), tmp_path, Limits(attempts=1))
    part = tmp_path / "file.tar.gz.part"
    part.write_bytes(bytes(len(part.read_bytes())))
    with pytest.raises(DataError, match="checksum"):
        fetch(sources(server, "cut"), tmp_path, QUICK)
    assert not part.exists()
    assert_fetched(fetch(sources(server, "cut"), tmp_path, QUICK), tmp_path)
    assert [asked for _, asked in server.asked[-3:]] == [None, "bytes=100000-", "bytes=200000-"]


def test_the_limit_is_of_the_whole_file_not_of_what_follows_a_cut(server, tmp_path):
    limits = Limits(timeout=2.0, size=len(CONTENT))
    with pytest.raises(DataError, match=f"sends more than {len(CONTENT):,} bytes"):
        fetch(sources(server, "longer"), tmp_path, limits)


@pytest.mark.parametrize("kept", ["nothing", "no tag", "the tag of another version"])
def test_a_part_of_which_nothing_is_known_is_begun_again(server, tmp_path, kept):
    part = tmp_path / "file.tar.gz.part"
    part.write_bytes(b"" if kept == "nothing" else bytes(1000))
    tag = '"zero"' if kept == "the tag of another version" else '"one"'
    if kept != "no tag":
        url = f"{server.url}/good/file.tar.gz"
        part.with_name(part.name + ".tag").write_text(f"{url}\n{tag}", encoding="utf-8")
    assert_fetched(fetch(sources(server, "good"), tmp_path, QUICK), tmp_path)
    expected = "bytes=1000-" if kept == "the tag of another version" else None
    assert [asked for _, asked in server.asked] == [expected]


def test_bytes_of_one_source_are_not_continued_from_another(server, tmp_path):
    with pytest.raises(DataError):
        fetch(sources(server, "cut"), tmp_path, Limits(attempts=1))
    assert_fetched(fetch(sources(server, "good"), tmp_path, QUICK), tmp_path)
    assert server.asked[-1][1] is None


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("cut_at_once", "broke off after 0 of 300,000 bytes"),
        ("wrong", f"checksum [0-9a-f]{{32}}, expected {MD5}"),
        ("page", "answers with a web page"),
        ("huge", "offers 1,000,000,000,000 bytes, expected at most 400,000"),
        ("endless", "sends more than 400,000 bytes"),
        ("missing", "HTTP 404"),
        ("elsewhere", "leads to http://example.com/file.tar.gz, but only https is trusted"),
    ],
)
def test_a_bad_source_is_named_and_the_next_one_tried(server, tmp_path, kind, message):
    limits = Limits(timeout=2.0, size=400_000)
    with pytest.raises(DataError, match=message) as failure:
        fetch(sources(server, kind), tmp_path, limits)
    assert f"{server.url}/{kind}/file.tar.gz" in str(failure.value)
    assert "tinymixer data add FILE" in str(failure.value)
    assert "\n" not in str(failure.value)
    assert not (tmp_path / "file.tar.gz").exists()
    assert_fetched(fetch(sources(server, kind, "good"), tmp_path, limits), tmp_path)


def test_a_slow_source_is_left_for_a_better_one(server, tmp_path):
    assert_fetched(fetch(sources(server, "slow", "good"), tmp_path, QUICK), tmp_path)
    assert [path.split("/")[1] for path, _ in server.asked] == ["slow", "good"]


def test_a_slow_source_is_better_than_none(server, tmp_path):
    assert_fetched(fetch(sources(server, "slow", "missing"), tmp_path, QUICK), tmp_path)
    kinds = [path.split("/")[1] for path, _ in server.asked]
    assert kinds == ["slow", "missing", "slow"]
    assert server.asked[2][1] is not None  # it went on where it had been left


def test_without_a_network_all_fail_at_once(tmp_path):
    nobody = tuple(Source(f"https://no-{i}.invalid/file.tar.gz", MD5) for i in range(3))
    closed = (Source("http://127.0.0.1:9/file.tar.gz", MD5),)
    start = time.monotonic()
    with pytest.raises(DataError, match="--dataset shapes") as failure:
        fetch(closed + nobody, tmp_path)
    assert time.monotonic() - start < 15
    assert str(failure.value).count("file.tar.gz: ") == 4


def test_patience_is_for_networks_not_for_sources(server, tmp_path):
    limits = Limits(timeout=2.0, patience=0.0)
    assert_fetched(fetch(sources(server, "missing", "wrong", "good"), tmp_path, limits), tmp_path)


def test_patience_has_an_end(tmp_path):
    pair = (Source("http://127.0.0.1:9/a", MD5), Source("https://b.invalid/b", MD5))
    with pytest.raises(DataError, match="invalid/b: not tried"):
        fetch(pair, tmp_path, Limits(patience=0.0))


@pytest.mark.parametrize(
    "url", ["http://example.com/f", "ftp://example.com/f", "file:///etc/passwd"]
)
def test_only_https_is_asked(tmp_path, url):
    with pytest.raises(DataError, match="only https is trusted"):
        fetch((Source(url, MD5),), tmp_path)


def test_a_folder_that_cannot_be_made_is_named(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"file.* cannot be written"):
        fetch(sources(server, "good"), tmp_path / "file", QUICK)


def test_a_file_that_is_there_whole_is_not_sent_again_and_a_damaged_one_is(server, tmp_path):
    (tmp_path / "file.tar.gz").write_bytes(CONTENT)
    assert_fetched(fetch(sources(server, "good"), tmp_path, QUICK), tmp_path)
    assert server.asked == []
    (tmp_path / "file.tar.gz").write_bytes(CONTENT[:-1])
    assert_fetched(fetch(sources(server, "good"), tmp_path, QUICK), tmp_path)
    assert len(server.asked) == 1


def test_a_download_that_fails_leaves_no_new_folder(server, tmp_path):
    with pytest.raises(DataError, match="HTTP 404"):
        fetch(sources(server, "missing"), tmp_path / "new" / "data", QUICK)
    assert list(tmp_path.iterdir()) == []


def test_one_stores_and_the_others_wait(tmp_path):
    inside = []

    def store(number):
        with alone_in(tmp_path / "new"):
            inside.append(number)
            time.sleep(0.01)
            assert inside.pop() == number
            assert not inside

    threads = [threading.Thread(target=store, args=(number,)) for number in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Note)  # that they wait
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert list(tmp_path.iterdir()) == []


def test_a_data_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    refused = pytest.raises(DataError, match=r"file/data: cannot be written .* with --data-dir")
    with refused, alone_in(tmp_path / "file" / "data"):
        pass
