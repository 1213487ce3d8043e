"""Python in a browser, run in Node: Pyodide, from a folder that holds a copy of its release.

TINYMIXER_PYODIDE names the folder: the files of the npm package `pyodide`, beside them the wheels
of `run_here.PACKAGES` and of what they depend on, under the names that its pyodide-lock.json has. A
wheel from anywhere will do: each has to have the SHA-256 that the lock has.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "lessons" / "site"))

import run_here  # noqa: E402

SCRIPT = """
const [pyodide, place, python, ...packages] = process.argv.slice(1);
(async () => {
    const { loadPyodide } = await import(pyodide + "/pyodide.mjs");
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
    try:
        run_here.release(Path(named))
    except ValueError as error:
        return f"TINYMIXER_PYODIDE: {error}"
    return None


def run(python: str, place: Path, timeout: float) -> subprocess.CompletedProcess:
    """Run Python code in Pyodide in Node, in the folder `place`, whose modules it can import."""
    run_here.pack(place / "package.zip")
    pyodide = str(Path(os.environ["TINYMIXER_PYODIDE"]).resolve())
    command = ["node", "-e", SCRIPT, pyodide, str(place), python, *run_here.PACKAGES]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)
