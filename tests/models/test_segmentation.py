"""A class for every pixel, on a pyramid of one's own and on a published one."""

import numpy as np
import pytest
from checks import CLOSE_32, assert_close

from tinymixer import nn, ops
from tinymixer.backend import to_numpy
from tinymixer.gradcheck import check_model
from tinymixer.models import MLPMixer, RaftMLP
from tinymixer.models.segmentation import Segmenter
from tinymixer.ops.resample import bilinear_matrix
from tinymixer.summary import summarise

K = 5


class Pyramid(nn.Module):
    """The least backbone: windows of 3x3, each map half as fine as the one before."""

    def __init__(self, dims=(5, 7, 11), *, rng):
        self.image_size, self.feature_dims = (8, 8), dims
        ends = zip((3, *dims), dims, strict=False)
        self.embeds = [nn.UnfoldLinear(a, b, 3, 2, 1, rng=rng) for a, b in ends]
        self.norm, self.head = nn.LayerNorm(dims[-1]), nn.ChannelLinear(dims[-1], K, rng=rng)

    def features(self, images, rng=None):
        x, found = nn.grid(images), []
        for embed in self.embeds:
            x = embed(x)
            found.append(x)
        return found


RAFT = {
    "image_size": 8,
    "dims": (8, 12),
    "depths": (1, 1),
    "patch_sizes": (2, 2),
    "raft_sizes": (2, 2),
    "num_classes": K,
}
BACKBONES = {
    "one map": lambda rng: Pyramid((3,), rng=rng),
    "three maps": lambda rng: Pyramid(rng=rng),
    "RaftMLP": lambda rng: RaftMLP(**RAFT, rng=rng),
}


def segmenter(backbone="three maps", **options):
    """A Segmenter of which nothing is zero, where its head and all biases start."""
    rng = np.random.default_rng(0)
    model = Segmenter(BACKBONES[backbone](rng), K, width=13, rng=rng, **options)
    for parameter in model.parameters():
        if not parameter.data.any():
            parameter.data[...] = rng.standard_normal(parameter.shape)
    return model


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("size", [(8, 8), (7, 11), (1, 5), (16, 16)])
def test_every_pixel_has_its_logits_at_any_size(device, backbone, size, rng):
    model = segmenter(backbone)
    images = rng.standard_normal((3, *size, 3), dtype=np.float32)
    expected = model(images).data
    assert expected.shape == (*size, 3, K)
    model.to("cpu" if device is np else "gpu")
    assert_close(model(device.asarray(images)).data, expected, CLOSE_32)


def test_at_first_every_class_is_as_probable(rng):
    model = Segmenter(Pyramid(rng=rng), K, rng=rng)
    assert not model(np.ones((2, 8, 8, 3), np.float32)).data.any()


@pytest.mark.parametrize("form", ["tanh", "erf"])
def test_the_sum_of_levels_is_one_map_of_them_laid_end_to_end(form, rng):
    """Upsampled to the finest grid, concatenated, one linear map: the form of the papers."""
    model = segmenter(gelu=form).astype(np.float64)
    images = rng.standard_normal((2, 9, 13, 3))
    above, wide = None, []
    for level, x in zip(model.levels[::-1], model.backbone.features(images)[::-1], strict=True):
        v = level.enter(level.norm(x)).data
        if above is not None:
            A_h, A_w = map(bilinear_matrix, above.shape, v.shape[:2])
            v = v + np.einsum("ih,jw,hwbc->ijbc", A_h, A_w, above)
        above = v
        z = ops.gelu.gelu(v @ level.mix.W.data + level.mix.b.data, form)
        A_h, A_w = map(bilinear_matrix, z.shape, (5, 7))
        wide.insert(0, np.einsum("ih,jw,hwbc->ijbc", A_h, A_w, z))
    W = np.concatenate([level.leave.W.data for level in model.levels])
    y = ops.gelu.gelu(np.concatenate(wide, -1) @ W + model.bias.data, form)
    A_h, A_w = bilinear_matrix(5, 9), bilinear_matrix(7, 13)
    expected = np.einsum("ih,jw,hwbc->ijbc", A_h, A_w, model.head(y).data)
    assert_close(model(images).data, expected)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_its_gradients_are_proven(backbone):
    # Smaller images leave maps of few places, where norms bend too much for differences.
    images = np.random.default_rng(21).standard_normal((2, 16, 15, 3))
    assert check_model(segmenter(backbone), images)


def test_an_image_does_not_depend_on_its_batch(rng):
    model = segmenter("RaftMLP")
    images = rng.standard_normal((3, 8, 8, 3), dtype=np.float32)
    alone = model(images[1:2]).data[:, :, 0]
    assert_close(model(images).data[:, :, 1], alone, CLOSE_32)


def test_training_draws_from_the_generator_that_it_is_given(rng):
    backbone = RaftMLP(**RAFT, drop_path_rate=0.5, rng=rng)
    model = Segmenter(backbone, K, rng=rng)
    model.head.W.data[...] = 1
    images = rng.standard_normal((3, 8, 8, 3), dtype=np.float32)
    first, again, other = (model(images, np.random.default_rng(i)).data for i in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_the_head_of_the_backbone_is_taken_off(rng):
    model = Segmenter(RaftMLP(**RAFT, rng=rng), K, width=6, rng=rng)
    names = [name for name, _ in model.named_parameters()]
    assert not [name for name in names if name.startswith(("backbone.head", "backbone.norm"))]
    images = rng.standard_normal((2, 8, 8, 3), dtype=np.float32)
    y = model(images)
    y.backward(rng.standard_normal(y.shape, dtype=np.float32))
    assert [name for name, x in model.named_parameters() if x.grad is None] == []


def test_a_summary_counts_it_all(rng):
    model = segmenter()
    summary = summarise(model)
    assert summary.parameters == model.num_parameters()
    assert summary.rows[-1].output == "(8, 8, B, 5)"


def test_a_backbone_without_maps_is_refused(rng):
    mixer = MLPMixer(
        image_size=8,
        patch_size=4,
        hidden_dim=4,
        num_blocks=1,
        tokens_mlp_dim=4,
        channels_mlp_dim=4,
        num_classes=K,
        rng=rng,
    )
    with pytest.raises(ValueError, match=r"MLPMixer has no maps of several sizes.*AS-MLP"):
        Segmenter(mixer, K, rng=rng)


def test_it_says_where_a_pixel_lies(rng):
    """A light image's right half is learned to be class 1: a few steps of descent are enough."""
    model = Segmenter(Pyramid((4, 4), rng=rng), 2, width=8, rng=rng)
    images = np.zeros((1, 8, 8, 3), np.float32)
    images[:, :, 4:] = 1
    truth = images[..., 0].astype(np.uint8).transpose(1, 2, 0)
    for _ in range(60):
        loss = ops.SoftmaxCrossEntropy()(model(images), truth)
        sink = {}
        loss.backward(into=sink)
        for parameter in model.parameters():
            parameter.data = parameter.data - 0.3 * sink[parameter]
    np.testing.assert_array_equal(to_numpy(model(images).data).argmax(-1), truth)
