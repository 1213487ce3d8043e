"""What the tests of every command start from."""

import shutil
from pathlib import Path

import pytest
from command_line import TINY
from fake_cifar import fake_files

from tinymixer import cli
from tinymixer.data import cifar


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty folder to work in, and no data set anywhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TINYMIXER_DATA", raising=False)
    monkeypatch.setattr("tinymixer.data._folders", lambda data_dir: [Path(data_dir or "data")])
    return tmp_path


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
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
