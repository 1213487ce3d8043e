"""Floor 0. Which array library? The only package that imports CuPy.

arrays.py     where an array lives, and how it gets elsewhere
products.py   matrix products on a GPU, in a named precision
cublas.py     the library that computes them
graph.py      many launches in one
doctor.py     what keeps a GPU from computing
"""

from tinymixer.backend.arrays import (
    Array,
    array_module,
    cuda_module,
    device_constant,
    device_of,
    gpu_ms,
    read_scalars,
    synchronize,
    to_device,
    to_numpy,
)
from tinymixer.backend.doctor import gpu_parts, why_no_gpu
from tinymixer.backend.graph import Replay, host_copies
from tinymixer.backend.products import PRECISIONS, operand_type, precision, product

__all__ = [
    "PRECISIONS",
    "Array",
    "Replay",
    "array_module",
    "cuda_module",
    "device_constant",
    "device_of",
    "gpu_ms",
    "gpu_parts",
    "host_copies",
    "operand_type",
    "precision",
    "product",
    "read_scalars",
    "synchronize",
    "to_device",
    "to_numpy",
    "why_no_gpu",
]
