"""Python in a browser, run in Node: Pyodide, from a folder that holds a copy of its release.

TINYMIXER_PYODIDE names the folder: the files of the npm package `pyodide` 0.27.7, beside them the
wheels of `PACKAGES` and of what they depend on, under the names that its pyodide-lock.json has. A
wheel from anywhere will do: each has to have the SHA-256 that the lock has, and the lock the one
below.
"""

import hashlib
import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import tqdm

ROOT = Path(__file__).parents[1]
LOCK = "9c45b916001a750f4102fc287494f3eab215909c7535c626a20db80fd6333e2c"
CORE = ("pyodide.js", "pyodide.asm.js", "pyodide.asm.wasm", "python_stdlib.zip")
PACKAGES = ("numpy", "matplotlib", "pillow", "threadpoolctl")

SCRIPT = """
const [pyodide, place, python, ...packages] = process.argv.slice(1);
const { loadPyodide } = require(pyodide + "/pyodide.js");
(async () => {
    const env = { HOME: "/home/pyodide", MPLBACKEND: "Agg" };
    const py = await loadPyodide({ indexURL: pyodide, env });
    await py.loadPackage(packages, { messageCallback() {} });
    py.FS.mkdir("/here");
    py.FS.mount(py.FS.filesystems.NODEFS, { root: place }, "/here");
    py.unpackArchive(py.FS.readFile("/here/package.zip"), "zip", { extractDir: "/package" });
    py.runPython("import os, sys; os.chdir('/here'); sys.path[:0] = ['/here', '/package']");
    py.runPython(python);
})().catch((error) => { console.error(error.message); process.exit(1); });
"""


def why_not() -> str | None:
    """What keeps this from running here, in one line; None if nothing does."""
    if not shutil.which("node"):
        return "node is not installed"
    named = os.environ.get("TINYMIXER_PYODIDE")
    if not named:
        return "TINYMIXER_PYODIDE names no folder with Pyodide, see tests/browser.py"
    folder = Path(named)
    needed = [*CORE, "pyodide-lock.json"]
    if missing := [name for name in needed if not (folder / name).is_file()]:
        return f"TINYMIXER_PYODIDE={folder}: {missing[0]} is missing"
    if _digest(folder / "pyodide-lock.json") != LOCK:
        return f"TINYMIXER_PYODIDE={folder}: not the pyodide-lock.json of Pyodide 0.27.7"
    for entry in _entries(folder):
        wheel = folder / entry["file_name"]
        if not wheel.is_file():
            return f"TINYMIXER_PYODIDE={folder}: {wheel.name} is missing"
        if _digest(wheel) != entry["sha256"]:
            return f"TINYMIXER_PYODIDE={folder}: {wheel.name} has another SHA-256 than in the lock"
    return None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _entries(folder: Path) -> list[dict]:
    """Of the packages and all that they depend on, in the lock."""
    known = json.loads((folder / "pyodide-lock.json").read_text())["packages"]
    found, asked = {}, list(PACKAGES)
    while asked:
        name = asked.pop()
        if name not in found:
            found[name] = known[name]
            asked += known[name]["depends"]
    return list(found.values())


def pack(archive: Path) -> None:
    """The package as it is here, and tqdm, of Python alone, as this environment has it."""
    with zipfile.ZipFile(archive, "w") as packed:
        for top in (ROOT / "tinymixer", Path(tqdm.__file__).parent):
            for path in sorted(top.rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts:
                    packed.write(path, path.relative_to(top.parent))


def run(python: str, place: Path, timeout: float) -> subprocess.CompletedProcess:
    """Run Python code in Pyodide in Node, in the folder `place`, whose modules it can import."""
    pack(place / "package.zip")
    pyodide = str(Path(os.environ["TINYMIXER_PYODIDE"]).resolve())
    command = ["node", "-e", SCRIPT, pyodide, str(place), python, *PACKAGES]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)
