"""What `tinymixer doctor` says of a machine."""

import numpy as np
from command_line import call

from tinymixer.train.machine import Machine


def test_doctor_tells_versions_threads_gpu_and_data(capsys):
    assert call("doctor") == 0
    said = capsys.readouterr().out
    for word in ("numpy", np.__version__, "blas", "GPU", "cifar10", "not found", "processors"):
        assert word in said


def test_doctor_tells_what_decides_the_bits(capsys):
    assert call("doctor") == 0
    assert f"bits        those of {Machine.here()}; with others" in capsys.readouterr().out
