"""Messages do nothing to a terminal, whatever a name in them does."""

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


def test_one_is_singular_and_all_other_numbers_are_plural():
    assert counted(1, "class") == "1 class"
    assert counted(0, "class") == "0 classes"
    assert counted(50_000, "training image") == "50,000 training images"
    assert [counted(2, x) for x in ("entry", "day", "batch", "box")] == [
        *("2 entries", "2 days", "2 batches", "2 boxes")
    ]
