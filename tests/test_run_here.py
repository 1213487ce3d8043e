"""Run this lesson here: the lessons of the book run in a reader's browser."""

import base64
import functools
import http.server
import importlib.util
import io
import json
import runpy
import shutil
import sys
import threading
import zipfile
from hashlib import sha256

import browser
import pytest
from browser import run_here
from notebooks import LESSONS, ROOT
from PIL import Image

SITE = ROOT / "lessons" / "site"
RUN = runpy.run_path(str(SITE / "_static" / "cells.py"))["run"]
BY_NAME = {path.stem: json.loads(path.read_text("utf-8")) for path in LESSONS}
NAME = "02_the_tape"


def why_no_page():
    if found := browser.why_not():
        return found
    if not importlib.util.find_spec("playwright"):
        return "playwright is not installed"
    return None if shutil.which("chromium") else "chromium is not installed"


# --- What the book is built with -----------------------------------------------------------------


def test_the_lessons_that_run_are_lessons_and_what_is_shorter_stands_in_them_once():
    assert set(run_here.LESSONS) <= set(BY_NAME)
    assert len(run_here.LESSONS) >= 12
    for name, shorter in run_here.LESSONS.items():
        code = "\n".join(x["source"] for x in run_here.cells(BY_NAME[name], {}))
        for long, short in shorter.items():
            assert code.count(long) == 1, (name, long)
            assert long != short


def test_cells_are_the_code_of_a_lesson_without_its_outputs():
    code = [x for x in BY_NAME[NAME]["cells"] if x["cell_type"] == "code"]
    found = run_here.cells(BY_NAME[NAME], {})
    assert [x["source"] for x in found] == ["".join(x["source"]) for x in code]
    assert [x["alt"] for x in found] == [x["metadata"].get("alt", "") for x in code]
    assert all(set(x) == {"source", "alt"} for x in found)
    shorter = run_here.cells(BY_NAME[NAME], {"w, x = 2.0, 3.0": "w, x = 4.0, 5.0"})
    assert sum(a != b for a, b in zip(found, shorter, strict=True)) == 1


def test_there_is_no_button_unless_the_book_is_built_with_pyodide():
    assert run_here.button(NAME, None) == ""
    assert run_here.button("20_many_machines", []) == ""
    own, other = (run_here.button(NAME, x) for x in ([], run_here.EXAMPLE))
    assert "27 MB in all, from this site" in own
    assert "from cdn.jsdelivr.net" in other
    assert "://" not in own + other  # a page loads nothing before the button is pressed
    lesson = runpy.run_path(str(SITE / "build.py"))["for_the_book"](BY_NAME[NAME], NAME, None, own)
    assert (
        '<div id="run-here" data-lesson="run/02_the_tape.json">' in lesson["cells"][0]["source"][1]
    )


def test_the_page_says_what_is_shorter(monkeypatch):
    monkeypatch.setitem(run_here.LESSONS, NAME, {"steps < 300": "steps < 30"})
    words = "<code>steps &lt; 30</code> in place of <code>steps &lt; 300</code>"
    assert words in run_here.button(NAME, [])


@pytest.mark.parametrize(
    "address", ["http://a.org/v0.27.7/", "https://a.org/v0.27.7/full", "https://a.org/"]
)
def test_an_address_is_pinned(address):
    assert run_here.checked(run_here.EXAMPLE) == run_here.EXAMPLE
    with pytest.raises(ValueError, match=r"expected a folder, or the https address .* 0\.27\.7"):
        run_here.checked(address)


def test_every_file_of_pyodide_has_to_be_the_right_one(monkeypatch, tmp_path):
    names = (*run_here.PACKAGES, "six")
    right = {"sha256": sha256(b"right").hexdigest(), "depends": []}
    packages = {name: {"file_name": name, **right} for name in names}
    packages["pillow"] = {**packages["pillow"], "depends": ["six"]}
    lock = json.dumps({"packages": packages}).encode()
    for name in (*run_here.CORE, *names):
        (tmp_path / name).write_bytes(b"right")
    with pytest.raises(ValueError, match=r"lock\.json has another SHA-256"):
        run_here.checked(str(tmp_path))
    (tmp_path / run_here.LOCK).write_bytes(lock)
    digests = dict.fromkeys(run_here.CORE, right["sha256"])
    digests[run_here.LOCK] = sha256(lock).hexdigest()
    monkeypatch.setattr(run_here, "CORE", digests)
    files = run_here.checked(str(tmp_path))
    assert {x.name for x in files} == {*run_here.CORE, *names}
    run_here.write(tmp_path, files)
    assert {x.name for x in (tmp_path / "run" / "pyodide").iterdir()} == {x.name for x in files}
    about = json.loads((tmp_path / "run" / f"{NAME}.json").read_text())
    assert about["pyodide"] == "run/pyodide/"
    assert about["cells"] == run_here.cells(BY_NAME[NAME], {})
    packed = zipfile.ZipFile(tmp_path / "run" / "tinymixer.zip").namelist()
    assert {"tinymixer/engine.py", "tqdm/std.py"} <= set(packed)
    assert not [x for x in packed if "__pycache__" in x]
    (tmp_path / "six").write_bytes(b"wrong")
    with pytest.raises(ValueError, match="six has another SHA-256 than that file of Pyodide"):
        run_here.checked(str(tmp_path))
    (tmp_path / "six").unlink()
    said = runpy.run_path(str(SITE / "build.py"))["main"](tmp_path / "book", str(tmp_path))
    assert said == f"{tmp_path / 'six'} is missing; expected the files of Pyodide 0.27.7"


# --- What runs a cell, in any Python -------------------------------------------------------------


@pytest.fixture
def ran(monkeypatch):
    """A function that runs a cell: (whether it ended well, what it showed)."""
    for name in [x for x in sys.modules if x.partition(".")[0] == "IPython"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "IPython", None)
    monkeypatch.setitem(sys.modules, "IPython.display", None)
    namespace = {"__name__": "__main__"}

    def ran(source):
        shown = []
        return RUN(source, "cell 5", namespace, lambda *x: shown.append(x)), shown

    return ran


def test_a_cell_shows_what_it_prints_and_ends_with(ran):
    assert ran("%matplotlib inline\nx = 2\nprint(x)\nx + 1") == (
        True,
        [("text", "2\n", 0), ("text", "3\n", 0)],
    )
    assert ran("x") == (True, [("text", "2\n", 0)])
    assert ran("None") == ran("x = 3") == ran("") == (True, [])
    assert ran("import sys\nprint('oh', file=sys.stderr)\nint") == (
        True,
        [("text", "oh\n", 0), ("text", "<class 'int'>\n", 0)],
    )


def test_a_figure_is_a_picture(ran):
    ended, [(kind, content, _)] = ran(
        "from matplotlib.figure import Figure\nf = Figure((2, 1), dpi=50)\nf.subplots()\nf"
    )
    assert (ended, kind) == (True, "png")
    assert Image.open(io.BytesIO(base64.b64decode(content))).width > 50


def test_html_and_drawings_are_shown_as_such(ran):
    assert ran("from IPython.display import SVG\nSVG('<svg/>')") == (True, [("svg", "<svg/>", 0)])
    source = "class A:\n    def _repr_html_(self): return '<b>'\nA()"
    assert ran(source) == (True, [("html", "<b>", 0)])


def test_a_display_is_replaced(ran):
    ended, shown = ran("print(1)\nh = display(2, display_id=True)\nprint(3)\nh.update(4)")
    assert ended
    assert [x[:2] for x in shown] == [("text", x) for x in ("1\n", "2\n", "3\n", "4\n")]
    assert shown[1][2] == shown[3][2] > 0
    assert shown[0][2] == shown[2][2] == 0


@pytest.mark.parametrize("error", ["1 / 0", "raise SystemExit(1)", "raise KeyboardInterrupt"])
def test_an_error_is_shown_from_the_cell_on(ran, error):
    ended, shown = ran(f"def f():\n    {error}\nprint(1)\nf()")
    assert not ended
    assert shown[0] == ("text", "1\n", 0)
    kind, text, _ = shown[1]
    assert kind == "error"
    assert text.startswith(
        'Traceback (most recent call last):\n  File "cell 5", line 4, in <module>'
    )
    assert f"    {error}\n" in text  # the source of the function
    assert "cells.py" not in text


def test_a_typo_is_shown_where_it_is(ran):
    ended, [(kind, text, _)] = ran("x = 1\nfor")
    assert (ended, kind) == (False, "error")
    assert text.startswith('  File "cell 5", line 2\n    for')


# --- A page of the book, in a browser ------------------------------------------------------------


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def page(book):
    from playwright.sync_api import sync_playwright

    serve = functools.partial(Quiet, directory=str(book))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server, sync_playwright() as p:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        chromium = p.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = chromium.new_page()
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(error))
        page.goto(f"http://127.0.0.1:{server.server_port}/{NAME}.html")
        yield page
        chromium.close()
        server.shutdown()


def wait_for(page, state):
    """Until the bar below the page says so, ten minutes at most."""
    said = "document.querySelector('.run-bar [role=status]').textContent"
    page.wait_for_function(f"{said}.match(/^({state})/)", timeout=600_000)
    return page.inner_text(".run-bar [role=status]")


@pytest.mark.skipif(why_no_page() is not None, reason=str(why_no_page()))
@pytest.mark.slow
def test_a_lesson_runs_in_its_page_and_can_be_stopped_and_changed(page):
    code = [x for x in BY_NAME[NAME]["cells"] if x["cell_type"] == "code"]
    cells = page.locator("div.cell")
    assert cells.count() == len(code)
    page.click("#run-here button")
    assert wait_for(page, "Done|Stopped|Python|The lesson") == "Done"
    assert page.locator(".run-cell .time:empty, .shown .error").count() == 0
    shows = [any("image" in kind for x in c["outputs"] for kind in x.get("data", {})) for c in code]
    pictures = [cells.nth(i).locator(".shown img") for i in range(len(code))]
    assert [x.count() > 0 for x in pictures] == shows
    drawn = page.locator(".shown img").evaluate_all("all => all.map((x) => x.naturalWidth)")
    assert len(drawn) >= 4
    assert min(drawn) > 100
    assert "loss 42.0, dv 1.0, du 13.0" in cells.nth(3).locator(".shown pre").inner_text()

    def change(source):
        if cells.nth(3).locator("textarea").count() == 0:
            cells.nth(3).locator("pre").first.focus()
        cells.nth(3).locator("textarea").fill(source)
        cells.nth(3).locator("textarea").press("Shift+Enter")

    change("while True: pass")
    assert wait_for(page, "Cell") == f"Cell 4 of {len(code)}"
    page.click("[data-stop]")
    assert wait_for(page, "Stopped") == "Stopped"
    change("print(6 * 7, example)\nmissing")  # in a new Python: the cells above run first
    assert wait_for(page, "Stopped at|Python") == "Stopped at an error in cell 4"
    assert cells.nth(3).locator(".shown .text").inner_text().startswith("42 Tensor(")
    assert "NameError: name 'missing'" in cells.nth(3).locator(".shown .error").inner_text()
    assert page.errors == []
