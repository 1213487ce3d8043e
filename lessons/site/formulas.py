"""Formulas become HTML in one call of KaTeX while the book is built: no page runs any code."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.errors import ExtensionError

KATEX = Path(__file__).parent / "node_modules" / "katex"
RENDER = """
const katex = require(process.argv[1]);
const formulas = JSON.parse(require("fs").readFileSync(0, "utf8"));
const options = {throwOnError: true, strict: "error"};
console.log(JSON.stringify(formulas.map(([tex, displayMode]) =>
    katex.renderToString(tex, {...options, displayMode}))));
"""


def render(formulas: list[tuple[str, bool]]) -> list[str]:
    """The HTML of each (TeX, whether it stands on a line of its own), or ExtensionError."""
    if not KATEX.is_dir():
        raise ExtensionError("KaTeX is not here; get it with: npm install --prefix lessons/site")
    done = subprocess.run(
        ["node", "-e", RENDER, str(KATEX)],
        input=json.dumps(formulas),
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    if done.returncode:
        raise ExtensionError(f"KaTeX failed: {done.stderr}")
    return json.loads(done.stdout)


def formula(node: nodes.Element) -> tuple[str, bool]:
    return node.astext(), isinstance(node, nodes.math_block)


def render_all(app: Any, env: Any) -> None:
    """Before any page is written: the HTML of every formula of the book, by its TeX."""
    found = {
        formula(node)
        for page in env.found_docs
        for kind in (nodes.math, nodes.math_block)
        for node in env.get_doctree(page).findall(kind)
    }
    todo = sorted(found)
    app.katex = dict(zip(todo, render(todo), strict=True))


def visit(translator: Any, node: nodes.Element) -> None:
    tex, block = formula(node)
    html = translator.builder.app.katex[tex, block]
    translator.body.append(f'<div class="formula">{html}</div>' if block else html)
    raise nodes.SkipNode


def ship(app: Any, exception: Exception | None) -> None:
    """KaTeX's style sheet and fonts, in the one format that every browser of today reads."""
    if exception or app.builder.format != "html":
        return
    static, fonts = Path(app.outdir) / "_static", Path(app.outdir) / "_static" / "fonts"
    fonts.mkdir(parents=True, exist_ok=True)
    for font in (KATEX / "dist" / "fonts").glob("*.woff2"):
        shutil.copy(font, fonts)
    style = (KATEX / "dist" / "katex.min.css").read_text("utf-8")
    style = re.sub(r',url\(fonts/[\w-]+\.(?:woff|ttf)\) format\("\w+"\)', "", style)
    (static / "katex.min.css").write_text(style, "utf-8")


def setup(app: Any) -> dict[str, bool]:
    app.add_html_math_renderer("katex", (visit, None), (visit, None))
    app.config.html_math_renderer = "katex"
    app.add_css_file("katex.min.css")
    app.connect("env-updated", render_all)
    app.connect("build-finished", ship)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
