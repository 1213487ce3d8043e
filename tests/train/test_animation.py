"""Animations: what is shown at each moment, and what stays where nothing moves."""

import base64
import io
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from tinymixer.train.figures import Animation, growing_token_maps, token_maps
from tinymixer.train.figures.animation import HOLD
from tinymixer.train.figures.filters import SHADES

SVG = "{http://www.w3.org/2000/svg}"


def root_of(animation):
    return ET.fromstring(animation._repr_svg_())


def frames(root):
    """The drawings, each in a group: those that the style sheet moves, and nothing else."""
    (moved,) = set(re.findall(r"\.([\w-]+) > g", root.find(f"{SVG}style").text or ".film0-500 > g"))
    (film,) = [g for g in root.iter(f"{SVG}g") if g.get("class") == moved]
    return list(film)


def delays(root):
    return [float(re.search(r"-?[\d.]+", g.get("style"))[0]) for g in frames(root)]


@pytest.mark.parametrize("n", [1, 2, 7])
def test_without_motion_the_last_drawing_stays(n):
    animation = Animation([f"<text>{i}</text>" for i in range(n)], (30, 40), 0.5)
    root = root_of(animation)
    groups = frames(root)
    assert [g.get("opacity") for g in groups] == [None] + ["0"] * (n - 1)
    assert groups[0][0].text == str(n - 1)
    css = root.find(f"{SVG}style").text or ""
    still = ("prefers-reduced-motion: reduce", "@media print")
    assert all(bool(n > 1) == (words in css) for words in still)
    assert root.get("viewBox") == "0 0 30 40"


def test_the_last_drawing_comes_first_then_all_in_their_order():
    """A negative delay is how far the animation of a drawing, which shows it first, has come."""
    root = root_of(Animation("abcd", (30, 40), 0.5, "<g>stays</g>"))
    assert [g.text for g in frames(root)] == list("dabc")
    total = HOLD + 3 * 0.5
    starts = [(delay + total) % total for delay in delays(root)]
    assert starts == pytest.approx([0, HOLD, HOLD + 0.5, HOLD + 1], abs=0.01)
    shares = re.findall(r"([\d.]+)% \{ opacity: 0", root.find(f"{SVG}style").text)
    assert [float(x) * total / 100 for x in shares] == pytest.approx([0.5, HOLD], abs=1e-3)


def test_animations_of_one_page_do_not_share_what_differs():
    a, b = (Animation("abc", (30, 40), seconds) for seconds in (0.5, 1))
    names = [re.findall(r"(?:\.|@keyframes )(film[\w-]+)", x._repr_svg_()) for x in (a, b)]
    assert not set(names[0]) & set(names[1])
    assert repr(a) == "<Animation of 3, 30x40>"


def colours_of(image):
    """The pixels of a map's picture (rows, columns, 3)."""
    data = base64.b64decode(image.get("href").removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_growing_maps_are_the_token_maps_of_each_moment():
    rng = np.random.default_rng(3)
    first, last = rng.standard_normal((2, 6, 15))
    animation = growing_token_maps({"a < b": {"before": first, "after": last}}, (3, 5), n=4)
    root = root_of(animation)
    left, (now, before) = root.find(f"{SVG}g"), frames(root)
    words = [[text.text for text in g.iter(f"{SVG}text")] for g in (left, now, before)]
    assert words == [["a < b", "before"], ["a < b", "after"], ["a < b", "before"]]
    left, now, before = (colours_of(next(g.iter(f"{SVG}image"))) for g in (left, now, before))
    np.testing.assert_array_equal(left, before)
    drawn = [np.asarray(x.get_array()) for x in token_maps(last, (3, 5), n=4).axes[0].images]
    assert now.shape == (2 * 4 - 1, 2 * 6 - 1, 3)
    for i, expected in enumerate(drawn):
        top, side = i // 2 * 4, i % 2 * 6
        shown = now[top : top + 3, side : side + 5]
        rounded = np.rint((expected + 1) * SHADES / 2) / SHADES
        np.testing.assert_array_equal(shown, colormaps["RdBu_r"](rounded, bytes=True)[..., :3])
    assert (now[3] == 255).all()


def test_growing_maps_of_another_grid_are_refused():
    with pytest.raises(ValueError, match="but a grid of 7x7 has 49"):
        growing_token_maps({"a": {"before": np.zeros((5, 64))}}, (7, 7))
