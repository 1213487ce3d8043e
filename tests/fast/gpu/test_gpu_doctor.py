"""What is said where a part of what computing on a GPU takes is missing."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from tinymixer import cli
from tinymixer.fast.gpu import cublas
from tinymixer.fast.gpu.doctor import gpu_parts


class Broken:
    """In place of a part of CuPy: whatever is asked of it raises."""

    def __init__(self, message):
        self.message = message

    def __getattr__(self, name):
        raise RuntimeError(self.message)

    def __call__(self, *_arguments):
        raise RuntimeError(self.message)


def whole_cupy(driver=13000, **changes):
    """A module in CuPy's place that has all parts, and a card; or `changes` in its cuda."""

    class Device:
        compute_capability, mem_info = "90", (3 * 2**30, 80 * 2**30)

    parts = {
        "runtime": SimpleNamespace(
            driverGetVersion=lambda: driver,
            runtimeGetVersion=lambda: 13000,
            getDeviceProperties=lambda i: {"name": b"NVIDIA H100"},
        ),
        "nvrtc": SimpleNamespace(getVersion=lambda: (13, 0)),
        "Device": Device,
    }
    cuda = SimpleNamespace(is_available=lambda: True, **parts | changes)
    return SimpleNamespace(__version__="14.2.0", cuda=cuda, ones=np.ones, arange=np.arange)


def test_a_machine_with_everything_is_told_part_by_part(monkeypatch):
    monkeypatch.setattr(cublas, "_opened", {})
    monkeypatch.setattr(cublas.ctypes, "CDLL", Broken("no such library"))
    monkeypatch.setitem(sys.modules, "cupy", whole_cupy())
    assert dict(gpu_parts()) == {
        "CuPy": "14.2.0",
        "driver": "knows CUDA 13.0; CuPy was built with 13.0",
        "card": "NVIDIA H100, compute capability 9.0",
        "memory": "3.0 of 80.0 GiB free",
        "NVRTC": "13.0",
        "cuBLAS": "multiplies matrices, through CuPy (RuntimeError: no such library)",
    }


@pytest.mark.parametrize(
    ("cupy", "part", "says"),
    [
        (whole_cupy(driver=0), "driver", "there is none); install a newer NVIDIA driver"),
        (whole_cupy(driver=12080), "driver", "it knows CUDA 12.8, this CuPy needs 13.0"),
        (
            whole_cupy(nvrtc=Broken("libnvrtc.so.13: cannot open\nshared")),
            "NVRTC",
            "libnvrtc.so.13",
        ),
        (whole_cupy(Device=Broken("cudaErrorNoDevice")), "memory", "cudaErrorNoDevice); look with"),
        (whole_cupy(runtime=Broken("")), "card", "not usable (RuntimeError); look whether"),
    ],
    ids=["no driver", "old driver", "no NVRTC", "no memory", "no runtime"],
)
def test_a_missing_part_is_one_line_with_its_cure(monkeypatch, cupy, part, says):
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    found = dict(gpu_parts())
    assert len(found) == 6
    assert says in found[part]
    assert "\n" not in found[part]


def test_a_wrong_product_is_told(monkeypatch):
    cupy = whole_cupy()
    cupy.ones = np.zeros
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert "multiplies two matrices wrongly); pip install" in dict(gpu_parts())["cuBLAS"]


def test_without_cupy_there_are_no_parts_and_a_broken_one_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert gpu_parts() == []

    class Finder:
        def find_spec(self, name, *_):
            if name == "cupy":
                raise ImportError("libcudart.so.13: cannot open\nshared object")

    monkeypatch.delitem(sys.modules, "cupy")
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    assert gpu_parts() == [("CuPy", "not usable (libcudart.so.13: cannot open); install it again")]


def test_doctor_shows_the_parts(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cupy", whole_cupy(driver=12080))
    assert cli.main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "GPU         ready" in said
    assert "  driver    not usable (it knows CUDA 12.8" in said
