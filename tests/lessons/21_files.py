"""Typical wrong answers to the exercises of lesson 21, each with what the check must say to it."""

import numpy as np
from notebooks import wrong


def table(blob):
    return np.frombuffer(blob, np.uint8).reshape(-1, 3073)


def planes(blob):
    return table(blob)[:, 1:].reshape(-1, 3, 32, 32)


def pixels_at_once(blob):
    return table(blob)[:, 1:].reshape(-1, 32, 32, 3), table(blob)[:, 0]


def swapped(blob):
    return planes(blob).transpose(0, 3, 2, 1), table(blob)[:, 0]


def blue_first(blob):
    return planes(blob)[:, ::-1].transpose(0, 2, 3, 1), table(blob)[:, 0]


def colours_in_front(blob):
    return planes(blob), table(blob)[:, 0]


def label_as_pixel(blob):
    return table(blob)[:, :3072].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), table(blob)[:, 0]


def last_byte(blob):
    return planes(blob).transpose(0, 2, 3, 1), table(blob)[:, -1]


def no_dots(name):
    return ".." not in name and not name.startswith("/")


def no_step_up(name):
    return ".." not in name.split("/") and not name.startswith("/")


def by_its_beginning(name):
    return not name.startswith(("../", "/"))


def by_where_it_ends(name):
    """One folder less for each `..`, wherever it is."""
    parts = name.split("/")
    up = parts.count("..")
    return not name.startswith("/") and len(parts) - up > up


def from_the_root(name):
    """A `..` is followed, and a name from the root of the disk is not noticed."""
    depth = 0
    for part in name.split("/"):
        depth += -1 if part == ".." else bool(part)
        if depth < 0:
            return False
    return True


WRONG = [
    wrong("decode", "taken for pixels", decode=pixels_at_once),
    wrong("decode", "rows and columns", decode=swapped),
    wrong("decode", "blue, green, red", decode=blue_first),
    wrong("decode", "still in front", decode=colours_in_front),
    wrong("decode", "read as a pixel", decode=label_as_pixel),
    wrong("decode", "The labels should be", decode=last_byte),
    wrong("inside", "an ordinary name", stays_inside=no_dots),
    wrong("inside", "safe, but", stays_inside=no_step_up),
    wrong("inside", "only the beginning", stays_inside=by_its_beginning),
    wrong("inside", "left the folder first", stays_inside=by_where_it_ends),
    wrong("inside", "begins with / is taken", stays_inside=from_the_root),
    wrong("inside", "should be True", stays_inside=lambda name: False),
]
