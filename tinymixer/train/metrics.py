"""Floor 5. How good are predictions? Pure functions on NumPy arrays.

labels and predictions are class numbers (N,), 0..K-1. Accuracies are fractions, 0..1.
"""

from collections.abc import Sequence

import numpy as np

from tinymixer.backend import as_index


def accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    """The fraction of predictions that are right."""
    _check(labels, predictions)
    return float((labels == predictions).mean())


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, K: int) -> np.ndarray:
    """matrix[i, j], (K, K) int64: how many images of class i were predicted to be of class j.

    Raises ValueError for class numbers outside 0..K-1.
    """
    _check(labels, predictions)
    for numbers in (labels, predictions):
        if numbers.min() < 0 or numbers.max() >= K:
            raise ValueError(
                f"confusion_matrix: class numbers run from {numbers.min()} to {numbers.max()}, but "
                f"{K} classes are 0..{K - 1}. Give the K of the data set"
            )
    cells = labels.astype(np.int64) * K + predictions  # the (row, column) of each image, in one
    return np.bincount(as_index(cells), minlength=K * K).reshape(K, K).astype(np.int64)


def per_class_accuracy(matrix: np.ndarray) -> np.ndarray:
    """(K,): the fraction of each class's images that a confusion matrix has right.

    NaN for a class without images.
    """
    images = matrix.sum(1)
    return np.where(images > 0, matrix.diagonal() / np.maximum(images, 1), np.nan)


def per_class_iou(matrix: np.ndarray) -> np.ndarray:
    """(K,): of all that is class k or was predicted to be, the fraction that is both.

    Intersection over union, TP / (TP + FP + FN), from a confusion matrix of pixels. NaN for a class
    that does not occur, true or predicted.
    """
    both = matrix.diagonal()
    either = matrix.sum(0) + matrix.sum(1) - both
    return np.where(either > 0, both / np.maximum(either, 1), np.nan)


def mean_iou(matrix: np.ndarray) -> float:
    """The mean of per_class_iou over the classes that occur, each weighing the same."""
    return float(np.nanmean(per_class_iou(matrix)))


def worst_mistakes(log_probabilities: np.ndarray, labels: np.ndarray, n: int) -> np.ndarray:
    """The worst mistakes: the indices of at most n images, highest loss -log p[label] first.

    log_probabilities (N, K), labels (N,). Images whose most probable class is right are left out.
    """
    wrong = np.flatnonzero(log_probabilities.argmax(1) != labels)
    log_p = log_probabilities[wrong, labels[wrong]]
    return wrong[log_p.argsort(kind="stable")[:n]]


def iou_table(matrix: np.ndarray, class_names: Sequence[str]) -> str:
    """Intersection over union class by class, as text, beside the share of its pixels found."""
    wide = max(len("class"), *map(len, class_names))
    lines = [f"{'class':{wide}}      pixels    found      IoU"]
    for name, count, found, iou in zip(
        class_names, matrix.sum(1), per_class_accuracy(matrix), per_class_iou(matrix), strict=True
    ):
        lines.append(f"{name:{wide}}  {count:10,}  {found:7.1%}  {iou:7.1%}")
    found = matrix.trace() / matrix.sum()
    lines.append(f"{'all, mean':{wide}}  {matrix.sum():10,}  {found:7.1%}  {mean_iou(matrix):7.1%}")
    return "\n".join(lines)


def class_table(matrix: np.ndarray, class_names: Sequence[str]) -> str:
    """Accuracy class by class, as text, with the class that each is most often mistaken for."""
    wide = max(len("class"), *map(len, class_names))
    lines = [f"{'class':{wide}}  images  accuracy  most often mistaken for"]
    mistakes = matrix - np.diag(matrix.diagonal())
    for i, share in enumerate(per_class_accuracy(matrix)):
        j = mistakes[i].argmax()
        right = f"{share:.1%}" if matrix[i].any() else "-"
        mistaken = f"{class_names[j]} ({mistakes[i, j]})" if mistakes[i, j] else "-"
        lines.append(f"{class_names[i]:{wide}}  {matrix[i].sum():6}  {right:>8}  {mistaken}")
    overall = matrix.trace() / matrix.sum()
    return "\n".join([*lines, f"{'all':{wide}}  {matrix.sum():6}  {overall:8.1%}"])


def _check(labels: np.ndarray, predictions: np.ndarray) -> None:
    if labels.shape != predictions.shape or not labels.size:
        raise ValueError(
            f"expected as many predictions as labels, and one at least; got {predictions.shape} "
            f"predictions for {labels.shape} labels"
        )
