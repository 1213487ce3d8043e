"""What kernels are run by without a GPU can itself fail."""

import cuda_on_cpu
import cupy_stand_in
import numpy as np
import pytest

from tinymixer.fast.gpu.kernels import cuda_module

PLANTED = {
    "a write past the end": ("a[i + 1] = 0;", "outside of argument 1"),
    "a write before the start": ("a[i - 1] = 0;", "outside of argument 1"),
    "a write to an input": ("((float *)x)[i] = 0;", "const"),
    "a race for one element": ("a[0] = i;", "depends on the order"),
    "a missing barrier": (
        "__shared__ float s[64]; s[i] = x[i]; a[i] = s[63 - i];",
        "depends on the order",
    ),
    "a barrier for some": ("if (i < 40) __syncthreads();", "not every thread"),
    "two barriers for one": ("if (i < 32) __syncthreads();\nelse\n__syncthreads();", "not every"),
    "half a warp in a shuffle": (
        "if (i < 16) a[i] = __shfl_xor_sync(~0u, x[i], 1);",
        "without its whole warp",
    ),
}
PLANT = 'extern "C" __global__ void plant(const float *x, float *a, int n) {{\n\
int i = threadIdx.x; {} }}'


@pytest.fixture
def planted():
    """Launch a kernel of the given body on 64 threads, x and a of 64 elements."""
    if missing := cuda_on_cpu.why_not():
        pytest.skip(missing)

    def launch(body, **changes):
        x = cupy_stand_in.asarray(np.arange(64, dtype=np.float32))
        a = cupy_stand_in.empty(64, np.float32)
        given = {"x": x, "a": a, "n": np.int32(64), "grid": (1,), "block": (64,)} | changes
        module = cuda_module(cupy_stand_in, PLANT.format(body), {})
        plant = module.get_function("plant")
        plant(given["grid"], given["block"], (given["x"], given["a"], given["n"]))
        return given["a"].get()

    return launch


def test_a_correct_kernel_passes(planted):
    body = "__shared__ float s[64]; s[i] = x[i]; __syncthreads(); a[i] = s[63 - i];"
    np.testing.assert_array_equal(planted(body), np.arange(64)[::-1])


@pytest.mark.parametrize(("body", "said"), PLANTED.values(), ids=PLANTED)
def test_a_planted_bug_is_caught(planted, body, said):
    with pytest.raises(cuda_on_cpu.CudaError, match=said):
        planted(body)


WRONG_ARGUMENTS = {
    "a host array": ({"x": np.zeros(64, np.float32)}, TypeError, "NumPy array"),
    "a Python number": ({"n": 64}, cuda_on_cpu.CudaError, "expected int32"),
    "a wide number": ({"n": np.int64(64)}, cuda_on_cpu.CudaError, "expected int32"),
    "float64": ({"x": cupy_stand_in.empty(64)}, cuda_on_cpu.CudaError, "float32"),
    "strides": (
        {"x": cupy_stand_in.empty((64, 2), np.float32)[:, 0]},
        cuda_on_cpu.CudaError,
        "contiguous",
    ),
    "an empty grid": ({"grid": (0,)}, cuda_on_cpu.CudaError, "grid"),
    "a huge block": ({"block": (64, 32)}, cuda_on_cpu.CudaError, "at most 1024"),
}


@pytest.mark.parametrize(
    ("changes", "error", "said"), WRONG_ARGUMENTS.values(), ids=WRONG_ARGUMENTS
)
def test_a_wrong_argument_is_refused(planted, changes, error, said):
    with pytest.raises(error, match=said):
        planted("a[i] = x[i];", **changes)
