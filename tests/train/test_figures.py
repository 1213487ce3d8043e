"""Figures: what is drawn is what was given, and a file is whole or not there."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from tinymixer.train import figures
from tinymixer.train.figures import charts, style
from tinymixer.train.profile import OperationTime
from tinymixer.train.records import EpochFigures

NAMES = ["cat", "dog", "car"]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def history(n):
    return [
        EpochFigures(
            epoch=e,
            train_loss=2 / e,
            test_loss=2.5 / e,
            train_accuracy=1 - 0.8 / e,
            test_accuracy=0.9 - abs(e - 3) / 10,  # best in epoch 3
            lr=1e-3 * (1 - e / 10),
            seconds=12.0 + e,
            images_per_s=1000.0 * e,
        )
        for e in range(1, n + 1)
    ]


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_curves_draw_the_history():
    rows = history(5)
    figure = figures.curves(rows)
    loss, accuracy, rate = figure.axes
    for axes, keys in (
        (loss, ["train_loss", "test_loss"]),
        (accuracy, ["train_accuracy", "test_accuracy"]),
        (rate, ["lr"]),
    ):
        for line, key in zip(axes.lines, keys, strict=False):
            assert line.get_xdata().tolist() == [1, 2, 3, 4, 5]
            assert line.get_ydata().tolist() == [getattr(row, key) for row in rows], key
    assert legend(loss) == ["train 0.400", "test 0.500"]
    assert legend(accuracy) == ["train 84.0%", "test 70.0%"]
    assert legend(rate) == ["last 0.0005"]
    assert figure.get_suptitle() == "5 epochs, 15.0 s per epoch, 3,000 images/s"


def validated(row, last):
    moved = {f"val_{x}": getattr(row, f"test_{x}") for x in ("loss", "accuracy", "iou")}
    return (
        replace(row, **moved)
        if last
        else replace(row, **moved, test_loss=None, test_accuracy=None, test_iou=None)
    )


def test_a_ring_marks_the_best_epoch_by_validation_images():
    rows = [validated(row, row.epoch == 5) for row in history(5)]
    loss, accuracy, _ = figures.curves(rows).axes
    assert legend(loss) == ["train 0.400", "val 0.500", "test 0.500"]
    assert legend(accuracy) == ["train 84.0%", "val 70.0%", "test 70.0%", "best 90.0%, epoch 3"]
    assert accuracy.lines[1].get_xdata().tolist() == [1, 2, 3, 4, 5]
    assert accuracy.lines[2].get_xdata().tolist() == [5]
    ring = accuracy.lines[-1]
    assert (ring.get_xdata(), ring.get_ydata()) == ([3], [0.9])


def test_one_epoch_is_a_visible_point():
    figure = figures.curves(history(1))
    assert all(line.get_marker() == "o" for axes in figure.axes for line in axes.lines)
    assert figure.get_suptitle().startswith("1 epoch,")


def test_what_was_not_measured_leaves_no_point():
    nan, inf = float("nan"), float("inf")
    rows = [replace(row, lr=nan) for row in history(4)]
    rows[1], rows[2] = replace(rows[1], test_loss=nan), replace(rows[2], test_loss=inf)
    rows[3] = replace(rows[3], train_loss=nan)
    loss, _, rate = figures.curves(rows).axes
    train, test = loss.lines
    assert test.get_xdata().tolist() == [1, 4]
    assert train.get_xdata().tolist() == [1, 2, 3]
    assert not rate.lines


def test_no_history_is_refused():
    with pytest.raises(ValueError, match="no epoch yet"):
        figures.curves([])


def test_confusion_shows_counts_in_the_cells_and_percent_as_colour():
    matrix = np.array([[8, 2, 0], [0, 1500, 500], [0, 0, 0]])
    axes = figures.confusion(matrix, NAMES).axes[0]
    np.testing.assert_allclose(
        axes.images[0].get_array(), [[80, 20, 0], [0, 75, 25], [0, 0, 0]], rtol=1e-12
    )
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "8", (1, 0): "2", (1, 1): "1,500", (2, 1): "500"}  # (column, row)
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in labels] == NAMES
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    assert axes.get_title() == "75.0% of 2,010 right"


def test_confusion_of_many_classes_names_them_all_without_numbers():
    axes = figures.confusion(np.full((100, 100), 3), [f"class {i}" for i in range(100)]).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()][99] == "class 99"
    assert not axes.texts


def sheet(figure):
    """Each picture of a sheet with the caption under it, read off where they were drawn."""
    (axes,) = figure.axes
    found = []
    for picture in axes.images:
        left, right, bottom, _ = picture.get_extent()
        (text,) = (
            text.get_text()
            for text in axes.texts
            if left < text.get_position()[0] < right and 0 < text.get_position()[1] - bottom < 0.1
        )
        found.append((np.asarray(picture.get_array()), text))
    return found


@pytest.mark.parametrize("n", [1, 3, 10])
def test_samples_stand_over_their_classes(rng, n):
    images = rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(n) % 3
    drawn = sheet(figures.sample_sheet(images, labels, NAMES))
    np.testing.assert_array_equal([image for image, _ in drawn], images)
    assert [text for _, text in drawn] == [NAMES[label] for label in labels]


def test_mistakes_name_both_classes(rng):
    images = rng.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    p = np.array([[0.07, 0.9, 0.03], [0.2, 0.2, 0.6]])
    drawn = sheet(figures.mistakes(images, np.array([0, 1]), np.array([1, 2]), p, NAMES))
    np.testing.assert_array_equal([image for image, _ in drawn], images)
    assert [text for _, text in drawn] == ["cat 7%\nnot dog 90%", "dog 20%\nnot car 60%"]


def test_nothing_drawn_lies_outside_of_a_sheet(rng):
    figure = figures.sample_sheet(np.zeros((7, 8, 8, 3), np.uint8), np.zeros(7, int), ["a name"])
    figure.canvas.draw()
    page = figure.bbox
    for artist in [*figure.axes[0].images, *figure.axes[0].texts]:
        box = artist.get_window_extent()
        assert page.x0 <= box.x0 < box.x1 <= page.x1
        assert page.y0 <= box.y0 < box.y1 <= page.y1


def test_prediction_shows_both_pictures_and_the_top_classes(rng):
    original = rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)
    seen = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    figure = figures.prediction(original, seen, np.array([0.2, 0.5, 0.3]), NAMES, k=2)
    whole, small, bars = figure.axes
    np.testing.assert_array_equal(whole.images[0].get_array(), original)
    np.testing.assert_array_equal(small.images[0].get_array(), seen)
    assert whole.get_title() == "picture, 70 × 50"
    assert [bar.get_width() for bar in bars.patches] == [0.5, 0.3]
    assert [label.get_text() for label in bars.get_yticklabels()] == ["dog", "car"]
    assert [text.get_text() for text in bars.texts] == ["50.0%", "30.0%"]
    assert bars.yaxis_inverted()


def tiles(axes):
    """The arrays drawn in an axes, in reading order."""
    pictures = sorted(
        axes.images, key=lambda picture: (picture.get_extent()[3], picture.get_extent()[0])
    )
    return [np.asarray(picture.get_array()) for picture in pictures]


def test_token_maps_lie_on_the_grid_as_tokens_do(rng):
    W1 = rng.standard_normal((1, 15))
    (axes,) = figures.token_maps(W1, (3, 5)).axes
    (drawn,) = tiles(axes)
    np.testing.assert_allclose(drawn, W1.reshape(3, 5) / np.abs(W1).max(), rtol=1e-12)
    assert axes.images[0].get_clim() == (-1, 1)
    left, right, bottom, top = axes.images[0].get_extent()
    assert (bottom - top) / (right - left) == pytest.approx(3 / 5)


def test_token_maps_pair_opposite_units_and_begin_with_the_slowest(rng):
    column = np.arange(8)
    waves = [np.tile(np.cos(2 * np.pi * f * column / 8), (8, 1)).ravel() for f in (3, 1, 4, 2)]
    units = np.array([sign * size * w for w in waves for sign, size in ((1, 2), (-1, 3))])
    W1 = units[[0, 2, 4, 6, 1, 3, 5, 7]]  # partners stand apart
    (axes,) = figures.token_maps(W1, (8, 8)).axes
    drawn = tiles(axes)
    for pair, wave in enumerate((waves[1], waves[3], waves[0], waves[2])):  # f = 1, 2, 3, 4
        for i in (0, 1):
            expected = (-1) ** i * wave.reshape(8, 8)
            np.testing.assert_allclose(drawn[2 * pair + i], expected, atol=1e-12)


def test_of_many_units_the_strongest_are_shown(rng):
    W1 = rng.standard_normal((9, 4)) * np.array([1, 9, 1, 8, 1, 7, 1, 1, 1])[:, None]
    (axes,) = figures.token_maps(W1, (2, 2), n=3).axes
    drawn = {tuple(map.ravel().round(9)) for map in tiles(axes)}
    assert drawn == {tuple((w / np.abs(w).max()).round(9)) for w in W1[[1, 3, 5]]}


def test_several_blocks_have_a_panel_each(rng):
    blocks = {f"block {i}": rng.standard_normal((6, 4)) for i in (0, 3, 7, 8, 11)}
    figure = figures.token_maps(blocks, (2, 2))
    assert [axes.get_title() for axes in figure.axes] == list(blocks)
    assert [len(axes.images) for axes in figure.axes] == [6] * 5


def test_weights_of_zero_are_blank():
    (axes,) = figures.token_maps(np.zeros((4, 4)), (2, 2)).axes
    assert all((map == 0).all() for map in tiles(axes))


def test_a_grid_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="weights for 64 tokens, but a grid of 7x7 has 49"):
        figures.token_maps(np.zeros((5, 64)), (7, 7))


def test_patch_filters_are_rows_columns_colours():
    P, row, column, colour = 3, 1, 2, 0
    W = np.zeros((P * P * 3, 2))
    W[(row * P + column) * 3 + colour, 0] = -0.01
    W[:, 1] = 2  # a constant: the slowest, so it comes first
    (axes,) = figures.patch_filters(W, P).axes
    constant, spot = tiles(axes)
    np.testing.assert_allclose(constant, 1)
    expected = np.full((P, P, 3), 0.5)
    expected[row, column, colour] = 0
    np.testing.assert_allclose(spot, expected)


def test_a_patch_size_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="has 48 rows, but a patch of 5x5 has 75"):
        figures.patch_filters(np.zeros((48, 7)), 5)


def test_save_writes_a_picture_of_the_stated_size(tmp_path):
    path = tmp_path / "new folder" / "curves.png"
    figures.save(figures.curves(history(2)), path)
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.size == (1200, 408)  # 10 x 3.4 inches at 120 dots each
        assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert os.listdir(path.parent) == ["curves.png"]


@pytest.mark.parametrize("where", ["savefig", "replace"])
def test_a_failed_save_keeps_the_old_file_and_leaves_nothing(tmp_path, monkeypatch, where):
    def full_disk(*arguments, **options):
        if where == "savefig":
            arguments[1].write(b"half a pict")
        raise OSError(28, "No space left on device")

    path = tmp_path / "curves.png"
    path.write_bytes(b"the old picture")
    monkeypatch.setattr(
        *((Figure, "savefig") if where == "savefig" else (os, "replace")), full_disk
    )
    with pytest.raises(OSError, match="No space left"):
        figures.save(figures.curves(history(2)), path)
    assert path.read_bytes() == b"the old picture"
    assert os.listdir(tmp_path) == ["curves.png"]


def test_threads_draw_what_one_would(tmp_path, rng):
    images = rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)

    def draw(name, i):
        figures.save(figures.sample_sheet(images[i:], np.arange(4 - i), "abcd"), tmp_path / name)
        return (tmp_path / name).read_bytes()

    alone = [draw(f"alone {i}", i) for i in range(4)]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda i: draw(f"together {i}", i), range(4)))
    assert together == alone


def test_no_window_and_no_global_setting():
    before = dict(matplotlib.rcParams)
    figures.confusion(np.eye(3, dtype=int), NAMES)
    assert dict(matplotlib.rcParams) == before
    code = "import sys, tinymixer.train.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_profile_has_a_bar_for_each_operation():
    rows = [
        OperationTime("ChannelMLP", 8, forward=3.0, backward=5.0, other=0.0, products=6.0),
        OperationTime("AdamW", 1, forward=0.0, backward=0.0, other=2.0, products=0.0),
    ]
    axes = figures.profile(rows, "a step").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ChannelMLP", "AdamW"]
    assert [bar.get_width() for bar in axes.patches] == [3, 0, 5, 0, 0, 2]  # kind by kind
    assert [bar.get_x() for bar in axes.patches] == [0, 0, 3, 0, 8, 0]
    assert [text.get_text() for text in axes.texts] == [" 8.0 ms, 80.0%", " 2.0 ms, 20.0%"]
    assert axes.lines[0].get_xdata()[0] == 6


def test_a_race_names_each_line_at_its_end():
    lines = {
        "a": (np.array([1.0, 2.0]), np.array([0.5, 0.9])),
        "b": (np.array([4.0, 8.0]), np.array([0.6, 0.899])),
        "c": (np.array([3.0, 6.0]), np.array([0.2, 0.4])),
    }
    figure = figures.race(lines, "seconds", "a title", "test accuracy")
    (axes,) = figure.axes
    for line, (x, y) in zip(axes.lines, lines.values(), strict=True):
        assert line.get_xdata().tolist() == x.tolist()
        assert line.get_ydata().tolist() == y.tolist()
    labels = {text.get_text(): text for text in axes.texts}
    assert set(labels) == {"a 90.0%", "b 89.9%", "c 40.0%"}
    for text, line in zip(labels.values(), axes.lines, strict=True):
        assert text.get_color() == line.get_color()
        assert text.xy == (line.get_xdata()[-1], line.get_ydata()[-1])
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in labels.values()]
    assert all(figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1 for box in boxes)
    assert not any(a.overlaps(b) for a, b in pairwise(boxes))
    assert axes.get_xscale() == "linear"
    lines["d"] = (np.array([99.0]), np.array([0.1]))
    assert figures.race(lines, "seconds", "", "").axes[0].get_xscale() == "log"


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ([3, 1, 5], [3, 1, 5]),
        ([1, 1], [0.5, 1.5]),
        ([1, 1, 1.5], [0.166667, 1.166667, 2.166667]),
        ([7, 1, 1], [7, 0.5, 1.5]),
    ],
)
def test_labels_that_are_too_close_give_way_by_the_least(wanted, expected):
    heights = charts._apart(dict(enumerate(wanted)), 1.0)
    assert [heights[i] for i in range(len(wanted))] == pytest.approx(expected, abs=1e-6)


def test_segments_show_image_truth_and_prediction(rng):
    images = rng.integers(0, 256, (3, 6, 8, 3), dtype=np.uint8)
    truth = np.zeros((3, 6, 8), np.uint8)
    truth[1] = 2
    truth[2, 0, 0] = 255
    figure = figures.segments(images, {"truth": truth, "prediction": truth.clip(0, 1)}, NAMES, 255)
    axes = np.array(figure.axes).reshape(3, 3)
    assert [row[0].get_ylabel() for row in axes] == ["image", "truth", "prediction"]
    for i in range(3):
        np.testing.assert_array_equal(axes[0, i].images[0].get_array(), images[i])
    drawn = [np.asarray(picture.images[0].get_array()) for picture in axes[1]]
    assert (drawn[1] == 1).all()  # the last class, the background, is white
    colour = drawn[0][0, 0]
    assert (drawn[0] == colour).all()
    assert (drawn[2].reshape(-1, 3)[1:] == colour).all()
    assert (drawn[2][0, 0] == 0).all()  # to be ignored
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["cat", "dog", "car"]
    assert tuple(legend.get_patches()[0].get_facecolor()[:3]) == tuple(colour)


def test_curves_of_segmentation_add_the_iou_and_ring_its_best():
    rows = [replace(row, test_iou=0.1 * (4 - abs(row.epoch - 2))) for row in history(4)]
    _, accuracy, _ = figures.curves([validated(row, row.epoch == 4) for row in rows]).axes
    assert legend(accuracy)[3:] == ["val IoU 20.0%", "best 40.0%, epoch 2"]
    _, accuracy, _ = figures.curves(rows).axes
    assert legend(accuracy)[2:] == ["test IoU 20.0%"]
    assert accuracy.lines[2].get_ydata().tolist() == [row.test_iou for row in rows]
    assert accuracy.get_title("left") == "accuracy and mean IoU"


def test_grey_images_are_drawn_in_grey(rng):
    images = rng.integers(0, 256, (2, 6, 8, 1), dtype=np.uint8)
    labels, classes = np.array([0, 1]), {"truth": np.zeros((2, 6, 8), np.uint8)}
    p = np.full((2, 3), 1 / 3)
    segments = figures.segments(images, classes, NAMES, 255)
    prediction = figures.prediction(np.zeros((9, 9, 3), np.uint8), images[0], p[0], NAMES)
    drawn = [
        *(image for image, _ in sheet(figures.sample_sheet(images, labels, NAMES))),
        *(image for image, _ in sheet(figures.mistakes(images, labels, labels, p, NAMES))),
        *(axes.images[0].get_array() for axes in (*segments.axes[:2], prediction.axes[1])),
    ]
    for found, i in zip(drawn, [0, 1, 0, 1, 0, 1, 0], strict=True):
        np.testing.assert_array_equal(found, images[i].repeat(3, -1))


def test_filters_of_grey_patches_are_grey():
    W = np.zeros((9, 2))
    W[4, 0], W[:, 1] = -0.01, 2  # a dark spot; a constant
    (axes,) = figures.patch_filters(W, 3).axes
    constant, spot = tiles(axes)
    np.testing.assert_allclose(constant, 1)
    assert (spot[1, 1] == 0).all()
    assert (np.delete(spot.reshape(9, 3), 4, 0) == 0.5).all()


ODD_NAMES = [
    *("$x_1^2$ and $y$", "_hidden", "a_b^c", "red\x1b[31m", "two\nlines", "猫", "cost $5"),
    *("back\\$slash", "long " * 40, "", "قطة"),
]
SHOWN = [
    *(r"\$x_1^2\$ and \$y\$", " _hidden", "a_b^c", "red□[31m", "two lines", "□", r"cost \$5"),
    *(r"back\\$slash", "long long long …ong long", "", "قطة"),
]


def drawn_with_odd_names(rng):
    K = len(ODD_NAMES)
    grey = rng.integers(0, 256, (K, 8, 8, 1), dtype=np.uint8)
    numbers, p = np.arange(K), rng.dirichlet(np.ones(K), K)
    sizes = rng.integers(5, 30, (K, 2))
    pictures = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    pixels = {"prediction": rng.integers(0, K, (K, 8, 8))}
    lines = {name: (np.arange(1.0, 4), rng.random(3)) for name in ODD_NAMES}
    yield figures.sample_sheet(grey, numbers, ODD_NAMES)
    yield figures.mistakes(grey, numbers, np.roll(numbers, 1), p, ODD_NAMES)
    yield figures.prediction(pictures[0], grey[0], p[0], ODD_NAMES, k=K)
    yield figures.predictions(pictures, ODD_NAMES, p, ODD_NAMES)
    yield figures.segments(grey, pixels, ODD_NAMES, 255, ODD_NAMES)
    yield figures.confusion(rng.integers(0, 9, (K, K)), ODD_NAMES)
    yield figures.race(lines, "s", "title", "score")


def test_names_are_drawn_as_they_are_in_every_figure(rng, tmp_path):
    """No mathematics, no warning about a character that a font does not have, and no long line."""
    assert [style.label(name) for name in ODD_NAMES] == SHOWN
    for figure in drawn_with_odd_names(rng):
        figures.save(figure, tmp_path / "x.png")  # warnings are errors
        texts = [text for text in figure.findobj(Text) if text.get_visible()]
        assert any("x" in text.get_text() for text in texts)
        for text in texts:
            assert text._preprocess_math(text.get_text())[1] is False, text.get_text()
            assert len(text.get_text()) < 60


def test_a_legend_names_the_classes_of_most_pixels(rng):
    classes = np.arange(900).reshape(1, 30, 30)
    classes[0, :10] = 7
    names = [f"class {i}" for i in range(1000)]
    image = np.zeros((1, 30, 30, 3), np.uint8)
    (legend,) = figures.segments(image, {"prediction": classes}, names, 255).legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert len(texts) == 21
    assert texts[0] == "class 7"
    assert texts[-1] == "and 581 more"


def test_confusion_of_a_thousand_classes_names_some():
    axes = figures.confusion(np.eye(1000, dtype=int), [f"class {i}" for i in range(1000)]).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()][:2] == ["class 0", "class 10"]
    assert axes.get_yticks()[-1] == 990


def test_a_sheet_of_predictions_shows_each_picture_with_its_two_best_classes(rng):
    pictures = [rng.integers(0, 256, (*s, 3), dtype=np.uint8) for s in ((20, 40), (30, 10), (9, 9))]
    p = np.array([[0.1, 0.7, 0.2], [0.5, 0.1, 0.4], [0.0, 0.0, 1.0]])
    figure = figures.predictions(pictures, ["a.png", "b.png", "c.png"], p, NAMES)
    (axes,) = figure.axes
    for picture, image in zip(axes.images, pictures, strict=True):
        np.testing.assert_array_equal(picture.get_array(), image)
        left, right, bottom, top = picture.get_extent()
        assert (bottom - top) / (right - left) == pytest.approx(image.shape[0] / image.shape[1])
    texts = [text.get_text() for text in axes.texts]
    assert texts[:5] == ["a.png", "dog", "70%", "car", "20%"]
    assert texts[5:10] == ["b.png", "cat", "50%", "car", "40%"]
    lengths = [np.ptp(line.get_xdata()) for line in axes.lines]
    assert lengths == pytest.approx([1, 0.7, 1, 0.5, 1, 1.0])
    figure.canvas.draw()
    for artist in [*axes.images, *axes.texts]:
        box = artist.get_window_extent()
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
