"""What a model is given to see: pixels, normalised, and cut into patches if it begins with that."""

from tinymixer import data, ops
from tinymixer.backend import Array, device_of
from tinymixer.engine import chosen
from tinymixer.nn import Module, PatchEmbed


def pixels(model: Module, images: Array, mean: tuple[float, ...], std: tuple[float, ...]) -> Array:
    """Images uint8 (B, H, W, 3) as `model` is to see them in training: normalised, and as patches
    (S, B, P*P*3) if it begins with cutting them.
    """
    embed = getattr(model, "patch_embed", None)
    if not isinstance(embed, PatchEmbed):
        return data.normalise(images, mean, std)
    arguments = images, mean, std, embed.patch_size
    return chosen(patches, device_of(images), *arguments)(*arguments)


def patches(
    images: Array, mean: tuple[float, ...], std: tuple[float, ...], patch_size: int
) -> Array:
    """`Patchify` of normalised images uint8 (B, H*P, W*P, 3)  ->  float32 (H*W, B, P*P*3)."""
    return ops.Patchify(patch_size).forward(data.normalise(images, mean, std))
