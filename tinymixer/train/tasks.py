"""What a model predicts: the class of each image, or the class of each pixel.

A task knows how its labels lie beside the logits, what is left out of the loss, and which metric
judges a prediction. All else, from the order of the images to the checkpoint, is the same.
"""

from typing import Any

import numpy as np

from tinymixer import ops
from tinymixer.backend import Array, array_module
from tinymixer.data import IGNORED, Dataset
from tinymixer.engine import Tensor
from tinymixer.errors import DataError
from tinymixer.models.segmentation import Segmenter
from tinymixer.nn import Module, Rng
from tinymixer.train import metrics


class Classification:
    """The class of each image: targets (B,) numbers or (B, K) probabilities, logits (B, K)."""

    pixels = False
    score, score_name = "accuracy", "accuracy"  # by which the best epoch is best
    ignore: int | None = None

    def model(self, model: Module, K: int, rng: Rng) -> Any:
        """The model that predicts this, made of a model that classifies images."""
        return model

    def check_labels(self, dataset: Dataset) -> None:
        """Raise DataError if it is not what this task learns that the data set has labels for."""
        if self.pixels != (dataset.train_labels.ndim == 3):
            kinds = ("images", "pixels") if self.pixels else ("pixels", "images")
            raise DataError(
                f"{dataset.name} has labels for {kinds[0]}, but this task learns labels for "
                f"{kinds[1]}; choose the other one of {' and '.join(TASKS)}"
            )

    def beside_logits(self, targets: Array) -> Array:
        """Targets with the axes of the logits."""
        return targets

    def loss(self, logits: Tensor, targets: Array, label_smoothing: float) -> Tensor:
        op = ops.SoftmaxCrossEntropy(label_smoothing, self.ignore)
        return op(logits, self.beside_logits(targets))

    def correct(self, logits: Array, targets: Array) -> Array:
        """How many images are classified correctly, (); of one with many labels, a part."""
        wanted = targets if targets.ndim == 1 else targets.argmax(1)
        return (logits.argmax(1) == wanted).sum()

    def scores(self, matrix: np.ndarray, part: str = "test") -> dict[str, float]:
        """What a confusion matrix (K, K) comes to; part is "test", or "val" for validation."""
        return {f"{part}_accuracy": float(matrix.trace() / matrix.sum())}


class Segmentation(Classification):
    """The class of each pixel: targets uint8 (B, H, W), IGNORED for none; logits (H, W, B, K).

    A micro-batch's loss is the mean over its pixels that count, and has the weight of its images:
    where pixels are ignored, the loss of a batch depends a little on how it is cut.
    """

    pixels = True
    score, score_name = "iou", "mean IoU"
    ignore = IGNORED

    def model(self, model: Module, K: int, rng: Rng) -> Any:
        return Segmenter(model, K, rng=rng)

    def beside_logits(self, targets: Array) -> Array:
        return array_module(targets).ascontiguousarray(targets.transpose(1, 2, 0))  # (H, W, B)

    def correct(self, logits: Array, targets: Array) -> Array:
        wanted = self.beside_logits(targets)
        counted = wanted != IGNORED
        correct = (logits.argmax(-1) == wanted) & counted
        return correct.sum() / array_module(correct).maximum(counted.sum(), 1) * len(targets)

    def scores(self, matrix: np.ndarray, part: str = "test") -> dict[str, float]:
        return super().scores(matrix, part) | {f"{part}_iou": metrics.mean_iou(matrix)}


TASKS = {"classify": Classification(), "segment": Segmentation()}
