"""A Dataset takes what can be learned from, and refuses what would train silently wrong."""

from types import SimpleNamespace

import numpy as np
import pytest

from tinymixer import data
from tinymixer.errors import DataError

N, M, H, W, K = 30, 11, 7, 5, 3


def parts(**changes):
    """The fields of a good data set, with these changes."""
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, 256, (n, H, W, 3), np.uint8) for n in (N, M))
    good = {
        "name": "mine",
        "train_images": train,
        "train_labels": np.arange(N) % K,
        "test_images": test,
        "test_labels": np.arange(M) % K,
        "class_names": ("cat", "dog", "owl"),
        "mean": (125.0, 122.0, 113.0),
        "std": (63.0, 62.0, 66.0),
    }
    return good | changes


GOOD = parts()
IMAGES, LABELS = GOOD["train_images"], GOOD["train_labels"]
GREY = {
    "train_images": IMAGES[..., :1],
    "test_images": GOOD["test_images"][..., :1],
    "mean": (33.3,),
    "std": (78.6,),
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        GREY,
        {"mean": [125, 122, 113], "std": np.array([63, 62, 66])},
        {"mean": (0, 0, 0), "std": (255, 255, 255)},  # to the range from 0 to 1
        {"class_names": list("abc")},
        {"train_labels": LABELS.astype(np.uint8), "test_labels": GOOD["test_labels"]},
        {
            "train_labels": np.zeros((N, H, W), np.uint8),
            "test_labels": np.full((M, H, W), 2, np.int64),
        },
        {  # of two colours, 0 and 1: a mean below 1 is right
            "train_images": IMAGES % 2,
            "test_images": GOOD["test_images"] % 2,
            "mean": (0.5,) * 3,
            "std": (0.5,) * 3,
        },
    ],
)
def test_what_can_be_learned_from_is_taken(changes):
    dataset = data.Dataset(**parts(**changes))
    assert dataset.num_classes == K
    assert dataset.image_size == (H, W)
    assert dataset.channels == dataset.train_images.shape[3]


FLOATS = IMAGES / np.float32(255)
SEVERAL = np.array([np.zeros((3, 4, 3)), np.zeros((5, 4, 3))], object)
WRONG = {  # what is wrong: the change, what the message says
    "divided by 255": ({"train_images": FLOATS}, "float32; expected uint8.*divided by 255"),
    "floats for a test": ({"test_images": FLOATS[:M]}, "test_images.*divided by 255"),
    "half floats": ({"train_images": IMAGES.astype(np.float16)}, "expected uint8, 0 to 255"),
    "wider": ({"train_images": IMAGES.astype(np.int64)}, "int64; expected pixels of 8 bits"),
    "signed": ({"train_images": IMAGES.astype(np.int8)}, "int8; expected pixels of 8 bits"),
    "black or white": ({"train_images": IMAGES > 9}, "bool; expected pixels of 8 bits"),
    "a list": ({"train_images": IMAGES.tolist()}, r"train_images is a list; .*np\.asarray"),
    "masked": ({"train_images": np.ma.masked_greater(IMAGES, 9)}, "train_images is a masked array"),
    "masked labels": ({"test_labels": np.ma.masked_equal(GOOD["test_labels"], 1)}, "is a masked"),
    "of another library": (
        {"train_images": SimpleNamespace(shape=IMAGES.shape, dtype="torch.uint8")},
        r"train_images is a SimpleNamespace; expected an array: np\.asarray",
    ),
    "several sizes": ({"train_images": SEVERAL}, "several sizes; resize them"),
    "no channel": ({"train_images": IMAGES[..., 0]}, r"Give grey images a channel: images\["),
    "flat": ({"train_images": IMAGES.reshape(N, -1)}, r"expected \(images, height, width, chan"),
    "one image": ({"train_images": IMAGES[0]}, "expected .images, height"),
    "channels first": (
        {"train_images": IMAGES.transpose(0, 3, 1, 2)},
        r"images\.transpose\(0, 2, 3, 1\)",
    ),
    "transparent": ({"train_images": np.zeros((N, H, W, 4), np.uint8)}, "transparent images"),
    "two channels": ({"train_images": IMAGES[..., :2]}, "1 or 3 channels"),
    "no pixels": ({"train_images": IMAGES[:, :0]}, "expected .images, height"),
    "grey and colour": (
        {"test_images": GREY["test_images"]},
        "training images are 7x5 with 3 channels, test images 7x5 with 1 channel",
    ),
    "another size": ({"test_images": np.zeros((M, W, H, 3), np.uint8)}, "test images 5x7"),
    "no images": (
        {"train_images": IMAGES[:0], "train_labels": LABELS[:0]},
        "it has no train images",
    ),
    "no test": (
        {"test_images": IMAGES[:0], "test_labels": LABELS[:0]},
        "it has no test images; expected at least one$",
    ),
    "a list of labels": ({"train_labels": LABELS.tolist()}, r"is a list; .*np\.asarray\(labels"),
    "one-hot": ({"train_labels": np.eye(K, dtype=int)[LABELS]}, r"labels\.argmax\(1\)"),
    "a column": ({"train_labels": LABELS[:, None]}, r"labels\[:, 0\]"),
    "labels that are floats": ({"train_labels": LABELS * 1.0}, "expected whole numbers"),
    "truths": ({"train_labels": LABELS > 1}, "bool; expected whole numbers"),
    "words": ({"train_labels": np.array(["cat"] * N)}, "expected whole numbers"),
    "too few labels": ({"train_labels": LABELS[1:]}, "29 labels for 30 train images"),
    "four axes": ({"train_labels": IMAGES.astype(int)}, "one label for each image, or one"),
    "a map too small": ({"train_labels": np.zeros((N, H, H), int)}, r"for each pixel, \(30, 7, 5"),
    "a map and a class": ({"train_labels": np.zeros((N, H, W), int)}, "both for images, or both"),
    "from 1": ({"train_labels": LABELS + 1}, r"train label 3 is not one of its 3 classes, 0\.\.2"),
    "below 0": ({"test_labels": GOOD["test_labels"] - 1}, "test label -1 is not one"),
    "no label at all": ({"train_labels": np.full((N, H, W), 255)}, "both for images"),
    "mean of 0..1": ({"mean": (0.49, 0.48, 0.45)}, r"mean=\(0\.49.*Multiply a mean.* by 255"),
    "std of 0..1": ({"std": (0.25, 0.24, 0.26)}, r"std=\(0\.25.*with a std of about \(7\d"),
    "one channel of 0..1": ({"std": (63.0, 62.0, 0.26)}, "Multiply a std"),
    "of 16 bits": ({"std": (16000.0,) * 3}, "expected a finite number from 0 to 255, but not 0"),
    "too few": ({"mean": (120.0,)}, r"mean=\(120\.0,\); expected 3 numbers, one for each channel"),
    "one number": ({"mean": 120.0}, "expected 3 numbers"),
    "of grey": (GREY | {"std": (1.0, 2.0, 3.0)}, "expected 1 number, one for each channel"),
    "std of 0": ({"std": (63.0, 0.0, 62.0)}, "but not 0"),
    "below 0 too": ({"mean": (-1.0, 120.0, 120.0)}, "expected a finite number from 0 to 255"),
    "NaN": ({"mean": (float("nan"),) * 3}, "expected a finite number"),
    "infinite": ({"std": (float("inf"),) * 3}, "expected a finite number"),
    "a word": ({"mean": ("120", 1.0, 2.0)}, "expected a finite number"),
    "one class": (
        {"class_names": ("cat",), "train_labels": 0 * LABELS},
        "1 class; expected 2 to",
    ),
    "no class": ({"class_names": ()}, "0 classes; expected 2 to"),
    "a name twice": ({"class_names": ("cat", "dog", "cat")}, "has 'cat' twice"),
    "no names": ({"class_names": (0, 1, 2)}, r"class_names\[0\] is 0; expected text"),
    "an empty name": ({"class_names": ("a", " ", "c")}, r"class_names\[1\] is ' '; expected text"),
    "control characters": (
        {"class_names": ("a", "b\x1b[31m", "c")},
        r"class_names\[1\] is 'b\\x1b\[31m'; expected text that can be printed",
    ),
    "a name of two lines": ({"name": "a\nb"}, r"data set is 'a\\nb'; expected text that can be"),
    "a word for names": ({"class_names": "cat"}, "is 'cat'; expected a tuple of names"),
    "a name that is a number": ({"name": 3}, "the name of a data set is 3; expected text"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_would_train_silently_wrong_is_refused(kind):
    changes, message = WRONG[kind]
    with pytest.raises(DataError, match=message) as refusal:
        data.Dataset(**parts(**changes))
    assert len(str(refusal.value).splitlines()) == 1
    assert len(str(refusal.value)) < 400


def test_a_data_set_moves_whole(device):
    dataset = data.Dataset(**GOOD)
    there = dataset.to("cpu" if device is np else "gpu")
    assert there.fingerprint == dataset.fingerprint
    mixed = parts(train_images=device.asarray(IMAGES))
    if device is not np:
        with pytest.raises(
            DataError, match="arrays are on the cpu and the gpu; expected one device"
        ):
            data.Dataset(**mixed)
