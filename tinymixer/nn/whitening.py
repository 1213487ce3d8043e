"""A start for the first embedding that knows how the pixels of a patch depend on one another."""

import numpy as np

from tinymixer.backend import Array
from tinymixer.nn.grids import grid
from tinymixer.nn.layers import PatchEmbed, UnfoldLinear
from tinymixer.nn.module import Module
from tinymixer.nn.roles import embedding_of

EPS = 5e-4  # added to every variance: what hardly varies is noise, and is not to be made as large


def whiten(model: Module, images: Array) -> None:
    """Change the fresh weights W of the model's first embedding as if it read white patches.

        W <- Σ^(-1/2) W,    Σ = mean of p pᵀ + EPS I    over all patches p (F,) of the images

    images (B, H, W, channels), normalised floats; W (F, C). Neighbouring pixels are nearly equal,
    so random sums of pixels are all nearly the mean colour of the patch, and differences between
    pixels have to be learned. Σ^(-1/2) p is white: all its F directions are equally large on
    average, and uncorrelated. Where an embedding has several windows, each has its own Σ.

    Raises ValueError for a model without such an embedding. Source: Coates, Lee and Ng 2011, "An
    analysis of single-layer networks in unsupervised feature learning", section 3.1.2; as a start
    of weights: Page 2019, "How to train your ResNet"; Jordan 2024, arXiv:2404.00498.
    """
    below = embedding_of(model).named_modules()
    layers = [x for _, x in below if isinstance(x, PatchEmbed | UnfoldLinear)]
    if not layers:
        raise ValueError(f"whiten: {type(model).__name__} has no embedding of patches or windows")
    for layer in layers:
        windows = layer.windows(images if isinstance(layer, PatchEmbed) else grid(images))
        W = layer.linear.W
        W.data = (whitening(windows.data.reshape(-1, len(W.data))) @ W.data).astype(W.data.dtype)


def whitening(p: np.ndarray) -> np.ndarray:
    """p (N, F)  ->  Σ^(-1/2) (F, F), in float64; the signs of the eigenvectors do not matter."""
    p = p.astype(np.float64)
    variances, directions = np.linalg.eigh(p.T @ p / len(p))
    return directions / np.sqrt(variances + EPS) @ directions.T
