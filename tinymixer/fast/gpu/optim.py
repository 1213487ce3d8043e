"""The twin of an optimizer: an update in one launch, and so is what it takes, put together."""

from collections.abc import Sequence

import numpy as np

from tinymixer import optim
from tinymixer.backend import Array, array_module
from tinymixer.fast.gpu import kernels
from tinymixer.fast.gpu.kernels import GATHERED, WIDE, one_thread_each
from tinymixer.fast.table import float32, twin_of

PIECES = np.dtype([("at", np.uint64, GATHERED), ("starts", np.int64, GATHERED + 1)])


@twin_of(optim.gather, "gpu", float32)
def gather(out: Array, gradients: Sequence[Array | None], starts: np.ndarray) -> None:
    """One launch for each 128, not one copy for each."""
    optim.require_pieces(out, gradients, starts)
    for first in range(0, len(gradients), GATHERED):
        some = [
            x if x is None else array_module(x).ascontiguousarray(x)
            for x in gradients[first : first + GATHERED]
        ]
        bounds, pieces = starts[first : first + len(some) + 1], np.zeros((), PIECES)
        pieces["at"][: len(some)] = [0 if x is None else x.data.ptr for x in some]
        pieces["starts"][: len(bounds)] = bounds
        grid = max(1, -(-int(np.diff(bounds).max()) // WIDE)), len(some)
        kernels.launch("gather", grid, out, pieces[()])


@twin_of(optim.AdamW, "gpu")
class AdamW(optim.AdamW):
    """All of an update in one launch, the average included. Weights are float32."""

    def _update_and_average(
        self,
        weights: Array,
        gradients: Array,
        lr: float,
        step: int,
        healthy: Array | bool,
        average: Array | None,
        average_decay: float,
    ) -> None:
        """Both, as the kernel does them; without an average, that of the weights is themselves."""
        beta1, beta2 = self.betas
        arrays = weights, gradients, self.decay, self.state["m"], self.state["v"]
        numbers = (
            *(lr, 1 - beta1, 1 - beta2, 1 - beta1 ** (step + 1), 1 - beta2 ** (step + 1)),
            *(self.eps, self.weight_decay, 1 - average_decay),
        )
        kernels.launch(
            "adamw",
            one_thread_each(len(weights)),
            *(*arrays, weights if average is None else average),
            *(array_module(weights).asarray(healthy), np.int64(len(weights))),
            *map(np.float32, numbers),
        )
