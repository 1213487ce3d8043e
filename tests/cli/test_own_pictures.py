"""Own pictures and IDX files, from training to what the model makes of them."""

import cifar_forms
import pytest
from command_line import TINY, call, refused
from fake_cifar import fake_files, tar_gz
from own_files import DAMAGED, arrays, files, flowers

from tinymixer import data
from tinymixer.data import cifar, folder
from tinymixer.train import checkpoint

SMALL = ("--set", "hidden_dim=8", "--set", "num_blocks=1")


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setattr(folder, "_cache", lambda root, side: None)


@pytest.mark.filterwarnings("always::tinymixer.errors.Note")
def test_a_folder_of_mixed_pictures(here, capsys):
    root = flowers(here / "flowers", count=10)
    for name, content in DAMAGED.items():
        (root / name).write_bytes(content)
    train = ("train", "--dataset", "folder:flowers", "--epochs", "1", "--out", "run")
    assert call(*train, *SMALL) == 0
    [line] = capsys.readouterr().err.splitlines()
    assert "3 of 33 pictures cannot be read" in line
    assert all(name in line for name in DAMAGED)
    record = checkpoint.load(here / "run" / "last.npz").header.dataset
    assert record.class_names == ("blue", "green", "red")
    assert call("eval", "--run", "run") == 0
    assert "green" in capsys.readouterr().out
    assert call("predict", "--run", "run", root / "red" / "000.jpg") == 0
    assert call("plot", "--run", "run") == 0


def test_a_run_is_not_written_among_the_pictures(here, capsys, monkeypatch):
    """Its curves would be a picture, its folder a class: it could not be tested or go on."""
    monkeypatch.chdir(flowers(here / "flowers", count=10))
    train = ("train", "--dataset", "folder:.", "--epochs", "1", *SMALL)
    for out in ((), ("--out", "red"), ("--out", "red/run")):
        refused(capsys, here, (*train, *out), "among the pictures")
    (here / "flowers" / "train").mkdir()
    for name in ("red", "green", "blue"):
        (here / "flowers" / name).rename(here / "flowers" / "train" / name)
    refused(capsys, here, (*train, "--out", "train/run"), "among the pictures")
    assert call(*train) == 0  # into runs/, where no pictures are looked for
    assert call("eval") == 0
    refused(capsys, here, ("eval", "--out", "test/../train/red"), "among the pictures")
    picture = ("--plot", "train/red/000.jpg")
    refused(capsys, here, ("lr-find", "--dataset", "folder:.", *picture), "among the pictures")
    refused(
        capsys,
        here,
        ("compare", "mixer_nano", "--epochs", 1, *train[1:3], "--out", "train"),
        "among",
    )


def test_plot_says_that_the_pictures_have_changed(here, capsys):
    root = flowers(here / "flowers", count=10)
    train = ("train", "--dataset", "folder:flowers", "--epochs", "1", "--out", "run", *SMALL)
    assert call(*train) == 0
    capsys.readouterr()
    (root / "red" / "000.jpg").unlink()
    assert call("plot", "--run", "run", "--batch") == 0
    assert "note: flowers is not the same images" in capsys.readouterr().out
    (root / "red").rename(root / "violet")
    (root / "red").mkdir()
    next((root / "violet").iterdir()).rename(root / "red" / "1.jpg")  # another class
    refused(capsys, here, ("plot", "--run", "run", "--batch"), "with class_names")
    assert call("plot", "--run", "run") == 0  # the other figures need no images
    assert "layers.png is not drawn" in capsys.readouterr().out


def test_idx_files(here, capsys):
    made = arrays()
    cifar_forms.unpacked(here / "data" / "FashionMNIST" / "raw", files(made))
    options = ("--set", "patch_size=4", "--set", "hidden_dim=8", "--set", "num_blocks=1")
    assert (
        call("train", "--dataset", "fashion_mnist", "--out", "run", "--epochs", "1", *options) == 0
    )
    assert "fashion_mnist, 60 images" in capsys.readouterr().out
    assert call("eval", "--run", "run") == 0
    assert "Ankle boot" in capsys.readouterr().out


def test_a_cut_archive_is_an_error_and_nothing_else_is_trained_on(here, capsys, monkeypatch):
    members = cifar_forms.binary(cifar.CIFAR10, fake_files(cifar.CIFAR10))
    members = {name: content[:10_000] for name, content in members.items()}
    archive = tar_gz(here / "cifar-10-python (1).tar.gz", members)
    archive.write_bytes(archive.read_bytes()[:-100])
    assert data.find("cifar10", here) == archive
    refused(capsys, here, ("train", "--data-dir", here, "--out", "run", *TINY), archive.name)
