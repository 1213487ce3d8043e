"""Twins for CuPy: what lies between the matrix products of a training step, in kernels of our own.

A GPU multiplies faster than its memory delivers, and each launch costs the CPU some microseconds.
So what counts is how often an array passes through memory, and in how many launches: a bias, GELU
and its derivative, and the sum that is a bias's gradient are one pass here. Each file has the twins
of its namesake one floor further down, and the kernels that they launch in a `.cu` file beside it,
compiled on first use. Every product is one of two matrices, by CuPy or cuBLAS, in the
`products.precision` that is set.
"""

from tinymixer.fast.gpu import ops  # registers its twins
from tinymixer.fast.gpu.data import Augment, Generator, rng_key
from tinymixer.fast.gpu.optim import AdamW, gather

__all__ = ["AdamW", "Augment", "Generator", "gather", "ops", "rng_key"]
