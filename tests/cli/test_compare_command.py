"""What `tinymixer compare` leaves, and what it says when it cannot."""

import json
import signal

import pytest
from command_line import TINY, call, contents, no_network, refused
from small_runs import stop_at

COMPARE = ("compare", "mixer_pico", "mixer_nano", "--quiet", *TINY)


def test_compare_shows_what_each_model_made_of_the_budget(here, capsys):
    assert call(*COMPARE, "--epochs", 1.5) == 0
    said = capsys.readouterr().out
    assert "Budget: 1.5 epochs for each model. Data: shapes, 40 training and 30 test" in said
    out = here / "runs" / "compare-shapes-1.5-epochs"
    names = {"comparison.json", "comparison.md", "accuracy-macs.png", "accuracy-seconds.png"}
    assert {path.name for path in out.iterdir()} == names | {"mixer_pico", "mixer_nano"}
    for model in ("mixer_pico", "mixer_nano"):
        rows = (out / model / "metrics.jsonl").read_text().splitlines()
        assert f"{json.loads(rows[-1])['test_accuracy']:.2%}" in said
        assert call("eval", "--run", out / model) == 0


def test_compare_stopped_goes_on_by_the_same_command(here, capsys, monkeypatch):
    argv = (*COMPARE, "--macs", 1e7, "--out", "c")
    stop_at(monkeypatch, 1, signal.SIGINT)
    assert call(*argv) == 130
    captured = capsys.readouterr()
    assert captured.err == (
        "tinymixer: stopped by SIGINT; all is saved: the same command continues\n"
    )
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert call(*argv) == 0
    saved = contents(here / "c")
    assert call(*argv) == 0
    assert contents(here / "c") == saved
    refused(capsys, here, (*argv, "--lr", 0.5), "lr=0.008, not 0.5")


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (
            ("compare", "hire_mlp_nano", "--epochs", "1", "--set", "strides=0,1,1"),
            "strides=(0, 1, 1): expected",
        ),
        (("compare", "mixer_pico", "--epochs", "1", "--set", "eps=1e400"), "eps=inf: expected a"),
        (("compare", "mixer_pico", "--epochs", "1", "--precision", "bf16"), "--device gpu"),
        (("compare", "mixer_pico"), "--epochs --seconds --macs is required"),
        (("compare", "mixer_pico", "--epochs", "1", "--macs", "1"), "not allowed with"),
        (("compare", "mixer_pico", "--seconds", "soon"), "soon"),
        (("compare", "mixer_pico", "--seconds", "0"), "above 0"),
        (("compare", "mixer_xxl", "--epochs", "1"), "mixer_xxl"),
        (
            ("compare", "mixer_h14", "--epochs", "1", "--train-size", "9"),
            "14x14 do not tile images",
        ),
        (("compare", "mixer_pico", "--macs", "1", "--train-size", "9"), "one step"),
        (("compare", "mixer_pico", "--epochs", "1", "--out", "file"), "expected a folder, found a"),
    ],
)
def test_wrong_options_are_named(argv, named, here, capsys, monkeypatch):
    (here / "file").write_text("in the way")
    monkeypatch.setattr("urllib.request.OpenerDirector.open", no_network)
    refused(capsys, here, argv, named)


def test_with_a_flip_and_validation_images_the_table_has_a_column_for_each(here, capsys):
    argv = (*COMPARE[:2], "--quiet", *TINY, "--epochs", 1, "--val-size", 8, "--tta", "flip")
    assert call(*argv, "--out", "c") == 0
    said = capsys.readouterr().out
    assert "32 training and 30 test images" in said
    head, row = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in said.splitlines()
        if line.startswith("| m")
    )
    assert head[-3:] == ["test accuracy", "test accuracy, with flip", "best validation accuracy"]
    last = json.loads((here / "c" / "mixer_pico" / "metrics.jsonl").read_text())
    assert row[-3] == f"{last['test_accuracy']:.2%}"
    assert row[-1] == f"{last['val_accuracy']:.2%}"
    assert call("eval", "--run", here / "c" / "mixer_pico", "--tta", "flip") == 0
    assert f"{float(row[-2][:-1]):.1f}%" in capsys.readouterr().out
