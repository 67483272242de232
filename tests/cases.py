"""The row of checks that every operation passes, on every device, and what the tests of operations share.

    CASES = [Case("conv2d", {"x": (2, 5, 7, 3), "w": (3, 3, 3, 4)}, {"pad": 1}, linear=("x", "w")), ...]

    @row(CASES)
    def test_row(xp, check, case):
        check(xp, case)

Each axis has its own size, so that two that are mixed up do not fit. Upstream gradients are random.
"""

import functools
import inspect
import re
from dataclasses import dataclass, field

import numpy as np
import pytest

from tinynst import ops
from tinynst.device import asarray, to_numpy
from tinynst.networks.vgg import LAYERS, VGG16
from tinynst.ops import activations, conv, conv_transpose, gram, norms, padding, pooling, resampling
from tinynst.ops.fast import parallel

PLAIN = (activations, conv, conv_transpose, gram, norms, padding, pooling, resampling)
# Their caches hold no array, so dy may have its own dtype and device.
NO_ARRAYS = ("center_crop", "reflect_pad2d", "upsample_bicubic", "upsample_smooth", "upsample_nearest")


def plain(name):
    """The plain version of an operation, or of its backward: of those without a fast version the only one."""
    return next(vars(module)[name] for module in PLAIN if name in vars(module))


@dataclass(eq=False)
class Case:
    """An operation, the shapes of its arrays and its options; it is linear in each of `linear` alone.
    `definition` is an independent NumPy expression of the same arguments (not of relu)."""

    name: str
    shapes: dict
    options: dict = field(default_factory=dict)
    linear: tuple = ()
    definition: object = None

    def __str__(self):
        shapes = [f"{name}={'x'.join(map(str, shape))}" for name, shape in self.shapes.items()]
        return ",".join([self.name, *shapes, *(f"{key}={value}" for key, value in self.options.items())])

    @property
    def learnt(self):
        """The arrays that have a gradient, in order."""
        return [name for name in self.shapes if not name.startswith("running_")]

    def draw(self, seed=0):
        """{name: NumPy array in float64}, standard normal, variances positive."""
        rng = np.random.default_rng(seed)
        arrays = {name: rng.standard_normal(shape) for name, shape in self.shapes.items()}
        return {name: np.abs(a) + 0.5 if name.endswith("_var") else a for name, a in arrays.items()}

    def forward(self, arrays, find=ops.__dict__.get):
        """(y, cache); running statistics, which forward changes, go in as copies. find=plain: the plain
        version."""
        arrays = {name: a.copy() if name.startswith("running_") else a for name, a in arrays.items()}
        return find(self.name)(**arrays, **self.options)

    def run(self, arrays, dy, find=ops.__dict__.get):
        """y and {name: gradient}."""
        y, cache = self.forward(arrays, find)
        return y, self.backward(dy, cache, find)

    def backward(self, dy, cache, find=ops.__dict__.get):
        gradients = find(f"{self.name}_backward")(dy, cache)
        assert isinstance(gradients, tuple)
        return {name: gradients[k] for k, name in enumerate(self.learnt)}

    @functools.cached_property
    def expected_y(self):
        if self.definition is None:
            return self.forward(self.draw(), plain)[0]
        options = dict(self.options)
        relu = options.pop("relu", False)
        y = self.definition(**self.draw(), **options)
        return np.maximum(y, 0) if relu else y

    @functools.cached_property
    def dy(self):
        """A random upstream gradient."""
        return np.random.default_rng(1).standard_normal(self.expected_y.shape)

    @functools.cached_property
    def slopes(self):
        """{name: [(direction, change of sum(y * dy) along it), ...]}: central differences of the plain
        version. A direction moves every number of an array at once, so that each counts."""
        arrays, rng = self.draw(), np.random.default_rng(2)

        def along(name, direction):
            def value(array):
                return (self.forward(arrays | {name: array}, plain)[0] * self.dy).sum()

            return direction, slope(value, arrays[name], direction, 1e-5)

        draw = rng.standard_normal
        return {name: [along(name, draw(self.shapes[name])) for _ in range(2)] for name in self.learnt}


# --- the row ---


def check_values(xp, case):
    """y, of both versions, is the definition's."""
    for find in (ops.__dict__.get, plain):
        y, _ = case.forward(on(xp, case.draw()), find)
        assert y.dtype == np.float64
        assert isinstance(y, xp.ndarray)
        assert_close(y, case.expected_y, 1e-10)


def check_gradient(xp, case):
    """Every gradient is the slope of the plain forward for a random dy, and that of the plain backward."""
    arrays, dy = case.draw(), asarray(case.dy, xp)
    _, gradients = case.run(on(xp, arrays), dy)
    _, others = case.run(on(xp, arrays), dy, plain)
    for name, gradient in gradients.items():
        assert gradient.shape == arrays[name].shape
        assert gradient.dtype == np.float64
        assert isinstance(gradient, xp.ndarray)
        assert_close(others[name], gradient, 1e-10)
        g = to_numpy(gradient)
        for direction, expected in case.slopes[name]:
            assert abs((g * direction).sum() - expected) <= 1e-6 * np.linalg.norm(g), f"d{name}"


def check_adjoint(xp, case):
    """Where y is linear in u: <A(u), dy> = <u, A'(dy)>, for any u."""
    arrays, dy = on(xp, case.draw()), asarray(case.dy, xp)
    for name in case.linear:
        u = asarray(np.random.default_rng(3).standard_normal(case.shapes[name]), xp)
        y, gradients = case.run(arrays | {name: u}, dy)
        y = y - case.forward(arrays | {name: 0 * u})[0]  # without the bias
        left, right = float((y * dy).sum()), float((u * gradients[name]).sum())
        assert abs(left - right) <= 1e-11 * float((y * y).sum() * (dy * dy).sum()) ** 0.5, name


def check_float32(xp, case):
    """float32 in, float32 out, and the numbers of float64, in both versions."""
    arrays, dy = on(np, case.draw(), np.float32), case.dy.astype(np.float32)
    expected = case.run(on(xp, arrays, np.float64), asarray(dy.astype(np.float64), xp))
    for find in (ops.__dict__.get, plain):
        y, gradients = case.run(on(xp, arrays), asarray(dy, xp), find)
        for array, double in ((y, expected[0]), *((gradients[n], expected[1][n]) for n in gradients)):
            assert array.dtype == np.float32
            assert_close(array, double, 3e-5)


def check_views(xp, case):
    """Transposed, strided and reversed views give what contiguous arrays give."""
    arrays, dy = on(xp, case.draw()), asarray(case.dy, xp)
    expected = case.run(arrays, dy)
    for view in (_transposed, _strided, _reversed):
        assert_same(case.run({name: view(xp, a) for name, a in arrays.items()}, view(xp, dy)), expected)


def check_many_blocks(xp, case):
    """A block for each row gives what one block gives."""
    arrays, dy = on(xp, case.draw()), asarray(case.dy, xp)
    expected = case.run(arrays, dy)
    with pytest.MonkeyPatch.context() as patch:
        one_row_blocks(patch)
        assert_same(case.run(arrays, dy), expected)


def check_unchanged(xp, case):
    """Forward and backward change no argument; a second backward, and a second run, give the same bits; and y
    and the gradients share no memory with an argument, nor with each other."""
    arrays, dy = on(xp, case.draw()), asarray(case.dy, xp)
    y, cache = case.forward(arrays)
    before, first = to_numpy(y).copy(), case.backward(dy, cache)
    copies = {name: to_numpy(gradient).copy() for name, gradient in first.items()}
    y_again, cache_again = case.forward(on(xp, case.draw()))
    for again in (case.backward(dy, cache), case.backward(dy, cache_again)):
        for name, gradient in again.items():
            assert np.array_equal(to_numpy(gradient), copies[name]), name
    for name, array in case.draw().items():
        assert np.array_equal(to_numpy(arrays[name]), array), name
    for array, expected in ((dy, case.dy), (y, before), (y_again, before)):
        assert np.array_equal(to_numpy(array), expected)
    arrays |= {"dy": dy, "y": y, **{f"d{name}": gradient for name, gradient in first.items()}}
    for result in ("y", *(f"d{name}" for name in first)):
        for other in arrays.keys() - {result}:
            assert not xp.may_share_memory(arrays[result], arrays[other]), (result, other)


def check_refusals(xp, case):
    """A list, integers, another dtype, a wrong shape or another device: the error names the argument."""
    arrays, dy = on(xp, case.draw()), asarray(case.dy, xp)
    _, cache = case.forward(arrays)
    for find in (ops.__dict__.get, plain):
        backward = find(f"{case.name}_backward")
        upstream = next(iter(inspect.signature(backward).parameters))
        calls = []
        for name, array in arrays.items():
            wrong = [(TypeError, to_numpy(array).tolist()), (TypeError, array.astype(np.int64))]
            if case.name not in ("relu", "scaled_tanh"):  # these take any shape
                wrong.append((ValueError, array[None]))
            if len(arrays) > 1:
                wrong.append((TypeError, array.astype(np.float32)))
                if xp is not np:
                    wrong.append((TypeError, to_numpy(array)))
            calls += [(e, name, functools.partial(case.forward, arrays | {name: w}, find)) for e, w in wrong]
        wrong = [(TypeError, to_numpy(dy).tolist()), (TypeError, dy.astype(np.int64))]
        wrong += [(ValueError, xp.concatenate([dy, dy], axis=axis)) for axis in range(dy.ndim)]
        if case.name not in NO_ARRAYS:
            wrong.append((TypeError, dy.astype(np.float32)))
            if xp is not np:
                wrong.append((TypeError, to_numpy(dy)))
        _, cache = case.forward(arrays, find)
        calls += [(e, upstream, functools.partial(backward, w, cache)) for e, w in wrong]
        for error, name, call in calls:
            refuses(error, name, call)


def row(cases):
    """Parametrise a test by `check` and `case`: all checks for each case, refusals once for each
    operation."""
    checks = (check_values, check_gradient, check_float32, check_views, check_unchanged)
    rows = [(check, case) for case in cases for check in checks]
    rows += [(check_adjoint, case) for case in cases if case.linear]
    rows += [(check_many_blocks, case) for case in cases if plain(case.name) is not vars(ops)[case.name]]
    fullest = {case.name: case for case in sorted(cases, key=lambda case: len(case.shapes))}  # with a bias
    rows += [(check_refusals, case) for case in fullest.values()]
    ids = [f"{check.__name__.removeprefix('check_')}-{case}" for check, case in rows]
    return pytest.mark.parametrize(("check", "case"), rows, ids=ids)


# --- what the checks are made of ---


def on(xp, arrays, dtype=None):
    """{name: array} on the device of `xp`."""
    return {name: asarray(a if dtype is None else a.astype(dtype), xp) for name, a in arrays.items()}


def assert_close(a, expected, tolerance):
    """Same shape, and nowhere further apart than `tolerance` times the largest expected number."""
    a, expected = to_numpy(a), to_numpy(expected)
    assert a.shape == expected.shape
    assert np.isfinite(a).all()
    difference, largest = np.abs(a.astype(np.float64) - expected).max(), np.abs(expected).max()
    assert difference <= tolerance * largest, f"differs by {difference}, the largest is {largest}"


def assert_same(result, expected, tolerance=1e-12):
    """The same (y, {name: gradient})."""
    assert_close(result[0], expected[0], tolerance)
    for name, gradient in expected[1].items():
        assert_close(result[1][name], gradient, tolerance)


def refuses(error, name, call):
    """`call` raises `error` with one line of text that holds `name` as a word."""
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert re.search(rf"\b{re.escape(name)}\b", message), f"{name!r} is not named in: {message}"
    assert "\n" not in message


def one_row_blocks(monkeypatch):
    """Cut the work into as many blocks as there are rows (on the CPU), however small the arrays."""
    cut = parallel.blocks

    def blocks(xp, images, rows, row_bytes, block_bytes=None):
        return cut(xp, images, rows, row_bytes, row_bytes)

    monkeypatch.setattr(parallel, "blocks", blocks)


def counted(monkeypatch, module, name):
    """A list that gets an entry at each call of `module.name` from now on."""
    calls, function = [], getattr(module, name)

    def counting(*args, **kwargs):
        calls.append(name)
        return function(*args, **kwargs)

    monkeypatch.setattr(module, name, counting)
    return calls


def _transposed(xp, a):
    """The values of a, with the last axis in memory first."""
    return xp.ascontiguousarray(a.T).T


def _strided(xp, a):
    """The values of a, with gaps between them on every axis."""
    wide = xp.zeros(tuple(2 * size + 1 for size in a.shape), a.dtype)
    part = wide[tuple(slice(1, None, 2) for _ in a.shape)]
    part[...] = a
    return part


def _reversed(xp, a):
    """The values of a, with every axis running backwards through memory."""
    turn = tuple(slice(None, None, -1) for _ in a.shape)
    return xp.ascontiguousarray(a[turn])[turn]


# --- a VGG-16 that is small enough to differentiate numerically ---


def vgg_weights(until="relu4_3", dtype=np.float64):
    """{"conv1_1": (w, b), ...} up to layer `until`: random, with 3, 4, 5, 6, 7 channels in the five
    blocks."""
    rng, weights, c = np.random.default_rng(4), {}, 3
    for layer in LAYERS[: LAYERS.index(until) + 1]:
        o = 2 + int(layer[4])
        w = rng.standard_normal((3, 3, c, o)) * np.sqrt(2 / (9 * c))  # He: the features keep their size
        weights[layer.replace("relu", "conv")] = w.astype(dtype), rng.standard_normal(o).astype(dtype)
        c = o
    return weights


def small_vgg(xp=np, until="relu4_3", dtype=np.float64):
    return VGG16(vgg_weights(until, dtype), xp)


def photos(*shape, seed=5, dtype=np.float64):
    """Random images in 0..255, NumPy."""
    return np.random.default_rng(seed).uniform(0, 255, shape).astype(dtype)


def slope(value, x, direction, step):
    """The central difference of value(x) along `direction`; x a NumPy array."""
    return (value(x + step * direction) - value(x - step * direction)) / (2 * step)
