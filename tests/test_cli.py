"""The command line: what it does for its user, and what it says when it cannot."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_runs
from fake_cifar import fake_files
from PIL import Image

from tinymixer import cli, create_model, nn
from tinymixer.cli import gradcheck
from tinymixer.cli.evaluate import as_seen, read_picture
from tinymixer.data import cifar
from tinymixer.train import Config, checkpoint
from tinymixer.weights import load_state, read_file, save_state

TINY = [
    *("--set", "hidden_dim=8", "--set", "num_blocks=1"),
    *("--set", "tokens_mlp_dim=4", "--set", "channels_mlp_dim=8"),
    *("--train-size", "40", "--test-size", "30", "--batch-size", "16", "--workers", "1"),
]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty folder to work in, and no data set anywhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TINYMIXER_DATA", raising=False)
    monkeypatch.setattr("tinymixer.data._places", lambda data_dir: [Path(data_dir or "data")])
    return tmp_path


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "finished"
    assert (
        cli.main(["train", "--dataset", "shapes", "--epochs", "1", "--out", str(out), *TINY]) == 0
    )
    return out


@pytest.fixture
def run(finished_run, here):
    """A finished run of one's own."""
    return Path(shutil.copytree(finished_run, here / "run"))


@pytest.fixture(scope="module")
def whole_cifar10(tmp_path_factory):
    """A full-size CIFAR-10 of noise, in the standard binary files."""
    data_dir = tmp_path_factory.mktemp("data")
    cifar.write(cifar.CIFAR10, fake_files(cifar.CIFAR10), data_dir)
    return data_dir


@pytest.fixture
def cifar10(whole_cifar10, here):
    """The same to damage: the files are links until they are written anew."""
    folder = here / "mine" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for file in (whole_cifar10 / "cifar-10-batches-bin").iterdir():
        (folder / file.name).symlink_to(file)
    return folder


def rewrite(file, content):
    file.unlink()
    file.write_bytes(content)


def call(*argv):
    """The exit code of `tinymixer argv`, SystemExit included."""
    try:
        return cli.main([str(word) for word in argv])
    except SystemExit as stop:
        return stop.code


def contents(folder):
    """Every file's, and None for folders and the like."""
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def test_train_leaves_a_run_and_says_how_good_it_is(here, capsys):
    assert call("train", "--dataset", "shapes", "--epochs", 2, *TINY) == 0
    run = here / "runs" / "mixer_pico-shapes"
    names = {"last.npz", "best.npz", "config.json", "metrics.jsonl", "curves.png"}
    assert {path.name for path in run.iterdir()} == names
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    said = capsys.readouterr().out
    assert f"test accuracy {last['test_accuracy']:.2%} after epoch 2" in said
    assert json.loads((run / "config.json").read_text())["model_options"]["hidden_dim"] == 8


def test_a_second_run_of_the_same_name_gets_a_folder_of_its_own(here):
    for _ in range(2):
        assert call("train", "--dataset", "shapes", "--epochs", 1, "--quiet", *TINY) == 0
    assert sorted(os.listdir(here / "runs")) == ["mixer_pico-shapes", "mixer_pico-shapes-2"]


def test_without_cifar10_and_network_it_says_so_in_a_line_and_takes_shapes(
    here, capsys, monkeypatch
):
    monkeypatch.setattr("urllib.request.OpenerDirector.open", no_network)
    assert call("train", "--epochs", 1, *TINY) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert "CIFAR-10" in first
    assert "built-in shapes" in first
    assert "on shapes" in second


def test_cifar10_is_taken_where_it_is(whole_cifar10, capsys):
    argv = ("train", "--epochs", 1, "--data-dir", whole_cifar10, "--out", "r", *TINY)
    assert call(*argv) == 0
    assert "on cifar10, 40 images" in capsys.readouterr().out


@pytest.mark.parametrize(("option", "size"), [("train_size", 0), ("test_size", -1)])
def test_a_part_of_cifar10_has_images(option, size, whole_cifar10, here, capsys):
    part = (f"--{option.replace('_', '-')}", size)
    argv = ("train", "--epochs", 1, "--data-dir", whole_cifar10, *TINY, *part)
    refused(capsys, here, argv, f"cifar10: {option}={size}")


def test_eval_tells_classes_apart_and_draws(run, capsys):
    assert call("eval", "--run", run) == 0
    table = capsys.readouterr().out
    assert all(name in table for name in ("circle", "arrow", "all"))
    for name in ("confusion.png", "mistakes.png"):
        with Image.open(run / name) as picture:
            assert min(picture.size) > 300


def test_predict_shows_the_top_five_and_what_the_model_sees(run, here, capsys):
    picture = np.random.default_rng(0).integers(0, 256, (50, 80, 3)).astype(np.uint8)
    Image.fromarray(picture).save(here / "mine.png")
    assert call("predict", "mine.png", "--run", run) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith("mine.png: ")
    assert line.count("%") == 5
    assert (run / "prediction-mine.png").exists()


def test_predict_sees_the_middle_of_the_picture(here):
    wide = np.zeros((64, 128, 3), np.uint8)
    wide[:, 32:96] = 200  # the middle square
    seen = as_seen(Image.fromarray(wide), 32, 32)
    assert seen.shape == (32, 32, 3)
    assert (seen == 200).all()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_of_16_bits_is_seen_as_that_of_8(here, suffix):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(grey.astype(np.uint16) * 257).save(here / f"deep.{suffix}")
    seen = np.asarray(read_picture(here / f"deep.{suffix}"))
    np.testing.assert_array_equal(seen, np.repeat(grey[:, :, None], 3, axis=2))


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_a_picture_that_does_not_say_what_is_white_is_refused(dtype, run, here, capsys):
    Image.fromarray(np.ones((40, 40), dtype)).save(here / "x.tif")
    refused(capsys, here, ("predict", "x.tif", "--run", run), "expected 8 or 16 bits")


def test_a_photograph_is_turned_as_its_camera_says(here):
    picture = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # the top is at the right
    picture.save(here / "x.png", exif=exif)
    seen = np.asarray(read_picture(here / "x.png"))[:, :, 0]
    np.testing.assert_array_equal(seen, np.rot90(np.asarray(picture), -1))


def test_whatever_a_reader_of_pictures_raises_names_the_file(run, here, capsys, monkeypatch):
    """The one of AVIF raises RuntimeError for damage; not every Pillow has it."""

    def damaged(*args):
        raise RuntimeError("failed to decode")

    Image.new("RGB", (40, 40)).save(here / "x.png")
    monkeypatch.setattr(Image.Image, "convert", damaged)
    refused(capsys, here, ("predict", "x.png", "--run", run), "picture x.png: failed to decode")


def test_plot_draws_what_was_learned(run):
    assert call("plot", "--run", run) == 0
    assert {"curves.png", "token-mixing.png", "patch-filters.png"} <= set(os.listdir(run))


def test_the_newest_run_is_meant_if_none_is_named(run, here, capsys):
    shutil.copytree(run, here / "runs" / "one")
    assert call("plot") == 0
    assert str(Path("runs") / "one" / "curves.png") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("mixer_pico", "154,058"),
        ("mixer_nano", "1,132,170"),
        ("mixer_nano_slim", "673,418"),
        ("as_mlp_nano", "983,946"),
        ("hire_mlp_nano", "791,162"),
        ("vip_nano", "948,106"),
        ("sparse_mlp_nano", "808,714"),
        ("raft_mlp_nano", "959,170"),
    ],
)
def test_summary_gives_the_totals(name, total, capsys):
    assert call("summary", name) == 0
    assert total in capsys.readouterr().out


def test_summary_follows_changes(capsys):
    assert call("summary", "mixer_nano", "--num-classes", 100, "--set", "gelu=erf") == 0
    assert "1,143,780" in capsys.readouterr().out
    assert call("summary", "mixer_nano", "--set", "num_classes=3", "--num-classes", 100) == 0
    assert "1,143,780" in capsys.readouterr().out
    assert call("summary", "mixer_nano", "--set", "num_classes=100") == 0
    assert "1,143,780" in capsys.readouterr().out


def test_doctor_tells_versions_threads_gpu_and_data(capsys):
    assert call("doctor") == 0
    said = capsys.readouterr().out
    for word in ("numpy", np.__version__, "blas", "GPU", "cifar10", "not found", "processors"):
        assert word in said


def test_data_shows_what_is_where(whole_cifar10, capsys):
    assert call("data", "--data-dir", whole_cifar10) == 0
    lines = capsys.readouterr().out.splitlines()
    assert str(whole_cifar10) in lines[0]
    assert "not found" in lines[1]
    assert "built in" in lines[2]


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(here):
    argv = ("train", "--dataset", "shapes", "--epochs", 2, "--quiet", *TINY)
    assert call(*argv, "--out", "whole") == 0
    assert call(*argv, "--out", "cut") == 0
    assert call("train", "--resume", "cut", "--quiet") == 0
    arrays = {}
    for name in ("whole", "cut"):
        with np.load(here / name / "last.npz") as archive:
            arrays[name] = {k: archive[k].tobytes() for k in archive.files if k != "header"}
    assert arrays["whole"] == arrays["cut"]


def test_a_run_resumes_with_the_options_that_it_began_with(here):
    """Its file gives a list back where the command line makes a tuple."""
    sizes = ("--set", "hidden_dim=8", "--set", "depths=1,1", "--train-size", 20, "--test-size", 9)
    argv = ("--dataset", "shapes", "--model", "as_mlp_nano", *sizes, "--workers", 1, "--quiet")
    train = ("train", *argv, "--epochs", 1)
    assert call(*train, "--out", "run") == 0
    assert call("train", "--resume", "run", *argv[4:]) == 0
    assert call(*train, "--resume", "run") == 0


def test_a_policy_is_kept_in_the_checkpoint(here):
    argv = ("train", "--dataset", "shapes", "--auto-augment", "cifar10", "--quiet", *TINY)
    assert call(*argv, "--out", "run") == 0
    config = checkpoint.load(here / "run" / "last.npz").header.config
    assert config.augment.auto_augment == "cifar10"
    config = config.plain()
    del config["augment"]["auto_augment"]  # a checkpoint from before there was the option
    assert Config.from_dict(config).augment.auto_augment == "none"


def test_segmentation_is_trained_evaluated_and_shown(here, capsys):
    argv = ("train", "--task", "segment", "--train-size", 20, "--test-size", 12, "--workers", 1)
    assert call(*argv, "--set", "raft_sizes=2", "--epochs", 1) == 2  # not one for each level
    assert call(*argv, "--epochs", 1, "--out", "run") == 0
    said = capsys.readouterr().out
    assert "on shapes, 20 images" in said
    last = json.loads((here / "run" / "metrics.jsonl").read_text())
    assert f"test mean IoU {last['test_iou']:.2%} after epoch 1" in said
    assert call("eval", "--run", "run") == 0
    table = capsys.readouterr().out
    assert all(name in table for name in ("circle", "background", f"{last['test_iou']:.1%}"))
    Image.fromarray(np.full((50, 80, 3), 99, np.uint8)).save(here / "mine.png")
    assert call("predict", "mine.png", "--run", "run") == 0
    assert capsys.readouterr().out.startswith("mine.png: ")
    (here / "run" / "curves.png").unlink()
    assert call("plot", "--run", "run") == 0
    for name in ("segments.png", "prediction-mine.png", "curves.png"):
        with Image.open(here / "run" / name) as picture:
            assert min(picture.size) > 150


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
    small_runs.stop_at(monkeypatch, 1, signal.SIGINT)
    assert call(*argv) == 130
    captured = capsys.readouterr()
    assert captured.err == (
        "tinymixer: stopped by SIGINT; all is saved: the same command goes on\n"
    )
    monkeypatch.undo()
    monkeypatch.chdir(here)
    assert call(*argv) == 0
    saved = contents(here / "c")
    assert call(*argv) == 0
    assert contents(here / "c") == saved
    refused(capsys, here, (*argv, "--lr", 0.5), "lr=0.004, not 0.5")


# Bad input: one clear line, an exit code, nothing lost ----------------------------------------


def truncated_file(cifar10):
    rewrite(cifar10 / "data_batch_3.bin", (cifar10 / "data_batch_3.bin").read_bytes()[:-1])


def empty_file(cifar10):
    rewrite(cifar10 / "test_batch.bin", b"")


def missing_file(cifar10):
    (cifar10 / "data_batch_1.bin").unlink()


def wrong_label(cifar10):
    content = bytearray((cifar10 / "data_batch_2.bin").read_bytes())
    content[3073 * 77] = 10
    rewrite(cifar10 / "data_batch_2.bin", content)


def one_class_too_often(cifar10):
    content = bytearray((cifar10 / "data_batch_2.bin").read_bytes())
    content[0] = (content[0] + 1) % 10
    rewrite(cifar10 / "data_batch_2.bin", content)


def pixels_shifted_by_one(cifar10):
    content = (cifar10 / "data_batch_4.bin").read_bytes()
    rewrite(cifar10 / "data_batch_4.bin", content[1:] + content[:1])


def swapped_for_a_web_page(cifar10):
    rewrite(cifar10 / "data_batch_5.bin", b"<html>Moved permanently</html>")


@pytest.mark.parametrize(
    "damage",
    [
        truncated_file,
        empty_file,
        missing_file,
        wrong_label,
        one_class_too_often,
        pixels_shifted_by_one,
        swapped_for_a_web_page,
    ],
)
def test_a_damaged_data_set_is_named(damage, cifar10, here, capsys):
    damage(cifar10)
    argv = ("train", "--dataset", "cifar10", "--data-dir", cifar10.parent, "--out", "out", *TINY)
    refused(capsys, here, argv, "cifar-10" if damage is not missing_file else "data_batch_1")


def damage_byte(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 0xFF
    path.write_bytes(content)


CHECKPOINTS = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-200]),
    "empty": lambda path: path.write_bytes(b""),
    "a flipped byte": lambda path: damage_byte(path, path.stat().st_size // 2),
    "no archive": lambda path: path.write_bytes(b"weights, honestly"),
    "foreign": lambda path: np.savez(path, layer1=np.zeros(3)),
    "future": lambda path: np.savez(path, header=np.frombuffer(b'{"format": 99}', np.uint8)),
    "pickled": lambda path: np.savez(path, header=np.array([{"format": 1}])),
    "missing": lambda path: path.unlink(),
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
@pytest.mark.parametrize("command", ["eval", "train"])
def test_a_bad_checkpoint_is_named(kind, command, run, here, capsys):
    CHECKPOINTS[kind](run / "last.npz")
    argv = ("eval", "--run", run) if command == "eval" else ("train", "--resume", run)
    refused(capsys, here, argv, "last.npz")


@pytest.mark.parametrize("command", ["eval", "train"])
@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda header: header.pop("dataset"), "no dataset"),
        (lambda header: header["dataset"].pop("fingerprint"), "no fingerprint"),
        (lambda header: header["config"].update(colour="red"), '"colour"'),
        (lambda header: header["config"].pop("augment"), "the digests differ"),
        (lambda header: header["config"].update(batch_size=2.5), "batch_size=2.5: expected int"),
        (lambda header: header["config"].update(train_size="5"), "='5': expected int | None"),
        (lambda header: header.update(step="a"), 'step is "a", expected a whole number'),
    ],
)
def test_a_damaged_header_is_named(command, damage, named, run, here, capsys):
    with np.load(run / "last.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    header = json.loads(arrays["header"].tobytes())
    damage(header)
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(run / "last.npz", **arrays)
    argv = ("eval", "--run", run) if command == "eval" else ("train", "--resume", run)
    refused(capsys, here, argv, named)


def test_weights_of_another_model_are_refused(run, here, capsys):
    with np.load(run / "last.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays["weights/head.W"] = arrays["weights/head.W"][:, :7]
    np.savez(run / "last.npz", **arrays)
    refused(capsys, here, ("eval", "--run", run), "head.W")


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (("--batch-size", 32), "batch_size"),
        (("--model", "mixer_nano"), "model"),
        (("--dataset", "cifar10"), "dataset"),
        (("--epochs", 7), "epochs"),
        (("--set", "gelu=erf"), "model_options"),
        (("--set", "hidden_dim=8,8"), "model_options"),
        (("--set", "gelu={1}"), "model_options"),  # no number, and nothing to keep in a file
        (("--set", "gelu={[]}"), "model_options"),
        (("--crop-padding", 3), "augment"),
        (("--auto-augment", "cifar10"), "augment"),
        (("--out", "elsewhere"), "--out"),
    ],
)
def test_a_run_resumes_only_as_it_was_begun(argv, named, run, here, capsys):
    refused(capsys, here, ("train", "--resume", run, *argv), named)


@pytest.mark.parametrize("command", ["train", "compare"])
def test_help_names_the_defaults_of_every_recipe(command, capsys):
    assert call(command, "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    shown = dict(re.findall(r"--([a-z-]+) [A-Z]+ (default [^-]*)", text))
    assert shown["crop-padding"].startswith(
        "default 0, for cifar10 4, for cifar100 4, for shapes 2"
    )
    assert "none, for cifar10 alternating, for cifar100 alternating" in shown["flip"]
    assert "default 0.1, for segment 0.0" in shown["label-smoothing"]
    assert "default all" in shown["train-size"]
    if command == "train":
        assert "default 10, for shapes 6" in shown["epochs"]
        assert "default mixer_pico, for segment raft_mlp_nano" in shown["model"]


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        ((), "COMMAND"),
        (("fly",), "fly"),
        (("train", "--speed", "9"), "--speed"),
        (("train", "--epochs", "many"), "many"),
        (("train", "--epochs", "0"), "epochs=0"),
        (("train", "--lr", "nan"), "lr=nan"),
        (
            ("train", "--auto-augment", "imagenet"),
            "auto_augment='imagenet': expected none or cifar10",
        ),
        (("train", "--workers", "0"), "--workers 0"),
        (("train", "--save-every", "nan"), "expected 0 or more seconds, got nan"),
        (("train", "--save-every", "-1"), "expected 0 or more seconds, got -1"),
        (("eval", "--run", "nowhere", "--out", "new"), "nowhere"),
        (("plot", "--run", "nowhere", "--out", "new"), "nowhere"),
        (("train", "--model", "mixer_xxl"), "mixer_pico"),
        (("train", "--dataset", "imagenet"), "shapes"),
        (("train", "--dataset", "cifar10", "--data-dir", "."), "tinymixer data add"),
        (("train", "--dataset", "shapes", "--set", "gelu"), "OPTION=VALUE"),
        (("train", "--dataset", "shapes", "--set", "gelu=swish"), "'tanh' or 'erf'"),
        (("train", "--dataset", "shapes", "--set", "patch_size=5"), "5x5"),
        (("train", "--dataset", "shapes", "--set", "hidden_dim=wide"), "hidden_dim='wide'"),
        (("train", "--dataset", "shapes", "--set", "patch_size=0"), "patch_size=0: expected"),
        (("train", "--dataset", "shapes", "--set", "drop_path_rate=1"), "drop_path_rate=1: expect"),
        (("train", "--dataset", "shapes", "--set", "num_blocks=-1"), "num_blocks=-1: expected"),
        (("summary", "mixer_nano", "--set", "patch_size=0"), "patch_size=0: expected a whole"),
        (("summary", "hire_mlp_nano", "--set", "image_size=2"), "Use larger images"),
        (("bench", "--set", "patch_size=0"), "patch_size=0: expected a whole number"),
        (("bench", "--set", "dropout=1.5"), "dropout=1.5: expected a number in [0, 1)"),
        (("bench", "--model", "hire_mlp_nano", "--set", "image_size=2"), "Use larger images"),
        (
            ("compare", "hire_mlp_nano", "--epochs", "1", "--set", "strides=0,1,1"),
            "strides=(0, 1, 1): expected",
        ),
        (("train", "--dataset", "shapes", "--set", "colour=1"), "'colour'"),
        (("train", "--dataset", "shapes", "--set", "rng=3"), "no option 'rng'"),
        (("train", "--dataset", "shapes", "--set", "name=3"), "no option 'name'"),
        (("summary", "mixer_nano", "--set", "rng=3"), "no option 'rng'"),
        (("bench", "--set", "rng=3"), "no option 'rng'"),
        (("train", "--dataset", "shapes", "--set", "eps=abc"), "eps='abc': expected a number"),
        (("compare", "mixer_pico", "--epochs", "1", "--set", "eps=1e400"), "eps=inf: expected a"),
        (("train", "--dataset", "shapes", "--flip", "upside-down"), "upside-down"),
        (("train", "--dataset", "shapes", "--set", "num_classes=4"), "the data set decides"),
        (("summary", "mixer_nano", "--num-classes", "few"), "a whole number, got 'few'"),
        (("train", "--dataset", "shapes", "--train-size", "0"), "train_size=0"),
        (("train", "--dataset", "shapes", "--precision", "fp8"), "fp32 or tf32 or bf16"),
        (("train", "--dataset", "shapes", "--precision", "tf32"), "--device gpu"),
        (("bench", "--precision", "bf16"), "--device gpu"),
        (("compare", "mixer_pico", "--epochs", "1", "--precision", "bf16"), "--device gpu"),
        (("train", "--task", "detect"), "classify or segment"),
        (("train", "--task", "segment", "--model", "mixer_pico"), "no maps of several sizes"),
        (("train", "--task", "segment", "--dataset", "cifar10"), "no classes of pixels"),
        (("train", "--task", "segment", "--mixup", "1"), "mixup"),
        (("train", "--resume", "nowhere"), "nowhere"),
        (("compare", "mixer_pico"), "--epochs --seconds --macs is required"),
        (("compare", "mixer_pico", "--epochs", "1", "--macs", "1"), "not allowed with"),
        (("compare", "mixer_pico", "--seconds", "soon"), "soon"),
        (("compare", "mixer_pico", "--seconds", "0"), "above 0"),
        (("compare", "mixer_xxl", "--epochs", "1"), "mixer_xxl"),
        (("compare", "mixer_s32", "--epochs", "1", "--train-size", "9"), "224"),
        (("compare", "mixer_pico", "--macs", "1", "--train-size", "9"), "one step"),
        (("eval",), "tinymixer train"),
        (("eval", "--run", "nowhere"), "nowhere"),
        (("summary", "mixer_xxl"), "mixer_pico"),
        (("summary", "mixer_nano", "--set", "patch_size=7"), "7x7"),
        (("data", "add", "nowhere.tar.gz"), "nowhere.tar.gz"),
        (("data", "download", "imagenet"), "imagenet"),
        (("gradcheck", "--op", "SoftmaxCross"), "SoftmaxCrossEntropy"),
        (("gradcheck", "--op", "ReLU", "--plot", "."), ". is no regular file"),
        (("gradcheck", "--op", "ReLU", "--json", "/"), "/ is no regular file"),
        (("gradcheck", "--op", "ReLU", "--json", "file/x/y.json"), "file is no folder"),
        (("gradcheck", "--mutants", "--plot", "x.png"), "leave it out beside --mutants"),
        (("train", "--dataset", "shapes", "--train-size", "999999999999"), "4,294,967,296 images"),
        (("train", "--dataset", "shapes", "--set", "hidden_dim=99999999999999"), "not enough mem"),
        (("summary", "mixer_nano", "--num-classes", "99999999999999"), "not enough memory (Unable"),
        (("bench", "--set", "hidden_dim=99999999999999"), "not enough memory (Unable"),
        (("bench", "--model", "mixer_pico", "--batch", "99999999999"), "2147483648 at most"),
        (("bench", "--plot", "."), ". is no regular file"),
        (("bench", "--plot", "file/x.png"), "file is no folder"),
        (("convert", "a.npz", ".", "--model", "mixer_pico", "--from", "timm"), "no regular file"),
    ],
)
def test_wrong_options_are_named(argv, named, here, capsys, monkeypatch):
    (here / "file").write_text("in the way")
    monkeypatch.setattr(gradcheck, "_check_operation", None)  # nothing is done in vain
    monkeypatch.setattr("urllib.request.OpenerDirector.open", no_network)
    refused(capsys, here, argv, named)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_device_or_pipe_is_not_replaced_by_a_file(here, capsys):
    os.mkfifo(here / "pipe")
    refused(capsys, here, ("bench", "--plot", "pipe"), "pipe is no regular file")
    assert (here / "pipe").is_fifo()


def no_network(*args, **kwargs):
    raise OSError("no network")


@pytest.mark.parametrize(
    "argv",
    [
        ("train", "--dataset", "shapes"),
        ("train", "--resume", "run"),
        ("eval", "--run", "run"),
        ("predict", "run/curves.png", "--run", "run"),
        ("bench", "--model", "mixer_pico"),
    ],
)
def test_where_there_is_no_gpu_one_line_says_what_is_missing(argv, run, here, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # not even if this machine has it
    refused(capsys, here, (*argv, "--device", "gpu"), "CuPy is not installed; pip install")


@pytest.mark.parametrize("command", [("train",), ("compare", "mixer_pico", "--epochs", "1")])
def test_a_gpu_is_asked_for_before_anything_is_downloaded(command, here, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr("tinymixer.data.load", None)
    argv = (*command, "--dataset", "cifar10", "--device", "gpu")
    refused(capsys, here, argv, "CuPy is not installed; pip install")


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"", "empty.png"),
        (b"GIF89a but not really", "fake.gif"),
        (b"just text", "text.txt"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "broken.png"),
        (None, "missing.jpg"),
    ],
)
def test_what_is_no_picture_is_named(content, name, run, here, capsys):
    if content is not None:
        (here / name).write_bytes(content)
    refused(capsys, here, ("predict", name, "--run", run), name)


@pytest.mark.parametrize("other", ["b/x.png", "a/x.gif", "a/x.png"])
def test_two_pictures_that_would_be_drawn_into_one_file_are_named(other, run, here, capsys):
    for path in (here / "a" / "x.png", here / other):
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((40, 40, 3), 99, np.uint8)).save(path)
    argv = ("predict", "a/x.png", other, "--run", run)
    refused(capsys, here, argv, f"a/x.png and {other} would both be drawn as prediction-x.png")


def test_a_folder_is_no_picture(run, here, capsys):
    refused(capsys, here, ("predict", run, "--run", run), run.name)


def test_a_truncated_picture_is_named(run, here, capsys):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(here / "cut.png")
    (here / "cut.png").write_bytes((here / "cut.png").read_bytes()[:3000])
    refused(capsys, here, ("predict", "cut.png", "--run", run), "cut.png")


@pytest.mark.parametrize("command", ["train", "eval", "plot"])
def test_a_folder_that_cannot_be_written_is_named(command, run, here, capsys):
    (here / "file").write_text("in the way")
    argv = {
        "train": ("train", "--dataset", "shapes", *TINY),
        "eval": ("eval", "--run", run),
        "plot": ("plot", "--run", run),
    }[command]
    refused(capsys, here, (*argv, "--out", "file/inside"), "file")


def test_an_existing_run_is_not_written_over(run, here, capsys):
    argv = ("train", "--dataset", "shapes", "--out", run, *TINY)
    refused(capsys, here, argv, "holds a run already")
    (run / "last.npz").unlink()
    refused(capsys, here, argv, "best.npz goes on with it")


def test_the_best_checkpoint_does_not_take_the_place_of_the_latest(run, here, capsys):
    argv = ("train", "--resume", run / "best.npz")
    refused(capsys, here, argv, "copy best.npz to a folder of its own")


@pytest.mark.parametrize("program", [("eval",), ("plot",)])
def test_a_full_disk_is_named(program, run, here, capsys, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    refused(capsys, here, (*program, "--run", run), "No space left on device")


def refused(capsys, here, argv, named):
    """`tinymixer argv` ends in one line that has `named` in it, not 0, and leaves all as it was."""
    before = contents(here)
    capsys.readouterr()
    code = call(*argv)
    lines = capsys.readouterr().err.strip().splitlines()
    assert code == 2
    assert len(lines) == 1, lines
    assert lines[0].startswith("tinymixer")
    assert named in lines[0]
    assert "Traceback" not in lines[0]
    assert contents(here) == before


def test_python_m_tinymixer_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "tinymixer", "summary", "nothing"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("tinymixer: no model 'nothing'")
    assert done.stderr.count("\n") == 1


# What becomes of the output -------------------------------------------------------------------


def shell(line, *argv, **environment):
    """The shell's `line`, in which $0 is a file with Python and "$@" are words of tinymixer."""
    command = ["bash", "-c", line, sys.executable, "-m", "tinymixer", *map(str, argv)]
    environment = os.environ | {"PYTHONUNBUFFERED": ""} | environment
    return subprocess.run(command, capture_output=True, text=True, env=environment)


posix = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")


@posix
def test_training_goes_on_when_nobody_reads_what_it_says(here):
    argv = ("train", "--dataset", "shapes", "--epochs", 3, "--out", "run", *TINY)
    done = shell('set -o pipefail; "$0" "$@" | head -n 1', *argv)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len((here / "run" / "metrics.jsonl").read_text().splitlines()) == 3


@posix
@pytest.mark.parametrize("argv", [("summary", "mixer_nano"), ("train", "--help")])
def test_output_that_nobody_reads_is_no_error(argv):
    done = shell('set -o pipefail; "$0" "$@" | true', *argv)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux")
def test_output_for_which_there_is_no_room_is_one_line():
    done = shell('"$0" "$@" > /dev/full', "data")
    assert done.returncode == 2
    assert done.stderr == "tinymixer: output: No space left on device\n"


@posix
def test_without_a_standard_error_it_trains_all_the_same(here):
    argv = ("train", "--dataset", "shapes", "--epochs", 1, "--out", "run", *TINY)
    done = shell('"$0" "$@" 2>&-', *argv)
    assert done.returncode == 0
    assert "after epoch 1" in done.stdout


@pytest.mark.parametrize(
    ("name", "encoding", "shown"),
    [("ünï.png", "ascii", r"\xfcn\xef.png"), ("bad\udcff.png", "utf-8", r"bad\udcff.png")],
)
def test_a_name_that_cannot_be_printed_is_escaped(name, encoding, shown, run, here):
    try:
        Image.new("RGB", (40, 40)).save(here / name)
    except (OSError, UnicodeError):
        pytest.skip("no file can have this name here")
    argv = ("predict", name, "--run", run)
    done = shell('"$0" "$@"', *argv, PYTHONIOENCODING=f"{encoding}:strict")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{shown}: ")


def test_a_model_for_other_images_is_refused_before_training(here, capsys):
    data = ("--dataset", "shapes", "--train-size", "8", "--test-size", "4")
    assert call("train", "--model", "mixer_pico", "--set", "image_size=64", *data) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "model mixer_pico on shapes: MLPMixer: expected images (B, 64, 64, 3)" in line


# --- convert ---


def released(here, **changes):
    """A small Mixer's weights in a file, named and laid out as its authors do."""
    model = create_model("mixer_pico", **changes)
    save_state(model, here / "released.npz", "official")
    return model


def test_convert_brings_weights_from_one_layout_to_another(here, capsys):
    model = released(here, num_classes=7)  # as many as the file's head has
    to_timm = ("--from", "official", "--to", "timm")
    assert (
        call("convert", "released.npz", "timm.safetensors", "--model", "mixer_pico", *to_timm) == 0
    )
    assert "wrote timm.safetensors: mixer_pico, 153,863 parameters, timm" in capsys.readouterr().out
    again = create_model("mixer_pico", num_classes=7, rng=nn.BLANK)
    load_state(again, here / "timm.safetensors", "timm")
    for name, array in model.state().items():
        np.testing.assert_array_equal(again.state()[name], array)


@pytest.mark.parametrize("ema", [0, 0.5])
def test_convert_takes_a_checkpoint_of_a_run(ema, here):
    run = here / "run"
    train = ("train", "--dataset", "shapes", "--epochs", 1, "--ema", ema, "--out", run)
    assert call(*train, *TINY) == 0
    options = ("--model", "mixer_pico", "--from", "tinymixer", *TINY[:8])
    assert call("convert", run / "last.npz", "out.npz", *options) == 0
    model, _ = checkpoint.load_model(run / "last.npz")
    converted = read_file(here / "out.npz")
    assert converted.keys() == model.state().keys()
    for name, array in model.state().items():
        np.testing.assert_array_equal(converted[name], array)


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (("released.npz", "x.npz", "--model", "mixer_nano", "--from", "official"), "misshapen"),
        (("released.npz", "x.npz", "--model", "mixer_pico", "--from", "timm"), "left over"),
        (("released.npz", "x.pth", "--model", "mixer_pico", "--from", "official"), ".safetensors"),
        (("released.npz", "x.npz", "--model", "mixer_xl", "--from", "official"), "mixer_xl"),
        (("released.npz", "x.npz", "--model", "sparse_mlp_nano", "--from", "timm"), "no layout"),
        (("nowhere.npz", "x.npz", "--model", "mixer_pico", "--from", "official"), "nowhere.npz"),
        (("damaged.npz", "x.npz", "--model", "mixer_pico", "--from", "official"), "damaged.npz"),
        (("released.npz", "x.npz", "--model", "mixer_pico", "--from", "keras"), "keras"),
        (
            ("released.npz", "damaged.npz/x.npz", "--model", "mixer_pico", "--from", "official"),
            "damaged.npz",
        ),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, tuple) else x,
)
def test_convert_refuses_what_does_not_fit(argv, named, here, capsys):
    released(here)
    (here / "damaged.npz").write_bytes((here / "released.npz").read_bytes()[:-1])
    refused(capsys, here, ("convert", *argv), named)
