"""One's own pictures: a folder for each class, of every kind of picture, some of them damaged."""

import os

import numpy as np
import pytest
from own_files import DAMAGED, flowers, picture

from tinymixer import data
from tinymixer.data import folder, pictures
from tinymixer.data.dataset import measure_colours
from tinymixer.data.order import kept_for_testing, mixed
from tinymixer.errors import DataError, Note


def load(root, **options):
    """Without a note."""
    return data.load(f"folder:{root}", **options)


def colour_of(images):
    """The class of each image by its strongest channel; of greys, -1."""
    middle = images[:, 8, 8].astype(int)
    grey = np.ptp(middle, axis=1) < 9
    return np.where(grey, -1, np.array([2, 1, 0])[middle.argmax(1)])


def test_mixed_pictures_of_three_classes(tmp_path):
    root = flowers(tmp_path / "flowers")
    for name, content in DAMAGED.items():
        (root / name).write_bytes(content)
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (root / name).write_bytes(b"x")
        (root / "red" / name).write_bytes(b"x")
    before = sorted(root.rglob("*"))
    with pytest.warns(Note, match="3 of 63 pictures cannot be read; left out: ") as notes:
        dataset = load(root, image_size=16)
    assert len(notes) == 1
    said = str(notes[0].message)
    assert all(name in said for name in DAMAGED)
    assert "\n" not in said
    assert sorted(root.rglob("*")) == before  # nothing is written there
    assert (dataset.name, dataset.class_names) == ("flowers", ("blue", "green", "red"))
    assert dataset.train_images.shape == (48, 16, 16, 3)
    assert dataset.test_images.shape == (12, 16, 16, 3)
    for part in ("train", "test"):
        images, labels = (getattr(dataset, f"{part}_{kind}") for kind in ("images", "labels"))
        assert len(set(np.bincount(labels).tolist())) == 1  # as many of each class
        found = colour_of(images)
        assert ((found == labels) | (found == -1)).all()
        assert (found == -1).mean() < 0.2  # the grey ones of 16 bits
    assert (dataset.mean, dataset.std) == measure_colours(dataset.train_images)
    np.testing.assert_allclose(dataset.mean, dataset.train_images.mean((0, 1, 2)))
    np.testing.assert_allclose(dataset.std, dataset.train_images.std((0, 1, 2)))


def test_a_picture_is_cut_as_predict_cuts_it(tmp_path):
    root = flowers(tmp_path / "x", count=2, kinds=("red", "green"))
    dataset = load(root, image_size=9)
    path = root / "green" / "000.jpg"
    seen = pictures.as_seen(pictures.read_picture(path, (9, 9)), 9, 9)
    assert any((image == seen).all() for image in (*dataset.train_images, *dataset.test_images))


@pytest.mark.parametrize(
    ("train", "test"), [("train", "test"), ("Training", "val"), ("train", "validation")]
)
def test_folders_for_training_and_testing(train, test, tmp_path):
    flowers(tmp_path / "x" / train, count=5)
    flowers(tmp_path / "x" / test, count=2)
    dataset = load(tmp_path / "x")
    assert (len(dataset.train_images), len(dataset.test_images)) == (15, 6)
    assert dataset.train_images.shape[1:] == (32, 32, 3)
    first = colour_of(dataset.train_images[:3])
    assert sorted(first) == [0, 1, 2]  # the first images are of all classes


def test_what_lies_beside_training_and_test_is_named(tmp_path):
    for name, count in (("train", 5), ("val", 3), ("test", 2)):
        flowers(tmp_path / "x" / name, count=count)
    with pytest.warns(Note, match="left out val; a data set has one part to train on"):
        dataset = load(tmp_path / "x")
    assert (len(dataset.train_images), len(dataset.test_images)) == (15, 6)
    flowers(tmp_path / "x" / "holdout", count=2)
    (tmp_path / "x" / "runs" / "figures").mkdir(parents=True)
    with pytest.warns(Note, match="left out holdout, val; a"):
        load(tmp_path / "x")


def test_a_test_folder_without_classes_leaves_it_to_the_next(tmp_path):
    flowers(tmp_path / "x" / "train", count=5)
    (tmp_path / "x" / "test").mkdir()
    picture("red", 0).save(tmp_path / "x" / "test" / "1.png")
    with pytest.warns(Note, match="left out test; a data set has one part"):
        assert len(load(tmp_path / "x").test_images) == 3
    flowers(tmp_path / "x" / "val", count=3)
    with pytest.warns(Note, match="left out test; a data set has one part"):
        assert len(load(tmp_path / "x").test_images) == 9


@pytest.mark.parametrize("name", ["test", "val"])
def test_a_test_folder_alone_is_not_trained_on(name, tmp_path):
    flowers(tmp_path / "x" / name, count=5)
    with pytest.raises(DataError, match=f"no folder `train`; .*beside {name}. To train on what is"):
        load(tmp_path / "x")
    assert len(load(tmp_path / "x" / name).test_images) == 3


def test_a_training_folder_alone_gives_a_fifth_for_testing(tmp_path):
    flowers(tmp_path / "x" / "train", count=5)
    dataset = load(tmp_path / "x")
    assert (dataset.name, len(dataset.test_images)) == ("x", 3)


def test_one_folder_more_is_stepped_over(tmp_path):
    flowers(tmp_path / "x" / "flowers", count=3)
    assert len(load(tmp_path / "x").train_images) == 6


def test_a_class_may_be_called_train(tmp_path):
    flowers(tmp_path / "x", count=4, kinds=("red", "green"))
    (tmp_path / "x" / "red").rename(tmp_path / "x" / "train")
    assert load(tmp_path / "x").class_names == ("green", "train")


def test_pictures_with_a_table_of_labels(tmp_path):
    lines = ["filename,label"]
    (tmp_path / "x" / "train").mkdir(parents=True)
    for i in range(12):
        kind = ("red", "green")[i % 2]
        picture(kind, i).save(tmp_path / "x" / "train" / f"{i}.png")
        lines.append(f"{i}.png,{kind}")
    (tmp_path / "x" / "labels.csv").write_text("\n".join(lines))
    dataset = load(tmp_path / "x")
    assert (len(dataset.train_images), len(dataset.test_images)) == (8, 4)
    np.testing.assert_array_equal(colour_of(dataset.train_images) == 2, dataset.train_labels == 1)


LABELLED = [(f"{i}.png", ("red", "green")[i % 2]) for i in range(12)]
TABLES = {
    "semicolons": "\ufefffile;label\n" + "".join(f"{a};{b}\n" for a, b in LABELLED),
    "tabs": "file\tlabel\n" + "".join(f"{a}\t{b}\n" for a, b in LABELLED),
    "UTF-16": ("file,label\n" + "".join(f"{a},{b}\n" for a, b in LABELLED)).encode("utf-16"),
    "two without a class": "file,label\n"
    + "".join(f"{a},{b}\n" for a, b in LABELLED[:10])
    + "10.png,\n11.png, \n",
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_as_other_programs_write_them(kind, tmp_path):
    (tmp_path / "x" / "train").mkdir(parents=True)
    for name, colour in LABELLED:
        picture(colour, 0).save(tmp_path / "x" / "train" / name)
    content = TABLES[kind]
    content = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "x" / "labels.csv").write_bytes(content)
    if kind == "two without a class":
        with pytest.warns(Note, match="left out 2 files that no table of labels names"):
            dataset = load(tmp_path / "x")
    else:
        dataset = load(tmp_path / "x")
    assert dataset.class_names == ("green", "red")
    count = len(dataset.train_images) + len(dataset.test_images)
    assert count == (10 if kind.startswith("two") else 12)


def test_a_table_in_another_encoding_is_named(tmp_path):
    (tmp_path / "x" / "train").mkdir(parents=True)
    (tmp_path / "x" / "labels.csv").write_bytes("id,label\n1,grün\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"labels\.csv: it is not in UTF-8; save it as CSV in"):
        load(tmp_path / "x")


def test_pictures_beside_the_classes_are_named(tmp_path):
    root = flowers(tmp_path / "x" / "train", count=5).parent
    picture("red", 0).save(root / "train" / "1.png")
    (root / "train" / "README.md").write_text("words")
    with pytest.warns(Note, match="train: left out 1 picture beside the folders of the classes"):
        assert len(load(root).test_images) == 3


def test_files_beside_the_one_folder_do_not_hide_it(tmp_path):
    flowers(tmp_path / "x" / "flowers" / "train", count=5)
    flowers(tmp_path / "x" / "flowers" / "test", count=2)
    (tmp_path / "x" / "README.md").write_text("words")
    assert len(load(tmp_path / "x").test_images) == 6


def test_what_is_kept_for_testing_depends_on_names_and_seed_only(tmp_path):
    flowers(tmp_path / "one", count=10)
    flowers(tmp_path / "two" / "deeper", count=10)
    one, two = load(tmp_path / "one"), load(tmp_path / "two" / "deeper")
    assert one.fingerprint == two.fingerprint
    assert load(tmp_path / "one", seed=1).fingerprint != one.fingerprint
    few = load(tmp_path / "one", train_size=6, test_size=3)
    np.testing.assert_array_equal(few.train_images, one.train_images[:6])
    with pytest.raises(DataError, match="train_size=25: expected at most 24 images"):
        load(tmp_path / "one", train_size=25)


def test_the_order_mixes_classes_of_any_size():
    labels = np.repeat([0, 1, 2], [100, 10, 1])
    names = [f"{i}" for i in range(len(labels))]
    order = mixed(names, labels, 0)
    assert sorted(order) == list(range(111))
    np.testing.assert_array_equal(np.bincount(labels[order[:33]]), [30, 3])
    kept = kept_for_testing(names, labels, 0)
    np.testing.assert_array_equal(np.bincount(labels[kept], minlength=3), [20, 2, 0])
    again = kept_for_testing(names[1:], labels[1:], 0)  # with one less, few others change
    assert (kept[1:] != again).sum() <= 1


def test_squares_are_decoded_once(tmp_path, cache, monkeypatch):
    root = flowers(tmp_path / "x", count=5)
    first = load(root)
    reads = []

    def counted(path, size):
        reads.append(path)
        return right(path, size)

    right = pictures.read_picture
    monkeypatch.setattr(pictures, "read_picture", counted)
    assert load(root).fingerprint == first.fingerprint
    assert not reads
    load(root, image_size=8)  # another size
    assert len(reads) == 15
    picture("red", 7).save(root / "red" / "more.png")
    more = load(root)
    assert len(more.train_images) + len(more.test_images) == 16
    assert len(reads) == 31
    os.utime(root / "red" / "more.png", ns=(1, 1))  # written anew
    load(root)
    assert len(reads) == 47
    assert len(list(cache.iterdir())) == 2  # one for each size: nothing piles up


@pytest.mark.parametrize("harm", ["cut", "other", "pickle", "folder", "text"])
def test_a_damaged_cache_is_made_anew(harm, tmp_path, cache):
    root = flowers(tmp_path / "x", count=5)
    first = load(root).fingerprint
    [file] = cache.iterdir()
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:-40])
    elif harm == "other":
        np.savez(file, squares=np.zeros((15, 32, 32, 3), np.uint8), said=np.zeros(3, np.uint8))
    elif harm == "pickle":
        np.savez(file, squares=np.array([{}]))
    elif harm == "folder":
        file.unlink()
        file.mkdir()
    else:
        file.write_text("hello")
    assert load(root).fingerprint == first


def test_without_a_place_for_a_cache_all_works(tmp_path, monkeypatch):
    root = flowers(tmp_path / "x", count=2)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(load(root).test_images) == 3


def test_damage_is_told_again_from_the_cache(tmp_path):
    root = flowers(tmp_path / "x", count=8)
    for i in range(8):
        (root / "red" / f"bad{i}.jpg").write_bytes(b"no\x1b[2Jpicture")
    for _ in range(2):
        with pytest.warns(Note, match=r"8 of 32 pictures.*bad4\.jpg \(.*\) and 3 more") as notes:
            load(root)
        assert len(str(notes[0].message)) < 1500
        assert str(notes[0].message).isprintable()


def test_odd_names_are_harmless(tmp_path):
    root = flowers(tmp_path / "x", count=3)
    (root / "red" / "a\x1b[31m\nb.jpg").write_bytes(b"x")
    with pytest.warns(Note) as notes:
        load(root)
    assert str(notes[0].message).isprintable()
    (root / "red").rename(root / "r\x1b\ned")
    with pytest.warns(Note):
        names = load(root).class_names
    assert names == ("blue", "green", r"r\x1b ed")  # else the record of a run could not be read


def test_links_in_a_circle_end(tmp_path):
    root = flowers(tmp_path / "x", count=5)
    (root / "red" / "again").symlink_to(root)
    (root / "red" / "self").symlink_to(root / "red")
    (root / "far").symlink_to(flowers(tmp_path / "y", count=5) / "green")
    dataset = load(root)
    assert dataset.class_names == ("blue", "far", "green", "red")
    os.mkfifo(root / "red" / "pipe")
    (root / "red" / "gone.jpg").symlink_to(tmp_path / "nowhere")
    with pytest.warns(Note, match=r"gone\.jpg \(it is not a regular file\), red/pipe \("):
        load(root)


def test_wrong_folders_are_refused(tmp_path):
    x = flowers(tmp_path / "x", count=2)
    cases = [(tmp_path / "gone", "gone is not there; expected a folder")]
    cases.append((x / "red" / "000.jpg", r"000\.jpg is a file; expected a folder"))
    cases.append((x / "red", "has 0 classes; expected at least two folders"))
    (tmp_path / "one" / "cat").mkdir(parents=True)
    picture("red", 0).save(tmp_path / "one" / "cat" / "1.png")
    cases.append((tmp_path / "one", "has 1 class; expected at least two"))
    flowers(tmp_path / "hole", count=2)
    (tmp_path / "hole" / "nothing").mkdir()
    cases.append((tmp_path / "hole", "nothing has no pictures; expected some in each folder"))
    flowers(tmp_path / "new" / "train", count=2, kinds=("red", "green"))
    flowers(tmp_path / "new" / "test", count=2)
    cases.append((tmp_path / "new", "class 'blue' is in the test folder, but not in"))
    flowers(tmp_path / "half" / "test", count=2)
    flowers(tmp_path / "half" / "val", count=2)
    cases.append((tmp_path / "half", "has no folder `train`; expected one beside test, val"))
    flowers(tmp_path / "more" / "test", count=2)
    flowers(tmp_path / "more" / "extra", count=2)
    cases.append((tmp_path / "more", "has no folder `train`; expected one beside extra, test"))
    for kind in ("a", "b"):
        (tmp_path / "single" / kind).mkdir(parents=True)
        picture("red", 0).save(tmp_path / "single" / kind / "1.png")
    cases.append((tmp_path / "single", "there are no pictures to test on; expected two for each"))
    (tmp_path / "csv" / "train").mkdir(parents=True)
    (tmp_path / "csv" / "labels.csv").write_text("id,label\n1,cat\n1,dog\n")
    cases.append((tmp_path / "csv", r"labels\.csv: line 3 gives picture '1' another class"))
    for place, message in cases:
        with pytest.raises(DataError, match=message) as error:
            load(place)
        assert len(str(error.value).splitlines()) == 1


def test_a_class_of_damaged_pictures_only_is_refused(tmp_path):
    root = flowers(tmp_path / "x", count=3)
    (root / "pink").mkdir()
    (root / "pink" / "1.jpg").write_bytes(b"x")
    with (
        pytest.warns(Note, match="1 of 10 pictures"),
        pytest.raises(DataError, match="class 'pink' has no picture that can be read"),
    ):
        load(root)


@pytest.mark.parametrize("size", [0, -3, 2.5, 10**9, True])
def test_sizes_out_of_range_are_refused(size, tmp_path):
    with pytest.raises(DataError, match=r"image_size=.*expected a whole number from 1 to 4096"):
        load(flowers(tmp_path / "x", count=2), image_size=size)


def test_too_many_pictures_for_the_memory_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "MOST_BYTES", 1000)
    with pytest.raises(DataError, match="6 pictures of 32x32 pixels are more than"):
        load(flowers(tmp_path / "x", count=2))


def test_the_size_of_other_data_sets_is_their_own():
    with pytest.raises(DataError, match="shapes has images of one size; image_size is for folder:"):
        data.load("shapes", image_size=64)
    with pytest.raises(DataError, match="no labels for pixels"):
        data.load("folder:x", pixels=True)


@pytest.mark.parametrize(
    "name", ["folder:", "folder", "npz:", "zip:x", "x" * 10_000, "", "\x1b[2J"]
)
def test_unknown_names_are_answered_with_what_is_possible(name):
    with pytest.raises(DataError, match=r"expected one of cifar10.*folder:PATH or npz:FILE") as e:
        data.load(name)
    assert len(str(e.value)) < 300
    assert str(e.value).isprintable()
