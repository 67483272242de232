"""Winograd's way with few channels, small images and sizes that are no multiple of its tile, called through conv2d."""

from fractions import Fraction

import numpy as np
import pytest
from cases import Case, assert_close, counted, on, one_row_blocks
from test_conv import case

from tinynst import ops, parallel
from tinynst.device import asarray, to_numpy
from tinynst.ops import winograd

SIZES = ((1, 1), (2, 3), (3, 5), (4, 4), (5, 8), (6, 6), (9, 7), (12, 13))
CASES = [case((3, 3), pad=pad, image=(2, *size, 3), bias=True) for size in SIZES for pad in (1, 2)]
CASES += [case((3, 3), pad=pad, image=(1, 6, 7, 2), outputs=1) for pad in (0, 5)]
CASES += [case((3, 3), pad=1, image=(2, 6, 7, 3), bias=True, relu=True)]
CASES += [Case("conv_transpose2d", {"x": (2, 6, 7, 3), "w": (3, 3, 4, 3)}, {"stride": 1, "pad": 1, "output_pad": 0})]


@pytest.fixture
def any_channels(monkeypatch):
    """However few channels a kernel has, it comes this way."""
    monkeypatch.setattr(winograd, "LEAST_CHANNELS", 1)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_twin_and_gradients(xp, monkeypatch, any_channels, case):
    forward = counted(monkeypatch, winograd, "correlate")
    kernel = counted(monkeypatch, winograd, "kernel_gradient")
    y, gradients = case.run(on(xp, case.draw()), asarray(case.dy, xp))
    assert len(forward) == 2  # y and dx
    assert len(kernel) == 1
    assert_close(y, case.expected_y, 1e-10)
    for name, gradient in gradients.items():
        size = float((gradient * gradient).sum()) ** 0.5
        for direction, slope in case.slopes[name]:
            assert abs(float((gradient * asarray(direction, xp)).sum()) - slope) <= 1e-6 * size, name


@pytest.mark.parametrize("small", [1, 5000])
@pytest.mark.parametrize("rows", [True, False])
def test_however_it_is_cut(xp, monkeypatch, any_channels, small, rows):
    """Blocks of one row of tiles; transforms of one tile at a time, of some, of all."""
    case = CASES[12]
    y, gradients = case.run(on(xp, case.draw()), asarray(case.dy, xp))
    monkeypatch.setattr(parallel, "SMALL", small)
    if rows:
        one_row_blocks(monkeypatch)
    y_cut, gradients_cut = case.run(on(xp, case.draw()), asarray(case.dy, xp))
    assert_close(y_cut, y, 1e-12)
    for name, gradient in gradients.items():
        assert_close(gradients_cut[name], gradient, 1e-12)


@pytest.mark.parametrize("few", [True, False])
def test_several_panels(xp, monkeypatch, few):
    """Two panels of input and three of output channels: shared by the cores (few tiles), or all in each block."""
    monkeypatch.setattr(parallel, "PANEL", 16)
    monkeypatch.setattr(parallel, "threads", lambda: 2)
    if not few:
        monkeypatch.setattr(winograd, "FEW", 0)
        monkeypatch.setattr(parallel, "SMALL", 16 * 16 * 2)
        one_row_blocks(monkeypatch)
    case_ = case((3, 3), pad=1, image=(2, 6, 7, 32), outputs=48, bias=True)
    shared = [(share[2].start, share[2].stop) for share in winograd._shares(xp, 2, 2, 2, 32, 48, 8)]
    assert shared == ([(0, 1)] if xp is not np else [(0, 1), (1, 3)] if few else [(0, 3)] * 4)
    y, gradients = case_.run(on(xp, case_.draw()), asarray(case_.dy, xp))
    assert_close(y, case_.expected_y, 1e-10)
    for name, gradient in gradients.items():
        size = float((gradient * gradient).sum()) ** 0.5
        for direction, slope in case_.slopes[name]:
            assert abs(float((gradient * asarray(direction, xp)).sum()) - slope) <= 1e-6 * size, name


def test_float32_with_many_channels(xp):
    """A sum over 256 channels, with all nine taps: about 1e-5 of the largest is lost, as promised."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 14, 13, 256)), rng.standard_normal((3, 3, 256, 32))
    dy = rng.standard_normal((1, 14, 13, 32))
    results = []
    for dtype in (np.float32, np.float64):
        given = [asarray(a.astype(np.float32).astype(dtype), xp) for a in (x, w, dy)]
        y, cache = ops.conv2d(*given[:2], pad=1)
        results.append((y, *ops.conv2d_backward(given[2], cache)[:2]))
    for single, double in zip(*results, strict=True):
        assert_close(single, double, 3e-5)


def test_the_matrices_multiply_polynomials_exactly():
    """One axis, in fractions: A' (G g * B' d) = the correlation of six numbers d with three g, for every unit vector."""
    g_matrix = [[Fraction(v).limit_denominator(24) for v in line] for line in winograd.G]

    def times(matrix, vector):
        return [sum(m * v for m, v in zip(line, vector, strict=True)) for line in matrix]

    for i in range(6):
        for k in range(3):
            d, g = [int(j == i) for j in range(6)], [int(j == k) for j in range(3)]
            values = [u * v for u, v in zip(times(g_matrix, g), times(winograd.BT, d), strict=True)]
            assert times(zip(*winograd.A, strict=True), values) == [int(i == j + k) for j in range(4)]


@pytest.mark.parametrize("m", [winograd.BT, winograd.A])
def test_even_and_odd_rows_apart_give_the_values_of_the_whole_tile(xp, m):
    side = len(m[0])
    tiles = np.random.default_rng(0).standard_normal((side, side, 7))
    halves = asarray(np.stack([tiles[0::2], tiles[1::2]]).reshape(2, -1, 7), xp)
    values = winograd._values(xp, m, halves, "test")
    assert_close(values.reshape(36, 7), np.kron(m, m) @ tiles.reshape(-1, 7), 1e-13)


def test_pixels_is_the_adjoint_of_values(xp):
    rng = np.random.default_rng(0)
    rows, tiles = rng.standard_normal((60, 7)), rng.standard_normal((2, 8, 7))
    points = rows.reshape(2, 30, 7)[:, :18].copy()  # what lies between is overwritten
    pixels = to_numpy(winograd._pixels(xp, asarray(rows, xp), "test"))
    values = to_numpy(winograd._values(xp, winograd.A, asarray(tiles, xp), "test values"))
    assert abs((pixels * tiles).sum() - (points * values).sum()) <= 1e-12 * np.abs(points * values).sum()


@pytest.mark.parametrize(
    ("shape", "stride", "suits"),
    [((3, 3, 64, 64), 1, True), ((3, 3, 64, 64), 2, False), ((5, 5, 64, 64), 1, False), ((3, 3, 3, 64), 1, False)],
)
def test_suits(shape, stride, suits):
    assert winograd.suits(shape, stride) is suits
