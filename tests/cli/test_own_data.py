"""Runs on data of one's own: what the record of a run says is all that a command goes by."""

import dataclasses
import json
import re

import numpy as np
import pytest
from command_line import call, refused
from small_runs import stop_at

from tinymixer import data
from tinymixer.data import Dataset, Source, shapes
from tinymixer.errors import CheckpointError, DataError
from tinymixer.train import Config, Trainer, checkpoint
from tinymixer.train.stopping import Stopped

OPTIONS = {
    "hidden_dim": 8,
    "num_blocks": 1,
    "tokens_mlp_dim": 5,
    "channels_mlp_dim": 11,
    "patch_size": 8,
}
CONFIG = Config(model_options=OPTIONS, epochs=1, batch_size=8, micro_batch=8)
SHAPES = Source("shapes", train_size=20, test_size=12)
SHAPE_NAMES = shapes.CLASS_NAMES


def mine(classes=("cat", "dog", "car"), channels=3, **changes):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (24, 32, 32, channels), np.uint8)
    labels = np.arange(24) % len(classes)
    names, colours = tuple(classes), ((120.0,) * channels, (60.0,) * channels)
    parts = images[:16], labels[:16], images[16:], labels[16:]
    return dataclasses.replace(Dataset("mine", *parts, names, *colours), **changes)


def train(dataset, out, config=CONFIG):
    trainer = Trainer(config, dataset, out, workers=1, quiet=True)
    trainer.run()
    return out / "last.npz"


@pytest.fixture
def loaded(monkeypatch):
    """The names of all data sets that are loaded from now on."""
    names, load = [], data.load

    def counted(name, *arguments, **options):
        names.append(name)
        return load(name, *arguments, **options)

    monkeypatch.setattr(data, "load", counted)
    return names


@pytest.mark.parametrize("argv", [("eval", "--run", "run"), ("train", "--resume", "run")])
@pytest.mark.parametrize("classes", [3, 10])
def test_what_was_made_in_memory_is_not_loaded_and_nothing_else_is(
    argv, classes, here, capsys, loaded
):
    """Ten classes of one's own once gave a table of the ten shapes, and exit code 0."""
    train(mine([f"my {i}" for i in range(classes)]), here / "run")
    capsys.readouterr()
    refused(capsys, here, argv, 'the data set "mine" of this run was made in memory')
    assert loaded == []


def test_it_says_what_to_give_instead(here, capsys):
    train(mine(), here / "run")
    assert call("eval", "--run", "run") == 2
    assert "with --dataset SOURCE, such as folder:PATH or npz:FILE" in capsys.readouterr().err


def test_predict_and_plot_need_the_record_only(here, capsys, loaded):
    from PIL import Image

    train(mine(), here / "run")
    Image.fromarray(np.full((50, 80, 3), 99, np.uint8)).save(here / "x.png")
    assert call("plot", "--run", "run") == 0
    assert call("predict", "x.png", "--run", "run") == 0
    said = capsys.readouterr().out
    assert all(name in said for name in ("cat", "dog", "car"))
    assert loaded == []


@pytest.mark.parametrize(
    ("dataset", "named"),
    [
        (mine(), r"mine with class_names \('cat', 'dog', 'car'\), but shapes has \('circle',"),
        (mine(SHAPE_NAMES, channels=1), "mine with channels 1, but shapes has 3"),
    ],
)
def test_another_data_set_has_to_have_the_same_classes_and_images(
    dataset, named, here, capsys, loaded
):
    path = train(dataset, here / "run")
    sizes = ("--train-size", 20, "--test-size", 12)
    argv = ("eval", "--run", path, "--dataset", "shapes", *sizes)
    assert call(*argv) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(named, line), line


def test_given_by_name_it_is_evaluated_with_the_means_that_the_run_trained_with(here, capsys):
    dataset = SHAPES.load()
    path = train(dataclasses.replace(dataset, mean=(10.0, 20.0, 30.0)), here / "run")
    argv = ("eval", "--run", path, "--dataset", "shapes", "--train-size", 20, "--test-size", 12)
    capsys.readouterr()
    assert call(*argv) == 0
    said = capsys.readouterr().out
    assert "note:" not in said  # the images are the same
    last = checkpoint.load(path).header.history[-1]
    assert f"{last.test_accuracy:.1%}" in said
    assert call(*argv[:-1], 11) == 0
    assert f"note: shapes is not the same images that {path} was" in capsys.readouterr().out


def test_the_record_says_all_about_the_data_and_the_config_nothing(here):
    path = train(mine(channels=1), here / "run")
    record = checkpoint.load(path).header.dataset
    assert record.source is None
    assert (record.name, record.class_names) == ("mine", ("cat", "dog", "car"))
    assert (record.image_size, record.channels) == ((32, 32), 1)
    assert (record.mean, record.std) == ((120.0,), (60.0,))
    assert (record.train_images, record.test_images) == (16, 8)
    said = json.loads((here / "run" / "config.json").read_text())
    assert said["dataset"] == json.loads(json.dumps(record.to_json()))
    own = {field.name for field in dataclasses.fields(Config)}
    assert not own & {"dataset", "train_size", "test_size"}


def test_a_changed_data_set_is_one_made_in_memory(here):
    """`replace` must not leave the source of the whole beside a part."""
    whole = SHAPES.load()
    half = dataclasses.replace(
        whole, train_images=whole.train_images[:10], train_labels=whole.train_labels[:10]
    )
    assert checkpoint.load(train(whole, here / "a")).header.dataset.source == SHAPES
    assert checkpoint.load(train(half, here / "b")).header.dataset.source is None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"class_names": ("a", "b", "c")}, r"mine with class_names \('cat', .*has \('a', 'b', 'c'"),
        ({"mean": (11.0, 22.0, 33.0)}, r"mine with mean \(120\.0, .* has \(11\.0, 22\.0"),
        ({"std": (11.0, 22.0, 33.0)}, "mine with std"),
    ],
)
def test_a_run_does_not_go_on_with_the_same_images_seen_otherwise(changes, named, here):
    path = train(mine(), here / "run")
    with pytest.raises(CheckpointError, match=named):
        Trainer.resume(path, mine(**changes))
    assert Trainer.resume(path, mine(name="theirs")).finished  # a name decides nothing


@pytest.fixture
def folders(monkeypatch):
    """`folder:PATH` of data sets that are made here: path -> Dataset."""
    made, load = {}, data.load

    def load_folder(name, *arguments, **options):
        if not name.startswith("folder:"):
            return load(name, *arguments, **options)
        path = name.partition(":")[2]
        if path not in made:
            raise DataError(f"there is no folder {path}")
        options.pop("download", None)
        return made[path].loaded_from(Source(name, **options))

    monkeypatch.setattr(data, "load", load_folder)
    return made


def test_a_moved_folder_is_accepted_if_it_holds_the_same(here, capsys, folders):
    folders[str(here / "old")] = mine()
    path = train(Source("folder:old").load(), here / "run")
    folders[str(here / "new")] = folders.pop(str(here / "old"))
    for argv in (("eval", "--run", "run"), ("train", "--resume", "run")):
        moved = "if it has moved, name its place with --dataset folder:PATH"
        refused(capsys, here, argv, f"there is no folder {here / 'old'}; {moved}")
        assert call(*argv, "--dataset", "folder:new") == 0
    capsys.readouterr()
    folders[str(here / "new")] = mine(mean=(11.0, 22.0, 33.0))
    folders[str(here / "others")] = mine(train_labels=np.zeros(16, int))
    assert call("eval", "--run", "run", "--dataset", "folder:others") == 0
    assert "note: mine is not the same images" in capsys.readouterr().out
    argv = ("train", "--resume", "run", "--dataset")
    refused(capsys, here, (*argv, "folder:others"), "trained on other data")
    assert call(*argv, "folder:new") == 0  # the run's own mean and std are used
    refused(capsys, here, (*argv, "shapes"), "was begun with dataset=")
    assert checkpoint.load(path).header.dataset.source == Source("folder:old")


def test_a_run_that_goes_on_with_a_moved_folder_records_where_it_is_now(here, folders, monkeypatch):
    folders[str(here / "old")] = mine()
    config = dataclasses.replace(CONFIG, epochs=2)
    trainer = Trainer(config, Source("folder:old").load(), here / "run", workers=1, quiet=True)
    with monkeypatch.context() as patch:
        stop_at(patch, 1)
        with pytest.raises(Stopped):
            trainer.run()
    folders[str(here / "new")] = folders.pop(str(here / "old"))
    assert call("train", "--resume", "run", "--dataset", "folder:new", "--quiet") == 0
    record = checkpoint.load(here / "run" / "last.npz").header.dataset
    assert record.source == Source(f"folder:{here / 'new'}")
    assert call("eval", "--run", "run") == 0


def test_a_folder_given_for_what_was_in_memory_is_brought_to_the_same_size(here, folders):
    train(mine(), here / "run")
    asked = []

    class Asked(Dataset):
        def loaded_from(self, source):
            asked.append(source)
            return super().loaded_from(source)

    theirs = mine()
    names = [f.name for f in dataclasses.fields(Dataset) if f.init]
    folders[str(here / "new")] = Asked(*(getattr(theirs, name) for name in names))
    assert call("eval", "--run", "run", "--dataset", "folder:new") == 0
    assert asked[0].image_size == 32
