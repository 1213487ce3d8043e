"""The book of the lessons: complete, and whole without a network."""

import json
import re
import runpy
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest
from notebooks import LESSONS, ROOT, read, tagged

SITE = ROOT / "lessons" / "site"
LARGEST = 1_500_000  # bytes of a page
FOREIGN = re.compile(r"(?:\w+:)?//")
LOADED = {("link", "href"), ("use", "href"), ("image", "href"), ("form", "action")}
LINKED = {"arxiv.org", "msgpack.org", "numpy.org", "github.com"}  # what docstrings stand on
RECOMMENDED = re.findall(r"\]\((https://[^)\s]+)", "".join(x.read_text("utf-8") for x in LESSONS))
LINKED |= {urlsplit(link).netloc for link in RECOMMENDED}  # the further reading of the lessons
LINKED |= {"www.sphinx-doc.org", "pradyunsg.me"}  # who made the look of the book


class Page(HTMLParser):
    """What a page loads, what it links to, and the places in it that a link can mean."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.links, self.places, self.classes = [], [], set(), []
        self.images = []  # (address, text in its place), "" where there is none
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            given = dict(attributes)
            self.images.append((given["src"], given.get("alt") or ""))
        for name, value in attributes:
            value = value or ""
            if name in ("src", "poster", "data") or (tag, name) in LOADED:
                self.loads.append(value)
            elif name == "srcset":
                self.loads += [part.split()[0] for part in value.split(",")]
            elif name == "style":
                self.loads += addresses(value)
            elif (tag, name) == ("a", "href"):
                self.links.append(value)
            elif name == "id":
                self.places.add(value)
            elif name == "class":
                self.classes += value.split()


def addresses(style):
    """What a style sheet loads."""
    return re.findall(r"""(?:url\(|@import)\s*["']?([^"')\s]+)""", style)


@pytest.fixture(scope="module")
def pages(book):
    found = {path: path.read_text("utf-8") for path in book.rglob("*.html")}
    assert len(found) > 100
    return {path: (text, Page(text)) for path, text in found.items()}


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere(book, pages):
    loads = {path: page.loads for path, (_, page) in pages.items()}
    loads |= {path: addresses(path.read_text("utf-8")) for path in book.rglob("*.css")}
    assert sum(map(len, loads.values())) > 1000
    for path, found in loads.items():
        assert [x for x in found if FOREIGN.match(x)] == [], path
        files = [x for x in found if not x.startswith(("data:", "#"))]
        gone = [x for x in files if not (path.parent / unquote(urlsplit(x).path)).exists()]
        assert gone == [], path
    assert list(book.rglob("*.woff2"))


@pytest.mark.slow
def test_links_lead_somewhere(pages):
    for path, (_, page) in pages.items():
        for link in page.links:
            to = urlsplit(link)
            if to.scheme:
                assert to.netloc in LINKED, (path, link)
                continue
            target = (path.parent / unquote(to.path)).resolve() if to.path else path
            assert target.exists(), (path, link)
            if to.fragment and target in pages:
                assert unquote(to.fragment) in pages[target][1].places, (path, link)


@pytest.mark.slow
def test_every_lesson_has_its_formulas_figures_and_folded_checks(book, pages):
    for lesson in LESSONS:
        text, page = pages[book / f"{lesson.stem}.html"]
        notebook = read(lesson)
        words = "".join(c.source for c in notebook.cells if c.cell_type == "markdown")
        assert page.classes.count("katex-display") == words.count("$$") / 2, lesson
        assert not {"math", "katex-error"} & set(page.classes)
        described = [c.metadata.alt for c in notebook.cells if "alt" in c.metadata]
        assert [alt for _, alt in page.images] == described
        assert len([x for x in page.loads if "_images/" in x]) >= len(described)
        checks = len(tagged(notebook, "check"))
        assert text.count("<summary>Hint</summary>") == checks
        assert page.classes.count("above-input") >= checks
        assert text.count(">The check</p>\n</summary>") == checks


@pytest.mark.slow
def test_every_image_has_a_text_in_its_place(pages):
    images = [(path, *image) for path, (_, page) in pages.items() for image in page.images]
    assert len(images) > 90
    for path, address, alt in images:
        least = 40 if "_images/" in address else 1  # a button of Sphinx's has a sign
        assert len(alt) >= least, (path, address)


@pytest.mark.slow
def test_pages_are_small(pages):
    sizes = {path.name: len(text.encode()) for path, (text, _) in pages.items()}
    assert max(sizes.values()) <= LARGEST, max(sizes, key=sizes.get)


@pytest.mark.slow
def test_every_module_is_in_the_reference(book, pages):
    package = ROOT / "tinymixer"
    parts = [path.relative_to(ROOT).with_suffix("").parts for path in package.rglob("*.py")]
    names = {".".join(x).removesuffix(".__init__") for x in parts} - {"tinymixer.__main__"}
    places = [page.places for path, (_, page) in pages.items() if path.parent == book / "api"]
    assert {x.removeprefix("module-") for x in set().union(*places)} >= names
    assert "tinymixer.ops.linear.TokenLinear" in pages[book / "api" / "ops.html"][1].places


# --- Its parts, which need no Sphinx -------------------------------------------------------------


@pytest.mark.parametrize(
    "html",
    [
        '<img src="https://elsewhere.org/x.png">',
        '<img src="x.png" srcset="x.png, //elsewhere.org/x.png 2x">',
        '<script src="//elsewhere.org/x.js"></script>',
        '<link rel="stylesheet" href="http://elsewhere.org/x.css">',
        '<p style="background: url(https://elsewhere.org/x.png)">',
    ],
)
def test_what_comes_from_elsewhere_is_seen(html):
    assert [x for x in Page(html).loads if FOREIGN.match(x)]
    assert not [x for x in Page(html.replace("elsewhere.org/", "")).loads if "elsewhere" in x]


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("y = W2 g(W1 x) * a_", r"\y = W2 g(W1 x) \* a\_" + "\n"),
        ("* a list? no", r"\* a list? no" + "\n"),
        ("`x` and `ops`: two", r"\ ``x``\  and \ ``ops``\ : two" + "\n"),
        ("x (S, C)  ->  y (S, D)", ".. code-block:: none\n\n    x (S, C)  ->  y (S, D)\n"),
        (
            "a table\n    B    images\n    S    tokens",
            "\\a table\n\n.. code-block:: none\n\n        B    images\n        S    tokens\n",
        ),
        (
            "arXiv 2105.01601, eq. 1",
            r"\ `arXiv 2105.01601 <https://arxiv.org/abs/2105.01601>`__\ , eq. 1" + "\n",
        ),
    ],
)
def test_a_docstring_is_shown_as_it_stands(docstring, expected):
    to_rst = runpy.run_path(str(SITE / "docstrings.py"))["to_rst"]
    assert "\n".join(to_rst(docstring.splitlines())) == expected


def test_links_to_run_a_lesson_come_with_the_address():
    build = runpy.run_path(str(SITE / "build.py"))
    source = LESSONS[0].read_text("utf-8")
    name, where = LESSONS[0].name, "someone/tinymixer"
    without, linked = (build["for_the_book"](json.loads(source), name, x) for x in (None, where))
    assert "Run it" not in json.dumps(without)
    title, links, *_ = linked["cells"][0]["source"]
    assert title.startswith("# ")
    assert f"/github/{where}/blob/gh-pages/colab/{name})" in links
    assert f"/gh/{where}/v" in links
    assert f"labpath=lessons/{name})" in links
    own = build["for_colab"](json.loads(source), where)["cells"]
    assert own[1:] == json.loads(source)["cells"]
    assert own[0]["source"][0].startswith(
        f'%pip install -q "tinymixer @ git+https://github.com/{where}@v'
    )


def test_the_text_of_a_figure_goes_to_the_book():
    build = runpy.run_path(str(SITE / "build.py"))
    for path in LESSONS:
        lesson = build["for_the_book"](json.loads(path.read_text("utf-8")), path.name, None)
        cells = [cell["metadata"] for cell in lesson["cells"] if "alt" in cell["metadata"]]
        assert cells, path
        assert all(cell["mystnb"]["image"] == {"alt": cell["alt"]} for cell in cells)


def test_printed_source_is_shown_as_source_and_other_text_as_it_was():
    in_colour = runpy.run_path(str(SITE / "build.py"))["in_colour"]
    source = {
        "output_type": "stream",
        "name": "stdout",
        "text": ["    def f(x):\n", "        return x\n"],
    }
    assert in_colour(source)["data"] == {"text/markdown": "```python\ndef f(x):\n    return x\n```"}
    mixed = {**source, "text": [*source["text"], "class C:\n", "    pass\n"]}
    assert in_colour(mixed)["data"]["text/markdown"].endswith("class C:\n    pass\n```")
    for text in ("4 of them\n", ""):
        other = {"output_type": "stream", "name": "stdout", "text": [text]}
        assert in_colour(other) == other


def test_other_files_are_not_replaced_by_a_book(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    said = runpy.run_path(str(SITE / "build.py"))["main"](tmp_path)
    assert said == f"{tmp_path} holds files, but no book; name another folder"
    assert (tmp_path / "thesis.txt").read_text() == "mine"
