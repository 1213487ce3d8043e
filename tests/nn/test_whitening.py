"""A first embedding that reads white patches."""

from dataclasses import replace

import numpy as np
import pytest
from small_runs import images_for, small

from tinymixer import create_model, nn, ops
from tinymixer.data.draws import Stream, generator
from tinymixer.errors import TinymixerError
from tinymixer.nn.roles import embedding_of
from tinymixer.nn.whitening import EPS, whitening
from tinymixer.train import Trainer
from tinymixer.train.validation import held_back


def smooth_images(n, side, channels=3):
    """Noise whose neighbours are alike, as those of photographs are: float32, variance about 1."""
    noise = np.random.default_rng(0).standard_normal((n, side, side, channels))
    for axis in (1, 2):
        noise = noise + np.roll(noise, 1, axis) + np.roll(noise, 2, axis)
    return (noise / noise.std()).astype(np.float32)


def spread(p):
    """Mean of p pᵀ: (F, F)."""
    return p.T.astype(np.float64) @ p / len(p)


def test_whitened_patches_vary_alike_in_all_directions_and_are_not_correlated():
    p = ops.Patchify(4).forward(smooth_images(64, 16)).reshape(-1, 48)
    before = np.linalg.eigvalsh(spread(p))
    assert before[-1] > 100 * before[0]
    np.testing.assert_allclose(spread(p @ whitening(p)), np.eye(48), atol=EPS / before[0])


def test_what_hardly_varies_stays_small():
    rng = np.random.default_rng(0)
    p = rng.standard_normal((10_000, 3)) * [1, EPS**0.5, 0]
    found = spread(p @ whitening(p))
    np.testing.assert_allclose(found, np.diag([1, 0.5, 0]), atol=0.03)


@pytest.mark.parametrize("name", ["mixer_pico", "as_mlp_nano", "hire_mlp_nano", "vip_nano"])
def test_the_weights_are_those_that_were_drawn_behind_a_whitening(name):
    drawn, white = (create_model(name, rng=np.random.default_rng(1)) for _ in range(2))
    images = smooth_images(8, 32)
    nn.whiten(white, images)
    layer, before = embedding_of(white), embedding_of(drawn)
    p = layer.windows(images if isinstance(layer, nn.PatchEmbed) else nn.grid(images)).data
    p = p.reshape(-1, p.shape[-1])
    expected = p @ whitening(p) @ before.linear.W.data
    np.testing.assert_allclose(p @ layer.linear.W.data, expected, rtol=1e-3, atol=1e-4)
    assert layer.linear.W.data.dtype == np.float32
    changed = [
        name
        for (name, x), y in zip(drawn.state().items(), white.state().values(), strict=True)
        if not np.array_equal(x, y)
    ]
    assert changed == [f"{path}.linear.W" for path, x in drawn.named_modules() if x is before]


def test_each_scale_of_an_embedding_has_its_own_whitening():
    drawn, white = (create_model("raft_mlp_nano", rng=np.random.default_rng(1)) for _ in range(2))
    images = smooth_images(8, 32)
    nn.whiten(white, images)
    scales = embedding_of(white).scales
    assert len(scales) > 1
    for scale, before in zip(scales, embedding_of(drawn).scales, strict=True):
        p = scale.windows(nn.grid(images)).data
        p = p.reshape(-1, p.shape[-1])
        expected = p @ whitening(p) @ before.linear.W.data
        np.testing.assert_allclose(p @ scale.linear.W.data, expected, rtol=1e-3, atol=1e-4)


def test_a_model_without_an_embedding_is_refused():
    model = nn.ChannelLinear(3, 2, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="whiten: ChannelLinear has no embedding"):
        nn.whiten(model, smooth_images(2, 8))


def test_a_run_whitens_by_the_images_it_trains_on_and_not_by_those_held_back():
    config = small("mixer_pico", whiten=1000, val_size=4)
    dataset = images_for(config)
    trainer = Trainer(config, dataset, workers=1, quiet=True)
    model = config.model_for(held_back(dataset, 4), generator(config.seed, Stream.INIT))
    other = config.model_for(dataset, generator(config.seed, Stream.INIT))
    weights = [x.patch_embed.linear.W.data for x in (trainer.model, model, other)]
    np.testing.assert_array_equal(weights[0], weights[1])
    assert (weights[0] != weights[2]).any()


def test_images_that_the_patches_do_not_tile_are_refused_in_one_line():
    config = small("mixer_pico", whiten=8)
    config = replace(
        config, model_options={**config.model_options, "image_size": 30, "patch_size": 5}
    )
    with pytest.raises(TinymixerError, match=r"^model mixer_pico on shapes: "):
        Trainer(config, images_for(config), workers=1, quiet=True)
