"""Resizing grids."""

import composed
import numpy as np
import pytest
from checks import B, C, assert_close, assert_same_as_composed, by_hand, frozen, normal

from tinymixer import nn
from tinymixer.backend import array_module, to_numpy
from tinymixer.engine import Tensor
from tinymixer.ops import Resample
from tinymixer.ops.resample import bicubic_matrix, bilinear_matrix

SIZES = [(7, 5, 7, 11), (6, 6, 4, 4), (1, 3, 2, 1), (2, 13, 7, 3)]  # H, W, H', W'
both = pytest.mark.parametrize("matrix", [bilinear_matrix, bicubic_matrix])


@both
@pytest.mark.parametrize(("H", "W", "H_new", "W_new"), SIZES)
def test_resample_is_its_composition(device, matrix, H, W, H_new, W_new, rng):
    matrices = matrix(H, H_new), matrix(W, W_new)
    assert_same_as_composed(
        device, Resample(), composed.resample, normal(rng, (H, W, B, C)), matrices
    )


@both
@pytest.mark.parametrize(("H", "W", "H_new", "W_new"), SIZES)
def test_forward_and_backward_are_adjoint(device, matrix, H, W, H_new, W_new, rng):
    x, dy = normal(rng, (H, W, B, C), (H_new, W_new, B, C))
    matrices = frozen(device, matrix(H, H_new)), frozen(device, matrix(W, W_new))
    y, (dx, *none) = by_hand(Resample(), frozen(device, dy), frozen(device, x), *matrices)
    assert none == [None, None]
    left, right = (to_numpy(y) * dy).sum(), (x * to_numpy(dx)).sum()
    assert abs(left - right) <= 1e-13 * np.linalg.norm(to_numpy(y)) * np.linalg.norm(dy)


def test_every_channel_of_every_image_is_resized_alike(rng):
    (x,) = normal(rng, (7, 5, B, C))
    A_h, A_w = bicubic_matrix(7, 3), bilinear_matrix(5, 8)
    y = Resample().forward(x, A_h, A_w)
    assert_close(y[:, :, 1, 2], A_h @ x[:, :, 1, 2] @ A_w.T)
    assert_close(y, np.einsum("ih,jw,hwbc->ijbc", A_h, A_w, x))


# --- the matrices; their entries worked out by hand from the positions of the cells' centres ---


def test_bilinear_entries():
    # 2 -> 4: the new centres lie at -1/4 (beyond the border: all of the border), 1/4, 3/4, 5/4
    np.testing.assert_array_equal(
        bilinear_matrix(2, 4), [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    )
    # 4 -> 2: at 1/2 and 5/2. 3 -> 1: at 1, on an old centre: its neighbours do not count.
    np.testing.assert_array_equal(bilinear_matrix(4, 2), [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    np.testing.assert_array_equal(bilinear_matrix(3, 1), [[0, 1, 0]])


def test_bicubic_entries():
    # k(1/2) = 5/4/8 - 9/4/4 + 1 = 19/32 and k(3/2) = -3/4 (27/8 - 45/4 + 12 - 4) = -3/32
    near, far = 19 / 32, -3 / 32
    # 4 -> 2: at 1/2 and 5/2; each time one of the outer neighbours lies beyond the border
    expected = [[far + near, near, far, 0], [0, far, near, near + far]]
    np.testing.assert_allclose(bicubic_matrix(4, 2), expected, rtol=0, atol=1e-16)
    # 6 -> 3: at 1/2, 5/2 and 9/2; the middle one has all four of its neighbours
    np.testing.assert_allclose(bicubic_matrix(6, 3)[1], [0, far, near, near, far, 0], atol=1e-16)
    # 1 -> 2: there is nothing but the border
    np.testing.assert_allclose(bicubic_matrix(1, 2), [[1], [1]])
    # 2 -> 4: at -1/4, 1/4, 3/4 and 5/4. The neighbours of 1/4 are the border twice, at distances
    # 5/4 and 1/4, and the other value twice, at 3/4 and 7/4:
    # k(5/4) = -27/256, k(1/4) = 225/256, k(3/4) = 67/256, k(7/4) = -9/256
    q = np.array([-27 + 225, 67 - 9]) / 256
    np.testing.assert_allclose(bicubic_matrix(2, 4)[1], q, rtol=0, atol=1e-15)
    np.testing.assert_allclose(bicubic_matrix(2, 4)[2], q[::-1], rtol=0, atol=1e-15)


@both
@pytest.mark.parametrize(("n_in", "n_out"), [(7, 11), (11, 7), (14, 56), (1, 3), (3, 1), (2, 13)])
def test_a_constant_stays_and_both_ends_are_alike(matrix, n_in, n_out):
    A = matrix(n_in, n_out)
    assert A.shape == (n_out, n_in)
    np.testing.assert_allclose(A.sum(1), 1, rtol=0, atol=1e-14)
    np.testing.assert_allclose(A[::-1, ::-1], A, rtol=0, atol=1e-14)


@both
def test_the_same_size_is_the_identity(matrix):
    for n in (1, 2, 3, 7, 14, 56):
        np.testing.assert_array_equal(matrix(n, n), np.eye(n))


@both
@pytest.mark.parametrize(("n_in", "n_out"), [(0, 3), (3, 0)])
def test_there_is_nothing_smaller_than_one(matrix, n_in, n_out):
    with pytest.raises(ValueError, match=f"sizes of 1 or more, got {n_in} -> {n_out}"):
        matrix(n_in, n_out)


@pytest.mark.parametrize("shape", [(5, 7, B, C), (7, 5, B * C), (7, 6, B, C)], ids=str)
def test_a_grid_of_another_size_is_refused(device, shape):
    A_h, A_w = device.zeros((3, 7)), device.zeros((8, 5))
    with pytest.raises(ValueError, match=r"Resample: (x|A_h|A_w) is \(.*; expected \([HNM],"):
        Resample()(device.zeros(shape), A_h, A_w)


def test_multiply_accumulates_count_every_product():
    x, resample = np.zeros((7, 5, B, C)), Resample()
    resample.forward(x, np.eye(7), np.zeros((8, 5)))
    assert resample.multiply_accumulates(x) == B * C * (7 * 7 * 5 + 7 * 5 * 8)


# --- the layer ---


@both
def test_resize_computes_where_x_is_and_as_precisely(device, matrix, rng):
    (host,) = normal(rng, (7, 5, B, C))
    for dtype, within in ((np.float64, 2e-13), (np.float32, 1e-5)):
        y = nn.resize(Tensor(device.asarray(host.astype(dtype))), (3, 8), matrix)
        assert array_module(y.data) is device
        assert y.dtype == dtype
        assert_close(y.data, Resample().forward(host, matrix(7, 3), matrix(5, 8)), within)


@both
def test_resize_to_the_size_it_has_is_no_work(matrix):
    x = Tensor(np.zeros((7, 5, B, C)))
    assert nn.resize(x, (7, 5), matrix) is x


def test_resize_leaves_a_plain_array_plain(device):
    y = nn.resize(device.zeros((7, 5, B, C)), (3, 8), bilinear_matrix)
    assert not isinstance(y, Tensor)
    assert y.shape == (3, 8, B, C)
