"""Build the book: the lessons as they are committed, and every docstring of the package.

    python -m pip install -e ".[book]" && npm install --prefix lessons/site     # once
    python lessons/site/build.py                                # into build/book, with no network

`python lessons/site/build.py DIR` builds it elsewhere. Any warning stops it. With

    --pyodide FOLDER    a copy of Pyodide, which becomes part of the book
    --pyodide URL       where readers' browsers get it from, when they ask for it

lessons run in the browser; run_here.py has the version and the files. See them run with
`python -m http.server --directory build/book`: a page opened as a file may start no worker.

Where pyproject.toml says where the repository is, lessons get links to Colab and Binder, and copies
of them that install the package are in DIR/colab: Colab finds these in the branch gh-pages, which
holds the book.
"""

import argparse
import ast
import base64
import json
import re
import shutil
import sys
import tempfile
import tomllib
from importlib import import_module
from inspect import getmembers, isfunction
from pathlib import Path
from textwrap import dedent
from typing import Any

import tinymixer
from tinymixer import create_model, weights

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.append(str(HERE))

import run_here  # noqa: E402

PACKAGE = ROOT / "tinymixer"
PLAYED = "mixer_pico-cifar10"  # weights of the playground


def repository() -> str | None:
    """NAME/REPOSITORY on GitHub, if pyproject.toml says it."""
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["urls"]
    found = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+)", urls["Repository"])
    return found and found[1]


def for_the_book(
    lesson: dict[str, Any], name: str, where: str | None, button: str = ""
) -> dict[str, Any]:
    """A lesson with checks folded, source in colour, figures described, and links to run it."""
    for cell in lesson["cells"]:
        if cell["cell_type"] == "code" and "getsource(" in "".join(cell["source"]):
            cell["outputs"] = [in_colour(x) for x in cell.get("outputs", [])]
        tags = cell["metadata"].setdefault("tags", [])
        shown = cell["metadata"]["mystnb"] = {}  # what myst-nb is told about the cell
        check = any(tag.startswith("check:") for tag in tags)
        if check or cell["metadata"].get("jupyter", {}).get("source_hidden"):
            tags.append("hide-input")
            words = "The check" if check else "The code of this figure"
            shown |= {"code_prompt_show": words, "code_prompt_hide": words}
        if alt := cell["metadata"].get("alt"):
            shown["image"] = {"alt": alt}
    title, *rest = lesson["cells"][0]["source"]
    links = ""
    if where:
        colab = f"https://colab.research.google.com/github/{where}/blob/gh-pages/colab/{name}"
        tag = f"v{tinymixer.__version__}"
        binder = f"https://mybinder.org/v2/gh/{where}/{tag}?labpath=lessons/{name}"
        links = f"\nRun it: [in Colab]({colab}) or [in Binder]({binder}).\n"
    lesson["cells"][0]["source"] = [title, links + button, *rest]
    return lesson


def in_colour(output: dict[str, Any]) -> dict[str, Any]:
    """An output; if it is Python and nothing else, as such."""
    text = "".join(output.get("text", []))
    try:
        ast.parse(f"if True:\n{text}" if text.startswith(" ") else text)  # a method is set in
    except SyntaxError:
        return output
    lines = dedent(text).strip("\n")
    code = {"text/markdown": f"```python\n{lines}\n```"}
    return {"output_type": "display_data", "metadata": {}, "data": code} if lines else output


def for_colab(lesson: dict[str, Any], where: str) -> dict[str, Any]:
    """A lesson that first installs the package, as it is at its tag."""
    package = f"tinymixer @ git+https://github.com/{where}@v{tinymixer.__version__}"
    install = {
        "cell_type": "code",
        "id": "colab",
        "metadata": {},
        "source": [f'%pip install -q "{package}"'],
        "execution_count": None,
        "outputs": [],
    }
    return lesson | {"cells": [install, *lesson["cells"]]}


def lay_out(pages: Path, pyodide: str | list[Path] | None) -> None:
    """What Sphinx reads: the files of the course, the pages beside this file, and the API."""
    where = repository()
    for file in [*(ROOT / "lessons").glob("[!.]*.*"), *HERE.glob("*.md")]:
        shutil.copy(file, pages)
    entries = []
    in_order = re.findall(r"\| \[.*?\]\((\w+\.ipynb)\)", (pages / "README.md").read_text("utf-8"))
    for file in [pages / name for name in in_order]:
        button = run_here.button(file.stem, pyodide)
        lesson = for_the_book(json.loads(file.read_text("utf-8")), file.name, where, button)
        file.write_text(json.dumps(lesson), "utf-8")
        title = lesson["cells"][0]["source"][0].strip("# \n")
        entries.append(f"{file.stem[:2]} {title} <{file.stem}>")
    index = (pages / "index.md").read_text("utf-8").replace("LESSONS", "\n".join(entries))
    index = index.replace("RUN_HERE", run_here.sentence(pyodide))
    (pages / "index.md").write_text(index, "utf-8")
    (pages / "api").mkdir()
    for room in sorted(PACKAGE.iterdir()):
        if room.suffix == ".py" and room.stem != "__main__":
            api_page(pages / "api", [room])
        elif (room / "__init__.py").exists():
            api_page(pages / "api", sorted(room.rglob("*.py")))


def api_page(folder: Path, modules: list[Path]) -> None:
    """One page for all modules of a room."""
    names = [".".join(x.relative_to(ROOT).with_suffix("").parts) for x in modules]
    names = sorted(name.removesuffix(".__init__") for name in names)
    lines: list[str] = []
    for name in names:
        title = name.removeprefix("tinymixer.")
        line = ("-" if lines else "=") * len(title)
        lines += [title, line, "", f".. automodule:: {name}"]
        # A function with the name of a module beside it: the index knows one thing by a name.
        functions = [x for _, x in getmembers(import_module(name), isfunction)]
        own = [x.__name__ for x in functions if x.__module__ == name]
        twice = [x for x in own if f"{name}.{x}" in names]
        lines += [f"   :exclude-members: {', '.join(twice)}"] * bool(twice) + [""]
        for x in twice:
            lines += [".. raw:: html", "", f'   <span id="{name}.{x}"></span>', ""]
            lines += [f".. autofunction:: {name}.{x}", "   :no-index:", ""]
    page = folder / f"{names[0].removeprefix('tinymixer.')}.rst"
    page.write_text("\n".join(lines), "utf-8")


def weights_in_javascript(target: Path) -> None:
    """The weights that come with tinymixer, so that a page opened from a disk can read them."""
    with weights.read_weights(weights.trained()[PLAYED]) as read:
        model = create_model(read.record["model"], **read.record["model_options"])
        weights.load_state(model, read)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.safetensors"
        weights.save_state(model, file, record=read.record)
        text = base64.b64encode(file.read_bytes()).decode()
    target.write_text(f'"use strict";\nconst PLAYED = "{text}";\n', "utf-8")


def main(target: Path, pyodide: str | None = None) -> int | str:
    """0; or what is wrong, if Sphinx has not said it."""
    try:
        found = pyodide and run_here.checked(pyodide)
    except ValueError as error:
        return str(error)
    if target.exists() and any(target.iterdir()) and not (target / ".buildinfo").exists():
        return f"{target} holds files, but no book; name another folder"
    shutil.rmtree(target, ignore_errors=True)  # old pages would stay among the new
    from sphinx.cmd.build import build_main

    with tempfile.TemporaryDirectory() as folder:
        pages, trees = Path(folder) / "pages", Path(folder) / "trees"
        pages.mkdir()
        lay_out(pages, found)
        settings = ["-W", "--keep-going", "-q", "-j", "auto", "-c", str(HERE), "-d", str(trees)]
        if code := build_main([*settings, str(pages), str(target)]):
            return code
    weights_in_javascript(target / "_static" / "weights.js")
    if found:
        run_here.write(target, found)
    if where := repository():
        (target / "colab").mkdir(exist_ok=True)
        for file in (ROOT / "lessons").glob("*.ipynb"):
            lesson = for_colab(json.loads(file.read_text("utf-8")), where)
            (target / "colab" / file.name).write_text(json.dumps(lesson, indent=1), "utf-8")
    print(f"the book is {target / 'index.html'}")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build the book.")
    parser.add_argument("target", type=Path, nargs="?", default=ROOT / "build" / "book")
    parser.add_argument("--pyodide", help="where Python for browsers is: a folder, or an address")
    asked = parser.parse_args()
    sys.exit(main(asked.target, asked.pyodide))
