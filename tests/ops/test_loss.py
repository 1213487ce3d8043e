"""Softmax cross-entropy."""

import math

import composed
import numpy as np
import pytest
from checks import B, K, assert_close, assert_same_as_composed, by_hand, normal, slopes

from tinymixer.backend import to_numpy
from tinymixer.ops import SoftmaxCrossEntropy

LABELS = np.array([16, 0, 5])
SMOOTHING = [0.0, 0.1, 1.0]


def smoothed(q, alpha):
    return (1 - alpha) * q + alpha / q.shape[1]


@pytest.mark.parametrize("alpha", SMOOTHING)
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_with_class_numbers_it_is_its_composition(device, alpha, dtype, rng):
    q = device.asarray(smoothed(np.eye(K)[LABELS], alpha))
    assert_same_as_composed(
        device,
        SoftmaxCrossEntropy(alpha),
        lambda logits, labels: composed.cross_entropy(logits, q),
        normal(rng, (B, K)),
        [LABELS.astype(dtype)],
    )


@pytest.mark.parametrize("alpha", SMOOTHING)
def test_with_probabilities_it_is_its_composition(device, alpha, rng):
    mixed = 0.7 * np.eye(K)[LABELS] + 0.3 * np.eye(K)[LABELS[::-1]]  # as mixup makes them
    q = device.asarray(smoothed(mixed, alpha))
    assert_same_as_composed(
        device,
        SoftmaxCrossEntropy(alpha),
        lambda logits, targets: composed.cross_entropy(logits, q),
        normal(rng, (B, K)),
        [mixed],
    )


def test_the_gradient_is_predicted_minus_wanted(device, rng):
    (logits,) = normal(rng, (B, K))
    arrays = [device.asarray(a) for a in (np.array(1.0), logits, LABELS)]
    _, (dlogits, dtargets) = by_hand(SoftmaxCrossEntropy(), *arrays)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert_close(dlogits, (p - np.eye(K)[LABELS]) / B)
    assert dtargets is None


@pytest.mark.parametrize("alpha", SMOOTHING)
def test_who_knows_nothing_is_log_k_nats_surprised(device, alpha):
    loss = SoftmaxCrossEntropy(alpha).forward(device.zeros((B, K)), device.asarray(LABELS))
    assert float(loss) == pytest.approx(math.log(K), rel=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_logits_overflow_nothing(device, dtype):
    logits = device.asarray(np.array([[1e4, 0, -1e4], [-1e4, 1e4, 0]], dtype))
    loss_is = SoftmaxCrossEntropy()
    loss = loss_is.forward(logits, device.asarray(np.array([1, 1])))
    assert loss.dtype == dtype
    assert float(loss) == 5000.0  # mean of 1e4 and 0
    dlogits, _ = loss_is.backward(device.ones((), dtype))
    np.testing.assert_array_equal(to_numpy(dlogits), [[0.5, -0.5, 0], [0, 0, 0]])


def test_a_shift_of_all_logits_changes_nothing(rng):
    (logits,) = normal(rng, (B, K))
    loss = SoftmaxCrossEntropy().forward(logits, LABELS)
    assert SoftmaxCrossEntropy().forward(logits + 100.0, LABELS) == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize("alpha", SMOOTHING)
def test_of_pixels_those_to_ignore_change_nothing(device, alpha, rng):
    (logits,) = normal(rng, (2, 3, B, K))
    labels = rng.integers(0, K, (2, 3, B)).astype(np.uint8)
    ignored = rng.random((2, 3, B)) < 0.4
    assert 0 < ignored.sum() < ignored.size
    with_holes = np.where(ignored, np.uint8(255), labels)
    loss_of = SoftmaxCrossEntropy(alpha, ignore=255)
    one = device.asarray(np.array(1.0))
    loss = loss_of.forward(device.asarray(logits), device.asarray(with_holes))
    dlogits, _ = loss_of.backward(one)
    alone = SoftmaxCrossEntropy(alpha)
    expected = alone.forward(device.asarray(logits[~ignored]), device.asarray(labels[~ignored]))
    assert float(loss) == pytest.approx(float(expected), rel=1e-13)
    assert_close(to_numpy(dlogits)[~ignored], alone.backward(one)[0])
    assert not to_numpy(dlogits)[ignored].any()


def test_of_nothing_the_loss_and_its_gradient_are_zero(device, rng):
    (logits,) = normal(rng, (B, K))
    loss_of = SoftmaxCrossEntropy(ignore=255)
    loss = loss_of.forward(device.asarray(logits), device.asarray(np.full(B, 255)))
    assert float(loss) == 0
    assert not to_numpy(loss_of.backward(device.asarray(np.array(1.0)))[0]).any()


def test_only_the_class_to_ignore_may_be_out_of_range():
    with pytest.raises(ValueError, match="run from 0 to 254"):
        SoftmaxCrossEntropy(ignore=255).forward(np.zeros((3, K)), np.array([0, 254, 255]))


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_label_smoothing_is_a_share(alpha):
    with pytest.raises(ValueError, match=r"expected label_smoothing in \[0, 1\], got"):
        SoftmaxCrossEntropy(alpha)


@pytest.mark.parametrize(
    ("targets", "says"),
    [
        (
            np.array([0, 17, 2]),
            "run from 0 to 17, but 17 logits are for classes 0..16. Build the model",
        ),
        (np.array([0, -1, 2]), "run from -1 to 2, but 17 logits"),
        (
            np.array([0, 1]),
            r"for logits \(3, 17\) expected 3 integer class numbers .*got int64 \(2,\)",
        ),
        (np.zeros(3), r"expected 3 integer class numbers .*got float64 \(3,\)"),
        (np.zeros((3, 16)), r"or probabilities \(3, 17\), got float64 \(3, 16\)"),
        (np.array([True, False, True]), r"got bool \(3,\)"),
        (np.zeros((1, 3), int), r"expected 3 integer class numbers .*got int64 \(1, 3\)"),
    ],
    ids=["too large", "negative", "too few", "floats", "other K", "booleans", "an axis more"],
)
def test_targets_that_do_not_fit_are_refused(device, targets, says):
    with pytest.raises(ValueError, match=says):
        SoftmaxCrossEntropy().forward(device.zeros((B, K)), device.asarray(targets))


@pytest.mark.parametrize("targets", [np.zeros(0, int), np.zeros((0, K))], ids=["hard", "soft"])
@pytest.mark.parametrize("ignore", [None, 255])
def test_a_batch_of_nothing_is_refused(device, targets, ignore):
    with pytest.raises(ValueError, match=r"logits \(0, 17\) are empty; expected one or more"):
        SoftmaxCrossEntropy(ignore=ignore).forward(device.zeros((0, K)), device.asarray(targets))


def test_booleans_are_no_class_numbers_where_some_are_ignored_either(device):
    targets = device.asarray(np.array([True, False, True]))
    with pytest.raises(ValueError, match=r"got bool \(3,\)"):
        SoftmaxCrossEntropy(ignore=1).forward(device.zeros((B, K)), targets)


@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_the_gradient_is_right_for_targets_that_do_not_sum_to_one(device, alpha, rng):
    logits, q = rng.standard_normal((B, K)), rng.random((B, K))  # rows sum to about 8
    op = SoftmaxCrossEntropy(alpha)
    op.forward(device.asarray(logits), device.asarray(q))
    dlogits, _ = op.backward(device.asarray(np.ones(())))
    expected = slopes(lambda x: SoftmaxCrossEntropy(alpha).forward(x, q), 1.0, logits)
    assert_close(dlogits, expected, within=1e-8)  # central differences: 1e-10, and room


def test_targets_that_sum_to_one_up_to_rounding_have_the_gradient_p_minus_q(rng):
    """Bit for bit: the totals of such rows are not multiplied in."""
    q = rng.random((B, K)).astype(np.float32)
    q /= q.sum(-1, keepdims=True)
    assert (q.sum(-1) != 1).any()
    logits = rng.standard_normal((B, K)).astype(np.float32)
    op = SoftmaxCrossEntropy()
    op.forward(logits, q)
    dlogits, _ = op.backward(np.float32(1))
    p = np.exp(op.saved[0])
    np.testing.assert_array_equal(dlogits, (p - q) / B)


@pytest.mark.parametrize("soft", [True, False])
def test_a_class_may_be_ruled_out_by_a_logit_of_minus_infinity(device, soft, rng):
    logits, targets = rng.standard_normal((B, K)), np.arange(B) + 1
    logits[:, 0] = -np.inf
    q = np.eye(K)[targets] if soft else targets
    op = SoftmaxCrossEntropy()
    loss = op.forward(device.asarray(logits), device.asarray(q))
    dlogits, _ = op.backward(device.asarray(np.ones(())))
    rest = SoftmaxCrossEntropy()
    expected = rest.forward(logits[:, 1:], targets - 1)
    assert_close(loss, expected)
    assert_close(dlogits[:, 1:], rest.backward(np.ones(()))[0])
    assert_close(dlogits[:, 0], np.zeros(B))
