"""Reflection padding, beside np.pad, and the centre crop."""

import numpy as np
import pytest
from cases import Case, assert_close, refuses, row

from tinynst import ops
from tinynst.device import asarray, to_numpy

IMAGE = (2, 5, 7, 3)
CASES = [
    *(Case("reflect_pad2d", {"x": IMAGE}, {"pad": pad}, ("x",)) for pad in (0, 1, 4, 6, 17)),
    *(Case("reflect_pad2d", {"x": (2, *size, 3)}, {"pad": 5}, ("x",)) for size in ((1, 1), (1, 4), (2, 3))),
    *(Case("center_crop", {"x": IMAGE}, {"crop": crop}, ("x",)) for crop in (0, 1, 2)),
]


@row(CASES)
def test_row(xp, check, case):
    check(xp, case)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 3), (5, 7), (6, 6)], ids=str)
def test_reflect_is_numpys(xp, size):
    """For pads larger than the image too: the mirror images are mirrored again."""
    x = np.random.default_rng(0).standard_normal((2, *size, 3))
    for pad in (0, 1, 3, 4, 5, 8, 13, 40):
        y, cache = ops.reflect_pad2d(asarray(x, xp), pad)
        expected = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect")
        assert np.array_equal(to_numpy(y), expected)
        (dx,) = ops.reflect_pad2d_backward(xp.ones(y.shape), cache)  # how often each pixel stands in y
        numbered = np.arange(np.prod(size)).reshape(1, *size, 1)
        padded = np.pad(numbered, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect")
        times = np.bincount(padded.ravel(), minlength=numbered.size).reshape(1, *size, 1)
        assert_close(dx, np.broadcast_to(times, dx.shape), 1e-14)


def test_reflect_by_hand(xp):
    y, _ = ops.reflect_pad2d(xp.asarray(np.array([1.0, 2, 3]).reshape(1, 1, 3, 1)), 2)
    assert to_numpy(y)[0, 0, :, 0].tolist() == [3, 2, 1, 2, 3, 2, 1]  # the border pixel is not repeated
    assert y.shape == (1, 5, 7, 1)


def test_crop_undoes_a_pad(xp):
    x = asarray(np.random.default_rng(0).standard_normal(IMAGE), xp)
    y, _ = ops.center_crop(ops.reflect_pad2d(x, 4)[0], 4)
    assert np.array_equal(to_numpy(y), to_numpy(x))


@pytest.mark.parametrize("wrong", [-1, 1.0, "2", None])
def test_wrong_options_are_named(wrong):
    refuses(ValueError, "pad", lambda: ops.reflect_pad2d(np.zeros(IMAGE), wrong))
    refuses(ValueError, "crop", lambda: ops.center_crop(np.zeros(IMAGE), wrong))


def test_a_crop_that_leaves_nothing():
    refuses(ValueError, "crop", lambda: ops.center_crop(np.zeros((1, 9, 4, 1)), 2))
