"""A Source: what a data set is called, where it is, and that only what it loaded has it."""

import dataclasses
import os

import numpy as np
import pytest

from tinymixer import data
from tinymixer.data import Source
from tinymixer.errors import TinymixerError

SHAPES = Source("shapes", train_size=6, test_size=3, seed=2)


def test_a_source_loads_what_load_does_and_its_data_set_knows_it():
    loaded = SHAPES.load()
    same = data.load("shapes", train_size=6, test_size=3, seed=2)
    assert loaded.fingerprint == same.fingerprint
    assert loaded.source == same.source == SHAPES
    assert loaded.to("cpu").source == SHAPES


def test_a_data_set_that_is_made_or_changed_in_memory_has_no_source():
    loaded = SHAPES.load()
    changed = dataclasses.replace(loaded, test_labels=loaded.test_labels[::-1])
    assert changed.source is None
    fields = [f.name for f in dataclasses.fields(loaded) if f.init]
    assert data.Dataset(*(getattr(loaded, name) for name in fields)).source is None


@pytest.mark.parametrize("kind", ["folder", "npz"])
def test_a_path_is_kept_absolute_so_that_it_means_the_same_from_anywhere(
    kind, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for given, path in (("my pets", "my pets"), ("./a/../b:c", "b:c"), ("~/x", "home/x")):
        source = Source(f"{kind}:{given}")
        assert source.path == str(tmp_path / path)
        assert (source.kind, source.dataset) == (kind, f"{kind}:{tmp_path / path}")
        assert source == dataclasses.replace(source) == Source(source.dataset)


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("shapes", "shapes"),
        ("folder:/a/b/my pets", "my pets"),
        ("npz:/a/b/x.y.npz", "x.y"),
        ("folder:/a/tab\there*", "tab_here_"),
        ("folder:/", "folder"),
    ],
)
def test_the_name_is_fit_for_a_folder(dataset, name):
    assert Source(dataset).name == name
    assert os.sep not in name


def test_a_named_data_set_is_nowhere_and_its_images_are_known():
    assert (SHAPES.path, SHAPES.kind, SHAPES.shape) == (None, "shapes", (32, 32, 3))
    assert SHAPES.load().train_images.shape[1:] == SHAPES.shape
    assert Source("kmnist").shape == (28, 28, 1)
    assert Source("folder:x").shape is None


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"dataset": "imagenet"}, "dataset='imagenet': expected cifar10 or .* or folder:PATH"),
        ({"dataset": "folder"}, "dataset='folder'"),
        ({"dataset": "folder:"}, "dataset='folder:'"),
        ({"dataset": "zip:x"}, "dataset='zip:x'"),
        ({"dataset": None}, "dataset=None"),
        ({"train_size": 0}, "train_size=0: expected 1 to"),
        ({"test_size": 1.5}, "test_size=1.5: expected int"),
        ({"image_size": 5000}, "image_size=5000: expected 1 to 4096"),
        ({"pixels": 1}, "pixels=1: expected bool"),
        ({"seed": "x"}, "seed='x': expected int"),
    ],
)
def test_options_out_of_range_are_refused(options, named):
    with pytest.raises(TinymixerError, match=named):
        Source(**options)


def test_images_and_labels_do_not_change_on_their_way():
    np.testing.assert_array_equal(SHAPES.load().test_labels, np.arange(2**32, 2**32 + 3) % 10)
