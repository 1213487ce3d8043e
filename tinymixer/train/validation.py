"""Images held back from training, on which choices are made: the test images are for the end.

What is chosen by a figure looks better by that figure than it is, and the more there was to choose
from, the more so. So epochs, settings and models are chosen on images of their own.
"""

from dataclasses import replace

import numpy as np

from tinymixer.backend import device_of, to_device, to_numpy
from tinymixer.data import Dataset
from tinymixer.data.draws import Stream, draws
from tinymixer.errors import TinymixerError, counted


def held_back(dataset: Dataset, count: int) -> Dataset:
    """The data set with `count` training images held back: they are its test images.

    Of each class the same share, plus or minus an image; which ones, no seed of a run changes, so
    runs with several seeds are measured on the same images. mean and std stay those of all.

    With 0 it is the data set itself. Raises TinymixerError unless some images are left to train on.
    """
    if count == 0:
        return dataset
    N = len(dataset.train_images)
    if count >= N:
        raise TinymixerError(
            f"--val-size {count}: {dataset.name} has "
            f"{counted(N, 'training image')}, and some have to be "
            "left to train on; hold back fewer"
        )
    chosen = _shares(to_numpy(dataset.train_labels)).argsort(kind="stable")[:count]
    held = np.zeros(N, bool)
    held[chosen] = True
    parts = {}
    for part, mask in (("train", ~held), ("test", held)):
        indices = to_device(np.flatnonzero(mask), device_of(dataset.train_images))
        parts[f"{part}_images"] = dataset.train_images[indices]
        parts[f"{part}_labels"] = dataset.train_labels[indices]
    return replace(dataset, **parts)


def _shares(labels: np.ndarray) -> np.ndarray:
    """For each image, the share of its class that comes before it in a random order, (N,).

    Images with the smallest shares are as many of each class as it has a part in the whole. Labels
    of pixels make one class of all images.
    """
    N = len(labels)
    high, low, _, _ = draws(0, Stream.VALIDATION, 0, np.arange(N))
    order = np.lexsort((low, high))
    classes = labels[order] if labels.ndim == 1 else np.zeros(N, int)
    shares = np.empty(N)
    for k in np.unique(classes):
        of_class = order[classes == k]
        shares[of_class] = (np.arange(len(of_class)) + 0.5) / len(of_class)
    return shares
