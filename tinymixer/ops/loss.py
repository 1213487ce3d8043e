"""The loss: softmax cross-entropy."""

from tinymixer.backend import Array, array_module
from tinymixer.engine import Function


class SoftmaxCrossEntropy(Function):
    """How many nats the target distribution q is surprised by p = softmax(logits), on average.

    p[k] = exp(logits[k]) / Σ_j exp(logits[j]),  loss = -(1/B) Σ_B Σ_k q[k] log p[k]

    logits (B, K), targets (B,) class numbers or (B, K) probabilities  ->  loss ()

    q is the target, smoothed: (1 - α) onehot + α/K, with α = label_smoothing. As each q sums to 1,
    dlogits = (p - q) / B: predicted minus wanted.

    Raises ValueError for class numbers out of range and for targets of another shape. Source of
    the smoothing: Szegedy et al. 2015, arXiv 1512.00567, section 7.
    """

    def __init__(self, label_smoothing: float = 0.0):
        if not 0 <= label_smoothing <= 1:
            raise ValueError(
                f"SoftmaxCrossEntropy: expected label_smoothing in [0, 1], got {label_smoothing}"
            )
        self.label_smoothing = label_smoothing

    def forward(self, logits: Array, targets: Array) -> Array:
        xp = array_module(logits)
        q = self._target_distribution(logits, targets)
        shifted = logits - logits.max(-1, keepdims=True)  # exp cannot overflow
        log_p = shifted - xp.log(xp.exp(shifted).sum(-1, keepdims=True))
        self.save(log_p, q)
        return -(q * log_p).sum() / len(q)

    def backward(self, dloss: Array) -> tuple:
        log_p, q = self.saved
        p = array_module(log_p).exp(log_p)
        return dloss * (p - q) / len(p), None

    def _target_distribution(self, logits: Array, targets: Array) -> Array:
        """q (B, K), smoothed, in the precision of the logits."""
        xp = array_module(logits)
        B, K = logits.shape
        real = logits.real.dtype
        if targets.shape == (B, K):
            q = targets.astype(real)
        elif targets.shape == (B,) and targets.dtype.kind in "iu":
            lowest, highest = int(targets.min()), int(targets.max())
            if lowest < 0 or highest >= K:
                raise ValueError(
                    f"SoftmaxCrossEntropy: class numbers run from {lowest} to {highest}, but {K} "
                    f"logits know classes 0..{K - 1}. Build the model with the data set's "
                    "num_classes"
                )
            q = (targets[:, None] == xp.arange(K)).astype(real)
        else:
            raise ValueError(
                f"SoftmaxCrossEntropy: for logits {logits.shape} expected {B} integer class "
                f"numbers or probabilities ({B}, {K}), got {targets.dtype} {targets.shape}"
            )
        return (1 - self.label_smoothing) * q + self.label_smoothing / K
