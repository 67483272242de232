"""Every operation: a list of cases for the row of checks, facts worked out by hand, and refused arguments."""

import math

import numpy as np
import pytest
from cases import Case, assert_close, on, photos, plain, refuses, row
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from tinynst import ops
from tinynst.device import asarray, to_numpy

IMAGE = (2, 5, 7, 3)
CHANNELS = ("gamma", "beta", "running_mean", "running_var")

# --- cases ---


def conv2d(x, w, b=0, stride=1, pad=0):
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    patches = sliding_window_view(padded, w.shape[:2], (1, 2))[:, ::stride, ::stride]
    return np.einsum("nijcpq,pqco->nijo", patches, w) + b


def conv(kernel, stride=1, pad=0, image=IMAGE, outputs=4, bias=False, **options):
    shapes = {"x": image, "w": (*kernel, image[3], outputs)} | ({"b": (outputs,)} if bias else {})
    linear = () if options else tuple(shapes)
    return Case("conv2d", shapes, {"stride": stride, "pad": pad, **options}, linear, conv2d)


def transpose(kernel, stride, pad, output_pad=0, image=IMAGE, outputs=4, bias=False):
    shapes = {"x": image, "w": (*kernel, outputs, image[3])} | ({"b": (outputs,)} if bias else {})
    options = {"stride": stride, "pad": pad, "output_pad": output_pad}
    return Case("conv_transpose2d", shapes, options, tuple(shapes))


def batch(image=IMAGE, **options):
    linear = (
        () if options.get("relu") else ("gamma", "beta") if options.get("training", True) else ("x", "beta")
    )
    return Case("batch_norm", {"x": image, **dict.fromkeys(CHANNELS, image[3:])}, options, linear)


def instance(image=IMAGE, **options):
    shapes = {"x": image, "gamma": image[3:], "beta": image[3:]}
    return Case("instance_norm", shapes, options, () if options.get("relu") else ("gamma", "beta"))


def conditional(image=IMAGE, styles=4, **options):
    shapes = {"x": image, "gamma": (styles, image[3]), "beta": (styles, image[3]), "mix": (image[0], styles)}
    linear = () if options.get("relu") else ("gamma", "beta", "mix")
    return Case("conditional_instance_norm", shapes, options, linear)


def one(name, definition, *shapes, linear=("x",), **options):
    return [Case(name, {"x": shape}, options, linear, definition) for shape in shapes]


def reflect(x, pad):
    return np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect")


def crop(x, crop):
    return x[:, crop:-crop, crop:-crop] if crop else x


def largest(x, size=2):
    return sliding_window_view(x, (size, size), (1, 2))[:, ::size, ::size].max(axis=(4, 5))


def nearest(x, scale=2):
    return x.repeat(scale, 1).repeat(scale, 2)


def smooth(x):
    """Zeros between the pixels, blurred by the binomial weights and by 1, 2, 1."""
    n, h, w, c = x.shape
    spread = np.zeros((n, 2 * h + 8, 2 * w + 8, c))
    spread[:, ::2, ::2] = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    blur = np.convolve(np.array([1, 5, 10, 10, 5, 1]) / 16, np.array([1, 0, 2, 0, 1]) / 4)
    for axis in (1, 2):
        spread = np.apply_along_axis(np.convolve, axis, spread, blur)
    return spread[:, 8 : 8 + 2 * h, 8 : 8 + 2 * w]


def bicubic(x, scale=2):
    def weight(t):
        t = abs(t)
        return 1.5 * t**3 - 2.5 * t**2 + 1 if t < 1 else -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0

    for axis in (1, 2):
        size = x.shape[axis]
        m = [[weight((i + 0.5) / scale - 0.5 - k) for k in range(size)] for i in range(scale * size)]
        x = np.moveaxis(np.tensordot([[v / sum(line) for v in line] for line in m], x, (1, axis)), 0, axis)
    return x


WINOGRAD, FEW = {"image": (2, 5, 7, 16), "outputs": 17}, {"image": (1, 5, 7, 32), "outputs": 3}
CASES = [
    conv((3, 3)),
    conv((3, 3), stride=2, pad=1, bias=True),  # no row is left over
    conv((2, 3), stride=2, pad=1),  # one row is left over, which no patch sees
    conv((4, 4), stride=3, pad=2, bias=True),
    conv((5, 3), pad=5),
    conv((1, 1), stride=3, pad=2),
    conv((9, 9), stride=2, pad=5, bias=True),
    conv((3, 3), stride=2, pad=1, bias=True, relu=True),
    conv((3, 3), image=(1, 3, 3, 1), outputs=1),
    conv((3, 3), pad=1, bias=True, **WINOGRAD),
    conv((3, 3), pad=1, bias=True, relu=True, **WINOGRAD),
    conv((9, 9), pad=4, bias=True, **FEW),
    conv((9, 9), pad=4, relu=True, **FEW),
    conv((3, 1), pad=1, image=(1, 5, 7, 64), outputs=2),  # few outputs of a narrow kernel
    conv((1, 9), pad=4, image=(1, 5, 7, 8), outputs=8),
    conv((1, 1), image=(2, 5, 7, 32), outputs=3, bias=True),
    conv((3, 3), pad=1, image=(2, 5, 7, 24), outputs=3, bias=True, relu=True),
    transpose((3, 3), 2, 1, 1, bias=True),  # the style net's
    transpose((3, 3), 1, 0),
    transpose((2, 3), 3, 0, 2, bias=True),  # a kernel smaller than the stride leaves gaps
    transpose((4, 4), 2, 1),
    transpose((5, 3), 3, 2, 1),
    transpose((1, 1), 2, 0, 1, bias=True),
    transpose((9, 9), 2, 4, 1),
    transpose((3, 3), 2, 1, 1, bias=True, **WINOGRAD),
    transpose((3, 3), 1, 1, **WINOGRAD),
    transpose((3, 3), 2, 1, 1, image=(1, 1, 1, 1), outputs=1),
    *(batch(**options) for options in ({}, {"eps": 0.1}, {"relu": True}, {"training": False})),
    batch(training=False, relu=True),
    batch((1, 4, 1, 2)),
    *(instance(**options) for options in ({}, {"eps": 0.1}, {"relu": True}, {"image": (3, 2, 2, 4)})),
    *(conditional(**options) for options in ({}, {"eps": 0.1}, {"relu": True})),
    conditional((3, 2, 2, 4), styles=1),
    *(case for pad in (0, 1, 4, 17) for case in one("reflect_pad2d", reflect, IMAGE, pad=pad)),
    *one("reflect_pad2d", reflect, (2, 1, 1, 3), (2, 1, 4, 3), (2, 2, 3, 3), pad=5),
    *(case for n in (0, 1, 2) for case in one("center_crop", crop, IMAGE, crop=n)),
    *one("max_pool2d", largest, IMAGE, (2, 4, 6, 3), (1, 2, 3, 1), linear=()),
    *one("max_pool2d", largest, (2, 7, 8, 3), linear=(), size=3),
    *one("max_pool2d", largest, IMAGE, linear=(), size=1),
    *(case for n in (1, 2, 3) for case in one("upsample_nearest", nearest, IMAGE, scale=n)),
    *one("upsample_smooth", smooth, IMAGE, (1, 1, 2, 3), (3, 2, 1, 4), (1, 9, 35, 2)),
    *(case for n in (1, 2, 3) for case in one("upsample_bicubic", bicubic, IMAGE, scale=n)),
    *one("upsample_bicubic", bicubic, (2, 1, 2, 3), scale=4),  # fewer pixels than the kernel has
    *one("relu", lambda x: np.where(x > 0, x, 0), IMAGE, (11,), linear=()),
    *one("scaled_tanh", lambda x, scale=150: scale * (1 - 2 / (np.exp(2 * x) + 1)), IMAGE, linear=()),
    *one("scaled_tanh", lambda x, scale: scale * (1 - 2 / (np.exp(2 * x) + 1)), (2, 5), linear=(), scale=2.5),
    *(
        Case("gram_matrix", {"f": shape}, definition=lambda f: np.einsum("nhwa,nhwe->nae", f, f) / f[0].size)
        for shape in (IMAGE, (1, 1, 1, 4), (3, 2, 6, 1), (2, 5, 7, 17))
    ),
]
GRID = [
    make(kernel, stride, pad, *rest)
    for kernel in ((1, 1), (2, 3), (3, 3), (4, 4), (9, 9))
    for stride in (1, 2, 3)
    for pad in (0, 1, 2)
    for make, *rest in ((conv,), *((transpose, output_pad) for output_pad in range(stride)))
    if make is transpose or kernel[0] <= 5 + 2 * pad
]


@row(CASES)
def test_row(xp, check, case):
    check(xp, case)


@pytest.mark.parametrize("case", GRID, ids=str)
def test_strides_and_pads(xp, case):
    """Both versions agree, and <y, dy> = <x, dx> = <w, dw>, because y is linear in each."""
    arrays, dy = on(xp, case.draw()), asarray(case.dy, xp)
    y, gradients = case.run(arrays, dy)
    assert_close(y, case.expected_y, 1e-10)
    for name, gradient in gradients.items():
        assert abs(float((gradient * arrays[name]).sum() - (y * dy).sum())) < 1e-9, name


@pytest.mark.parametrize("case", [CASES[7], CASES[9], CASES[11], CASES[17]], ids=str)
def test_need_leaves_out_and_changes_nothing_else(xp, case):
    for find in (ops.__dict__.get, plain):
        _, cache = case.forward(on(xp, case.draw()), find)
        dy, backward = asarray(case.dy, xp), find(f"{case.name}_backward")
        (dx, dw, db), only_dx = backward(dy, cache), backward(dy, cache, need=("x",))
        only_w = backward(dy, cache, need=("w",))
        assert only_dx[1] is only_dx[2] is only_w[0] is None
        for a, expected in ((only_dx[0], dx), (only_w[1], dw), (only_w[2], db)):
            assert expected is a is None or np.array_equal(to_numpy(a), to_numpy(expected))


# --- facts ---


def array(xp, *values, shape=None):
    return xp.asarray(np.array(values, float).reshape(shape or len(values)))


def test_conv_relu_passes_no_gradient_where_y_is_zero(xp):
    x = array(xp, -1, 0, 2, shape=(1, 1, 3, 1))
    y, cache = ops.conv2d(x, xp.ones((1, 1, 1, 1)), xp.zeros(1), relu=True)
    gradients = ops.conv2d_backward(array(xp, 3, 5, 7, shape=(1, 1, 3, 1)), cache)
    assert [to_numpy(a).ravel().tolist() for a in (y, *gradients)] == [[0, 0, 2], [0, 0, 7], [14], [7]]


def test_conv_transpose_of_one_pixel_is_the_kernel(xp):
    w = array(xp, *range(1, 10), shape=(3, 3, 1, 1))
    y, _ = ops.conv_transpose2d(xp.full((1, 1, 1, 1), 2.0), w, stride=2, pad=1, output_pad=1)
    assert to_numpy(y)[0, :, :, 0].tolist() == [[10, 12], [16, 18]]  # pad removes the first row and column


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_by_hand(xp, training):
    """1, 2, 3, 6: mean 3, variance 14/4 of the batch and 14/3 of the sample; PyTorch keeps the sample's."""
    x, mean, var = array(xp, 1, 2, 3, 6, shape=(2, 1, 2, 1)), array(xp, 1), array(xp, 15.5)
    for find in (ops.__dict__.get, plain):
        running = mean.copy(), var.copy()
        norm = find("batch_norm")
        y, _ = norm(x, array(xp, 2), array(xp, 7), *running, training, momentum=0.25, eps=0.5)
        offset, std = (3, 2) if training else (1, 4)  # sqrt(14/4 + 0.5), sqrt(15.5 + 0.5)
        expected = np.array([2 * (v - offset) / std + 7 for v in (1, 2, 3, 6)])
        assert_close(y.ravel(), expected, 1e-14)
        moved = (0.75 + 0.25 * 3, 0.75 * 15.5 + 0.25 * 14 / 3) if training else (1, 15.5)
        assert [float(v[0]) for v in running] == pytest.approx(moved, rel=1e-14)


def test_batch_norm_of_one_number_per_channel(xp):
    """The sample variance of one number is not defined, but running_var must stay a number."""
    mean, var = array(xp, 0), array(xp, 1)
    y, _ = ops.batch_norm(xp.full((1, 1, 1, 1), 3.0), array(xp, 1), array(xp, 0.5), mean, var)
    assert float(y.sum()) == 0.5
    assert math.isclose(float(mean[0]), 0.3) and math.isclose(float(var[0]), 0.9)


def test_instance_norm_treats_each_image_alone(xp):
    """Each image of a batch has the result that it has alone, at any brightness and contrast."""
    arrays = on(xp, instance().draw())
    y, _ = ops.instance_norm(**arrays, eps=0)
    louder = {**arrays, "x": xp.concatenate([100 * arrays["x"][1:] + 50, arrays["x"][:1]])}
    assert_close(ops.instance_norm(**louder, eps=0)[0][0], y[1], 1e-10)


def test_conditional_instance_norm_of_one_style_is_instance_norm(xp):
    """And only the styles in use get a gradient."""
    arrays, dy = on(xp, conditional().draw()), asarray(instance().dy, xp)
    arrays["mix"] = array(xp, 0, 0, 1, 0, 1, 0, 0, 0, shape=(2, 4))
    y, cache = ops.conditional_instance_norm(**arrays)
    _, dgamma, dbeta, _ = ops.conditional_instance_norm_backward(dy, cache)
    for i, style in enumerate((2, 0)):
        expected, alone = ops.instance_norm(
            arrays["x"][i : i + 1], *(arrays[n][style] for n in ("gamma", "beta"))
        )
        _, *gradients = ops.instance_norm_backward(dy[i : i + 1], alone)
        for a, e in zip((y[i : i + 1], dgamma[style], dbeta[style]), (expected, *gradients), strict=True):
            assert_close(a, e, 1e-12)
    assert not to_numpy(dgamma)[[1, 3]].any() and not to_numpy(dbeta)[[1, 3]].any()


@pytest.mark.parametrize(
    "case", [batch((2, 61, 67, 3)), instance((2, 61, 67, 3))], ids=lambda case: case.name
)
def test_norms_far_from_zero_in_float32(xp, case):
    """Mean 1000, standard deviation 0.1: of E[x^2] - E[x]^2 nothing would be left in float32."""
    arrays = case.draw()
    arrays["x"] = 1000 + 0.1 * arrays["x"]
    arrays, dy = on(np, arrays, np.float32), case.dy.astype(np.float32)
    single = case.run(on(xp, arrays), asarray(dy, xp))
    double = case.run(on(xp, arrays, np.float64), asarray(dy.astype(float), xp))
    assert_close(single[0], double[0], 1e-3)  # x itself is rounded to 6e-5, which is 6e-4 of the deviation
    for name, gradient in double[1].items():
        assert_close(single[1][name], gradient, 1e-3)


def test_instance_norm_of_one_pixel(xp):
    """A 1x1 image has no contrast: y is beta, and x gets no gradient."""
    y, cache = ops.instance_norm(xp.full((2, 1, 1, 3), 9.0), xp.ones(3), xp.full(3, 0.25))
    gradients = ops.instance_norm_backward(xp.ones(y.shape), cache)
    for a, expected in zip((y, *gradients), (0.25, 0, 0, 2), strict=True):
        assert (to_numpy(a) == expected).all()


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
    for find in (ops.__dict__.get, plain):
        _, cache = find("max_pool2d")(array(xp, *square, shape=(1, 2, 2, 1)))
        (dx,) = find("max_pool2d_backward")(xp.full((1, 1, 1, 1), 9.0), cache)
        assert to_numpy(dx).ravel().tolist() == gradient


def test_relu_at_zero(xp):
    y, cache = ops.relu(array(xp, -2, -0.0, 0, 1e-300, 3))
    (dx,) = ops.relu_backward(xp.full(5, 7.0), cache)
    assert [to_numpy(a).tolist() for a in (y, dx)] == [[0, 0, 0, 1e-300, 3], [0, 0, 0, 7, 7]]


def test_scaled_tanh_at_its_ends(xp):
    """Flat, at most the scale, and neither a warning nor a NaN however far out."""
    for dtype in (np.float32, np.float64):
        y, cache = ops.scaled_tanh(array(xp, -1e30, -20, 0, 20, 1e30).astype(dtype))
        (dx,) = ops.scaled_tanh_backward(xp.ones(5, dtype), cache)
        assert_close(y, np.array([-150, -150, 0, 150, 150]), 1e-7)
        assert np.abs(to_numpy(y)).max() <= 150
        assert_close(dx, np.array([0, 0, 150, 0, 0]), 1e-6)


def test_gram_matrix_does_not_depend_on_places(xp):
    f = np.random.default_rng(0).standard_normal((2, 6, 4, 3))
    moved = np.random.default_rng(1).permutation(f.reshape(2, 24, 3), axis=1).reshape(2, 3, 8, 3)
    gram, _ = ops.gram_matrix(asarray(f, xp))
    assert_close(ops.gram_matrix(asarray(moved, xp))[0], gram, 1e-12)


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_bicubic_is_pillows(xp, scale):
    image = photos(1, 11, 14, 1, dtype=np.float32)
    y, _ = ops.upsample_bicubic(asarray(image, xp), scale)
    pillow = Image.fromarray(image[0, :, :, 0]).resize((14 * scale, 11 * scale), Image.Resampling.BICUBIC)
    assert np.abs(to_numpy(y)[0, :, :, 0] - np.asarray(pillow)).max() < 1e-3


def test_smooth_enlargement_removes_what_is_drawn_on_the_grid():
    """A texture that changes its sign from pixel to pixel is gone, except at the edges; a slow one is
    kept."""
    rows, k = np.ones((1, 6, 1, 1)), np.arange(40)[None, None, :, None]
    assert np.abs(ops.upsample_smooth((-1.0) ** k * rows)[0][:, :, 8:-8]).max() < 1e-12
    assert np.abs(ops.upsample_smooth(np.cos(2 * np.pi * k / 20) * rows)[0]).max() > 0.9


# --- refused arguments ---

CONV, TRANSPOSE = {"x": IMAGE, "w": (3, 3, 3, 4)}, {"x": IMAGE, "w": (3, 3, 4, 3)}
COLOURS, STYLES = dict.fromkeys(CHANNELS, (3,)), conditional().shapes


@pytest.mark.parametrize(
    ("name", "operation", "shapes", "options"),
    [
        *(
            (name, "conv2d", CONV, {name: value})
            for name, value in (("stride", 0), ("stride", 1.5), ("pad", -1))
        ),
        ("stride", "conv2d", CONV, {"stride": True}),
        ("pad", "conv2d", CONV, {"pad": "same"}),
        ("w", "conv2d", CONV | {"w": (3, 3, 4, 3)}, {}),
        ("b", "conv2d", CONV | {"b": (3,)}, {}),
        ("x", "conv2d", CONV | {"x": (0, 5, 7, 3)}, {}),
        ("x", "conv2d", CONV | {"w": (6, 3, 3, 4)}, {}),  # smaller than the kernel
        ("stride", "conv_transpose2d", TRANSPOSE, {"stride": 0}),
        ("pad", "conv_transpose2d", TRANSPOSE, {"pad": -1}),
        ("pad", "conv_transpose2d", TRANSPOSE, {"pad": 9}),  # leaves nothing
        ("output_pad", "conv_transpose2d", TRANSPOSE, {"output_pad": 2}),  # not less than the stride
        ("output_pad", "conv_transpose2d", TRANSPOSE, {"output_pad": -1}),
        ("w", "conv_transpose2d", TRANSPOSE | {"w": (3, 3, 3, 4)}, {}),
        ("b", "conv_transpose2d", TRANSPOSE | {"b": (3,)}, {}),
        *((name, "batch_norm", {"x": IMAGE, **COLOURS, name: (4,)}, {}) for name in CHANNELS),
        *((n, "instance_norm", {"x": IMAGE, "gamma": (3,), "beta": (3,), n: (4,)}, {}) for n in CHANNELS[:2]),
        ("eps", "batch_norm", {"x": IMAGE, **COLOURS}, {"eps": -1}),
        *(
            (name, "conditional_instance_norm", STYLES | {name: shape}, {})
            for name, shape in (("gamma", (4, 4)), ("beta", (3, 3)), ("mix", (2, 3)), ("mix", (1, 4)))
        ),
        *(("pad", "reflect_pad2d", {"x": IMAGE}, {"pad": value}) for value in (-1, 1.0, "2", None)),
        *(("crop", "center_crop", {"x": IMAGE}, {"crop": value}) for value in (-1, 1.0, 3)),
        *(("size", "max_pool2d", {"x": IMAGE}, {"size": value}) for value in (0, -1, 2.0, True)),
        ("x", "max_pool2d", {"x": IMAGE}, {"size": 6}),
        *(("scale", f"upsample_{n}", {"x": IMAGE}, {"scale": 1.5}) for n in ("nearest", "bicubic")),
    ],
)
def test_refused_arguments_are_named(name, operation, shapes, options):
    arrays = {array: np.zeros(shape) for array, shape in shapes.items()}
    refuses(ValueError, name, lambda: getattr(ops, operation)(**arrays, **options))
