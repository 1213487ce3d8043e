"""Kernels and the real compiler, where it is installed."""

import re
import shutil
import subprocess
from pathlib import Path

import cupy_stand_in
import pytest

from tinymixer.fast.gpu import kernels
from tinymixer.fast.gpu.kernels import PLAIN, Variant

FOLDER = Path(kernels.__file__).parent
COMPILED = [(file, PLAIN) for file in kernels.sources()]
COMPILED += [("ops.cu", Variant(pack=4, packs=n)) for n in (1, 6)]
COMPILED += [("ops.cu", Variant("bfloat16", pack)) for pack in (1, 8)]


def test_no_two_kernels_have_one_name():
    names = re.findall(r"__global__ void (\w+)\(", "".join(kernels.sources().values()))
    assert len(names) == len(set(names)) >= 20


@pytest.mark.parametrize(("file", "variant"), COMPILED, ids=str)
def test_nvcc_compiles_every_kernel_and_keeps_it_in_registers(file, variant, tmp_path):
    """For an H100, which need not be there."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc, CUDA's compiler")
    source = kernels.sources()[file]
    module = kernels.cuda_module(cupy_stand_in, source, kernels.constants(variant))
    words = [nvcc, *module._options, "-arch=sm_90", "-cubin", "-Xptxas", "-v", "-Werror"]
    words += ["all-warnings", "-o", tmp_path / "kernels", FOLDER / file]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = re.findall(r'extern "C" __global__ void (\w+)', source)
    assert sorted(re.findall(r"entry function '(\w+)'", done.stderr)) == sorted(names)
    spilled = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill", done.stderr)
    assert spilled == [("0", "0")] * len(names)
