"""Images with one channel: every system takes them, and all else is as it was with three."""

import numpy as np
import pytest
from small_runs import SYSTEMS

from tinymixer import create_model, weights
from tinymixer.data import Augment, Dataset
from tinymixer.errors import TinymixerError
from tinymixer.gradcheck import check_model
from tinymixer.models import MODELS
from tinymixer.models.segmentation import Segmenter
from tinymixer.summary import blueprint, summarise
from tinymixer.train.checkpoint import load_model
from tinymixer.train.config import Config
from tinymixer.train.parallel import Workers
from tinymixer.train.plain import train_plain
from tinymixer.train.trainer import Trainer

SMALL = SYSTEMS | {
    "as_mlp_nano": {"hidden_dim": 6, "depths": (1,)},
    "vip_nano": {"dims": (14, 28), "depths": (1, 1), "patch_sizes": (4, 1)},
    "hire_mlp_nano": {
        "dims": (4, 6),
        "depths": (1, 1),
        "stem": (4, 4, 0),
        **dict.fromkeys(("pixels", "strides", "dilations"), (2, 2)),
    },
    "raft_mlp_nano": {
        "dims": (4, 6),
        "depths": (1, 1),
        "patch_sizes": (4, 2),
        "raft_sizes": (2, 2),
        "kernels": None,
    },
}
SIZE = {"image_size": 28, "channels": 1}


def grey(part):
    """14 images 28 x 28, of which the first half is dark and the other bright."""
    rng = np.random.default_rng(part)
    images = rng.integers(0, 120, (14, 28, 28, 1)).astype(np.uint8)
    images[7:] += 130
    return images, np.arange(14) // 7


@pytest.fixture(scope="module")
def dataset():
    return Dataset("mine", *grey(0), *grey(1), ("dark", "bright"), (125.0,), (70.0,))


@pytest.mark.parametrize("name", SMALL)
def test_the_gradient_of_a_model_for_grey_images_is_right(name):
    options = SMALL[name] | SIZE | {"drop_path_rate": 0.0}
    pixels = np.random.default_rng(1).standard_normal((1, 28, 28, 1))
    check_model(create_model(name, 2, **options), pixels).raise_on_failure()


def test_and_of_one_that_segments_them():
    backbone = create_model("as_mlp_nano", **SMALL["as_mlp_nano"], **SIZE)
    model = Segmenter(backbone, 2, width=5, rng=np.random.default_rng(0))
    assert model.channels == 1
    pixels = np.random.default_rng(1).standard_normal((1, 28, 28, 1))
    check_model(model, pixels).raise_on_failure()


@pytest.mark.parametrize("name", SMALL)
def test_a_run_sees_the_channels_of_its_data_set(name, dataset):
    options = SMALL[name] | {"image_size": 28}
    augment = Augment(
        crop_padding=2, flip="random", auto_augment="cifar10", cutout=3, random_erasing=0.5
    )
    config = Config(
        model=name, model_options=options, epochs=1, batch_size=7, micro_batch=7, augment=augment
    )
    trainer = Trainer(config, dataset, workers=1, quiet=True)
    before = trainer.flat.weights.copy()
    trainer.run()
    assert trainer.model.channels == 1
    assert (trainer.flat.weights != before).any()
    with Workers(1):  # one thread for BLAS
        plain = train_plain(config, dataset, quiet=True)
    for key, array in plain.state().items():
        np.testing.assert_array_equal(trainer.model.state()[key], array, err_msg=key)


@pytest.mark.parametrize("name", SMALL)
def test_images_with_other_channels_are_refused_in_words(name, dataset):
    model = create_model(name, **SMALL[name], image_size=28)
    with pytest.raises(ValueError, match=r"got \(2, 28, 28, 1\)\. Build the model with channels=1"):
        model(np.zeros((2, 28, 28, 1), np.float32))


@pytest.mark.parametrize("name", MODELS)
def test_one_channel_saves_two_thirds_of_the_first_weights_and_nothing_else(name):
    three, one = blueprint(name), blueprint(name, channels=1)
    assert three.channels == 3
    shapes = ({key: x.shape for key, x in model.state().items()} for model in (three, one))
    changed = [(a, b) for a, b in zip(*(s.values() for s in shapes), strict=True) if a != b]
    assert changed
    assert all(a == (3 * b[0], *b[1:]) for a, b in changed)


def test_a_summary_is_of_images_with_the_channels_of_the_model():
    model = blueprint("mixer_pico", channels=1)
    assert summarise(model).parameters == model.num_parameters()
    assert "(64, B, 16)" in str(summarise(model))  # patches of 4 x 4 grey pixels


@pytest.mark.parametrize(
    ("name", "layout", "shape"),
    [
        ("mixer_pico", "timm", (64, 1, 4, 4)),
        ("mixer_pico", "official", (4, 4, 1, 64)),
        ("as_mlp_nano", "official", (64, 1, 4, 4)),
        ("hire_mlp_nano", "official", (32, 1, 3, 3)),
        ("vip_nano", "official", (64, 1, 4, 4)),
        ("raft_mlp_nano", "official", None),  # maps of windows
    ],
)
def test_the_released_layouts_hold_kernels_of_one_channel(name, layout, shape, tmp_path):
    model = create_model(name, channels=1)
    weights.save_state(model, tmp_path / "w.npz", layout)
    with np.load(tmp_path / "w.npz") as stored:
        kernels = {stored[key].shape for key in stored.files if stored[key].ndim == 4}
    assert shape is None or shape in kernels, kernels
    again = create_model(name, channels=1, rng=np.random.default_rng(5))
    weights.load_state(again, tmp_path / "w.npz", layout)
    for key, array in model.state().items():
        np.testing.assert_array_equal(again.state()[key], array, err_msg=key)


@pytest.mark.parametrize("channels", [0, -1, 1.5, True, "3", 10**6])
def test_a_number_of_channels_that_cannot_be_is_refused(channels):
    with pytest.raises(ValueError, match=r"MLPMixer: channels=.*: expected a whole number from 1"):
        create_model("mixer_pico", channels=channels)


def test_a_run_builds_its_model_for_the_images_of_its_data_set(dataset, tmp_path):
    """28 x 28 images need no option; one that is given comes first."""
    options = SMALL["mixer_pico"]
    config = Config(model_options=options, epochs=1, batch_size=7, micro_batch=7)
    trainer = Trainer(config, dataset, tmp_path, workers=1, quiet=True)
    trainer.run()
    assert trainer.model.image_size == (28, 28)
    assert trainer.config.model_options == options
    model, saved = load_model(tmp_path / "last.npz")
    assert (model.image_size, model.channels) == ((28, 28), 1)
    assert saved.header.dataset.image_size == (28, 28)
    again = Trainer.resume(tmp_path / "last.npz", dataset, workers=1, quiet=True)
    np.testing.assert_array_equal(again.flat.weights, trainer.flat.weights)
    wrong = Config(model_options=options | {"image_size": 32})
    with pytest.raises(TinymixerError, match=r"expected images \(B, 32, 32, 1\), got \(1, 28"):
        Trainer(wrong, dataset, quiet=True)
    with pytest.raises(TinymixerError, match="the data set decides channels; leave out channels=3"):
        Trainer(Config(model_options=options | {"channels": 3}), dataset, quiet=True)
