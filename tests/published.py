"""Weights and images that a formula gives, for what published code makes of them to be compared.

`weights(k, name, shape)` is tensor number k of a model as its authors' code lays it out: (out, in,
...) for whatever multiplies. Each test turns it into our layout.
"""

import math

import numpy as np

from tinymixer.backend import device_of, to_numpy
from tinymixer.engine import Tensor
from tinymixer.ops import SoftmaxCrossEntropy


def scrambled(k, *shape):
    """Numbers in [-1, 1) from a hash of tensor number k and element number: the same everywhere."""
    mask = np.uint64(0xFFFFFFFF)
    u = np.arange(math.prod(shape), dtype=np.uint64) * np.uint64(2654435761)
    u = (u + np.uint64(k * 40503 + 12345)) & mask
    u = (u ^ (u >> np.uint64(16))) * np.uint64(2246822519) & mask
    u = (u ^ (u >> np.uint64(13))) * np.uint64(3266489917) & mask
    u ^= u >> np.uint64(16)
    return (u / 2**31 - 1).reshape(shape)


def weights(k, name, shape):
    """Around 1 for the scales of norms, else around 0; of variance 1/fan_in if it multiplies."""
    r = scrambled(k, *shape)
    if name.endswith("gamma"):
        return 1 + 0.1 * r
    return 0.1 * r if len(shape) == 1 else r * math.sqrt(3 / math.prod(shape[1:]))


def images(*shape):
    """(B, height, width, 3); the formula runs over (B, 3, height, width)."""
    B, height, width, colours = shape
    return math.sqrt(3) * scrambled(1000, B, colours, height, width).transpose(0, 2, 3, 1)


def measure(device, model, pixels):
    """(logits, loss, gradients by name, gradient of the images): image n is of class n."""
    model = model.to(device_of(device.zeros(1)))
    x = Tensor(device.asarray(pixels))
    logits = model(x)
    loss = SoftmaxCrossEntropy()(logits, device.asarray(np.arange(len(pixels))))
    loss.backward()
    gradients = {name: to_numpy(p.grad) for name, p in model.named_parameters()}
    return to_numpy(logits.data), loss.item(), gradients, to_numpy(x.grad)


def norm(*arrays):
    """The Euclidean norm of all numbers in all arrays."""
    return math.hypot(*(np.linalg.norm(x) for x in arrays))
