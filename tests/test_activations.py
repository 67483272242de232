"""ReLU and the scaled tanh."""

import numpy as np
from cases import Case, assert_close, row

from tinynst import ops
from tinynst.device import asarray, to_numpy

CASES = [
    Case("relu", {"x": (2, 5, 7, 3)}),
    Case("relu", {"x": (11,)}),
    Case("scaled_tanh", {"x": (2, 5, 7, 3)}),
    Case("scaled_tanh", {"x": (2, 5, 3)}, {"scale": 2.5}),
]


@row(CASES)
def test_row(xp, check, case):
    check(xp, case)


def test_relu_at_zero(xp):
    x = xp.asarray(np.array([-2.0, -0.0, 0.0, 1e-300, 3.0]))
    y, cache = ops.relu(x)
    (dx,) = ops.relu_backward(xp.full(5, 7.0), cache)
    assert to_numpy(y).tolist() == [0, 0, 0, 1e-300, 3]
    assert to_numpy(dx).tolist() == [0, 0, 0, 7, 7]


def test_scaled_tanh_at_its_ends(xp):
    """Flat, not more than the scale, and neither a warning nor a NaN however far out."""
    for dtype in (np.float32, np.float64):
        y, cache = ops.scaled_tanh(asarray(np.array([-1e30, -20, 0, 20, 1e30], dtype), xp))
        (dx,) = ops.scaled_tanh_backward(xp.ones(5, dtype), cache)
        assert_close(y, np.array([-150, -150, 0, 150, 150]), 1e-7)
        assert to_numpy(xp.abs(y)).max() <= 150
        assert_close(dx, np.array([0, 0, 150, 0, 0]), 1e-6)


def test_scaled_tanh_by_hand(xp):
    y, cache = ops.scaled_tanh(xp.full(1, np.log(2.0)), 10.0)  # tanh(log 2) = (4 - 1)/(4 + 1)
    (dx,) = ops.scaled_tanh_backward(xp.full(1, 3.0), cache)
    assert_close(y, np.array([6.0]), 1e-14)
    assert_close(dx, np.array([3 * 10 * (1 - 0.36)]), 1e-14)
