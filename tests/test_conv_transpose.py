"""The transposed convolution: against its definition, and as the adjoint of conv2d with the same kernel."""

import numpy as np
import pytest
from cases import Case, assert_close, on, one_row_blocks, refuses, row

from tinynst import ops
from tinynst.device import asarray, to_numpy

IMAGE = (2, 5, 7, 3)


def case(kernel, stride, pad, output_pad=0, image=IMAGE, outputs=4, bias=False):
    shapes = {"x": image, "w": (*kernel, outputs, image[3])}
    if bias:
        shapes["b"] = (outputs,)
    options = {"stride": stride, "pad": pad, "output_pad": output_pad}
    return Case("conv_transpose2d", shapes, options, ("x", "w", "b") if bias else ("x", "w"))


CASES = [
    case((3, 3), 2, 1, 1, bias=True),  # the style net's
    case((3, 3), 1, 0),
    case((2, 3), 3, 0, 2, bias=True),  # a kernel smaller than the stride leaves gaps
    case((4, 4), 2, 1),
    case((5, 3), 3, 2, 1),
    case((1, 1), 2, 0, 1, bias=True),
    case((9, 9), 2, 4, 1),
    case((3, 3), 2, 1, 1, image=(1, 5, 7, 16), outputs=17, bias=True),
    case((3, 3), 1, 1, image=(1, 5, 7, 16), outputs=17),  # Winograd's way
    case((3, 3), 2, 1, 1, image=(1, 1, 1, 1), outputs=1),
]
GRID = [
    case((kh, kw), stride, pad, output_pad)
    for kh, kw in ((1, 1), (2, 3), (3, 3), (4, 4), (9, 9))
    for stride in (1, 2, 3)
    for pad in (0, 1, 2)
    for output_pad in range(stride)
]


@row(CASES)
def test_row(xp, check, case):
    check(xp, case)


@pytest.mark.parametrize("case", GRID, ids=str)
def test_adjoint_of_conv2d(xp, case):
    """<conv2d(u, w), x> = <u, conv_transpose2d(x, w)>; output_pad picks u's size of those that conv2d maps to x's."""
    arrays = on(xp, case.draw())
    x, w = arrays["x"], arrays["w"]
    y, _ = ops.conv_transpose2d(x, w, **case.options)
    u = asarray(np.random.default_rng(7).standard_normal(y.shape), xp)
    back, cache = ops.conv2d(u, w, stride=case.options["stride"], pad=case.options["pad"])
    assert back.shape == x.shape
    assert abs(float((back * x).sum() - (u * y).sum())) < 1e-9
    dx, _, _ = ops.conv2d_backward(x, cache)
    assert_close(dx, y, 1e-12)
    assert_close(y, case.expected_y, 1e-10)


def test_one_pixel_paints_the_kernel(xp):
    w = np.arange(1.0, 10).reshape(3, 3, 1, 1)
    y, _ = ops.conv_transpose2d(xp.full((1, 1, 1, 1), 2.0), xp.asarray(w), stride=2, pad=1, output_pad=1)
    assert to_numpy(y)[0, :, :, 0].tolist() == [[10, 12], [16, 18]]  # pad takes the first row and column off


def test_three_by_three_doubles_any_size(xp):
    w = xp.zeros((3, 3, 4, 3))
    for height, width in ((1, 1), (1, 6), (5, 4)):
        assert ops.conv_transpose2d(xp.zeros((2, height, width, 3)), w)[0].shape == (
            2,
            2 * height,
            2 * width,
            4,
        )


@pytest.mark.parametrize("case", [CASES[0], CASES[2], CASES[8]], ids=str)
def test_many_blocks(xp, monkeypatch, case):
    y, gradients = case.run(on(xp, case.draw()), asarray(case.dy, xp))
    one_row_blocks(monkeypatch)
    y_cut, gradients_cut = case.run(on(xp, case.draw()), asarray(case.dy, xp))
    assert_close(y_cut, y, 1e-12)
    for name, gradient in gradients.items():
        assert_close(gradients_cut[name], gradient, 1e-12)


def test_need_leaves_out_and_changes_nothing_else(xp):
    case = CASES[0]
    dy = asarray(case.dy, xp)
    _, cache = case.forward(on(xp, case.draw()))
    dx, dw, db = ops.conv_transpose2d_backward(dy, cache)
    only_dx = ops.conv_transpose2d_backward(dy, cache, need=("x",))
    only_w = ops.conv_transpose2d_backward(dy, cache, need=("w",))
    assert only_dx[1] is only_dx[2] is only_w[0] is None
    assert np.array_equal(to_numpy(only_dx[0]), to_numpy(dx))
    assert np.array_equal(to_numpy(only_w[1]), to_numpy(dw))
    assert np.array_equal(to_numpy(only_w[2]), to_numpy(db))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("stride", {"stride": 0}),
        ("pad", {"pad": -1}),
        ("output_pad", {"output_pad": 2}),  # not less than the stride
        ("output_pad", {"output_pad": -1}),
        ("pad", {"pad": 9}),  # leaves nothing
    ],
)
def test_wrong_options_are_named(name, options):
    refuses(
        ValueError, name, lambda: ops.conv_transpose2d(np.zeros(IMAGE), np.zeros((3, 3, 4, 3)), **options)
    )


@pytest.mark.parametrize(("name", "w", "b"), [("w", (3, 3, 3, 4), None), ("b", (3, 3, 4, 3), (3,))])
def test_wrong_shapes_are_named(name, w, b):
    bias = None if b is None else np.zeros(b)
    refuses(ValueError, name, lambda: ops.conv_transpose2d(np.zeros(IMAGE), np.zeros(w), bias))
