"""Images as grids (H, W, B, C): positions lead, as tokens do."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinymixer import ops
from tinymixer.backend import Array, device_constant
from tinymixer.engine import Tensor


def sides(size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of an image size that is given as one side or as both."""
    height, width = (size, size) if isinstance(size, int | np.integer) else size
    return int(height), int(width)


def grid(images: Any, channels: int | None = None) -> Any:
    """images (B, H, W, channels)  ->  the same pixels as a grid (H, W, B, channels).

    Positions lead. Raises ValueError for anything but a batch of images, or for another number of
    channels than is given, TypeError for integer pixels.
    """
    ops.patch.check_images("grid", images)
    if channels not in (None, images.shape[-1]):
        raise ValueError(
            f"grid: expected images with channels={channels}, got {images.shape}. Build the model "
            f"with channels={images.shape[-1]}, or give it the images that it is made for"
        )
    return images.transpose(1, 2, 0, 3)


def resize(x: Any, size: tuple[int, ...], matrix: Callable[[int, int], Array]) -> Any:
    """x (H, W, B, C)  ->  (*size, B, C), by `ops.resample.bilinear_matrix` or `bicubic_matrix`.

    x itself if it has that size already. A plain array gives a plain array, without a gradient.
    """
    if x.shape[:2] == tuple(size):
        return x
    pixels = x.data if isinstance(x, Tensor) else x
    A_h, A_w = (_resizing(pixels, matrix, n, m) for n, m in zip(x.shape, size, strict=False))
    y = ops.Resample()(x, A_h, A_w)
    return y if isinstance(x, Tensor) else y.data


@device_constant
def _resizing(matrix: Callable[[int, int], np.ndarray], n_in: int, n_out: int) -> np.ndarray:
    return matrix(n_in, n_out)
