"""Inputs and wrong Functions that several tests of the gradient check use."""

import numpy as np

from tinymixer import ops

S, B, C, D_S = 7, 3, 5, 11


def normal(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape)


layer_norm = normal(S, B, C), normal(C), normal(C)
token_linear = normal(S, B, C), normal(D_S, S), normal(D_S)
square = normal(S, C), normal(C, C), normal(C)


def wrong(function, change):
    """A subclass whose backward passes its gradients through `change`."""

    class Wrong(function):
        def backward(self, dy):
            gradients = super().backward(dy)
            return change(*gradients) if isinstance(gradients, tuple) else change(gradients)

    return Wrong


def without(term):
    """LayerNorm whose backward lacks one of its two means."""

    def backward(self, dy):
        x_hat, scale, gamma = self.saved
        g = dy * gamma
        means = {"mean": g.mean(-1, keepdims=True)}
        means["stretch"] = x_hat * (g * x_hat).mean(-1, keepdims=True)
        del means[term]
        return scale * (g - sum(means.values())), (dy * x_hat).sum((0, 1)), dy.sum((0, 1))

    return type("Wrong", (ops.LayerNorm,), {"backward": backward})
