"""The playground in a real browser: a picture is drawn with the mouse, and the page answers.

TINYMIXER_SCREENSHOTS names a folder for what the browser shows, to be looked at.
"""

import importlib.util
import io
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SITE = Path(__file__).parents[1] / "lessons" / "site"
NEEDED = ("playwright", "sphinx", "myst_nb", "furo")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
MISSING = [name for name in NEEDED if not importlib.util.find_spec(name)]
MISSING += ["Chromium"] * (CHROMIUM is None)
PEN = (0xB3, 0x26, 0x1E)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} missing"),
]


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """The page as the book has it, in a book of two pages without formulas."""
    pages, target = tmp_path_factory.mktemp("pages"), tmp_path_factory.mktemp("book")
    toctree = "# Book\n\n```{toctree}\nplayground\n```\n"
    (pages / "index.md").write_text(toctree, "utf-8")
    page = (SITE / "playground.md").read_text("utf-8")
    (pages / "playground.md").write_text(
        page.replace("(08_the_mixer.ipynb)", "(index.md)"), "utf-8"
    )
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-c", str(SITE)]
    command += ["-D", "extensions=myst_nb", str(pages), str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    build = runpy.run_path(str(SITE / "build.py"))
    build["weights_in_javascript"](target / "_static" / "weights.js")
    return target / "playground.html"


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=[(1366, "light"), (1366, "dark"), (390, "light"), (390, "dark")], ids=str)
def page(request, chromium, page_file):
    """The page at a width and in a colour; an error in its console fails the test."""
    width, colour = request.param
    touch = {"has_touch": True, "is_mobile": True, "device_scale_factor": 2} if width < 800 else {}
    shown = {"viewport": {"width": width, "height": 900}, "color_scheme": colour}
    with chromium.new_context(**shown, **touch) as context:
        page, errors = context.new_page(), []
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(page_file.as_uri())
        page.wait_for_function("document.querySelectorAll('#bars meter').length == 10")
        yield page
        if folder := os.environ.get("TINYMIXER_SCREENSHOTS"):
            page.screenshot(path=Path(folder) / f"playground-{width}-{colour}.png", full_page=True)
        assert errors == []


def draw(page):
    """A stroke across the paper, with the mouse."""
    page.locator("#paper").scroll_into_view_if_needed()
    box = page.locator("#paper").bounding_box()
    at = [(box["x"] + u * box["width"], box["y"] + v * box["height"]) for u, v in STROKE]
    page.mouse.move(*at[0])
    page.mouse.down()
    for place in at[1:]:
        page.mouse.move(*place, steps=8)
    page.mouse.up()


STROKE = ((0.2, 0.3), (0.8, 0.3), (0.8, 0.7), (0.2, 0.7))
PIXELS = """canvas => {
    const { width, height } = canvas, pen = canvas.getContext("2d");
    return [height, width, Array.from(pen.getImageData(0, 0, width, height).data)];
}"""


def pixels(canvas):
    height, width, values = canvas.evaluate(PIXELS)
    return np.array(values).reshape(height, width, 4)[..., :3]


def bars(page):
    return page.eval_on_selector_all("#bars meter", "found => found.map(bar => bar.value)")


def screen(element):
    return np.asarray(Image.open(io.BytesIO(element.screenshot())).convert("RGB")).astype(int)


def pen_pixels(canvas):
    return int((np.abs(pixels(canvas) - PEN).max(-1) < 8).sum())


def test_what_is_drawn_is_seen_and_classified(page):
    paper, patches = page.locator("#paper"), page.locator("#patches")
    empty = bars(page)
    assert pen_pixels(paper) == 0
    draw(page)
    page.wait_for_function(
        "before => document.querySelector('meter').value != before", arg=empty[0]
    )
    assert 100 < pen_pixels(paper) < 500  # a line 4 pixels thick, of 32 x 32
    assert pixels(patches).shape == (39, 39, 3)  # 8 x 8 patches of 4 x 4, and a line between
    assert pen_pixels(patches) == pen_pixels(paper)

    drawn = bars(page)
    assert sum(drawn) == pytest.approx(1, abs=1e-6)
    assert np.abs(np.subtract(drawn, empty)).max() > 0.05
    rows = page.locator("#bars div").all_inner_texts()
    assert rows[0].split() == ["airplane", f"{100 * drawn[0]:.0f}", "%"]

    page.get_by_role("button", name="Wipe").click()
    page.wait_for_function("after => document.querySelector('meter').value != after", arg=drawn[0])
    assert bars(page) == empty


def test_a_bar_is_filled_as_far_as_it_says(page):
    draw(page)
    page.wait_for_timeout(300)
    values = bars(page)
    for k in (int(np.argmax(values)), int(np.argmin(values))):
        seen = screen(page.locator("#bars meter").nth(k))
        middle = seen[len(seen) // 2, 2:-2]
        filled = (middle.max(-1) - middle.min(-1) > 60).mean()  # a colour, where the rest is grey
        assert filled == pytest.approx(values[k], abs=0.04)


def test_tokens_and_maps_are_drawn_and_change_with_the_block(page):
    tokens, maps = page.locator("#tokens canvas"), page.locator("#maps canvas")
    assert tokens.count() == 5
    assert maps.count() == 32
    assert pixels(tokens.first).shape == (64, 64, 3)
    before = [pixels(maps.nth(i)) for i in range(32)]
    for map_ in before:
        assert map_.shape == (8, 8, 3)
        assert len(np.unique(map_.reshape(-1, 3), axis=0)) > 20
    page.locator("#block").select_option("3")
    after = [pixels(maps.nth(i)) for i in range(32)]
    assert not any(map(np.array_equal, before, after))
    assert screen(maps.first).std() > 10  # and is seen


def test_the_page_fits_and_has_its_colours(page):
    width = page.viewport_size["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    corner = screen(page)[-20:, -20:]
    assert (corner.mean() < 60) if dark else (corner.mean() > 230)
    for name in ("#paper", "#bars", "#tokens", "#maps"):
        box = page.locator(name).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
