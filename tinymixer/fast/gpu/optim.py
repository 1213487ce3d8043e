"""The twin of an optimizer: an update in one launch."""

import numpy as np

from tinymixer import optim
from tinymixer.backend import Array
from tinymixer.fast.gpu import kernels
from tinymixer.fast.gpu.kernels import one_thread_each


class AdamW(optim.AdamW):
    """All of an update in one launch, the average included. Weights are float32."""

    def step(self, weights: Array, gradients: Array, lr: float, step: int) -> None:
        """Update `weights` (N,) in place by gradients (N,); `step` counts from 0."""
        self.step_and_average(weights, gradients, lr, step, None, 0.0)

    def step_and_average(
        self,
        weights: Array,
        gradients: Array,
        lr: float,
        step: int,
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
            *(*arrays, weights if average is None else average, np.int64(len(weights))),
            *map(np.float32, numbers),
        )
