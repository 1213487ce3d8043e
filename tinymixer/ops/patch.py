"""From images to tokens: each patch becomes one vector, beside its neighbour or overlapping it."""

from dataclasses import dataclass

import numpy as np

from tinymixer.backend import Array, array_module
from tinymixer.engine import Function
from tinymixer.options import Whole, require


@dataclass(eq=False)
class Patchify(Function):
    """Cut each image into P x P patches, row by row; a patch's pixels become a token's channels.

    images (B, H*P, W*P, K)  ->  x (S, B, P*P*K),  S = H*W,  token s = row * W + column

    An image has K channels, 3 if it has colours. Those of a token run over (row, column, channel)
    within the patch. This is the only transpose in a Mixer; as images need no gradient, its
    backward is usually not computed.

    Raises ValueError for anything but a batch of images that the patches tile, TypeError for
    integer pixels.
    """

    shapes = "images (*) reals"  # what they have to be is told in the words for images

    patch_size: int

    def __post_init__(self) -> None:
        if not (isinstance(self.patch_size, int | np.integer) and self.patch_size >= 1):
            raise ValueError(
                f"Patchify: expected a patch_size of 1 or more pixels, got {self.patch_size!r}"
            )

    def forward(self, images: Array) -> Array:
        P = self.patch_size
        check_images("Patchify", images)
        B, height, width, colours = images.shape
        if height % P or width % P:
            raise ValueError(
                f"Patchify: patches of {P}x{P} do not tile images of {height}x{width}. Choose a "
                "patch_size that divides both sides, or resize the images"
            )
        H, W = height // P, width // P
        self.saved = H, W
        patches = images.reshape(B, H, P, W, P, colours).transpose(1, 3, 0, 2, 4, 5)
        return patches.reshape(H * W, B, P * P * colours)  # (S, B, P*P*K)

    def backward(self, dx: Array) -> Array:
        (H, W), P = self.saved, self.patch_size
        patches = dx.reshape(H, W, dx.shape[1], P, P, -1).transpose(2, 0, 3, 1, 4, 5)
        return patches.reshape(dx.shape[1], H * P, W * P, -1)  # (B, H*P, W*P, K)


def check_images(name: str, images: Array) -> None:
    """Raise ValueError unless these are images (B, H, W, K), TypeError for raw pixels."""
    if images.ndim != 4:
        raise ValueError(
            f"{name}: expected images (B, height, width, colours), got {images.shape}. A single "
            "image is a batch of one: image[None]"
        )
    if not len(images):
        raise ValueError(f"{name}: expected one image at least, got an empty batch {images.shape}")
    if not images.size:
        raise ValueError(f"{name}: expected images with pixels, got {images.shape}")
    if images.dtype.kind not in "fc":
        raise TypeError(
            f"{name}: expected normalised pixels as floats, got {images.dtype}. Normalise the "
            "images first: tinymixer.data.normalise(images, mean, std)"
        )


class Unfold(Function):
    """The kernel x kernel window at every stride-th position of a grid, as one vector.

    x (H, W, B, C)  ->  y (H', W', B, kernel*kernel*C),  H' = (H + 2 padding - kernel) // stride + 1

    A window's channels run over (row, column, channel); outside the grid there are zeros. A linear
    map of such vectors is a convolution. backward is the fold: each position adds
    up the gradients from all windows that contain it.

    padding is the width of the zeros on every side, or a pair: above and on the left, below and on
    the right, with their sum for `2 padding`. With (0, 1), windows of 2 x 2 tile odd grids too.

    Raises ValueError where the grid, with its padding, is smaller than a window.
    """

    shapes = "x (H, W, B, C)"

    def __init__(self, kernel: int, stride: int, padding: int | tuple[int, int] = 0):
        self.kernel = require("Unfold: kernel", kernel, Whole(1))
        self.stride = require("Unfold: stride", stride, Whole(1))
        pair = padding if isinstance(padding, tuple) and len(padding) == 2 else (padding, padding)
        before, after = (require("Unfold: padding", n, Whole(0)) for n in pair)
        self.padding = before, after

    def forward(self, x: Array) -> Array:
        H, W, B, C = x.shape
        k, p, both = self.kernel, self.padding[0], sum(self.padding)
        if min(H, W) + both < k:
            raise ValueError(
                f"Unfold: windows of {k}x{k} do not fit a grid of {H}x{W} padded by {both} in all. "
                "Use larger images, or a smaller patch or kernel"
            )
        xp = array_module(x)
        padded = xp.zeros((H + both, W + both, B, C), x.dtype)
        padded[p : p + H, p : p + W] = x
        seen_by = self._seen_by(H, W)
        self.saved = x.shape, seen_by
        y = xp.empty((*padded[seen_by[0]].shape[:3], k * k, C), x.dtype)  # (H', W', B, k*k, C)
        for i, positions in enumerate(seen_by):
            y[:, :, :, i] = padded[positions]
        return y.reshape(*y.shape[:3], -1)

    def backward(self, dy: Array) -> Array:
        (H, W, B, C), seen_by = self.saved
        p, both = self.padding[0], sum(self.padding)
        dy = dy.reshape(*dy.shape[:3], -1, C)
        dpadded = array_module(dy).zeros((H + both, W + both, B, C), dy.dtype)
        for i, positions in enumerate(seen_by):
            dpadded[positions] += dy[:, :, :, i]
        return dpadded[p : p + H, p : p + W]

    def _seen_by(self, H: int, W: int) -> list[tuple[slice, slice]]:
        """The padded positions that are row i, column j of some window, for each (i, j)."""
        k, s = self.kernel, self.stride
        rows, columns = [
            [slice(i, i + (side + sum(self.padding) - k) // s * s + 1, s) for i in range(k)]
            for side in (H, W)
        ]
        return [(row, column) for row in rows for column in columns]
