"""Max pooling: the values, the places, and who gets the gradient of a tie."""

import numpy as np
import pytest
from cases import Case, assert_close, on, one_row_blocks, refuses, row

from tinynst import ops
from tinynst.device import asarray, to_numpy

CASES = [
    Case("max_pool2d", {"x": (2, 5, 7, 3)}),  # an odd row and column are dropped
    Case("max_pool2d", {"x": (2, 4, 6, 3)}, {"size": 2}),
    Case("max_pool2d", {"x": (2, 7, 8, 3)}, {"size": 3}),
    Case("max_pool2d", {"x": (2, 5, 7, 3)}, {"size": 1}),
    Case("max_pool2d", {"x": (1, 2, 3, 1)}),
]


@row(CASES)
def test_row(xp, check, case):
    check(xp, case)


@pytest.mark.parametrize("case", CASES[:3], ids=str)
def test_many_blocks(xp, monkeypatch, case):
    y, gradients = case.run(on(xp, case.draw()), asarray(case.dy, xp))
    one_row_blocks(monkeypatch)
    y_cut, gradients_cut = case.run(on(xp, case.draw()), asarray(case.dy, xp))
    assert_close(y_cut, y, 0)
    assert_close(gradients_cut["x"], gradients["x"], 0)


@pytest.mark.parametrize(
    ("square", "gradient"),
    [
        ([1, 2, 3, 4], [0, 0, 0, 9]),
        ([5, 5, 5, 5], [9, 0, 0, 0]),
        ([1, 5, 5, 2], [0, 9, 0, 0]),
        ([1, 2, 5, 5], [0, 0, 9, 0]),
        ([0, 0, -1, -2], [9, 0, 0, 0]),  # after a ReLU most ties are of zeros
    ],
)
def test_the_first_of_equals_in_reading_order_gets_it_all(xp, square, gradient):
    x = xp.asarray(np.array(square, float).reshape(1, 2, 2, 1))
    _, cache = ops.max_pool2d(x)
    (dx,) = ops.max_pool2d_backward(xp.full((1, 1, 1, 1), 9.0), cache)
    assert to_numpy(dx).ravel().tolist() == gradient


def test_every_gradient_arrives_once_even_where_all_is_equal(xp):
    dy = np.random.default_rng(0).standard_normal((2, 2, 3, 4))
    _, cache = ops.max_pool2d(xp.zeros((2, 5, 7, 4)))
    (dx,) = ops.max_pool2d_backward(asarray(dy, xp), cache)
    expected = np.zeros((2, 5, 7, 4))
    expected[:, :4:2, :6:2] = dy
    assert np.array_equal(to_numpy(dx), expected)


@pytest.mark.parametrize("size", [0, -1, 2.0, True])
def test_wrong_size_is_named(size):
    refuses(ValueError, "size", lambda: ops.max_pool2d(np.zeros((1, 4, 4, 1)), size))


def test_an_image_smaller_than_the_pool():
    refuses(ValueError, "x", lambda: ops.max_pool2d(np.zeros((1, 4, 2, 1)), 3))
