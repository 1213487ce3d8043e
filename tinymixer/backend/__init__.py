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
    constant,
    cuda_module,
    device_of,
    gpu_ms,
    numbers,
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
    "constant",
    "cuda_module",
    "device_of",
    "gpu_ms",
    "gpu_parts",
    "host_copies",
    "numbers",
    "operand_type",
    "precision",
    "product",
    "synchronize",
    "to_device",
    "to_numpy",
    "why_no_gpu",
]
