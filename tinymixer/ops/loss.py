"""The loss: softmax cross-entropy."""

from typing import Any

import numpy as np

from tinymixer.backend import Array, array_module
from tinymixer.engine import Function


class SoftmaxCrossEntropy(Function):
    """Mean cross-entropy, in nats, of p = softmax(logits) with the target distributions q.

    p[k] = exp(logits[k]) / Σ_j exp(logits[j]),  loss = -(1/n) Σ_n Σ_k q[k] log p[k]

    logits (..., K), targets (...) class numbers or (..., K) probabilities  ->  loss ()

    The n items to classify are images, (B, K), or the pixels of images, (H, W, B, K). Those whose
    class number is `ignore` are left out, also of n; if all are, the loss is 0.

    q is the target, smoothed: (1 - α) onehot + α/K, with α = label_smoothing.
    dlogits = (p Σ_k q[k] - q) / n; as a distribution sums to 1: predicted minus target. Where q is
    0, the logit may be -inf: a class that is ruled out.

    Raises ValueError for class numbers out of range, targets of another shape and an empty
    batch. Source of the smoothing: Szegedy et al. 2015, arXiv 1512.00567, section 7.
    """

    shapes = "logits (..., K), targets (*) reals"

    def __init__(self, label_smoothing: float = 0.0, ignore: int | None = None):
        if not (isinstance(label_smoothing, int | float) and 0 <= label_smoothing <= 1):
            raise ValueError(
                f"SoftmaxCrossEntropy: expected label_smoothing in [0, 1], got {label_smoothing}"
            )
        if not (ignore is None or isinstance(ignore, int | np.integer)):
            raise ValueError(
                f"SoftmaxCrossEntropy: expected ignore as a class number or None, got {ignore!r}"
            )
        self.label_smoothing, self.ignore = label_smoothing, ignore

    def forward(self, logits: Array, targets: Array) -> Array:
        xp = array_module(logits)
        counted, n = 1, logits.size // logits.shape[-1]
        hard = targets.shape == logits.shape[:-1] and targets.dtype.kind in "iu"
        if self.ignore is not None and hard:
            counted = (targets != self.ignore)[..., None]  # (..., 1)
            n = max(1, int(counted.sum()))
            targets = xp.where(counted[..., 0], targets, 0)
        q = counted * self._target_distribution(logits, targets, xp)
        shifted = logits - logits.max(-1, keepdims=True)  # exp cannot overflow
        log_p = shifted - xp.log(xp.exp(shifted).sum(-1, keepdims=True))
        self.saved = log_p, q, counted if hard else self._totals(q, xp), n
        return -(q * xp.where(q == 0, 0, log_p)).sum() / n

    def backward(self, dloss: Array) -> tuple:
        log_p, q, totals, n = self.saved
        p = totals * array_module(log_p).exp(log_p)
        return dloss * (p - q) / n, None

    @staticmethod
    def _totals(q: Array, xp: Any) -> Array:
        """Σ_k q[k] of each item (..., 1); 1 where it is 1 up to rounding."""
        totals = q.sum(-1, keepdims=True)
        rounding = q.shape[-1] * float(np.finfo(q.dtype).eps)
        return xp.where(abs(totals - 1) <= rounding, 1, totals).astype(q.dtype)

    def _target_distribution(self, logits: Array, targets: Array, xp: Any) -> Array:
        """q (..., K), smoothed, in the precision of the logits."""
        *places, K = logits.shape
        if not logits.size:
            raise ValueError(
                f"SoftmaxCrossEntropy: logits {logits.shape} are empty; expected one or more images"
            )
        real = logits.real.dtype
        if targets.shape == logits.shape:
            q = targets.astype(real)
        elif targets.shape == logits.shape[:-1] and targets.dtype.kind in "iu":
            lowest, highest = int(targets.min()), int(targets.max())
            if lowest < 0 or highest >= K:
                raise ValueError(
                    f"SoftmaxCrossEntropy: class numbers run from {lowest} to {highest}, but {K} "
                    f"logits are for classes 0..{K - 1}. Build the model with the data set's "
                    "num_classes"
                )
            q = (targets[..., None] == xp.arange(K)).astype(real)
        else:
            raise ValueError(
                f"SoftmaxCrossEntropy: for logits {logits.shape} expected "
                f"{'x'.join(map(str, places))} integer class numbers or probabilities "
                f"{logits.shape}, got {targets.dtype} {targets.shape}"
            )
        return (1 - self.label_smoothing) * q + self.label_smoothing / K
