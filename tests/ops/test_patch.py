"""Images to tokens."""

import composed
import numpy as np
import pytest
from checks import B, C, assert_same_as_composed, by_hand, frozen, normal

from tinymixer.backend import to_numpy
from tinymixer.ops import Patchify, Unfold

SIZES = [(3, 2, 5), (2, 3, 1), (1, 3, 2), (4, 1, 1)]  # P, H, W


@pytest.mark.parametrize(("P", "H", "W"), SIZES)
def test_patchify_is_its_composition(device, P, H, W, rng):
    images = normal(rng, (B, H * P, W * P, 3))
    assert_same_as_composed(device, Patchify(P), lambda x: composed.patchify(x, P), images)


def test_a_token_holds_its_patch_row_by_row_colours_last(rng):
    images = rng.standard_normal((B, 6, 15, 3))
    x = Patchify(3).forward(images)
    assert x.shape == (2 * 5, B, 27)
    for row in range(2):
        for column in range(5):
            patch = images[:, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3]
            np.testing.assert_array_equal(x[row * 5 + column], patch.reshape(B, 27))


def test_backward_puts_every_pixel_back(device, rng):
    images = rng.standard_normal((B, 6, 15, 3))
    patchify = Patchify(3)
    x = patchify.forward(frozen(device, images))
    np.testing.assert_array_equal(to_numpy(patchify.backward(x)), images)


def test_forward_and_backward_are_adjoint(device, rng):
    (images,) = normal(rng, (B, 6, 15, 3))
    dx = rng.standard_normal((10, B, 27))
    x, (dimages,) = by_hand(Patchify(3), frozen(device, dx), frozen(device, images))
    left, right = float((x * frozen(device, dx)).sum()), (images * to_numpy(dimages)).sum()
    # the same 810 products added in another order
    assert abs(left - right) <= 810 * np.finfo(float).eps * np.abs(images * to_numpy(dimages)).sum()


@pytest.mark.parametrize("shape", [(B, 30, 32, 3), (B, 32, 30, 3)], ids=str)
def test_patches_must_tile_the_image(device, shape):
    message = rf"patches of 4x4 do not tile images of {shape[1]}x{shape[2]}.*Choose a patch_size"
    with pytest.raises(ValueError, match=message):
        Patchify(4).forward(device.zeros(shape))


def test_an_empty_batch_is_refused(device):
    with pytest.raises(ValueError, match=r"one image at least, got an empty batch \(0, 8, 8, 3\)"):
        Patchify(4).forward(device.zeros((0, 8, 8, 3)))


def test_raw_pixels_are_refused_with_the_cure(device):
    images = device.asarray(np.zeros((B, 8, 8, 3), np.uint8))
    with pytest.raises(
        TypeError, match=r"expected normalised pixels as floats, got uint8.*Normalise"
    ):
        Patchify(4).forward(images)


@pytest.mark.parametrize("shape", [(8, 8, 3), (8, 8)], ids=str)
def test_an_image_without_its_batch_axis_is_refused_with_the_cure(device, shape):
    with pytest.raises(
        ValueError, match=r"expected images \(B, height, width, colours\), got .*\[None\]"
    ):
        Patchify(4).forward(device.zeros(shape))


# kernel, stride, padding
WINDOWS = [(3, 2, 1), (2, 2, 0), (3, 1, 1), (2, 3, 0), (7, 4, 2), (1, 1, 0)]
WINDOWS += [(2, 2, (0, 1)), (3, 1, (2, 0)), (1, 2, (1, 3))]


@pytest.mark.parametrize(("kernel", "stride", "padding"), WINDOWS)
@pytest.mark.parametrize("grid", [(7, 5), (3, 4)], ids=str)
def test_unfold_is_its_composition(device, grid, kernel, stride, padding, rng):
    x = normal(rng, (*grid, B, C))

    def same(x):
        return composed.unfold(x, kernel, stride, padding)

    assert_same_as_composed(device, Unfold(kernel, stride, padding), same, x)


def test_windows_that_tile_are_patches(rng):
    images = rng.standard_normal((B, 6, 15, 3))
    windows = Unfold(3, 3).forward(images.transpose(1, 2, 0, 3))
    np.testing.assert_array_equal(windows.reshape(10, B, 27), Patchify(3).forward(images))


def test_a_window_larger_than_the_grid_is_refused(device):
    message = "windows of 5x5 do not fit a grid of 2x7 padded by 2 in all"
    with pytest.raises(ValueError, match=message):
        Unfold(5, 2, 1).forward(device.zeros((2, 7, B, C)))


@pytest.mark.parametrize("grid", [(1, 1), (1, 4), (2, 5), (3, 3), (4, 6)], ids=str)
def test_zeros_below_and_on_the_right_complete_the_last_windows_of_odd_grids(device, grid, rng):
    H, W = grid
    x = rng.standard_normal((H, W, B, C))
    even = np.zeros((H + H % 2, W + W % 2, B, C))
    even[:H, :W] = x
    y = Unfold(2, 2, (0, 1)).forward(frozen(device, x))
    np.testing.assert_array_equal(to_numpy(y), Unfold(2, 2).forward(even))
