"""Lessons as data: how their cells are run without a kernel, and what their tags mean.

A code cell runs in one namespace with the cells before it; a magic line is skipped. What a learner
would see as text is collected: what was printed, then the value of a last expression.

An exercise NAME is a task, a blank, its check, a hint and a solution, known by their tags:

    exercise:NAME   markdown   the task
    blank:NAME      code       a function or a value to complete, `...` in place of the answer
    check:NAME      code       prints "not done yet", or "correct", or what the mistake looks like
                    markdown   a hint, folded away
    solution:NAME   markdown   a solution, folded away, whose code replaces the blank

Its typical wrong answers are in `tests/lessons/`, in a file named like the lesson. The tag
`trained` marks a cell whose numbers come out of a training run: they differ more from processor to
processor than others. The tag `needs:NAME` marks a cell that draws pictures of the data set NAME,
and others where it is not found: what it shows as text is the same.

The metadata of a cell that draws a figure say under `alt`, in a sentence or two, what is seen in
it: nbconvert and the book show this text in place of the figure to readers who do not see it.
"""

import ast
import base64
import io
import re
import runpy
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
from PIL import Image

ROOT = Path(__file__).parents[1]
LESSONS = sorted((ROOT / "lessons").glob("*.ipynb"))

Namespace = dict[str, Any]


class Wrong(NamedTuple):
    """A wrong answer: what a learner might define, and what the check should say to it."""

    exercise: str
    says: str
    names: Namespace


def wrong(exercise: str, says: str, **names: Any) -> Wrong:
    return Wrong(exercise, says, names)


def wrong_answers(lesson: Path) -> list[Wrong]:
    """Those of `tests/lessons/`, from the file that is named like the lesson."""
    return runpy.run_path(str(ROOT / "tests" / "lessons" / f"{lesson.stem}.py"))["WRONG"]


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def tagged(notebook: Any, kind: str) -> dict[str, Any]:
    """The cells with a tag `kind:NAME`, by NAME."""
    return {
        tag.removeprefix(f"{kind}:"): cell
        for cell in notebook.cells
        for tag in cell.metadata.get("tags", [])
        if tag.startswith(f"{kind}:")
    }


def run(source: str, namespace: Namespace) -> str:
    """Execute a code cell, without its magics; the text that it shows."""
    source = re.sub(r"(?m)^(\s*)[%!].*", r"\1pass", source)
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    with redirect_stdout(io.StringIO()) as shown:
        exec(compile(tree, "<cell>", "exec"), namespace)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), namespace)
            if value is not None:
                print(repr(value))
    return shown.getvalue()


def run_all(notebook: Any) -> Iterator[tuple[Any, str, Namespace]]:
    """Each code cell of a lesson, the text that it shows, and the namespace that it was run in.

    The namespace is a copy, from just before the cell. A check runs in a copy of its own, so what
    it defines is gone after it: the lesson is run as by a learner who skips all checks.
    """
    namespace: Namespace = {"__name__": "__main__"}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            before = dict(namespace)
            yield cell, run(cell.source, dict(before) if is_check(cell) else namespace), before


def is_figure(output: Any) -> bool:
    return any(kind.startswith("image/") for kind in output.get("data", {}))


def is_check(cell: Any) -> bool:
    return any(tag.startswith("check:") for tag in cell.metadata.get("tags", []))


def needs(cell: Any) -> str | None:
    """The data set whose pictures a cell was committed with."""
    tags = cell.metadata.get("tags", [])
    return next((tag.removeprefix("needs:") for tag in tags if tag.startswith("needs:")), None)


def committed_text(cell: Any) -> str:
    """The text of the outputs that a cell was committed with."""
    pieces = []
    for output in cell.outputs:
        if output.output_type == "stream":
            pieces.append(output.text)
        elif output.output_type == "execute_result":
            pieces.append(output.data["text/plain"] + "\n")
    return "".join(pieces)


def solution(cell: Any) -> str:
    """The code in a folded solution."""
    blocks = re.findall(r"```python\n(.*?)```", cell.source, re.DOTALL)
    assert len(blocks) == 1, "a solution is one block of Python"
    return blocks[0]


def normalise(notebook: Any) -> Any:
    """Take out, in place, what differs from execution to execution; make the pictures small."""
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {
                "display_name": "Python 3",
                "language": "python",
                "name": "python3",
            },
            "language_info": {"name": "python"},
        }
    )
    notebook.nbformat_minor = 5
    for cell in notebook.cells:
        kept = {
            key: cell.metadata[key] for key in ("alt", "jupyter", "tags") if key in cell.metadata
        }
        cell.metadata = nbformat.from_dict(kept)
        cell.pop("attachments", None)
        if cell.cell_type == "code":
            cell.outputs = list(_merged(cell.outputs))
    return notebook


def _merged(outputs: list[Any]) -> Iterator[Any]:
    """Outputs without metadata, and what one cell printed in one piece."""
    printed = None
    for output in outputs:
        if output.output_type == "stream" and printed and printed.name == output.name:
            printed.text += output.text
            continue
        printed = output if output.output_type == "stream" else None
        if "metadata" in output:
            output.metadata = nbformat.from_dict({})
        if png := output.get("data", {}).get("image/png"):
            output.data["image/png"] = _smaller(png)
        yield output


def _smaller(png: str) -> str:
    """The picture, in base64, with at most 256 colours, which is a third of the bytes."""
    picture = Image.open(io.BytesIO(base64.b64decode(png)))
    if picture.mode == "P":
        return png  # it has been here before
    file = io.BytesIO()
    few = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    few.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()
