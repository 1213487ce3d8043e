"""What a notebook does with a cell, in a page of the book: runs it, and shows what comes of it.

    run("1 + 1", "cell 3", namespace, show)    # calls show("text", "2\\n", 0)

`show` gets a kind (text, error, html, svg or png), the content, and a number: a display with the
number of an earlier one replaces it; 0 stands for none. Of IPython there is what lessons use.
"""

import ast
import base64
import io
import linecache
import re
import sys
import time
import traceback
from contextlib import redirect_stderr, redirect_stdout
from itertools import count
from types import ModuleType

numbers = count(1)


class Screen(io.TextIOBase):
    """Where a cell prints and displays. Text is sent on ten times a second at most."""

    def __init__(self, show):
        self.show, self.waiting, self.sent = show, "", time.monotonic()

    def write(self, text):
        self.waiting += text
        if time.monotonic() - self.sent > 0.1:
            self.send()
        return len(text)

    def send(self):
        if self.waiting:
            self.show("text", self.waiting, 0)
        self.waiting, self.sent = "", time.monotonic()

    def display(self, *values, display_id=None):
        handle = Handle(self, next(numbers) if display_id else 0)
        for value in values:
            handle.update(value)
        return handle if display_id else None


class Handle:
    def __init__(self, screen, number):
        self.screen, self.number = screen, number

    def update(self, value):
        self.screen.send()
        self.screen.show(*richest(value), self.number)


def richest(value):
    """(kind, content) of the best form that a value has."""
    if isinstance(value, type):
        return "text", f"{value!r}\n"
    if hasattr(value, "savefig"):
        file = io.BytesIO()
        value.savefig(file, format="png", bbox_inches="tight")
        return "png", base64.b64encode(file.getvalue()).decode()
    for kind in ("html", "svg", "png"):
        form = getattr(value, f"_repr_{kind}_", None)
        content = form() if form else None
        if content is not None:
            is_bytes = isinstance(content, bytes)
            return kind, base64.b64encode(content).decode() if is_bytes else content
    return "text", f"{value!r}\n"


def run(source, name, namespace, show):
    """Whether the cell ran to its end."""
    source = re.sub(r"(?m)^(\s*)[%!].*", r"\1pass", source)  # magics: figures are shown anyway
    linecache.cache[name] = len(source), None, source.splitlines(keepends=True), name
    screen = Screen(show)
    like_ipython(screen.display)
    namespace["display"] = screen.display
    try:
        with redirect_stdout(screen), redirect_stderr(screen):
            tree = ast.parse(source, name)
            last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, name, "exec"), namespace)
            if last is not None:
                value = eval(compile(ast.Expression(last.value), name, "eval"), namespace)
                if value is not None:
                    screen.display(value)
            if pyplot := sys.modules.get("matplotlib.pyplot"):
                screen.display(*map(pyplot.figure, pyplot.get_fignums()))
                pyplot.close("all")
    except BaseException as error:
        screen.send()
        show("error", in_the_cell(error, name), 0)
        return False
    screen.send()
    return True


def in_the_cell(error, name):
    """The traceback, from the cell on."""
    at = error.__traceback__
    while at and at.tb_frame.f_code.co_filename != name:
        at = at.tb_next
    return "".join(traceback.format_exception(type(error), error, at))


class Shown:
    """Of IPython.display: something that is already HTML or SVG."""

    def __init__(self, data):
        self.data = data


class SVG(Shown):
    def _repr_svg_(self):
        return self.data


class HTML(Shown):
    def _repr_html_(self):
        return self.data


class Shell:
    """What get_ipython() returns. False, so that matplotlib asks nothing of it."""

    def __bool__(self):
        return False


def like_ipython(display):
    package, module = ModuleType("IPython"), ModuleType("IPython.display")
    package.get_ipython, package.display, package.version_info = Shell, module, (9, 0)
    module.display, module.SVG, module.HTML = display, SVG, HTML
    sys.modules |= {"IPython": package, "IPython.display": module}
