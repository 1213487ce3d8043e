"""The command `tinymixer gradcheck`."""

import json
import re

import numpy as np
import pytest

from tinymixer import cli, ops


def test_the_command_reports_one_operation(tmp_path, capsys):
    files = ["--json", str(tmp_path / "found.json"), "--plot", str(tmp_path / "curve.png")]
    assert cli.main(["gradcheck", "--op", "GELU", *files]) == 0
    out = capsys.readouterr().out
    assert re.search(
        r"^GELU +3 +\d\.\de-1\d +\d\.\de-1\d +- +\d\.\d\d +dx\[.*\] +passed$", out, re.M
    )
    assert "1 operations in 3 cases, 0 models; 0 failed" in out
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
