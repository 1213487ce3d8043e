"""A sheet of training images as the model sees them, each with its label."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from tinymixer.train.figures.images import sheet
from tinymixer.train.figures.style import label

LEAST = 0.005  # share of a class that is named: it rounds to 1 %


def batch(images: np.ndarray, targets: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Augmented images, each over its class, or over the shares of classes if it is mixed.

    images uint8 (B, H, W, channels); targets (B,) class numbers or (B, K) shares: "cat 70%" above
    "dog 30%".
    """
    captions = [_caption(target, class_names) for target in targets]
    return sheet(images, captions, "What the model learns from")


def _caption(target: np.ndarray, class_names: Sequence[str]) -> str:
    if target.ndim == 0:
        return label(class_names[int(target)], 18)
    shares = {int(k): target[k] for k in np.argsort(-target, kind="stable") if target[k] >= LEAST}
    if len(shares) == 1:
        return label(class_names[min(shares)], 18)
    return "\n".join(f"{label(class_names[k], 14)} {share:.0%}" for k, share in shares.items())
