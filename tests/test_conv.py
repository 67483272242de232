"""Convolution against its definition, in each of the three ways that it is computed."""

import numpy as np
import pytest
from cases import Case, assert_close, counted, on, one_row_blocks, refuses, row

from tinynst import ops
from tinynst.device import asarray, to_numpy
from tinynst.ops import conv
from tinynst.ops.fast import parallel, winograd

IMAGE = (2, 5, 7, 3)
XW = ("x", "w")


def case(kernel, stride=1, pad=0, image=IMAGE, outputs=4, bias=False, **options):
    shapes = {"x": image, "w": (*kernel, image[3], outputs)}
    if bias:
        shapes["b"] = (outputs,)
    linear = () if options.get("relu") else ("x", "w", "b") if bias else XW
    return Case("conv2d", shapes, {"stride": stride, "pad": pad, **options}, linear)


WINOGRAD = case((3, 3), pad=1, image=(2, 5, 7, 16), outputs=17, bias=True)
FEW = case((9, 9), pad=4, image=(1, 5, 7, 32), outputs=3, bias=True)
CASES = [
    case((3, 3)),
    case((3, 3), stride=2, pad=1, bias=True),  # 5 and 7 + 2 less 3 leave no remainder by 2
    case((2, 3), stride=2, pad=1),  # 5 + 2 less 2 leaves one row that no patch sees
    case((4, 4), stride=3, pad=2, bias=True),
    case((5, 3), stride=1, pad=5),
    case((1, 1), stride=3, pad=2),
    case((9, 9), stride=2, pad=5, bias=True),
    case((3, 3), stride=2, pad=1, bias=True, relu=True),
    case((3, 3), image=(1, 3, 3, 1), outputs=1),
    WINOGRAD,
    case((3, 3), pad=1, image=(2, 5, 7, 16), outputs=17, bias=True, relu=True),
    FEW,
    case((9, 9), pad=4, image=(1, 5, 7, 32), outputs=3, relu=True),
    case((3, 1), pad=1, image=(1, 5, 7, 64), outputs=2),  # few outputs of a narrow kernel
    case((1, 1), image=(2, 5, 7, 32), outputs=3, bias=True),
    case(
        (3, 3), pad=1, image=(2, 5, 7, 24), outputs=3, bias=True, relu=True
    ),  # as its gradient: few outputs of many channels
]
GRID = [
    case(kernel, stride, pad)
    for kernel in ((1, 1), (2, 3), (3, 3), (4, 4), (5, 3), (9, 9))
    for stride in (1, 2, 3)
    for pad in (0, 1, 2, 5)
    if 5 + 2 * pad >= kernel[0] and 7 + 2 * pad >= kernel[1]
]


@row(CASES)
def test_row(xp, check, case):
    check(xp, case)


@pytest.mark.parametrize("case", GRID, ids=str)
def test_strides_and_pads(xp, case):
    arrays, dy = on(xp, case.draw()), asarray(case.dy, xp)
    y, gradients = case.run(arrays, dy)
    assert_close(y, case.expected_y, 1e-10)
    for name, gradient in gradients.items():  # y is linear in each: <y, dy> = <x, dx> = <w, dw>
        assert abs(float((gradient * arrays[name]).sum() - (y * dy).sum())) < 1e-9, name


def test_a_sum_by_hand(xp):
    x = xp.asarray(np.arange(1.0, 13).reshape(1, 3, 4, 1))
    w = xp.asarray(
        np.array([[1.0, 10.0], [100.0, 1000.0]]).reshape(2, 2, 1, 1)
    )  # reads four digits off the image
    y, _ = ops.conv2d(x, w, xp.asarray(np.array([0.5])), stride=2, pad=0)
    assert to_numpy(y).tolist() == [[[[1 + 20 + 500 + 6000 + 0.5], [3 + 40 + 700 + 8000 + 0.5]]]]


@pytest.mark.parametrize(
    ("case", "module", "way"),
    [(CASES[0], conv, "_plain"), (FEW, conv, "_few_outputs"), (WINOGRAD, winograd, "correlate")],
)
def test_the_cases_above_take_all_three_ways(monkeypatch, case, module, way):
    calls = counted(monkeypatch, module, way)
    case.forward(case.draw())
    assert calls == [way]


@pytest.mark.parametrize("case", [CASES[1], CASES[7], WINOGRAD, CASES[10], FEW, CASES[12]], ids=str)
def test_many_blocks(xp, monkeypatch, case):
    y, gradients = case.run(on(xp, case.draw()), asarray(case.dy, xp))
    one_row_blocks(monkeypatch)
    y_cut, gradients_cut = case.run(on(xp, case.draw()), asarray(case.dy, xp))
    assert_close(y_cut, y, 1e-12)
    for name, gradient in gradients.items():
        assert_close(gradients_cut[name], gradient, 1e-12)


def test_an_image_of_many_blocks_as_they_are_cut(xp):
    """Large enough that no parameter need be turned; the twin would take minutes, so shifted products stand in."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 151, 93, 8)), rng.standard_normal((3, 3, 8, 9))
    assert len(parallel.blocks(np, 2, 151, 93 * (72 + 9) * 8)) > 4
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = sum(padded[:, a : a + 151, b : b + 93] @ w[a, b] for a in range(3) for b in range(3))
    dy = rng.standard_normal(expected.shape)
    dw = [
        [np.einsum("nhwc,nhwo->co", padded[:, a : a + 151, b : b + 93], dy) for b in range(3)]
        for a in range(3)
    ]
    y, cache = ops.conv2d(asarray(x, xp), asarray(w, xp), pad=1)
    dx, dw_of_backward, db = ops.conv2d_backward(asarray(dy, xp), cache)
    assert db is None
    assert_close(y, expected, 1e-12)
    assert_close(dw_of_backward, np.array(dw), 1e-12)
    assert abs(float((dx * asarray(x, xp)).sum()) - (expected * dy).sum()) < 1e-8


def held(memo):
    """The arrays in a memo and in the memos within it."""
    for value in memo.values():
        yield from held(value) if isinstance(value, dict) else [value]


def test_memo_keeps_what_it_made(xp):
    """Its arrays are those of the first call, forward and backward: that is what it is for."""
    arrays, memo, kept = on(xp, WINOGRAD.draw()), {}, []
    for _ in range(2):
        _, cache = ops.conv2d(**arrays, **WINOGRAD.options, memo=memo)
        ops.conv2d_backward(asarray(WINOGRAD.dy, xp), cache, need=("x",))
        kept.append(list(held(memo)))
    assert len(kept[0]) == len(kept[1]) > 1
    assert all(first is second for first, second in zip(*kept, strict=True))


@pytest.mark.parametrize("case", [CASES[1], WINOGRAD, FEW], ids=str)
def test_memo_gives_the_same_numbers(xp, case):
    arrays, memo = on(xp, case.draw()), {}
    dy = asarray(case.dy, xp)
    y, cache = case.forward(arrays)
    dx, _, _ = ops.conv2d_backward(dy, cache)
    for _ in range(2):  # the second time from what the first left in it
        y_memo, cache = ops.conv2d(**arrays, **case.options, memo=memo)
        dx_memo, _, _ = ops.conv2d_backward(dy, cache, need=("x",))
        assert np.array_equal(to_numpy(y_memo), to_numpy(y))
        assert np.array_equal(to_numpy(dx_memo), to_numpy(dx))
    other = asarray(np.random.default_rng(6).standard_normal(arrays["x"].shape), xp)
    y_memo, _ = ops.conv2d(
        **arrays | {"x": other}, **case.options, memo=memo
    )  # it holds the kernel, not the image
    assert np.array_equal(to_numpy(y_memo), to_numpy(case.forward(arrays | {"x": other})[0]))


@pytest.mark.parametrize("case", [CASES[7], WINOGRAD, FEW], ids=str)
def test_need_leaves_out_and_changes_nothing_else(xp, case):
    arrays, dy = on(xp, case.draw()), asarray(case.dy, xp)
    _, cache = case.forward(arrays)
    dx, dw, db = ops.conv2d_backward(dy, cache)
    only_dx = ops.conv2d_backward(dy, cache, need=("x",))
    only_w = ops.conv2d_backward(dy, cache, need=("w",))
    assert only_dx[1] is only_dx[2] is only_w[0] is None
    assert np.array_equal(to_numpy(only_dx[0]), to_numpy(dx))
    assert np.array_equal(to_numpy(only_w[1]), to_numpy(dw))
    assert np.array_equal(to_numpy(only_w[2]), to_numpy(db))


def test_relu_passes_no_gradient_where_y_is_zero(xp):
    x = xp.asarray(np.array([-1.0, 0.0, 2.0]).reshape(1, 1, 3, 1))
    w, b = xp.ones((1, 1, 1, 1)), xp.zeros(1)
    y, cache = ops.conv2d(x, w, b, relu=True)
    dx, dw, db = ops.conv2d_backward(xp.asarray(np.array([3.0, 5.0, 7.0]).reshape(1, 1, 3, 1)), cache)
    assert to_numpy(y).ravel().tolist() == [0, 0, 2]
    assert to_numpy(dx).ravel().tolist() == [0, 0, 7]
    assert to_numpy(dw).ravel().tolist() == [14]
    assert to_numpy(db).tolist() == [7]


def test_a_long_sum_in_float32_does_not_drift():
    """Two million numbers one after another would be 2e-5 off. (On a GPU they are added as a tree.)"""
    dy = np.random.default_rng(0).uniform(0, 1, (1, 2000, 1000, 3)).astype(np.float32)
    x, w = np.zeros((1, 2000, 1000, 1), np.float32), np.zeros((1, 1, 1, 3), np.float32)
    _, cache = ops.conv2d(x, w, np.zeros(3, np.float32))
    _, _, db = ops.conv2d_backward(dy, cache, need=("w",))
    assert_close(db, dy.sum(axis=(0, 1, 2), dtype=np.float64), 3e-6)


@pytest.mark.parametrize(
    "options", [{"stride": 0}, {"stride": 1.5}, {"stride": True}, {"pad": -1}, {"pad": "same"}]
)
def test_wrong_options_are_named(options):
    (name,) = options
    refuses(ValueError, name, lambda: ops.conv2d(np.zeros(IMAGE), np.zeros((3, 3, 3, 4)), **options))


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("w", [IMAGE, (3, 3, 4, 3), None]),
        ("b", [IMAGE, (3, 3, 3, 4), (3,)]),
        ("x", [(5, 7, 3), (3, 3, 3, 4), None]),
        ("x", [(0, 5, 7, 3), (3, 3, 3, 4), None]),
        ("x", [IMAGE, (6, 3, 3, 4), None]),  # smaller than the kernel
    ],
)
def test_wrong_shapes_are_named(name, shapes):
    arrays = [None if shape is None else np.zeros(shape) for shape in shapes]
    refuses(ValueError, name, lambda: ops.conv2d(*arrays))
