"""Messages do nothing to a terminal, whatever a name in them does."""

import ast
import re
from itertools import pairwise
from pathlib import Path

import pytest

from tinymixer.errors import brief, counted, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, größer, 花, \U0001f33c", "plain, größer, 花, \U0001f33c"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("a\rb\nc\td\x0be\u2028f\xa0g\x85h", "a b c d e f g h"),
        ("\x9b31m\x00\x08\x7f", "\\x9b31m\\x00\\x08\\x7f"),
        ("gpj.\u202eexe", "gpj.\\u202eexe"),
        ("a\u200bb\u200dc\ufeffd\xad", "a\\u200bb\\u200dc\\ufeffd\\xad"),
        ("half \ud83d of a pair", "half \\ud83d of a pair"),
        ("\U000e0041 tag", "\\U000e0041 tag"),
    ],
)
def test_nothing_but_text_is_left(text, shown):
    assert printable(text) == shown
    assert printable(text).isprintable()
    printable(text).encode()


@pytest.mark.parametrize("character", ["x", "\x1b", "花"])
@pytest.mark.parametrize("length", [99, 100, 101, 150, 199, 200, 201, 10**7])
def test_a_long_text_keeps_its_beginning_and_its_end(length, character):
    text = "what" + character * (length - 7) + "end"
    shown = printable(text, 100)
    assert len(shown) <= 100
    assert shown.startswith("what")
    assert shown.endswith("end")
    assert brief(text, 100) == shown


PACKAGE = Path(__file__).parents[1] / "tinymixer"
NOUNS = (
    " epochs images pictures files classes arrays numbers bytes steps records labels names sheets "
    "times parts channels pixels workers processors rounds threads nodes copies cases models "
    "operations elements parameters gradients inputs entries segments values layers tokens blocks "
    "rows columns axes words examples experts regions logits scans arguments "
)
SHOWN = {"ops/region.py", "ops/permute.py", "ops/experts.py", "ops/loss.py", "ops/raft.py"}
RARE = {  # is never 1, or is no number, or a side of a picture: "10 × 1 pixels"
    *("length", "ratio", "medians[side]", "model.num_parameters()", "np.median(speed)", "of"),
    *("trainer.model.num_parameters()", "' and '.join(lacking)", "part", "image.height", "side"),
    *(
        "dataset.num_classes",
        "' x '.join(map(str, shape))",
        "most",
        "file.stat().st_size",
        "values",
    ),
    *("needed.scans", "whole[1]", "size[1]", "dx.size", "n", "source.count(mutant.old)", "len(W)"),
    *("self.config.batch_size", "3 * patch_size ** 2", "W.shape[1]", "labels.shape", "len(names)"),
    *("epoch.images_per_s",),
}


def counts(source):
    """In f-strings, what is counted by a word in the plural that stands behind it."""
    for node in ast.walk(ast.parse(source)):
        for number, text in pairwise(node.values if isinstance(node, ast.JoinedStr) else ()):
            if isinstance(number, ast.FormattedValue) and isinstance(text, ast.Constant):
                noun = re.match(r" (?:(?:test|training|such) )?([a-z]+s)\b", text.value)
                if noun and f" {noun[1]} " in NOUNS:
                    yield ast.unparse(number.value)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.name)
def test_a_number_and_what_it_counts_agree(path):
    """By `counted`, or the number is never 1. Lessons show the code of some messages of old."""
    if path.relative_to(PACKAGE).as_posix() not in SHOWN:
        found = {x for x in counts(path.read_text("utf-8")) if not x.isupper()}
        assert found <= RARE


def test_a_planted_number_without_counted_is_found():
    assert list(counts('f"{n_epochs:g} epochs"')) == ["n_epochs"]
    assert not list(counts("f\"{counted(n_epochs, 'epoch')} done\""))


def test_one_is_singular_and_all_other_numbers_are_plural():
    assert counted(1, "class") == "1 class"
    assert counted(0, "class") == "0 classes"
    assert counted(50_000, "training image") == "50,000 training images"
    assert counted(0.5, "epoch") == "0.5 epochs"
    assert [counted(2, x) for x in ("entry", "day", "batch", "box", "axis", "epoch")] == [
        *("2 entries", "2 days", "2 batches", "2 boxes", "2 axes", "2 epochs")
    ]
