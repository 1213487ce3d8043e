"""What a machine computes with is told apart wherever it gives other bits."""

import json
import os
import platform
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from tinymixer.train import machine
from tinymixer.train.machine import Machine

PRINTS = """
import hashlib, json
import numpy as np
from tinymixer.train.machine import Machine
rng = np.random.default_rng(0)
x, W = (rng.standard_normal((67, 67), dtype=np.float32) for _ in range(2))
digest = hashlib.sha256((x @ W).tobytes() + np.exp(x).tobytes() + x.sum().tobytes())
print(json.dumps([digest.hexdigest(), Machine.here().to_json()]))
"""
KERNELS = ({"OPENBLAS_CORETYPE": "Nehalem"}, {"NPY_DISABLE_CPU_FEATURES": "X86_V3 AVX2 FMA3"})


def asked(**environment):
    """The bits of a few operations in a process of its own, and its Machine."""
    command = [sys.executable, "-W", "ignore", "-c", PRINTS]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | environment, check=True
    )
    return json.loads(done.stdout)


def test_this_machine_says_what_it_is():
    here = Machine.here()
    assert here.numpy == np.__version__
    assert here.processor == platform.machine()
    assert str(here).isprintable()
    assert here == Machine.here()
    assert here.differences(here) == []


@pytest.mark.skipif(platform.machine() != "x86_64", reason="kernels of other processors")
def test_where_other_kernels_give_other_bits_the_record_is_another_one():
    bits, here = asked()
    assert asked() == [bits, here]
    others = [asked(**environment) for environment in KERNELS]
    for other_bits, other in others:
        assert other_bits == bits or other != here


@pytest.mark.skipif("openblas" not in Machine.here().blas, reason="NumPy has another BLAS")
def test_openblas_says_which_kernels_it_uses():
    assert len(Machine.here().blas.split()) == 3


def test_what_a_library_does_not_say_is_unknown(monkeypatch):
    monkeypatch.setattr(machine, "threadpool_info", list)
    monkeypatch.setattr("numpy.show_config", lambda mode: {})
    assert (machine._blas(), machine._vectors()) == ("unknown", "unknown")


def test_a_library_of_another_package_is_not_asked(monkeypatch):
    def found():
        common = {"user_api": "blas", "internal_api": "openblas"}
        yield common | {"filepath": "/scipy.libs/x.so", "version": "1", "architecture": "Zen"}
        yield common | {"filepath": "/numpy.libs/x.so", "version": "2", "architecture": None}

    monkeypatch.setattr(machine, "threadpool_info", found)
    assert machine._blas() == "openblas 2"


def test_differences_are_named():
    here = Machine("x86_64", "2.4.6", "X86_V3", "openblas 0.3 Haswell")
    there = replace(here, numpy="2.3.1", gpu="card H200")
    assert here.differences(there) == ["numpy 2.4.6, not 2.3.1", "gpu none, not card H200"]


def test_it_is_read_as_it_was_written():
    here = Machine.here()
    assert Machine.from_json(json.loads(json.dumps(here.to_json()))) == here


@pytest.mark.parametrize(
    "changes", [None, {"more": ""}, {"numpy": 2}, {"numpy": "2\x1b"}, {"blas": "x" * 1000}]
)
def test_what_no_machine_writes_is_refused(changes):
    found = changes and Machine.here().to_json() | changes
    with pytest.raises(ValueError, match="the machine"):
        Machine.from_json(found)
