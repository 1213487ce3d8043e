"""The package computes in a browser's Python what it computes here, and starts no thread there."""

import ast
import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path

import browser
import notebooks
import pytest

from tinymixer import processors
from tinymixer.processors import threads_start
from tinymixer.train.parallel import Workers

TESTS = Path(__file__).parent
SCRIPT = TESTS / "in_a_browser.py"
LESSON = TESTS.parent / "lessons" / "10_optimizers.ipynb"

CELLS = f"""import ast, io, json, re, sys
from contextlib import redirect_stdout

Namespace = dict
{inspect.getsource(notebooks.run)}
lesson = {{"__name__": "__main__"}}
for source in json.load(open("cells.json")):
    run(source, lesson)
print("whole")
"""

in_pyodide = pytest.mark.skipif(browser.why_not() is not None, reason=str(browser.why_not()))


def output(*command):
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def here():
    return output(SCRIPT)


def assert_same(there, here):
    """Integers equal, losses to 1e-5: float32 is summed in another order."""
    assert there["integers"] == here["integers"]
    assert there["checks"] == here["checks"]
    assert there["losses"] == pytest.approx(here["losses"], abs=1e-5)
    assert there["refusals"]["one rank"] == "[0]"
    for name in ("threads", "processes"):
        assert there["refusals"][name].startswith("TinymixerError: ")


def test_all_is_well_here(here):
    passed = {"LayerNorm": "passed", "GELU": "passed", "command": 0}
    assert here["checks"] == {**passed, "operations": 8}
    assert here["refusals"]["threads"] == "[0, 1]"


def test_without_threads_and_with_narrow_integers_it_computes_the_same(here):
    assert_same(output(TESTS / "like_a_browser.py", SCRIPT), here)


def test_there_is_one_worker_where_no_threads_start(monkeypatch):
    assert threads_start()
    monkeypatch.setattr(sys, "platform", "emscripten")
    assert not threads_start()
    assert processors.processors() == 1
    with Workers(4) as workers:
        assert workers.count == 1
        assert workers.map(abs, [-1, 2]) == [1, 2]
    assert Workers.of_this_machine(3).count == 1


def wide(source):
    """Lines where `take` or `bincount` is given integers of any width."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            place = {"take": 1, "bincount": 0}.get(node.func.attr)
            owner = ast.unparse(node.func.value)
            if place is not None and owner.startswith(("np", "xp", "array_module")):
                given = node.args[place]
                if not ast.unparse(given).startswith("as_index("):
                    yield f"line {node.lineno}: {ast.unparse(node)}"


def test_take_and_bincount_get_integers_as_wide_as_an_address():
    sources = (TESTS.parent / "tinymixer").rglob("*.py")
    assert list(wide("xp.take(x, i, axis=0)")) == ["line 1: xp.take(x, i, axis=0)"]
    assert list(wide("n = np.bincount(as_index(i))")) == []
    found = [line for path in sources for line in wide(path.read_text("utf-8"))]
    assert found == []


def test_a_folder_without_pyodide_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(browser.shutil, "which", lambda name: name)
    monkeypatch.setenv("TINYMIXER_PYODIDE", str(tmp_path))
    assert "pyodide-lock.json is missing" in browser.why_not()
    monkeypatch.delenv("TINYMIXER_PYODIDE")
    assert "names no folder" in browser.why_not()


@in_pyodide
@pytest.mark.slow
def test_a_browser_computes_the_same(here, tmp_path):
    shutil.copy(SCRIPT, tmp_path)
    python = "import json, in_a_browser\nprint(json.dumps(in_a_browser.results()))"
    done = browser.run(python, tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    assert_same(json.loads(done.stdout.splitlines()[-1]), here)


@in_pyodide
@pytest.mark.slow
def test_a_lesson_runs_whole_in_a_browser(tmp_path):
    cells = [cell.source for cell in notebooks.read(LESSON).cells if cell.cell_type == "code"]
    (tmp_path / "cells.json").write_text(json.dumps(cells))
    done = browser.run(CELLS, tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "whole"
