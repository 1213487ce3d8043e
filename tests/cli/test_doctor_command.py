"""What `tinymixer doctor` says of a machine."""

import numpy as np
from command_line import call


def test_doctor_tells_versions_threads_gpu_and_data(capsys):
    assert call("doctor") == 0
    said = capsys.readouterr().out
    for word in ("numpy", np.__version__, "blas", "GPU", "cifar10", "not found", "processors"):
        assert word in said
