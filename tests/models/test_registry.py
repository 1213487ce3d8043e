"""The register of models, and the published sizes of each."""

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import tinymixer
from tinymixer import engine, nn, ops
from tinymixer.engine import Twin
from tinymixer.models import MODELS, options_of
from tinymixer.summary import blueprint

# (parameters with K = 1000, with K = 10, multiply-accumulates of one image with the first K given)
PUBLISHED = {
    "mixer_s32": (19_104_624, 18_596_754, 1_002_426_368),
    "mixer_s16": (18_528_264, 18_020_394, 3_776_958_464),
    "mixer_b32": (60_293_428, 59_532_118, 3_237_722_112),
    "mixer_b16": (59_880_472, 59_119_162, 12_601_767_936),
    "mixer_l32": (206_939_264, 205_924_514, 11_253_293_056),
    "mixer_l16": (208_196_168, 207_181_418, 44_547_678_208),
    "mixer_h14": (432_350_952, 431_082_762, 120_989_911_040),
    "mixer_pico": (None, 154_058, None),
    "mixer_nano": (None, 1_132_170, 75_891_968),
    "mixer_nano_slim": (None, 673_418, 75_891_968),
}


def weightless(shape):
    """An array of any shape in the memory of one number."""
    return as_strided(np.zeros(1, np.float32), shape, [0] * len(shape))


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_parameters_are_as_many_as_published(name):
    thousand, ten, _ = PUBLISHED[name]
    assert blueprint(name, num_classes=10).num_parameters() == ten
    if thousand:
        assert blueprint(name).num_parameters() == thousand


def counting(function, macs):
    """A twin that adds up the multiply-accumulates and leaves the product out."""

    class Counting(function):
        def forward(self, x, *parameters):
            macs.append(self.multiply_accumulates(x, *parameters))
            last = parameters[-2].shape[-1] if function is ops.ChannelLinear else x.shape[-1]
            return weightless((*x.shape[:-1], last))

    return Counting


@pytest.mark.parametrize("name", [name for name, (_, _, macs) in PUBLISHED.items() if macs])
def test_the_multiply_accumulates_are_as_many_as_published(name, monkeypatch):
    macs = []
    counted = (ops.ChannelLinear, ops.TokenMLP, ops.ChannelMLP)
    monkeypatch.setattr(engine, "twins", {(f, "cpu"): Twin(counting(f, macs)) for f in counted})
    model = blueprint(name)
    model(np.zeros((1, *model.image_size, 3), np.float32))
    assert sum(macs) == PUBLISHED[name][2]


def test_every_published_model_is_listed():
    assert set(PUBLISHED) <= set(tinymixer.list_models())


def test_num_classes_and_changes_replace_the_configuration():
    model = tinymixer.create_model("mixer_pico", num_classes=7, gelu="erf", num_blocks=2)
    assert model.num_classes == 7
    assert model.head.W.shape == (64, 7)
    assert len(model.blocks) == 2
    assert model.blocks[0].token_mlp.gelu == "erf"
    assert len(tinymixer.create_model("mixer_pico").blocks) == 4  # the register itself is unchanged


def test_without_rng_the_weights_are_the_same_every_time():
    first, second = tinymixer.create_model("mixer_pico"), tinymixer.create_model("mixer_pico")
    third = tinymixer.create_model("mixer_pico", rng=np.random.default_rng(1))
    W = [model.patch_embed.linear.W.data for model in (first, second, third)]
    np.testing.assert_array_equal(W[0], W[1])
    assert (W[0] != W[2]).all()


def test_an_unknown_model_is_an_error_that_lists_the_known():
    with pytest.raises(
        ValueError, match=r"no model 'mixer_xl'; the models are mixer_s32, .*mixer_nano"
    ):
        tinymixer.create_model("mixer_xl")


def test_an_unknown_option_is_an_error_that_lists_the_known():
    message = "mixer_pico has no option 'depth'; its options are image_size, .*num_blocks"
    with pytest.raises(ValueError, match=message):
        tinymixer.create_model("mixer_pico", depth=3)


SMALL = ["mixer_pico", *(name for name in MODELS if name.endswith("_nano"))]


@pytest.mark.parametrize("size", [32, np.int64(32), (32, 32), [np.int64(32), 32]])
@pytest.mark.parametrize("name", SMALL)
def test_the_size_of_images_is_kept_as_height_and_width(name, size):
    model = blueprint(name, image_size=size)
    assert model.image_size == (32, 32)
    assert [type(side) for side in model.image_size] == [int, int]


@pytest.mark.parametrize("name", SMALL)
def test_the_options_of_a_model_are_all_there_are(name):
    system, configured = MODELS[name]
    options = options_of(name, 7, gelu="erf")
    assert options == options | configured | {"num_classes": 7, "gelu": "erf"}
    system(**options, rng=nn.BLANK)
    assert options_of(name)["gelu"] == ("tanh" if name in TANH else "erf")


TANH = ("mixer_pico", "mixer_nano", "sparse_mlp_nano")
