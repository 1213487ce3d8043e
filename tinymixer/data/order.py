"""Floor 1. The order of a user's images, and which are kept for testing by default.

Both depend on the names and the seed only: never on chance, on the order in which a disk lists
files, or on other classes. With one file more, few others change their place.
"""

from hashlib import sha256

import numpy as np

TEST_SHARE = 5  # one image of five is kept for testing, in each class


def mixed(names: list[str], labels: np.ndarray, seed: int) -> np.ndarray:
    """An order in which any first part has about the same share of every class.

    labels (N,)  ->  int64 (N,); within a class by SHA-256 of seed and name
    """
    return np.lexsort((labels, _places(names, labels, seed)))


def kept_for_testing(names: list[str], labels: np.ndarray, seed: int) -> np.ndarray:
    """A fifth of each class, rounded up, but none of a class that has only one.

    labels (N,)  ->  bool (N,)
    """
    return _places(names, labels, seed) < 1 / TEST_SHARE


def _places(names: list[str], labels: np.ndarray, seed: int) -> np.ndarray:
    """Where each image is within its class, in [0, 1): image k of n at k / n, the last at 1 / 1."""
    digests = [
        sha256(f"{seed}/{name}".encode("utf-8", "surrogateescape")).digest() for name in names
    ]
    places = np.ones(len(names))
    for label in np.unique(labels):
        which = sorted(np.flatnonzero(labels == label), key=digests.__getitem__)
        if len(which) > 1:
            places[which] = np.arange(len(which)) / len(which)
    return places
