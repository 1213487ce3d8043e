"""The command `tinymixer gradcheck`."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent import futures

import numpy as np
import pytest

from tinymixer import cli, ops
from tinymixer.cli import gradcheck, own_function
from tinymixer.engine import Tensor
from tinymixer.gradcheck import Finding, Report, checks
from tinymixer.gradcheck.mutants import Mutant, plant, subjects
from tinymixer.gradcheck.verdict import TOLERANCES


def test_the_command_reports_one_operation(tmp_path, capsys):
    files = ["--json", str(tmp_path / "found.json"), "--plot", str(tmp_path / "curve.png")]
    assert cli.main(["gradcheck", "--op", "GELU", *files]) == 0
    out = capsys.readouterr().out
    assert re.search(
        r"^GELU +3 +\d\.\de-1\d +\d\.\de-1\d +- +\d\.\d\d +dx\[.*\] +passed$", out, re.M
    )
    assert "1 operation in 3 cases, 0 models; 0 failed" in out
    assert f"NumPy {np.__version__}" in out
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["rows"][0]["name"] == "GELU"
    assert len(found["rows"][0]["reports"]) == 3
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_an_older_report_is_not_lost_on_a_full_disk(tmp_path, capsys, monkeypatch):
    report = tmp_path / "found.json"
    report.write_text("found before")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert cli.main(["gradcheck", "--op", "Exp", "--json", str(report)]) == 2
    assert capsys.readouterr().err == f"tinymixer: {report}: No space left on device\n"
    assert report.read_text() == "found before"


def test_the_command_fails_and_explains_on_a_wrong_gradient(monkeypatch, capsys):
    healthy = ops.GELU.backward
    monkeypatch.setattr(ops.GELU, "backward", lambda self, dy: -healthy(self, dy))
    assert cli.main(["gradcheck", "--op", "GELU"]) == 1
    out = capsys.readouterr().out
    assert "3 failed" not in out, "three cases of one operation are one failure"
    assert "1 failed" in out
    assert "GELU(form=tanh) (7, 3, 5): FAILED" in out
    assert "the sign" in out


def test_the_command_names_what_is_zero_by_symmetry(capsys):
    assert cli.main(["gradcheck", "--op", "Imbalance"]) == 0
    assert "Imbalance() (1,): zero by symmetry: dv\n" in capsys.readouterr().out


@pytest.mark.parametrize("method", TOLERANCES)
def test_a_row_keeps_to_the_bounds_where_a_report_says_that_it_is_rounding(method):
    for error, verdict in (0.9, "passed"), (1.1, "failed"):
        finding = Finding("x", method, error * TOLERANCES[method], 1.0, 1.0, wrong=False)
        report = Report("f", [finding])
        assert report
        assert gradcheck.Row.of("f", [report]).verdict == verdict


def test_the_command_checks_all_that_it_is_told_to(capsys):
    assert cli.main(["gradcheck", *("--op", "Add"), *("--op", "Exp"), *("--op", "Add")]) == 0
    out = capsys.readouterr().out
    assert re.findall(r"^(\w+) .* passed$", out, re.M) == ["Add", "Exp"]


def test_a_plot_may_have_any_name(tmp_path, capsys):
    plot = tmp_path / "x.foo"
    assert cli.main(["gradcheck", "--op", "Exp", "--plot", str(plot)]) == 0
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert f"wrote {plot}" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--op", "--model"])
def test_the_command_knows_its_names(option, capsys):
    assert cli.main(["gradcheck", option, "LayreNorm"]) == 2
    error = capsys.readouterr().err
    assert "'LayreNorm'" in error
    assert ("LayerNorm" if option == "--op" else "mixer_nano") in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_all_of_it_passes_and_names_every_system(capsys):
    assert cli.main(["gradcheck", "--all"]) == 0
    shown = capsys.readouterr().out
    for model in ("mixer", "as_mlp", "hire_mlp", "vip", "sparse_mlp", "raft_mlp"):
        assert re.search(rf"^{model}_nano .* passed$", shown, re.M)


@pytest.mark.slow
def test_each_method_alone_would_have_missed_some(tmp_path):
    assert cli.main(["gradcheck", "--mutants", "--json", str(tmp_path / "m.json")]) == 0
    missed = json.loads((tmp_path / "m.json").read_text())["missed alone"]
    assert all(missed.values())
    assert missed["complex step"] < missed["differences"] < missed["one direction"]


# ------------------------------------------------------------------ a function of one's own


@pytest.fixture
def mine(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "import numpy as np\n"
        "from tinymixer.engine import Function\n"
        "class Square(Function):\n"
        "    def forward(self, x):\n"
        "        self.saved = (x,)\n"
        "        return x * x\n"
        "    def backward(self, dy):\n"
        "        return 2 * dy * self.saved[0]\n"
        "class Half(Square):\n"
        "    def backward(self, dy):\n"
        "        return dy * self.saved[0]\n"
        "class Power(Square):\n"
        "    def __init__(self, n):\n"
        "        self.n = n\n"
        "def layer(x, W, b=None):\n"
        "    return (x @ W).tanh()\n"
        "def number(x):\n"
        "    return 3.0\n"
        "seven = 7\n"
    )
    return str(file)


@pytest.mark.parametrize(
    ("name", "inputs", "code", "says"),
    [
        ("Square", ["x=3,4"], 0, "Square: passed"),
        ("Square", ["x=()"], 0, "Square: passed"),
        ("layer", ["W=4,2:positive", "x=3x4"], 0, "covered: all 20 elements"),
        ("Half", ["x=3,4:unit"], 1, "off by the factor 0.5"),
        ("Square", ["x=3:0..9"], 3, "whole numbers count as labels"),
        ("Square", ["x=0"], 3, "no elements"),
    ],
)
def test_an_own_function_is_checked(mine, capsys, name, inputs, code, says):
    given = [word for spec in inputs for word in ("--input", spec)]
    assert cli.main(["gradcheck", f"{mine}:{name}", *given]) == code
    assert says in capsys.readouterr().out


def test_a_range_of_whole_numbers_includes_its_ends():
    drawn = own_function.array("99:-1..1", "", np.random.default_rng(0))
    assert set(drawn) == {-1, 0, 1}


def test_an_own_function_has_a_curve_and_a_file(mine, tmp_path, capsys):
    files = ["--json", str(tmp_path / "r.json"), "--plot", str(tmp_path / "c.png")]
    assert cli.main(["gradcheck", f"{mine}:Square", "--input", "x=3", *files]) == 0
    assert json.loads((tmp_path / "r.json").read_text())["verdict"] == "passed"
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{mine}"], "expected a file and a name"),
        (["nowhere.py:f"], "nowhere.py: no such file"),
        (["no_module_of_mine:f"], "ModuleNotFoundError"),
        (["{mine}:cube"], "has no 'cube'; it has"),
        (["{mine}:seven"], "is not a function, but of type int"),
        (["{mine}:Power", "--input", "x=3"], "takes options"),
        (["{mine}:layer", "--input", "x=3,4"], "give --input W=SHAPE"),
        (["{mine}:layer", "--input", "z=3,4"], "there is no 'z'"),
        (["{mine}:Square", "--input", "x"], "expected a name and a shape"),
        (["{mine}:Square", "--input", "x=3,a"], "is not a shape"),
        (["{mine}:Square", "--input", "x=3:odd"], "unknown kind 'odd'"),
        (["{mine}:Square", "--input", "x=3:9..0"], "expected a range"),
        (["{mine}:Square", "--input", "x=3", "--input", "x=3"], "given twice"),
        (["{mine}:number", "--input", "x=3"], "return a Tensor, got float"),
        (["--input", "x=3"], "name one"),
        (["{mine}:Square", "--all"], "is checked alone"),
    ],
)
def test_wrong_use_gets_one_line(mine, capsys, arguments, says):
    assert cli.main(["gradcheck", *(a.replace("{mine}", mine) for a in arguments)]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


# ------------------------------------------------------------------ models where bugs hide


def test_a_backward_that_raises_is_a_row(monkeypatch, capsys):
    def backward(self, dy):
        raise ZeroDivisionError("in a backward")

    monkeypatch.setattr(ops.GELU, "backward", backward)
    assert cli.main(["gradcheck", "--op", "GELU", "--op", "Exp"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"^GELU .* FAILED$", out, re.M)
    assert re.search(r"^Exp .* passed$", out, re.M)
    assert "backward raises ZeroDivisionError: in a backward" in out


@pytest.fixture
def tiny(monkeypatch):
    """The parts of a system's models in one block each, at 16x16: a hundredth of the time."""

    def registered(name, **sizes):
        system, config = gradcheck.MODELS[name]
        config = config | {"image_size": 16} | sizes
        monkeypatch.setitem(gradcheck.MODELS, "tiny", (system, config))
        monkeypatch.setattr(checks, "LOOK_CLOSER", 1)  # that it fails is enough here
        return "tiny"

    return registered


AS_MLP = {"hidden_dim": 7, "depths": (1, 2), "mlp_ratio": 2.0}
MIXER = {"hidden_dim": 5, "tokens_mlp_dim": 11, "channels_mlp_dim": 13, "num_blocks": 1}


def test_models_are_trained_at_another_size_and_walked_twice(tiny):
    own, other = gradcheck._check_model(tiny("as_mlp_nano", **AS_MLP))
    assert other.name == "ASMLP in training at 20x12, twice"
    assert own
    assert other


@pytest.mark.parametrize(
    ("name", "sizes", "slip"),
    [
        ("mixer_pico", MIXER, Mutant(ops.Dropout, "in training", "dy *", "1.001 * dy *")),
        (
            "as_mlp_nano",
            AS_MLP,
            Mutant(
                ops.AxialShift,
                "at another size",
                "return dx",
                "return dx if dx.shape[0] == dx.shape[1] else 1.001 * dx",
            ),
        ),
        (
            "mixer_pico",
            MIXER,
            Mutant(Tensor, "twice", "leaf.grad + dx", "leaf.grad + 0.999 * dx", Tensor.backward),
        ),
    ],
    ids=lambda value: value.bug if isinstance(value, Mutant) else "",
)
def test_each_of_three_slips_shows_in_one_of_those_only(tiny, monkeypatch, name, sizes, slip):
    if slip.op is not Tensor:
        monkeypatch.setattr(slip.op, "backward", plant(slip).backward)
    with subjects(slip):  # of the tape it changes the tape itself
        own, other = gradcheck._check_model(tiny(name, **sizes))
    assert own
    assert other.verdict == "failed"


# ------------------------------------------------------------------ several processes


def test_processes_that_share_the_work_find_what_one_finds(monkeypatch, capsys):
    started, pool = [], futures.ProcessPoolExecutor
    monkeypatch.setattr(
        futures, "ProcessPoolExecutor", lambda n, *how: started.append(n) or pool(n, *how)
    )
    monkeypatch.setattr(gradcheck, "OPERATIONS_OF_A_PROCESS", 1)

    def table(cores):
        monkeypatch.setattr(gradcheck, "processors", lambda: cores)
        assert cli.main(["gradcheck", "--op", "Imbalance", "--op", "Load"]) == 0
        return capsys.readouterr().out.rpartition("\n\n")[0]

    alone = table(1)
    assert not started
    assert table(2) == alone
    assert started == [2]


@pytest.mark.skipif(os.name == "nt", reason="sends the signal of Ctrl-C to a group of processes")
def test_ctrl_c_ends_all_of_them_with_one_line():
    command = [sys.executable, "-m", "tinymixer", "gradcheck", "--all"]
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE) as started:
        time.sleep(3)
        os.killpg(started.pid, signal.SIGINT)
        _, error = started.communicate(timeout=60)
    assert (started.returncode, error) in [
        (130, b"tinymixer: interrupted\n"),
        (-signal.SIGINT, b""),  # before it was there to say so
    ]
