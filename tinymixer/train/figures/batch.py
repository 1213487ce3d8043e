"""A sheet of training images as the model sees them, with what it is to learn of each."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from tinymixer.train.figures.images import sample_sheet

SHOWN = 2  # classes of a mixed image


def batch(images: np.ndarray, targets: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Augmented images, each over its class, or over the shares of classes if it is mixed.

    images uint8 (B, H, W, channels); targets (B,) class numbers or (B, K) shares: "cat 70%, dog
    30%".
    """
    captions = [_caption(target, class_names) for target in targets]
    return sample_sheet(images, np.arange(len(images)), captions)


def _caption(target: np.ndarray, class_names: Sequence[str]) -> str:
    if target.ndim == 0:
        return class_names[int(target)]
    most = np.argsort(-target, kind="stable")[:SHOWN]
    if target[most[0]] == 1:
        return class_names[most[0]]
    return "\n".join(f"{class_names[k]} {target[k]:.0%}" for k in most if target[k] > 0)
