"""Metrics, on examples small enough to count by hand."""

import numpy as np
import pytest

from tinymixer.train.metrics import (
    accuracy,
    class_table,
    confusion_matrix,
    iou_table,
    mean_iou,
    per_class_accuracy,
    per_class_iou,
    worst_mistakes,
)

LABELS = np.array([0, 0, 0, 1, 1, 3])
PREDICTIONS = np.array([0, 1, 1, 1, 0, 3])
MATRIX = np.array([[1, 2, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]])


def test_accuracy_counts_what_is_right():
    assert accuracy(LABELS, PREDICTIONS) == 3 / 6


def test_rows_are_true_and_columns_predicted():
    np.testing.assert_array_equal(confusion_matrix(LABELS, PREDICTIONS, 4), MATRIX)


def test_class_numbers_as_bytes_do_not_overflow():
    labels = np.arange(100, dtype=np.uint8)  # 99 * 100 does not fit into a byte
    np.testing.assert_array_equal(confusion_matrix(labels, labels, 100), np.eye(100))


@pytest.mark.parametrize("odd", [-1, 4])
def test_class_numbers_out_of_range_are_refused(odd):
    with pytest.raises(ValueError, match=r"classes are 0\.\.3"):
        confusion_matrix(LABELS, np.array([0, 1, 1, 1, 0, odd]), 4)
    with pytest.raises(ValueError, match=r"classes are 0\.\.3"):
        confusion_matrix(np.array([0, 1, 1, 1, 0, odd]), PREDICTIONS, 4)


@pytest.mark.parametrize("predictions", [PREDICTIONS[:1], PREDICTIONS[:, None]])
def test_shapes_that_would_broadcast_are_refused(predictions):
    with pytest.raises(ValueError, match="as many predictions as labels"):
        accuracy(LABELS, predictions)


def test_no_images_at_all_are_refused():
    with pytest.raises(ValueError, match="one at least"):
        accuracy(LABELS[:0], PREDICTIONS[:0])


def test_per_class_accuracy_and_a_class_without_images():
    np.testing.assert_array_equal(per_class_accuracy(MATRIX), [1 / 3, 1 / 2, np.nan, 1])


def test_worst_mistakes_come_by_loss_and_leave_out_what_is_right():
    p = np.array(
        [
            [0.5, 0.3, 0.2],  # right, if unsure
            [0.6, 0.1, 0.3],  # wrong: 0.1 on its label
            [0.9, 0.01, 0.09],  # wrong: 0.01, the worst
            [0.7, 0.2, 0.1],  # wrong: 0.2
        ]
    )
    labels = np.array([0, 1, 1, 1])
    assert worst_mistakes(np.log(p), labels, 9).tolist() == [2, 1, 3]
    assert worst_mistakes(np.log(p), labels, 2).tolist() == [2, 1]


def test_table_names_each_class_and_its_commonest_mistake():
    assert class_table(MATRIX, ["cat", "dog", "nothing", "car"]).splitlines() == [
        "class    images  accuracy  most often mistaken for",
        "cat           3     33.3%  dog (2)",
        "dog           2     50.0%  cat (1)",
        "nothing       0         -  -",
        "car           1    100.0%  -",
        "all           6     50.0%",
    ]


def test_a_mistake_is_a_predicted_class_not_one_that_was_taken_for_this():
    matrix = np.array([[5, 2, 0], [0, 4, 3], [1, 0, 6]])
    rows = class_table(matrix, ["cat", "dog", "car"]).splitlines()[1:4]
    assert [row.split()[1:] for row in rows] == [
        ["7", "71.4%", "dog", "(2)"],
        ["7", "57.1%", "car", "(3)"],
        ["7", "85.7%", "cat", "(1)"],
    ]


def test_intersection_over_union_by_hand():
    """Two rows of four pixels: class 0 has 3 of a union of 6, class 1 has 2 of 4, 2 has 0 of 1."""
    truth = np.array([[0, 0, 0, 1], [1, 1, 0, 2]])
    found = np.array([[0, 0, 1, 1], [1, 0, 0, 0]])
    matrix = confusion_matrix(truth.ravel(), found.ravel(), 4)
    np.testing.assert_array_equal(per_class_iou(matrix), [3 / 6, 2 / 4, 0, np.nan])
    assert mean_iou(matrix) == pytest.approx((3 / 6 + 2 / 4 + 0) / 3)


def test_a_class_that_is_only_predicted_counts_as_missed():
    matrix = confusion_matrix(np.array([0, 0, 0]), np.array([0, 0, 1]), 3)
    np.testing.assert_allclose(per_class_iou(matrix), [2 / 3, 0, np.nan])
    assert mean_iou(matrix) == pytest.approx(1 / 3)


def test_a_perfect_answer_has_a_mean_iou_of_one():
    assert mean_iou(np.diag([5, 0, 2])) == 1


def test_the_table_of_pixels():
    matrix = confusion_matrix(np.array([0, 0, 0, 0, 1]), np.array([0, 0, 0, 1, 1]), 3)
    table = [line.split() for line in iou_table(matrix, ["cat", "dog", "car"]).splitlines()]
    assert table == [
        ["class", "pixels", "found", "IoU"],
        ["cat", "4", "75.0%", "75.0%"],
        ["dog", "1", "100.0%", "50.0%"],
        ["car", "0", "nan%", "nan%"],
        ["all,", "mean", "5", "80.0%", "62.5%"],
    ]
