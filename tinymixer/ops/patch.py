"""From images to tokens: each patch becomes one vector."""

from tinymixer.backend import Array
from tinymixer.engine import Function


class Patchify(Function):
    """Cut each image into P x P patches, row by row; a patch's pixels become a token's channels.

    images (B, H*P, W*P, 3)  ->  x (S, B, P*P*3),  S = H*W,  token s = row * W + column

    The channels of a token run over (row, column, colour) within the patch. This is the one
    transpose of a Mixer, and on images, which need no gradient, it has no backward to pay for.

    Raises ValueError for anything but a batch of images that the patches tile, TypeError for
    integer pixels.
    """

    def __init__(self, patch_size: int):
        self.patch_size = patch_size

    def forward(self, images: Array) -> Array:
        P = self.patch_size
        if images.ndim != 4:
            raise ValueError(
                f"Patchify: expected images (B, height, width, colours), got {images.shape}. A "
                "single image is a batch of one: image[None]"
            )
        B, height, width, colours = images.shape
        if height % P or width % P:
            raise ValueError(
                f"Patchify: patches of {P}x{P} do not tile images of {height}x{width}. Choose a "
                "patch_size that divides both sides, or resize the images"
            )
        if images.dtype.kind not in "fc":
            raise TypeError(
                f"Patchify: expected normalised pixels as floats, got {images.dtype}. Normalise "
                "the images first: tinymixer.data.normalise(images, mean, std)"
            )
        H, W = height // P, width // P
        self.save(H, W)
        patches = images.reshape(B, H, P, W, P, colours).transpose(1, 3, 0, 2, 4, 5)
        return patches.reshape(H * W, B, P * P * colours)  # (S, B, P*P*3)

    def backward(self, dx: Array) -> Array:
        (H, W), P = self.saved, self.patch_size
        patches = dx.reshape(H, W, dx.shape[1], P, P, -1).transpose(2, 0, 3, 1, 4, 5)
        return patches.reshape(dx.shape[1], H * P, W * P, -1)  # (B, H*P, W*P, 3)
