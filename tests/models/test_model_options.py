"""What the options of a model may be: every option of every system is checked, at once and by name.

The tables here are written by hand and know nothing of `models.options`.
"""

import math
import re
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest

from tinymixer import create_model, nn
from tinymixer.models import MODELS, options_of
from tinymixer.models.options import Rate, Size, checked, kinds_of
from tinymixer.models.segmentation import Segmenter

SMALL = ("mixer_pico", *(name for name in MODELS if name.endswith("_nano")))
SYSTEMS = {MODELS[name][0]: name for name in SMALL}

NAN, INF, HUGE = math.nan, math.inf, 10**30
BATTERY = (
    *(0, -1, 1.5, NAN, INF, -INF, HUGE, -HUGE, 10**12, 1e30, "x", "", None, True, b"1"),
    *([], [0], [1.5], [HUGE], ["x"], [True], (), (1, 1, 1, 1, 1), {}, {1}, object()),
    *([1] * 10_000, 1j, np.float64("nan"), np.array([1, 2]), int, (1, (1,))),
)


def same(x, y):
    return type(x) is type(y) and (x is y or repr(x) == repr(y))


# What of BATTERY an option takes. Not listed: nothing.
TAKES = {
    "dropout": (0,),
    "drop_path_rate": (0,),
    "eps": (),
    "momentum": (0,),
    "loss_weight": (0, 1.5),
    "capacity_factor": (1.5, None),
    "eval_capacity_factor": (1.5, None),
    "mlp_ratio": (1.5,),
    "region_ratio": (1.5,),
    "attention_ratio": (1.5,),
    "init_std": (1.5,),
    "noisy_gates": (True,),
    "prioritised": (True,),
    "patch_norm": (True,),
    "weighted": (True,),
    "kernels": (None,),
    "sparse_blocks": (0, [], [0], (), (1, 1, 1, 1, 1)),
    "num_classes": (None,),  # as usual
}
TAKES_ELSE = {  # by system, where one name means two things
    ("ASMLP", "depths"): ((1, 1, 1, 1, 1),),
    ("VisionPermutator", "mlp_ratio"): (),
    ("VisionPermutator", "attention_ratio"): (),
    ("VisionPermutator", "init_std"): (1.5, None),
}


@pytest.mark.parametrize("name", SMALL)
def test_every_option_refuses_what_it_cannot_be_by_name_quickly_and_without_memory(name):
    system = MODELS[name][0].__name__
    tracemalloc.start()
    try:
        for option in options_of(name):
            takes = TAKES_ELSE.get((system, option), TAKES.get(option, ()))
            for value in BATTERY:
                if any(same(value, x) for x in takes):
                    options_of(name, **{option: value})
                    continue
                said = rf"^{system}: ({option}=.*|expected one entry .*{option})"
                start = time.perf_counter()
                with pytest.raises(ValueError, match=said) as error:
                    create_model(name, **{option: value})
                assert time.perf_counter() - start < 0.5
                assert len(str(error.value)) < 400
                assert "\n" not in str(error.value)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", SMALL)
def test_a_number_too_large_or_too_small_for_one_stage_is_refused(name):
    refused = 0
    for option, usual in options_of(name).items():
        if not isinstance(usual, tuple) or option == "kernels":
            continue
        for no in (-1, 1.5, HUGE, 10**12, "x", None, True, (0,)):
            for i in range(len(usual)):
                value = (*usual[:i], no, *usual[i + 1 :])
                with pytest.raises(
                    ValueError, match=rf": {option}=\(.*: expected a?.*whole number"
                ):
                    create_model(name, **{option: value})
                refused += 1
    assert refused or name.startswith(("mixer", "sparse"))


@pytest.mark.parametrize("name", SMALL)
def test_a_system_built_directly_checks_the_same(name):
    system, options = MODELS[name][0], options_of(name)
    for option in options:
        with pytest.raises(ValueError, match=rf"^{system.__name__}: {option}=\{{\}}: expected "):
            system(**options | {option: {}}, rng=nn.BLANK)


def test_a_segmenter_checks_its_options_before_it_changes_the_backbone():
    backbone = create_model("raft_mlp_nano", rng=nn.BLANK)
    for option in ("num_classes", "width", "gelu"):
        for value in BATTERY:
            with pytest.raises(ValueError, match=rf"^Segmenter: {option}=.*: expected "):
                Segmenter(**{"backbone": backbone, "num_classes": 3, option: value}, rng=nn.BLANK)
    with pytest.raises(ValueError, match=r"^Segmenter: num_classes=0: expected a whole number"):
        Segmenter(backbone, 0, rng=nn.BLANK)
    assert hasattr(backbone, "head")


def test_what_is_taken_reads_as_the_same_from_a_file():
    """JSON has no tuples, and NumPy has numbers of its own."""
    for name in SMALL:
        options = options_of(name)
        listed = {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}
        of_numpy = {
            k: np.int64(v) if type(v) is int else np.float64(v) if type(v) is float else v
            for k, v in options.items()
        }
        sizes = [
            create_model(name, rng=nn.BLANK, **changes).num_parameters()
            for changes in ({}, listed, of_numpy)
        ]
        assert len(set(sizes)) == 1


def test_an_option_that_nothing_checks_cannot_be_defined():
    with pytest.raises(TypeError, match="nothing checks the option depth"):

        class Unchecked(nn.Module):
            @checked
            def __init__(self, *, width: Size, depth: int = 3, rng: nn.Rng): ...

    class Plain(nn.Module):
        def __init__(self, *, width: Annotated[int, "wide"], rng: nn.Rng): ...

    with pytest.raises(TypeError, match="nothing checks the option width"):
        kinds_of(Plain)

    class Checked(nn.Module):
        @checked
        def __init__(self, *, rate: Rate = 2.0, rng: nn.Rng):
            self.rate = rate

    with pytest.raises(ValueError, match=re.escape("Checked: rate=2: expected a number in [0, 1)")):
        Checked(rate=2, rng=nn.BLANK)


TOO_LARGE = """
from tinymixer.models import create_model
try:
    create_model("mixer_nano", **{})
except ValueError:
    print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""  # the most that the process had in memory, in kB


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_dim": 65_536, "num_blocks": 1_000},
        {"hidden_dim": 65_536, "num_classes": 65_536},
        {"hidden_dim": 65_536, "channels_mlp_dim": 65_536, "tokens_mlp_dim": 65_536},
    ],
)
def test_a_model_that_is_too_large_is_refused_in_little_memory(changes):
    """Its weights are counted and never laid out: that would fill the memory of the machine."""
    if not Path("/proc/self/status").exists():
        pytest.skip("only Linux tells the memory of a process there")
    code = TOO_LARGE.replace("{}", repr(changes))
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(found.stdout.split()[1]) < 300_000  # Python and NumPy alone take 35,000


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("mixer_nano", {"hidden_dim": 65_536, "num_blocks": 1_000}),
        ("hire_mlp_nano", {"dims": (64, 128, 60_000)}),
        ("raft_mlp_nano", {"image_size": 4_096, "raft_sizes": (16, 16, 16, 16)}),
    ],
)
def test_options_that_are_too_much_together_are_refused_before_weights_are_drawn(name, changes):
    class Silent:
        def __getattr__(self, what):
            raise AssertionError(f"drew {what}")

    with pytest.raises(ValueError, match=rf"{name}: a model of more than 4,294,967,296 parameters"):
        create_model(name, rng=Silent(), **changes)


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("vip_nano", {"attention_ratio": 100}, "attention_ratio=100 leaves less than one of 64"),
        ("hire_mlp_nano", {"region_ratio": 1e-3}, "region_ratio=0.001 of 32 channels"),
        ("hire_mlp_nano", {"attention_ratio": 1e-3}, "attention_ratio=0.001 of 32 channels"),
        ("hire_mlp_nano", {"mlp_ratio": 1e-3}, "mlp_ratio=0.001 of 32 channels"),
        ("as_mlp_nano", {"mlp_ratio": 1e-3}, "mlp_ratio=0.001 of 64 channels"),
        ("hire_mlp_nano", {"stem": (3, 0, 1)}, r"stem=\(3, 0, 1\): expected \(kernel, stride, pad"),
        ("hire_mlp_nano", {"reduction": (3, 2, -1)}, r"reduction=\(3, 2, -1\): expected \(kernel"),
        ("sparse_mlp_nano", {"sparse_blocks": -1}, "sparse_blocks=-1, but it has 6 blocks"),
        ("sparse_mlp_nano", {"capacity_factor": INF}, "capacity_factor=inf"),
    ],
)
@pytest.mark.parametrize("rng", [nn.BLANK, None], ids=["blank", "drawn"])
def test_what_would_leave_a_model_without_a_part_is_refused(name, options, named, rng):
    with pytest.raises(ValueError, match=named):
        create_model(name, rng=rng, **options)
