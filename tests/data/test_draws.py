"""Random numbers by coordinates: the published algorithm, and what its users rely on."""

from itertools import product

import numpy as np
import pytest

from tinymixer.data.draws import (
    Stream,
    draws,
    generator,
    integers,
    noise,
    permutation,
    philox4x32,
    uniform,
)
from tinymixer.errors import TinymixerError


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0,) * 4, (0,) * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_published_answers(counter, key, expected):
    """Known answers of Random123, the library of the paper's authors."""
    words = philox4x32(tuple(np.array([word], np.uint64) for word in counter), key)
    assert " ".join(f"{word:08x}" for word in words[:, 0].tolist()) == expected


def test_draws_depend_on_nothing_but_their_coordinates():
    index = np.array([7, 0, 2**40])
    together = draws(2**63 + 5, Stream.CROP, 3, index)
    for column, i in enumerate(index):
        alone = draws(2**63 + 5, Stream.CROP, 3, np.array([i]))
        np.testing.assert_array_equal(together[:, column], alone[:, 0])


def test_every_coordinate_matters():
    index = np.arange(4)
    base = draws(1, Stream.CROP, 2, index)
    for other in (
        draws(1 + 2**32, Stream.CROP, 2, index),
        draws(1, Stream.FLIP, 2, index),
        draws(1, Stream.CROP, 3, index),
        draws(1, Stream.CROP, 2, index + 2**32),
    ):
        assert not (base == other).any()


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seed_out_of_range_is_refused(seed):
    with pytest.raises(TinymixerError, match="seed"):
        draws(seed, Stream.CROP, 0, np.arange(3))
    with pytest.raises(TinymixerError, match="seed"):
        generator(seed, Stream.CROP)


def test_words_are_uniform_and_streams_are_independent():
    n = 100_000
    bits = np.concatenate(
        [draws(0, stream, 5, np.arange(n)) for stream in (Stream.CROP, Stream.FLIP)]
    )
    u = uniform(bits).astype(np.float64)
    assert u.min() >= 0
    assert u.max() < 1
    # A mean of n uniform numbers has s.d. 1 / sqrt(12 n), a correlation 1 / sqrt(n): five of them.
    assert abs(u.mean(1) - 0.5).max() < 5 / np.sqrt(12 * n)
    correlation = np.corrcoef(u) - np.eye(8)
    assert abs(correlation).max() < 5 / np.sqrt(n)
    # Chi-squared with 255 degrees of freedom: mean 255, s.d. sqrt(510).
    counts = np.stack([np.bincount(word >> 24, minlength=256) for word in bits])
    chi2 = ((counts - n / 256) ** 2 / (n / 256)).sum(1)
    assert abs(chi2 - 255).max() < 5 * np.sqrt(510)


def test_integers_cover_their_range_exactly():
    edges = np.array([0, 2**32 - 1], np.uint32)
    for n in (1, 2, 9, 50_000, 2**32):
        assert integers(edges, n).tolist() == [0, n - 1]
    assert integers(edges, np.array([3, 5])).tolist() == [0, 4]
    counts = np.bincount(integers(draws(0, Stream.CROP, 0, np.arange(30_000)).ravel(), 3))
    # Binomial: s.d. sqrt(n p (1 - p)).
    assert abs(counts - 40_000).max() < 5 * np.sqrt(120_000 * 2 / 9)


def test_uniform_is_exact_in_float32():
    assert uniform(np.array([0, 2**32 - 1], np.uint32)).tolist() == [0.0, 1 - 2.0**-24]
    assert uniform(np.array([5], np.uint32)).dtype == np.float32


def test_permutation_is_a_function_of_seed_and_epoch():
    order = permutation(3, 4, 1000)
    np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    np.testing.assert_array_equal(order, permutation(3, 4, 1000))
    # Two random orders share one place on average: Poisson, so eleven are out of the question.
    for other in (permutation(4, 4, 1000), permutation(3, 5, 1000), np.arange(1000)):
        assert (order == other).sum() < 11
    assert permutation(0, 0, 8).tolist() == [2, 4, 0, 7, 5, 6, 3, 1]  # resumed runs count on it


def test_generators_at_different_positions_differ():
    positions = [(), (1,), (1, 2), (1, 2, 3), (2, 1, 3)]
    numbers = [generator(0, Stream.DROPOUT, *position).random(4) for position in positions]
    numbers.append(generator(1, Stream.DROPOUT, 1).random(4))
    assert len(np.unique(np.round(numbers, 12))) == 24
    np.testing.assert_array_equal(numbers[3], generator(0, Stream.DROPOUT, 1, 2, 3).random(4))


def test_noise_of_an_image_does_not_depend_on_the_others():
    index = np.array([4, 9, 2])
    together = noise((3, 5, 7, 3), 0, Stream.ERASE_FILL, 1, index)
    alone = noise((1, 5, 7, 3), 0, Stream.ERASE_FILL, 1, index[1:2])
    assert together.dtype == np.uint8
    np.testing.assert_array_equal(together[1:2], alone)
    assert not np.array_equal(together[0], together[1])


def test_streams_keep_their_numbers():
    """A new one has a number of its own, or runs that were begun would go on with other images."""
    assert {stream.name: int(stream) for stream in Stream} == {
        "ORDER": 1,
        "CROP": 2,
        "FLIP": 3,
        "CUTOUT": 4,
        "ERASE": 5,
        "ERASE_FILL": 6,
        "MIX": 7,
        "MIX_BOX": 8,
        "SHAPES": 9,
        "SHAPES_NOISE": 10,
        "DROPOUT": 11,
        "INIT": 12,
        "AUTO": 13,
        "VALIDATION": 14,
    }


def test_the_counter_is_index_epoch_and_stream():
    index, epoch, stream, seed = 7 + 3 * 2**32, 5, Stream.CROP, 11 + 13 * 2**32
    words = (np.array([word], np.uint64) for word in (7, 3, epoch, int(stream)))
    expected = philox4x32(tuple(words), (11, 13))
    np.testing.assert_array_equal(draws(seed, stream, epoch, np.array([index])), expected)


def eights(numbers):
    """Bytes as 64-bit words; of some 10,000 random ones, two are alike once in 10**11 times."""
    return np.frombuffer(numbers.tobytes(), np.uint64)


@pytest.mark.parametrize("shape", [(2, 8), (5, 7, 3), (32, 32, 3)])
def test_noise_of_neighbours_shares_no_word(shape):
    """Also where the last block of an image is not used to its end."""
    size = np.prod(shape) // 8 * 8
    streams = Stream.ERASE_FILL, Stream.SHAPES_NOISE
    images = [noise((20, *shape), 0, stream, 1, np.arange(20)) for stream in streams]
    words = eights(np.concatenate(images).reshape(40, -1)[:, :size])
    assert len(np.unique(words)) == len(words)


def test_generators_of_neighbouring_positions_share_no_word():
    """However many numbers each gives: of 1,000 of each none comes twice."""
    positions = list(product((0, 1), (Stream.DROPOUT, Stream.INIT), range(3), range(3), range(3)))
    words = [generator(*position).integers(0, 2**64, 1000, np.uint64) for position in positions]
    assert len(np.unique(words)) == 1000 * len(positions)


def test_a_position_is_filled_up_with_zeros_and_its_low_word_counts():
    """The blocks of a position follow one another, as NumPy counts them."""
    expected = np.random.Philox(key=[5, 11], counter=[0, 2, 3, 0])
    found = generator(5, Stream.DROPOUT, 2, 3).bit_generator
    assert Stream.DROPOUT == 11
    np.testing.assert_array_equal(found.random_raw(20), expected.random_raw(20))


def test_every_order_of_a_few_images_is_equally_likely():
    """5! = 120 orders, over 12,000 epochs: chi-squared with 119 degrees of freedom, s.d. √238."""
    orders = np.array([permutation(1, epoch, 5) for epoch in range(12_000)])
    counts = np.bincount(orders @ 5 ** np.arange(5), minlength=5**5)
    assert (counts > 0).sum() == 120
    assert abs(((counts[counts > 0] - 100) ** 2 / 100).sum() - 119) < 5 * np.sqrt(238)


def test_an_order_rises_as_often_as_it_falls():
    """Where tickets are alike, images keep their order. Steps up: (n - 1)/2, s.d. √(n/12)."""
    n = 50_000
    up = (np.diff(permutation(1, 2, n)) > 0).sum()
    assert abs(up - (n - 1) / 2) < 5 * np.sqrt(n / 12)
