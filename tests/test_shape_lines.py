"""Floor 0: shape lines."""

import numpy as np
import pytest

from tinymixer.shapes import check_shapes, seen

LINE = "x (S, ...), W (D, S), b (D) optional"
SEVERAL = "z (B, _), *parts (..., n, B), order (m) integers"


def check(line, *arrays, cures=()):
    check_shapes("Op", line, cures, *map(seen, arrays))


def of(*shapes):
    return [np.zeros(shape) for shape in shapes]


@pytest.mark.parametrize(
    ("line", "shapes"),
    [
        (LINE, [(7, 3, 5), (11, 7), (11,)]),
        (LINE, [(7,), (11, 7)]),
        (LINE, [(7, 0), (11, 7)]),
        ("x (*), y (*)", [(7, 1, 5), (3, 1)]),
        ("x (*), y (*)", [(), (3, 1)]),
        ("x (*, m, k), y (*, k, n)", [(2, 7, 3), (3, 5)]),
        ("x (..., n)", [(5, 0)]),
    ],
)
def test_what_fits(line, shapes):
    check(line, *of(*shapes))


@pytest.mark.parametrize(
    ("line", "shapes", "says"),
    [
        (LINE, [(7, 3), (11, 5)], r"Op: W is \(11, 5\); expected \(D, S\) with S = 7, as in x"),
        (LINE, [(7, 3), (11, 7), (1,)], r"b is \(1,\); expected \(D,\) with D = 11, as in W"),
        (LINE, [(7, 3), (11, 7), ()], r"b is \(\); expected \(D,\)$"),
        (LINE, [(7, 3), (11, 7, 1)], r"W is \(11, 7, 1\); expected \(D, S\)$"),
        (LINE, [(), (11, 7)], r"x is \(\); expected \(S, \.\.\.\)$"),
        (LINE, [(0, 3), (11, 0)], r"x is \(0, 3\); expected \(S, \.\.\.\) with S of 1 or more"),
        ("x (*), y (*)", [(7, 3), (7,)], r"y is \(7,\); expected \(\*,\) that broadcasts with x"),
        ("x (..., C), y (..., C)", [(7, 3), (1, 3)], r"with \(7,\) for the axes \.\.\., as in x"),
    ],
)
def test_what_does_not_fit_is_told_with_the_sizes(line, shapes, says):
    with pytest.raises(ValueError, match=says):
        check(line, *of(*shapes))


def test_several_arguments_stand_where_the_star_is():
    order = np.zeros(4, int)
    check(SEVERAL, *of((3, 9), (7, 2, 3)), order)
    check(SEVERAL, *of((3, 9), (7, 2, 3), (7, 2, 3), (7, 2, 3)), order)
    with pytest.raises(ValueError, match=r"parts is \(7, 5, 3\); .*n = 2"):
        check(SEVERAL, *of((3, 9), (7, 2, 3), (7, 5, 3)), order)


@pytest.mark.parametrize("n", [0, 1, 4])
def test_a_wrong_number_of_arguments_is_told_with_the_line(n):
    with pytest.raises(TypeError, match=rf"Op: expected x \(S, .*; got {n} argument"):
        check(LINE, *of(*[(7, 7)] * n))


@pytest.mark.parametrize(
    "x",
    [1.0, [1.0], None, "abc", np.arange(3), np.array(["a"]), np.array([None]), np.ma.zeros(3)],
    ids=repr,
)
def test_what_is_no_array_of_floats_is_refused_with_the_cure(x):
    with pytest.raises(TypeError, match=r"Op: x is .*; expected an array of floating .*x.astype"):
        check("x (...)", x)


def test_numbers_may_be_plain_and_integers_may_not_be_floats():
    check("x (*) numbers, y (*) numbers", 2, np.arange(3))
    check("x (n) integers", np.arange(3))
    check("x (n) reals", np.ones(3, bool))
    with pytest.raises(TypeError, match=r"x is ndarray of float64 \(3,\); expected .*integers"):
        check("x (n) integers", np.ones(3))
    with pytest.raises(TypeError, match="x is of type list"):
        check("x (*) numbers", [1.0])


def test_the_cure_is_that_of_the_letter_or_of_the_argument():
    cures = (("S", "Resize"), ("b", "Give one number each"))
    with pytest.raises(ValueError, match=r"as in x \(7, 3\). Resize$"):
        check(LINE, *of((7, 3), (11, 5)), cures=cures)
    with pytest.raises(ValueError, match=r"as in W \(11, 7\). Give one number each$"):
        check(LINE, *of((7, 3), (11, 7), (1,)), cures=cures)
