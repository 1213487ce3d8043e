"""Two trainings and three downloads start at once in one folder, again and again.

    python tests/concurrent_starts.py 20

Of each round: the archive is sent once, and all three downloads end well. One training goes on, to
the weights of a training that is alone, bit for bit; the other says why not, in one line. Nothing
is left but the data set and the run.
"""

import hashlib
import http.server
import os
import sys
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path

from fake_cifar import SMALL, fake_files, members_of, tar_gz

from tinymixer import cli, data
from tinymixer.data import cifar
from tinymixer.data.download import Source
from tinymixer.train import checkpoint

LAYOUT = SMALL["cifar10"]
TRAIN = [
    *("train", "--dataset", "cifar10", "--data-dir", "data", "--out", "run", "--epochs", "2"),
    *("--set", "hidden_dim=8", "--set", "num_blocks=1", "--set", "tokens_mlp_dim=4"),
    *("--set", "channels_mlp_dim=8", "--batch-size", "10", "--workers", "1"),
]
DOWNLOAD = ["data", "download", "cifar10", "--data-dir", "data"]
RUN = ["best.npz", "config.json", "curves.png", "last.npz", "metrics.jsonl"]
CHUNKS = 10  # in which the archive is sent, so that a download takes a while


def serve(archive: Path, log: Path, port: int) -> None:
    """Send the archive, slowly, and note each request."""
    content = archive.read_bytes()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            with log.open("a") as file:
                file.write(self.path + "\n")
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            step = -(-len(content) // CHUNKS)
            for i in range(0, len(content), step):
                self.wfile.write(content[i : i + step])
                time.sleep(0.02)

        def log_message(self, *_):
            pass

    os.write(
        port,
        str(
            (server := http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)).server_port
        ).encode(),
    )
    server.serve_forever()


def started(f, *arguments) -> int:
    """A child process that calls f."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads of BLAS, which a child does not have
        child = os.fork()
    if child:
        return child
    code = 1
    try:
        code = f(*arguments) or 0
    finally:
        os._exit(code)


def command(argv: list[str], number: int, gate: int) -> int:
    """`tinymixer argv` as soon as the gate opens; what it says goes to files."""
    os.read(gate, 1)
    with Path(f"out-{number}").open("w") as out, Path(f"err-{number}").open("w") as err:
        sys.stdout, sys.stderr = out, err
        return cli.main(argv)


def together(commands: list[list[str]]) -> list[int]:
    """Their exit codes, if all start at one moment."""
    gate, opener = os.pipe()
    children = [started(command, argv, i, gate) for i, argv in enumerate(commands)]
    os.write(opener, bytes(len(commands)))
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    os.close(gate)
    os.close(opener)
    return codes


def weights(path: Path) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(checkpoint.load(path).weights.items()):
        digest.update(name.encode() + array.tobytes())
    return digest.hexdigest()


def check(ok: bool, what: str) -> None:
    if not ok:
        said = "".join(f"\n{path}: {path.read_text()}" for path in sorted(Path().glob("*-?")))
        raise SystemExit(f"{what}{said}")


def one_round(alone: str, log: Path) -> str:
    """Raises SystemExit if anything is wrong.  ->  what the refused training said"""
    log.write_text("")
    codes = together([TRAIN, DOWNLOAD, TRAIN, DOWNLOAD, DOWNLOAD])
    check(codes[1::2] + codes[4:] == [0, 0, 0], f"downloads ended with {codes}")
    check(sorted(codes[0:3:2]) == [0, 2], f"trainings ended with {codes}")
    lines = Path(f"err-{0 if codes[0] else 2}").read_text().splitlines()
    said = [line for line in lines if "note: waiting for" not in line]
    check(len(said) == 1 and ("in use by" in said[0] or "holds a run" in said[0]), f"{said}")
    check(log.read_text().count("\n") == 1, f"the archive was sent {log.read_text()!r}")
    check(os.listdir("data") == [LAYOUT.folder], f"data/ holds {os.listdir('data')}")
    for name, records in fake_files(LAYOUT).items():
        check((Path("data") / LAYOUT.folder / name).read_bytes() == records.tobytes(), name)
    check(sorted(os.listdir("run")) == RUN, f"run/ holds {sorted(os.listdir('run'))}")
    check(weights(Path("run/last.npz")) == alone, "the weights are not those of one that is alone")
    return said[0]


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as home:
        archive = tar_gz(
            Path(home) / LAYOUT.archives[0], members_of(LAYOUT, fake_files(LAYOUT), "binary")
        )
        port, told = os.pipe()
        log = Path(home) / "log"
        server = started(serve, archive, log, told)
        try:
            url = f"http://127.0.0.1:{os.read(port, 9).decode()}/{archive.name}"
            md5 = hashlib.md5(archive.read_bytes()).hexdigest()
            layout = replace(LAYOUT, sources=(Source(url, md5),))
            data.PUBLISHED["cifar10"] = data.Published(layout, cifar)
            folder = Path(home) / "alone"
            folder.mkdir()
            os.chdir(folder)
            check(together([TRAIN]) == [0], "a training that is alone fails")
            alone = weights(Path("run/last.npz"))
            for i in range(rounds):
                folder = Path(home) / str(i)
                folder.mkdir()
                os.chdir(folder)
                print(f"round {i + 1}: {one_round(alone, log)}", flush=True)
        finally:
            os.chdir("/")
            os.kill(server, 9)
            os.waitpid(server, 0)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
