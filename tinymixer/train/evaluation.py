"""What a model predicts for images that it is not trained on, and how well."""

import math

import numpy as np

from tinymixer import data
from tinymixer.backend import Array, array_module, device_of, to_numpy
from tinymixer.engine import no_grad
from tinymixer.nn import Module
from tinymixer.train import metrics
from tinymixer.train.parallel import Workers, micro_batches
from tinymixer.train.tasks import Classification

TTA = ("none", "flip")  # at test time: each image as it is, or it and its mirror image
EVAL_BATCH = {"cpu": 64, "gpu": 1024}  # images that a worker evaluates at once


def measure(
    task: Classification,
    model: Module,
    dataset: data.Dataset,
    workers: Workers,
    tta: str = "none",
) -> tuple[float, np.ndarray]:
    """The mean loss on the test images, in nats, and their confusion matrix (K, K), true by row.

    What is counted are images, or pixels that have a class. tta: one of TTA, what the model is
    asked about an image at test time.
    """

    def of_batch(batch: tuple[Array, Array]) -> tuple[float, np.ndarray]:
        images, labels = batch
        log_p = _answer(model, images, dataset.mean, dataset.std, tta)
        wanted = task.beside_logits(to_numpy(labels))
        counted = wanted != (-1 if task.ignore is None else task.ignore)
        if not counted.any():
            return 0.0, np.zeros((dataset.num_classes,) * 2, np.int64)
        log_p, wanted = log_p[counted], wanted[counted]  # (n, K), (n,)
        matrix = metrics.confusion_matrix(wanted, log_p.argmax(1), dataset.num_classes)
        return float(log_p[np.arange(len(wanted)), wanted].sum()), matrix

    images, labels = (_to_evaluate(model, x) for x in (dataset.test_images, dataset.test_labels))
    done = workers.map(of_batch, list(zip(images, labels, strict=True)))
    matrix = np.sum([matrix for _, matrix in done], axis=0)
    return -math.fsum(log_p for log_p, _ in done) / int(matrix.sum()), matrix


def log_probabilities(
    model: Module,
    images: Array,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    workers: Workers,
    tta: str = "none",
) -> np.ndarray:
    """log p (N, K), natural, for images uint8 (N, H, W, C); mean and std in pixel units.

    tta: one of TTA.
    """
    batches = _to_evaluate(model, images)
    return np.concatenate(workers.map(lambda x: _answer(model, x, mean, std, tta), batches))


def segments(
    model: Module,
    images: Array,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    tta: str = "none",
) -> np.ndarray:
    """The most probable class of each pixel, (N, H, W), for images uint8 (N, H, W, C)."""
    return _answer(model, images, mean, std, tta).argmax(-1).transpose(2, 0, 1)


def _to_evaluate(model: Module, x: Array) -> list[Array]:
    """x (N, ...) in pieces of as many images as are evaluated at once where the model is."""
    return micro_batches(x, EVAL_BATCH[device_of(model.parameters()[0].data)])


def _answer(
    model: Module, images: Array, mean: tuple[float, ...], std: tuple[float, ...], tta: str
) -> np.ndarray:
    """log p of each image, or the log of the mean of p and that of its mirror image."""
    log_p = _log_softmax(model, images, mean, std)
    if tta == "flip":
        mirrored = _log_softmax(model, images[:, :, ::-1], mean, std)
        if mirrored.ndim == 4:
            mirrored = mirrored[:, ::-1]  # (H, W, B, K): pixels back to where they were
        log_p = np.logaddexp(log_p, mirrored) - math.log(2)
    return log_p


def _log_softmax(
    model: Module, images: Array, mean: tuple[float, ...], std: tuple[float, ...]
) -> np.ndarray:
    """log p, natural, of what the model predicts: (B, K) or (H, W, B, K)."""
    xp = array_module(model.parameters()[0].data)
    # what overflows shows in the loss
    with no_grad(), np.errstate(over="ignore", invalid="ignore"):
        logits = to_numpy(model(data.normalise(xp.asarray(images), mean, std)).data)
        shifted = logits - logits.max(-1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
