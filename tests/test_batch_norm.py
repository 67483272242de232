"""Batch norm, with the statistics of the batch and with the running ones."""

import math

import numpy as np
import pytest
from cases import Case, assert_close, on, one_row_blocks, refuses, row

from tinynst import ops
from tinynst.device import asarray, to_numpy

CHANNELS = ("gamma", "beta", "running_mean", "running_var")


def case(image=(2, 5, 7, 3), **options):
    linear = () if options.get("relu") else ("gamma", "beta")
    if not options.get("training", True) and not options.get("relu"):
        linear = ("x", *linear)
    return Case("batch_norm", {"x": image, **dict.fromkeys(CHANNELS, image[3:])}, options, linear)


CASES = [
    case(),
    case(eps=0.1),
    case(relu=True),
    case(training=False),
    case(training=False, relu=True),
    case((1, 4, 1, 2)),
]


@row(CASES)
def test_row(xp, check, case):
    check(xp, case)


@pytest.mark.parametrize("case", [CASES[0], CASES[2], CASES[3]], ids=str)
def test_many_blocks(xp, monkeypatch, case):
    y, gradients = case.run(on(xp, case.draw()), asarray(case.dy, xp))
    one_row_blocks(monkeypatch)
    y_cut, gradients_cut = case.run(on(xp, case.draw()), asarray(case.dy, xp))
    assert_close(y_cut, y, 1e-12)
    for name, gradient in gradients.items():
        assert_close(gradients_cut[name], gradient, 1e-12)


def channels(xp, *values):
    return xp.asarray(np.array(values))


def test_running_statistics_by_hand(xp):
    """1, 2, 3, 6: mean 3, variance 14/4 of the batch, 14/3 of the sample; PyTorch keeps the sample's."""
    x = xp.asarray(np.array([1.0, 2, 3, 6]).reshape(2, 1, 2, 1))
    mean, var = channels(xp, 10.0), channels(xp, 100.0)
    y, _ = ops.batch_norm(x, channels(xp, 2.0), channels(xp, 7.0), mean, var, momentum=0.25, eps=0.5)
    assert abs(float(mean[0]) - (0.75 * 10 + 0.25 * 3)) < 1e-12
    assert abs(float(var[0]) - (0.75 * 100 + 0.25 * 14 / 3)) < 1e-12
    assert_close(
        y, np.array([2 * (v - 3) / 2 + 7 for v in (1, 2, 3, 6)]).reshape(2, 1, 2, 1), 1e-14
    )  # sqrt(14/4 + 0.5) = 2


def test_only_the_running_statistics_change_and_in_place(xp):
    arrays = on(xp, CASES[0].draw())
    ops.batch_norm(**arrays)
    for name, before in CASES[0].draw().items():
        changed = not np.array_equal(to_numpy(arrays[name]), before)
        assert changed == name.startswith("running_"), name


def test_without_training_nothing_changes(xp):
    arrays = on(xp, CASES[3].draw())
    ops.batch_norm(**arrays, training=False)
    for name, before in CASES[3].draw().items():
        assert np.array_equal(to_numpy(arrays[name]), before), name


def test_the_running_statistics_come_to_be_the_datas(xp):
    """After many steps on one batch, the net used alone gives what it gave in training, but for n/(n-1)."""
    arrays = on(xp, CASES[0].draw())
    for _ in range(200):
        trained, _ = ops.batch_norm(**arrays, eps=0)
    arrays["running_var"] *= 69 / 70
    alone, _ = ops.batch_norm(**arrays, training=False, eps=0)
    assert_close(alone, trained, 1e-8)


def test_by_hand_without_training(xp):
    x, dy = xp.full((1, 1, 2, 1), 5.0), xp.asarray(np.array([3.0, 4.0]).reshape(1, 1, 2, 1))
    given = [channels(xp, v) for v in (2.0, 7.0, 1.0, 15.75)]
    y, cache = ops.batch_norm(x, *given, training=False, eps=0.25)  # std 4
    dx, dgamma, dbeta = ops.batch_norm_backward(dy, cache)
    assert to_numpy(y).ravel().tolist() == [9, 9]
    assert to_numpy(dx).ravel().tolist() == [1.5, 2]
    assert (float(dgamma[0]), float(dbeta[0])) == (7, 7)


def test_one_number_a_channel(xp):
    """The sample's variance of one number is not defined: running_var must still be a number."""
    mean, var = channels(xp, 0.0), channels(xp, 1.0)
    y, _ = ops.batch_norm(xp.full((1, 1, 1, 1), 3.0), channels(xp, 1.0), channels(xp, 0.5), mean, var)
    assert float(y.sum()) == 0.5
    assert math.isclose(float(mean[0]), 0.3)
    assert math.isclose(float(var[0]), 0.9)


def test_far_from_zero_in_float32(xp):
    """Mean 1000, standard deviation 0.1: E[x^2] - E[x]^2 would leave nothing of it in float32."""
    rng = np.random.default_rng(0)
    x = (1000 + 0.1 * rng.standard_normal((2, 61, 67, 3))).astype(np.float32)
    dy = rng.standard_normal(x.shape).astype(np.float32)
    given = [np.ones(3), np.zeros(3), np.zeros(3), np.ones(3)]
    results = []
    for dtype in (np.float32, np.float64):
        arrays = [asarray(v.astype(dtype), xp) for v in given]
        y, cache = ops.batch_norm(asarray(x.astype(dtype), xp), *arrays)
        results.append(
            (y, arrays[2], arrays[3], *ops.batch_norm_backward(asarray(dy.astype(dtype), xp), cache))
        )
    for single, double in zip(*results, strict=True):
        assert single.dtype == np.float32
        assert_close(single, double, 1e-3)  # x itself is rounded to 6e-5, which is 6e-4 of the deviation


@pytest.mark.parametrize("name", CHANNELS)
def test_wrong_number_of_channels_is_named(name):
    refuses(ValueError, name, lambda: ops.batch_norm(**CASES[0].draw() | {name: np.zeros(4)}))
