"""Winograd's way with few channels, small images and sizes that are no multiple of its tile, called through conv2d."""

from fractions import Fraction

import numpy as np
import pytest
from cases import Case, assert_close, counted, on, one_row_blocks
from test_conv import case

from tinynst import ops
from tinynst.device import asarray, to_numpy
from tinynst.ops.fast import parallel, winograd

SIZES = ((1, 1), (2, 3), (3, 5), (4, 4), (5, 8), (6, 6), (9, 7), (12, 13))
CASES = [case((3, 3), pad=pad, image=(2, *size, 3), bias=True) for size in SIZES for pad in (1, 2)]
CASES += [case((3, 3), pad=pad, image=(1, 6, 7, 2), outputs=1) for pad in (0, 5)]
CASES += [case((3, 3), pad=1, image=(2, 6, 7, 3), bias=True, relu=True)]
CASES += [
    Case("conv_transpose2d", {"x": (2, 6, 7, 3), "w": (3, 3, 4, 3)}, {"stride": 1, "pad": 1, "output_pad": 0})
]


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


@pytest.mark.parametrize("points", [winograd.BT, winograd.A])
@pytest.mark.parametrize(
    ("top", "left"), [(0, 0), (-1, -1), (-1, 2), (-7, -9), (5, 3), (1, 30), (1, -40)], ids=lambda v: str(v)
)
def test_values_of_tiles_cut_by_the_definition(xp, points, top, left):
    """Tiles that lie inside the image, reach over each edge, or miss it; channels in three panels."""
    x = np.random.default_rng(0).standard_normal((2, 9, 11, 6))
    side, rows, columns = len(points[0]), 2, 3
    around = np.pad(x, ((0, 0), (50, 50), (50, 50), (0, 0)))
    expected = np.empty((6, 6, 3, 2 * rows * columns, 2))
    for k, (n, i, j) in enumerate(np.ndindex(2, rows, columns)):
        h, v = 50 + top + 4 * i, 50 + left + 4 * j
        tile = around[n, h : h + side, v : v + side]
        values = np.einsum("pa,qb,abc->qpc", points, points, tile)
        expected[:, :, :, k] = values.reshape(6, 6, 3, 2)
    given = asarray(x, xp)
    for image in (
        given,
        asarray(x.transpose(0, 2, 3, 1), xp).transpose(0, 3, 1, 2),
    ):  # also where channels are not neighbours
        values = winograd._values(xp, points, image, top, left, rows, columns, "v", panels=3)
        assert_close(values, expected, 1e-13)
    assert np.array_equal(to_numpy(given), x)


def test_both_ways_by_the_definition(xp):
    rng = np.random.default_rng(0)
    m, x = rng.standard_normal((4, 6)), rng.standard_normal((6, 6, 7))
    out = xp.empty((4, 4, 7), np.float64)
    winograd._both_ways(xp, asarray(m, xp), asarray(x, xp), out, "half")
    assert_close(out, np.einsum("ia,jb,abl->jil", m, m, x), 1e-13)


@pytest.mark.parametrize("turned", [True, False])
def test_transformed_kernel_by_the_definition(xp, monkeypatch, turned):
    """Also of a kernel that is turned round and transposed, as the input's gradient needs it; remembered by `memo`."""
    monkeypatch.setattr(parallel, "PANEL", 16)
    w = np.random.default_rng(0).standard_normal((3, 3, 5, 48) if not turned else (3, 3, 48, 5))
    given = asarray(w, xp)
    if turned:
        w, given = (v[::-1, ::-1].transpose(0, 1, 3, 2) for v in (w, given))
    memo = {}
    u = winograd.transformed(given, memo)
    expected = np.einsum("pa,qb,abco->qpco", winograd.G, winograd.G, w)
    width = 48 if xp is not np else 16
    assert_close(u, expected.reshape(6, 6, 5, -1, width).transpose(0, 1, 3, 2, 4), 1e-13)
    assert winograd.transformed(given, memo) is u


@pytest.mark.parametrize(
    ("shape", "stride", "suits"),
    [
        ((3, 3, 64, 64), 1, True),
        ((3, 3, 64, 64), 2, False),
        ((5, 5, 64, 64), 1, False),
        ((3, 3, 3, 64), 1, False),
    ],
)
def test_suits(shape, stride, suits):
    assert winograd.suits(shape, stride) is suits
