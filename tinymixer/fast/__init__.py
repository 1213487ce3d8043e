"""Floor 5. Faster twins of Functions, a room for each kind of device; importing registers them.

A twin is a subclass of the Function it stands for, with the same contract and the same mathematics
in an order that suits the machine. `Function.__call__` finds it in a table, so no model knows.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinymixer import data, ops, optim
from tinymixer.backend import Array, device_of
from tinymixer.data import draws
from tinymixer.data.draws import Stream
from tinymixer.fast import cpu, gpu
from tinymixer.fast.table import reference_ops, twin_of
from tinymixer.nn import Module, PatchEmbed

__all__ = [
    "adamw",
    "augment",
    "cpu",
    "gather",
    "generator_from",
    "gpu",
    "pixels",
    "reference_ops",
    "rng_key",
    "twin_of",
]


def adamw(decay: Array, **options: Any) -> optim.AdamW:
    """`optim.AdamW(decay, **options)`, or its twin where `decay` is on a GPU."""
    return (gpu.AdamW if device_of(decay) == "gpu" else optim.AdamW)(decay, **options)


def gather(out: Array, gradients: Sequence[Array | None], starts: np.ndarray) -> None:
    """out[starts[i] : starts[i + 1]] = gradients[i], whatever its shape; 0 where it is None."""
    if device_of(out) == "gpu" and out.dtype == np.float32:
        gpu.gather(out, gradients, starts)
        return
    for gradient, start, end in zip(gradients, starts, starts[1:], strict=False):
        out[start:end] = 0 if gradient is None else gradient.reshape(-1)


def rng_key(like: Array, seed: int, stream: Stream, *position: int) -> Array:
    """`data.draws.rng_key(seed, stream, *position)`, where `like` is."""
    if device_of(like) == "gpu":
        return gpu.rng_key(like, seed, stream, *position)
    return draws.rng_key(seed, stream, *position)


def generator_from(key: Array) -> Any:
    """`data.draws.generator_from(key)`, or its twin where `key` is on a GPU."""
    return (gpu.Generator if device_of(key) == "gpu" else draws.generator_from)(key)


def pixels(model: Module, images: Array, mean: tuple[float, ...], std: tuple[float, ...]) -> Array:
    """Images uint8 (B, H, W, 3) as `model` is to see them in training: normalised, and cut into
    patches (S, B, P*P*3) if it begins with that. On a GPU these are written at once.
    """
    embed = getattr(model, "patch_embed", None)
    if not isinstance(embed, PatchEmbed):
        return data.normalise(images, mean, std)
    if device_of(images) == "gpu":
        return gpu.patches(images, mean, std, embed.patch_size)
    return ops.Patchify(embed.patch_size).forward(data.normalise(images, mean, std))


def augment(options: data.Augment, device: str) -> data.Augment:
    """`options`, or their twin where the images are on a GPU."""
    return gpu.Augment(**vars(options)) if device == "gpu" else options
