"""The Gram matrix."""

import numpy as np
import pytest
from cases import Case, assert_close, on, one_row_blocks, row

from tinynst import ops
from tinynst.device import asarray, to_numpy

CASES = [
    Case("gram_matrix", {"f": shape}) for shape in ((2, 5, 7, 3), (1, 1, 1, 4), (3, 2, 6, 1), (2, 5, 7, 17))
]


@row(CASES)
def test_row(xp, check, case):
    check(xp, case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_many_blocks(xp, monkeypatch, case):
    y, gradients = case.run(on(xp, case.draw()), asarray(case.dy, xp))
    one_row_blocks(monkeypatch)
    y_cut, gradients_cut = case.run(on(xp, case.draw()), asarray(case.dy, xp))
    assert_close(y_cut, y, 1e-12)
    assert_close(gradients_cut["f"], gradients["f"], 1e-12)


def test_by_hand(xp):
    """Two pixels of two channels: divided by C*H*W = 4."""
    gram, _ = ops.gram_matrix(xp.asarray(np.array([1.0, 2, 3, 5]).reshape(1, 2, 1, 2)))
    assert to_numpy(gram).tolist() == [[[10 / 4, 17 / 4], [17 / 4, 29 / 4]]]


def test_it_does_not_know_where(xp):
    """Features put elsewhere in the picture, all pixels alike: the same matrix; and it is symmetric."""
    f = np.random.default_rng(0).standard_normal((2, 6, 4, 3))
    moved = np.random.default_rng(1).permutation(f.reshape(2, 24, 3), axis=1).reshape(2, 3, 8, 3)
    gram, _ = ops.gram_matrix(asarray(f, xp))
    assert_close(ops.gram_matrix(asarray(moved, xp))[0], gram, 1e-12)
    assert_close(gram.transpose(0, 2, 1), gram, 1e-15)
