"""Random numbers and augmentation on a GPU, and without one: the bits of the CPU."""

import itertools
from collections import Counter

import cuda_on_cpu
import cupy_stand_in
import numpy as np
import pytest
from on_device import LAYOUTS, assert_same, on, swap_source
from own_policy import add_policy
from twin_cases import AUGMENTS

from tinymixer import backend, data
from tinymixer.backend import to_numpy
from tinymixer.data import autoaugment
from tinymixer.engine import chosen
from tinymixer.fast import gpu
from tinymixer.fast.gpu import kernels
from tinymixer.train import Config, Trainer

SOURCE = kernels.sources()["data.cu"]
PIXELS = [(11, 7, 7, 3), (11, 7, 13, 3), (11, 41, 37, 3)]  # the last is more than one block's
SOME = np.array([9, 0, 3, 3, 10, 1, 6])  # of eleven
PLACES = [{"epoch": 0, "seed": 0}, {"epoch": 1, "seed": 5}, {"epoch": 6, "seed": 2**64 - 3}]


def pixels_of(shape):
    return np.random.default_rng(shape).integers(1, 255, shape, np.uint8)  # nothing is black


def twin_of(augment):
    return chosen(data.Augment, "gpu")(**vars(augment))


def augmented(augment, images, labels, place, cupy=None):
    """What augmentation makes of SOME of the images: on the CPU, or by its twin on a device."""
    arrays = images, labels, SOME
    if cupy:
        augment, arrays = twin_of(augment), on(cupy, arrays)
    return [to_numpy(a) for a in augment(*arrays, **place, num_classes=5)]


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("shape", PIXELS, ids=str)
@pytest.mark.parametrize("augment", AUGMENTS, ids=str)
def test_augmentation_is_that_of_the_cpu_to_the_last_bit(cupy, augment, shape, place):
    images, classes = pixels_of(shape), np.arange(11) % 5
    expected = augmented(augment, images, classes, place)
    assert_same(augmented(augment, images, classes, place, cupy), expected)
    if not augment.mixes:  # classes of pixels
        labels = images[..., 0].copy()
        expected = augmented(augment, images, labels, place)
        assert_same(augmented(augment, images, labels, place, cupy), expected)


@pytest.mark.parametrize("layout", ["reversed", "transposed"])
def test_augmentation_of_images_in_any_memory_order(cupy, layout):
    arrays, options = (pixels_of(PIXELS[1]), np.arange(11), SOME), {**PLACES[1], "num_classes": 11}
    expected = AUGMENTS[9](*map(LAYOUTS[layout], arrays), **options)
    assert_same(twin_of(AUGMENTS[9])(*on(cupy, arrays, layout), **options), expected)


def test_crop_and_flip_are_one_launch_and_so_are_a_policy_and_each_draw(cupy, monkeypatch):
    launched, launch = Counter(), kernels.launch
    monkeypatch.setattr(
        kernels, "launch", lambda name, *a, **v: launched.update([name]) or launch(name, *a, **v)
    )
    arrays = pixels_of(PIXELS[0]), np.arange(11) % 5, PLACES[0]
    augmented(AUGMENTS[9], *arrays, cupy)
    assert launched == {"crop_and_flip": 1}
    augmented(AUGMENTS[-2], *arrays, cupy)  # holes and noise in images and in partners; the mixing
    assert launched == {"crop_and_flip": 1 + 2, "random_words": 2 * 3 + 2}
    launched.clear()
    augmented(data.Augment(auto_augment="cifar10"), *arrays, cupy)
    assert launched == {"crop_and_flip": 1, "auto_augment": 1}


@pytest.mark.parametrize("shape", [(1,), (257,), (31, 67)], ids=str)
@pytest.mark.parametrize("place", PLACES, ids=str)
def test_random_words_are_those_of_philox(cupy, shape, place):
    index = np.random.default_rng(0).integers(0, 2**63 - 1, shape)
    where = place["seed"], data.draws.Stream.CUTOUT, place["epoch"]
    words = gpu.Augment._draws(*where, *on(cupy, [index]))
    assert_same([words], [data.draws.draws(*where, index)])


@pytest.mark.parametrize(
    ("margin", "dtype", "most"),
    [(7, np.uint8, 7), (2, np.float32, 7), (2, np.uint8, 6)],
    ids=["a margin beyond the mirror", "other numbers than bytes", "more images than a grid takes"],
)
def test_what_the_kernel_cannot_do_is_the_references(cupy, monkeypatch, margin, dtype, most):
    monkeypatch.setattr(gpu.data, "MOST_IMAGES", most)
    launched, launch = set(), kernels.launch
    monkeypatch.setattr(
        kernels, "launch", lambda name, *a, **v: launched.add(name) or launch(name, *a, **v)
    )
    augment = data.Augment(crop_padding=margin, padding="zero", flip="random")
    images, classes = pixels_of(PIXELS[1]).astype(dtype), np.arange(11)
    expected = augmented(augment, images, classes, PLACES[1])
    assert_same(augmented(augment, images, classes, PLACES[1], cupy), expected)
    assert launched == {"random_words"}


SIZES_DRAWN = [(1,), (7,), (0,), (3, 5), (2051,), (8,), (16,), (4100,)]
STARTS = [(0, ()), (2**64 - 1, (2**63, 7, 2**64 - 1)), (5, (1, 2, 3))]


@pytest.mark.parametrize(("seed", "position"), STARTS)
def test_a_generator_draws_what_numpys_draws(cupy, seed, position):
    start = seed, data.draws.Stream.DROPOUT, *position
    key = chosen(data.draws.rng_key, "gpu")(*start)
    assert_same([key], [data.draws.rng_key(*start)])
    there, here = chosen(data.draws.generator_from, "gpu")(key), data.draws.generator(*start)
    for shape in SIZES_DRAWN:
        drawn = there.random(shape, dtype=np.float32)
        assert backend.device_of(drawn) == "gpu"
        assert_same([drawn], [here.random(shape, dtype=np.float32)])


WRONG = {  # what is taken out of the kernel, and what is put in its place
    "a round": ("round < 10; round++, key0", "round < 9; round++, key0"),
    "a word of the key": ("key1 += 0xBB67AE85u", "key1 += 0"),
    "the index's high half": ("(unsigned)(index >> 32)", "0"),
    "the last index": ("    if (i >= n) return;\n    Words", "    Words"),
    "the words' order": (
        "words[n + i] = w.b, words[2 * n + i] = w.c",
        "words[n + i] = w.c, words[2 * n + i] = w.b",
    ),
    "the seed's high half": ("(unsigned)(seed >> 32)", "0"),
    "the two axes": ("integer(shift.a,", "integer(shift.b,"),
    "the widest shift": ("shift.b, 2 * padding + 1", "shift.b, 2 * padding"),
    "the way of the shift": (
        "- padding;\n    bool",
        "- padding, unused = right = -right;\n    bool",
    ),
    "the mirror about the edge": (
        "n - 1 - abs(n - 1 - abs(i))",
        "n - 1 - abs(n - 1 - abs(i + (i < 0)))",
    ),
    "the coin's epoch": ("draws(seed, FLIP, coin_epoch", "draws(seed, FLIP, epoch"),
    "the other way round": ("(coin.a + turns) % 2", "coin.a % 2"),
    "flip after crop": ("width - 1 - x : x) + right", "width - 1 - x - 2 * right : x) + right"),
    "the border below": ("row != y || column", "column"),
    "a border where there is none": ("filled && outside", "outside"),
    "the stream": ("draws(seed, CROP", "draws(seed, FLIP"),
    "colours": ("i % colours, place", "colours - 1 - i % colours, place"),
    "its own index": ("indices[blockIdx.y]", "blockIdx.y"),
    "a row of pixels": ("place % width", "place % height"),
}


@pytest.mark.parametrize(("taken", "left"), WRONG.values(), ids=WRONG)
def test_a_planted_bug_in_augmentation_is_caught(monkeypatch, taken, left):
    if missing := cuda_on_cpu.why_not():
        pytest.skip(missing)
    assert SOURCE.count(taken) == 1
    swap_source(monkeypatch, SOURCE.replace(taken, left))
    kernels._kernel(cupy_stand_in, "crop_and_flip", kernels.PLAIN)  # it does compile

    def all_agree():
        for augment, place in itertools.product(AUGMENTS[:18], PLACES):
            expected = augmented(augment, pixels_of(PIXELS[1]), np.arange(11), place)
            found = augmented(augment, pixels_of(PIXELS[1]), np.arange(11), place, cupy_stand_in)
            assert_same(found, expected)

        for place in PLACES:
            test_random_words_are_those_of_philox(cupy_stand_in, (257,), place)

    with pytest.raises((AssertionError, cuda_on_cpu.CudaError)):
        all_agree()


OPERATIONS = list(autoaugment.Operation)[:-1]
PICTURES = {  # noise, a narrow band of it, two levels, one; a single pixel, and no inside
    "noise": lambda rng: rng.integers(0, 256, (50, 6, 9, 3)),
    "a band": lambda rng: rng.integers(60, 90, (12, 29, 31, 3)),
    "two levels": lambda rng: 250 * rng.integers(0, 2, (20, 20, 13, 3)),
    "one level": lambda rng: rng.integers(0, 256, (20, 1, 1, 3)).repeat(4, 1).repeat(3, 2),
    "one pixel": lambda rng: rng.integers(0, 256, (20, 1, 1, 3)),
    "two rows": lambda rng: rng.integers(0, 256, (20, 2, 5, 3)),
}


def operated(monkeypatch, operation, kind, cupy=None):
    """Pictures and pixels' classes after `operation` in all magnitudes, and perhaps another."""
    name, second = operation.name, OPERATIONS[(operation * 3 + 1) % len(OPERATIONS)]
    pairs = tuple(((operation, 9, m), (second, 5, 9 - m)) for m in range(10))
    add_policy(monkeypatch, name, pairs)
    images = PICTURES[kind](np.random.default_rng(0)).astype(np.uint8)
    augment, arrays = data.Augment(auto_augment=name), (images, images[..., 0].copy())
    arrays = *arrays, np.arange(len(images))
    if cupy:
        augment, arrays = twin_of(augment), on(cupy, arrays)
    return [to_numpy(a) for a in augment(*arrays, **PLACES[2], num_classes=5)]


each_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.name)


@pytest.mark.parametrize("kind", PICTURES)
@each_operation
def test_each_operation_is_that_of_the_cpu_to_the_last_bit(cupy, monkeypatch, operation, kind):
    expected = operated(monkeypatch, operation, kind)
    assert_same(operated(monkeypatch, operation, kind, cupy), expected)


ASTRAY = {  # an operation that shows it, what is taken out of its kernel, and what is left
    "the stream": ("ROTATE", "draws(seed, AUTO", "draws(seed, FLIP"),
    "which pair": ("ROTATE", "integer(w.a, pairs)", "integer(w.b, pairs)"),
    "the last pair": ("ROTATE", "integer(w.a, pairs)", "integer(w.a, pairs - 1)"),
    "the second's word": ("ROTATE", "step ? w.c : w.b", "w.b"),
    "its probability": ("ROTATE", "w.b, 10) >= policy[1]", "w.b, 10) > policy[1]"),
    "the second's sign": ("SHEAR_X", "w.d >> step & 1", "w.d & 1"),
    "the second operation": (
        "ROTATE",
        "step < 2; step++, policy += 3",
        "step < 2; step++, policy += 0",
    ),
    "the way back": ("ROTATE", "(step ? batch : between) + image", "between + image"),
    "the barrier between": ("ROTATE", "__syncthreads();  /* what a thread", "/* what a thread"),
    "the image": ("ROTATE", "blockIdx.x * height * width * colours", "blockIdx.x * height * width"),
    "no magnitudes below zero": ("ROTATE", "strength + MOST) * 6", "strength) * 6"),
    "a row of the map": ("ROTATE", "map[3] * x + map[4] * y", "map[4] * x + map[3] * y"),
    "half a pixel": (
        "ROTATE",
        "map[0] * x + map[1] * y + map[2]",
        "map[0] * x + map[1] * y + map[2] + 32768",
    ),
    "the left edge": ("ROTATE", "bool inside = column >= 0 && ", "bool inside = "),
    "the right edge": ("ROTATE", "column < width && row >= 0", "column <= width && row >= 0"),
    "the lower edge": ("ROTATE", "row >= 0 && row < height;", "row >= 0 && row <= height;"),
    "beyond the edge": ("ROTATE", "+ c] : outside;", "+ c] : 0;"),
    "a sign where there is none": ("BRIGHTNESS", "if (operation <= ROTATE && w.d", "if (w.d"),
    "the other's share": ("COLOR", "(10 - tenths) * other", "(9 - tenths) * other"),
    "above white": ("BRIGHTNESS", "min(max(level, 0), 2550) / 10", "max(level, 0) / 10"),
    "the classes of pixels": ("INVERT", "(colours == 1 && operation > ROTATE)", "false"),
    "the threshold": ("SOLARIZE", "level < strength ? level", "level <= strength ? level"),
    "the bits": ("POSTERIZE", "return level & strength", "return level | strength"),
    "the lowest level": (
        "AUTOCONTRAST",
        "lowest = min(lowest, k), highest = k",
        "lowest = min(lowest, 99), highest = k",
    ),
    "one level alone": ("AUTOCONTRAST", "(highest - lowest) : level", "(highest - lowest) : 0"),
    "a colour's counts": (
        "AUTOCONTRAST",
        "count += from[3 * i + colour] == level",
        "count += from[3 * i] == level",
    ),
    "a pixel not counted": (
        "AUTOCONTRAST",
        "for (int i = 0; i < pixels; i++) count",
        "for (int i = 1; i < pixels; i++) count",
    ),
    "counts before they are there": (
        "AUTOCONTRAST",
        "counts[level] = count;\n        __syncthreads();",
        "counts[level] = count;",
    ),
    "the table before it is there": (
        "AUTOCONTRAST",
        "strength);\n        __syncthreads();\n        walk",
        "strength);\n        walk",
    ),
    "itself below itself": ("EQUALIZE", "if (k < level) below", "if (k <= level) below"),
    "the highest level": ("EQUALIZE", "(pixels - counts[highest]) / 255", "pixels / 255"),
    "half a step": ("EQUALIZE", "(below + step / 2) / step", "below / step"),
    "beyond white": (
        "EQUALIZE",
        "min(255, (below + step / 2) / step)",
        "(below + step / 2) / step",
    ),
    "a step of nothing": ("EQUALIZE", "/ step) : level", "/ step) : 0"),
    "the luma of green": ("COLOR", "38470 * pixel[1]", "38469 * pixel[1]"),
    "the luma's rounding": (
        "COLOR",
        " + 0x8000) >> 16;\n}\n\n/* The level",
        ") >> 16;\n}\n\n/* The level",
    ),
    "contrast with color's grey": (
        "COLOR",
        "other = operation == COLOR ?",
        "other = operation == CONTRAST ?",
    ),
    "below black": ("COLOR", "min(max(level, 0), 2550)", "min(level, 2550)"),
    "the mean's rounding": (
        "CONTRAST",
        "(2 * sum_of_block(mean) + pixels)",
        "(2 * sum_of_block(mean))",
    ),
    "a part of the sum": ("CONTRAST", "part < THREADS; part++", "part < LANES; part++"),
    "the sum before it is there": (
        "CONTRAST",
        "= x;\n    __syncthreads();\n    int sum",
        "= x;\n    int sum",
    ),
    "the edge of sharpness": ("SHARPNESS", "|| x == width - 1) return", ") return"),
    "the upper edge of sharpness": ("SHARPNESS", "if (y == 0 || y ==", "if (y =="),
    "the middle of the smoothing": ("SHARPNESS", "int sum = 4 * *middle", "int sum = 5 * *middle"),
    "its rounding": ("SHARPNESS", "(sum + 6) / 13", "sum / 13"),
    "its neighbours": ("SHARPNESS", "(down * width + right) * 3", "(down * width + right)"),
}


@pytest.mark.parametrize(("operation", "taken", "left"), ASTRAY.values(), ids=ASTRAY)
def test_a_planted_bug_in_a_policys_kernel_is_caught(monkeypatch, operation, taken, left):
    if missing := cuda_on_cpu.why_not():
        pytest.skip(missing)
    assert SOURCE.count(taken) == 1
    swap_source(monkeypatch, SOURCE.replace(taken, left))
    kernels._kernel(cupy_stand_in, "auto_augment", kernels.PLAIN)  # it does compile

    def all_agree():
        for kind in PICTURES:
            test_each_operation_is_that_of_the_cpu_to_the_last_bit(
                cupy_stand_in, monkeypatch, autoaugment.Operation[operation], kind
            )

    with pytest.raises((AssertionError, cuda_on_cpu.CudaError)):
        all_agree()


def test_the_trainer_augments_where_the_images_are(cupy):
    dataset = data.load("shapes", train_size=8, test_size=2)
    for device, kind in (("cpu", data.Augment), ("gpu", gpu.Augment)):
        config = Config(augment=AUGMENTS[0])
        trainer = Trainer(config, dataset, device=device, workers=1, quiet=True)
        assert type(trainer.own_step.augment) is kind
        assert type(trainer.config.augment) is data.Augment
