"""Nearest-neighbour enlargement."""

import numpy as np
import pytest
from cases import Case, refuses, row

from tinynst import ops
from tinynst.device import to_numpy

CASES = [Case("upsample_nearest", {"x": (2, 5, 7, 3)}, options, ("x",)) for options in ({}, {"scale": 1}, {"scale": 3})]


@row(CASES)
def test_row(xp, check, case):
    check(xp, case)


def test_by_hand(xp):
    y, cache = ops.upsample_nearest(xp.asarray(np.array([1.0, 2]).reshape(1, 1, 2, 1)))
    (dx,) = ops.upsample_nearest_backward(xp.asarray(np.arange(8.0).reshape(1, 2, 4, 1)), cache)
    assert to_numpy(y)[0, :, :, 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2]]
    assert to_numpy(dx).ravel().tolist() == [0 + 1 + 4 + 5, 2 + 3 + 6 + 7]


@pytest.mark.parametrize("scale", [0, 1.5, "2"])
def test_wrong_scale_is_named(scale):
    refuses(ValueError, "scale", lambda: ops.upsample_nearest(np.zeros((1, 2, 2, 1)), scale))
