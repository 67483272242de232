"""What only the fast versions have: which way a convolution takes, the kernel's memo, Winograd's transforms,
panels."""

from fractions import Fraction

import numpy as np
import pytest
from cases import assert_close, assert_same, check_gradient, check_values, counted, on, one_row_blocks, plain
from test_ops import CASES, conv, transpose

from tinynst import ops
from tinynst.device import asarray, to_numpy
from tinynst.ops.fast import conv as fast
from tinynst.ops.fast import matmul, parallel, winograd

PATCHES, WINOGRAD, FEW = (CASES[k] for k in (1, 9, 11))
SIZES = ((1, 1), (2, 3), (3, 5), (4, 4), (5, 8), (6, 6), (9, 7), (12, 13))
TILES = [conv((3, 3), pad=pad, image=(2, *size, 3), bias=True) for size in SIZES for pad in (1, 2)]
TILES += [conv((3, 3), pad=pad, image=(1, 6, 7, 2), outputs=1) for pad in (0, 5)]
TILES += [conv((3, 3), pad=1, image=(2, 6, 7, 3), bias=True, relu=True), transpose((3, 3), 1, 1)]


@pytest.fixture(params=["numpy", "strict"])
def xp(request):
    """Without kernels: these versions run on the CPU, and on a CuPy that compiles none."""
    return np if request.param == "numpy" else request.getfixturevalue("strict")


# --- convolution ---


@pytest.mark.parametrize(
    ("case", "module", "way"),
    [(PATCHES, fast, "_patch_products"), (FEW, fast, "_shifted_products"), (WINOGRAD, winograd, "correlate")],
)
def test_the_cases_take_all_three_ways(monkeypatch, case, module, way):
    calls = counted(monkeypatch, module, way)
    case.forward(case.draw())
    assert calls == [way]


def test_an_image_of_many_blocks_as_they_are_cut(xp):
    """Large enough for several blocks; the bias gradient sums two million numbers without drift."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 151, 93, 8)), rng.standard_normal((3, 3, 8, 9))
    assert len(parallel.blocks(np, 2, 151, 93 * (72 + 9) * 8)) > 4
    y, cache = ops.conv2d(asarray(x, xp), asarray(w, xp), pad=1)
    expected, plain_cache = ops.conv.conv2d(x, w, pad=1)
    dy = rng.standard_normal(expected.shape)
    gradients = ops.conv2d_backward(asarray(dy, xp), cache)
    for a, e in zip(
        (y, *gradients[:2]), (expected, *ops.conv.conv2d_backward(dy, plain_cache)[:2]), strict=True
    ):
        assert_close(a, e, 1e-12)
    if xp is np:
        dy = rng.uniform(0, 1, (1, 2000, 1000, 3)).astype(np.float32)
        assert_close(fast.bias_gradient(dy), dy.sum(axis=(0, 1, 2), dtype=np.float64), 3e-6)


@pytest.mark.parametrize("case", [PATCHES, WINOGRAD, FEW], ids=str)
def test_memo_keeps_the_kernels_transform_and_changes_no_number(xp, monkeypatch, case):
    arrays, dy, memo = on(xp, case.draw()), asarray(case.dy, xp), {}
    y, cache = case.forward(arrays)
    expected = y, *ops.conv2d_backward(dy, cache, need=("x",))[:1]
    for _ in range(2):
        u = [memo.get("u"), memo.get((0, 0), {}).get("u")]
        y, cache = ops.conv2d(**arrays, **case.options, memo=memo)
        dx, _, _ = ops.conv2d_backward(dy, cache, need=("x",))
        for a, e in zip((y, dx), expected, strict=True):
            assert np.array_equal(to_numpy(a), to_numpy(e))
    assert case is not WINOGRAD or (u[0] is memo["u"] is not None and u[1] is memo[0, 0]["u"] is not None)
    other = arrays | {"x": asarray(np.random.default_rng(6).standard_normal(arrays["x"].shape), xp)}
    y, _ = ops.conv2d(**other, **case.options, memo=memo)  # it holds the kernel, not the image
    assert np.array_equal(to_numpy(y), to_numpy(case.forward(other)[0]))


# --- Winograd ---


@pytest.mark.parametrize("check", [check_values, check_gradient])
@pytest.mark.parametrize("case", TILES, ids=str)
def test_small_images_and_few_channels(xp, monkeypatch, check, case):
    monkeypatch.setattr(winograd, "LEAST_CHANNELS", 1)
    ways = [counted(monkeypatch, winograd, name) for name in ("correlate", "kernel_gradient")]
    check(xp, case)
    assert [len(calls) for calls in ways] == ([1, 0] if check is check_values else [2, 1])


@pytest.mark.parametrize("small", [1, 5000, None])
@pytest.mark.parametrize("rows", [True, False])
def test_however_it_is_cut(xp, monkeypatch, small, rows):
    """Two and three panels of channels, shared by the cores or not; transforms of one tile at a time, of
    some, of all."""
    monkeypatch.setattr(matmul, "PANEL", 16)
    monkeypatch.setattr(parallel, "threads", lambda: 2)
    case = conv((3, 3), pad=1, image=(2, 6, 7, 32), outputs=48, bias=True)
    shares = [(share[2].start, share[2].stop) for share in winograd._shares(xp, 2, 2, 2, 32, 48, 8)]
    assert shares == ([(0, 1), (1, 3)] if xp is np else [(0, 1)])
    if rows:
        monkeypatch.setattr(winograd, "FEW", 0)
        one_row_blocks(monkeypatch)
    if small:
        monkeypatch.setattr(matmul, "SMALL", small)
    arrays, dy = on(xp, case.draw()), asarray(case.dy, xp)
    assert_same(case.run(arrays, dy), case.run(arrays, dy, plain), 1e-10)


def test_float32_with_many_channels(xp):
    """A sum over 256 channels with all nine taps loses about 1e-5 of the largest, as documented."""
    case = conv((3, 3), pad=1, image=(1, 14, 13, 256), outputs=32)
    arrays, dy = on(np, case.draw(), np.float32), case.dy.astype(np.float32)
    double = case.run(on(xp, arrays, np.float64), asarray(dy.astype(np.float64), xp))
    assert_same(case.run(on(xp, arrays), asarray(dy, xp)), double, 3e-5)


def test_the_matrices_multiply_polynomials_exactly():
    """One axis, in fractions: A' (G g * B' d) is the correlation of six numbers d with three g, for all unit
    vectors."""
    g_matrix = [[Fraction(v).limit_denominator(24) for v in line] for line in winograd.G]

    def times(matrix, vector):
        return [sum(m * v for m, v in zip(line, vector, strict=True)) for line in matrix]

    for i in range(6):
        for k in range(3):
            d, g = [int(j == i) for j in range(6)], [int(j == k) for j in range(3)]
            values = [u * v for u, v in zip(times(g_matrix, g), times(winograd.BT, d), strict=True)]
            assert times(zip(*winograd.A, strict=True), values) == [int(i == j + k) for j in range(4)]
