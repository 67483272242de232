"""The row of checks that every operation passes, on every device, and what the tests of operations share.

    CASES = [Case("conv2d", {"x": (2, 5, 7, 3), "w": (3, 3, 3, 4)}, {"pad": 1}, linear=("x", "w")), ...]

    @row(CASES)
    def test_row(xp, check, case):
        check(xp, case)

Each axis has its own size, so that two taken for each other do not fit. Upstream gradients are random. What is expected
comes from the operation's naive twin, on NumPy and in float64; it is computed once for all devices.
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
from tinynst.ops.fast import parallel

# Linear in x and without parameters: their backward needs no array of the forward, so dy may have its own dtype and device.
KEEP_NO_ARRAYS = ("center_crop", "reflect_pad2d", "upsample_bicubic", "upsample_smooth", "upsample_nearest")


@dataclass(eq=False)
class Case:
    """An operation of `tinynst.ops`, the shapes of its arrays, its options; it is linear in each of `linear` alone."""

    name: str
    shapes: dict
    options: dict = field(default_factory=dict)
    linear: tuple = ()

    def __str__(self):
        shapes = [f"{name}={'x'.join(map(str, shape))}" for name, shape in self.shapes.items()]
        return ",".join([self.name, *shapes, *(f"{key}={value}" for key, value in self.options.items())])

    @property
    def learnt(self):
        """The arrays that have a gradient, in its order."""
        return [name for name in self.shapes if not name.startswith("running_")]

    def draw(self, seed=0):
        """{name: NumPy array in float64}, standard normal, variances positive."""
        rng = np.random.default_rng(seed)
        arrays = {name: rng.standard_normal(shape) for name, shape in self.shapes.items()}
        return {
            name: np.abs(array) + 0.5 if name.endswith("_var") else array for name, array in arrays.items()
        }

    @functools.cached_property
    def dy(self):
        """A random upstream gradient."""
        return np.random.default_rng(1).standard_normal(self.twin(self.draw()).shape)

    def twin(self, arrays):
        """The naive twin's y of NumPy arrays."""
        options = dict(self.options)
        relu = options.pop("relu", False)  # the twins know only the operation itself
        y = getattr(ops, f"{self.name}_naive")(**arrays, **options)
        return np.maximum(y, 0) if relu else y

    def forward(self, arrays):
        """The operation's (y, cache); running statistics, which it may change, go in as copies."""
        arrays = {name: a.copy() if name.startswith("running_") else a for name, a in arrays.items()}
        return getattr(ops, self.name)(**arrays, **self.options)

    def backward(self, dy, cache):
        """{name: gradient}."""
        gradients = getattr(ops, f"{self.name}_backward")(dy, cache)
        assert isinstance(gradients, tuple)
        return {name: gradients[k] for k, name in enumerate(self.learnt)}

    def run(self, arrays, dy):
        """y and {name: gradient}."""
        y, cache = self.forward(arrays)
        return y, self.backward(dy, cache)

    @functools.cached_property
    def expected_y(self):
        return self.twin(self.draw())

    @functools.cached_property
    def slopes(self):
        """{name: [(direction, change of sum(y * dy) along it), ...]}: central differences of the twin. A direction moves
        every number of an array at once, so that each counts; what is cheap for one number of thousands is so for all."""
        arrays, rng, step = self.draw(), np.random.default_rng(2), 1e-5

        def change(name, direction):
            sides = [
                (self.twin(arrays | {name: arrays[name] + s * direction}) * self.dy).sum()
                for s in (step, -step)
            ]
            return (sides[0] - sides[1]) / (2 * step)

        directions = {
            name: [rng.standard_normal(self.shapes[name]) for _ in range(2)] for name in self.learnt
        }
        return {name: [(d, change(name, d)) for d in directions[name]] for name in self.learnt}


# --- the row ---


def check_twin(xp, case):
    """y is the twin's."""
    y, _ = case.forward(on(xp, case.draw()))
    assert y.dtype == np.float64
    assert isinstance(y, xp.ndarray)
    assert_close(y, case.expected_y, 1e-10)


def check_gradient(xp, case):
    """Every gradient is the slope of the twin, for a random dy."""
    arrays = case.draw()
    _, gradients = case.run(on(xp, arrays), asarray(case.dy, xp))
    for name, gradient in gradients.items():
        assert gradient.shape == arrays[name].shape
        assert gradient.dtype == np.float64
        assert isinstance(gradient, xp.ndarray)
        g = to_numpy(gradient)
        for direction, slope in case.slopes[name]:
            assert abs((g * direction).sum() - slope) <= 1e-6 * np.linalg.norm(g), f"d{name}"


def check_adjoint(xp, case):
    """Where y is linear in u: <A(u), dy> = <u, A'(dy)>, for any u."""
    arrays = on(xp, case.draw())
    dy = asarray(case.dy, xp)
    for name in case.linear:
        u = asarray(np.random.default_rng(3).standard_normal(case.shapes[name]), xp)
        y, gradients = case.run(arrays | {name: u}, dy)
        y = y - case.forward(arrays | {name: 0 * u})[0]  # without the bias
        left, right = float((y * dy).sum()), float((u * gradients[name]).sum())
        assert abs(left - right) <= 1e-11 * float((y * y).sum() * (dy * dy).sum()) ** 0.5, name


def check_float32(xp, case):
    """float32 in, float32 out, and the numbers of float64."""
    arrays = case.draw()
    y, gradients = case.run(on(xp, arrays, np.float32), asarray(case.dy.astype(np.float32), xp))
    exact = {name: a.astype(np.float32).astype(np.float64) for name, a in arrays.items()}
    y64, gradients64 = case.run(on(xp, exact), asarray(case.dy.astype(np.float32).astype(np.float64), xp))
    assert y.dtype == np.float32
    assert_close(y, y64, 3e-5)
    for name, gradient in gradients.items():
        assert gradient.dtype == np.float32
        assert_close(gradient, gradients64[name], 3e-5)


def check_noncontiguous(xp, case):
    """Transposed, strided and turned round views give what dense arrays give."""
    arrays, dy = on(xp, case.draw()), asarray(case.dy, xp)
    y, gradients = case.run(arrays, dy)
    for view in (_transposed, _strided, _turned):
        views = {name: view(xp, a) for name, a in arrays.items()}
        y_view, gradients_view = case.run(views, view(xp, dy))
        assert_close(y_view, y, 1e-12)
        for name, gradient in gradients.items():
            assert_close(gradients_view[name], gradient, 1e-12)


def check_unchanged(xp, case):
    """Forward and backward change no argument, and the cache serves twice."""
    arrays, dy = on(xp, case.draw()), asarray(case.dy, xp)
    y, cache = case.forward(arrays)
    y_before = to_numpy(y).copy()
    first = case.backward(dy, cache)
    first = {name: to_numpy(gradient).copy() for name, gradient in first.items()}
    second = case.backward(dy, cache)
    for name, gradient in second.items():
        assert np.array_equal(to_numpy(gradient), first[name])
    for name, array in case.draw().items():
        assert np.array_equal(to_numpy(arrays[name]), array), name
    assert np.array_equal(to_numpy(dy), case.dy)
    assert np.array_equal(to_numpy(y), y_before)


def check_own_memory(xp, case):
    """y and the gradients share no memory with an argument, nor with one another."""
    arrays, dy = on(xp, case.draw()), asarray(case.dy, xp)
    y, gradients = case.run(arrays, dy)
    results = {"y": y, **{f"d{name}": gradient for name, gradient in gradients.items()}}
    given = {**arrays, "dy": dy}
    for name, result in results.items():
        others = {**given, **{other: array for other, array in results.items() if other != name}}
        for other, array in others.items():
            assert not xp.may_share_memory(result, array), (name, other)


def check_same_twice(xp, case):
    """The same numbers, bit for bit, from the same arguments."""
    runs = [case.run(on(xp, case.draw()), asarray(case.dy, xp)) for _ in range(2)]
    (y, gradients), (y_again, gradients_again) = runs
    assert np.array_equal(to_numpy(y), to_numpy(y_again))
    for name, gradient in gradients.items():
        assert np.array_equal(to_numpy(gradient), to_numpy(gradients_again[name])), name


def check_refusals(xp, case):
    """A list, integers, another dtype, a wrong shape or another device: the error names the argument."""
    arrays, dy = on(xp, case.draw()), asarray(case.dy, xp)
    _, cache = case.forward(arrays)
    backward = getattr(ops, f"{case.name}_backward")
    upstream = next(iter(inspect.signature(backward).parameters))
    fixed_shape = case.name not in ("relu", "scaled_tanh")  # these take any

    def refused(error, name, wrong):
        refuses(error, name, lambda: case.forward(arrays | {name: wrong}))

    for name, array in arrays.items():
        refused(TypeError, name, to_numpy(array).tolist())
        refused(TypeError, name, array.astype(np.int64))
        if fixed_shape:
            refused(ValueError, name, array[None])
        if len(arrays) > 1:
            refused(TypeError, name, array.astype(np.float32))
            if xp is not np:
                refused(TypeError, name, to_numpy(array))
    for wrong in (to_numpy(dy).tolist(), dy.astype(np.int64)):
        refuses(TypeError, upstream, lambda wrong=wrong: backward(wrong, cache))
    if case.name not in KEEP_NO_ARRAYS:
        refuses(TypeError, upstream, lambda: backward(dy.astype(np.float32), cache))
        if xp is not np:
            refuses(TypeError, upstream, lambda: backward(to_numpy(dy), cache))
    for axis in range(dy.ndim):
        longer = xp.concatenate([dy, dy], axis=axis)
        refuses(ValueError, upstream, lambda longer=longer: backward(longer, cache))


ROW = (
    check_twin,
    check_gradient,
    check_float32,
    check_noncontiguous,
    check_unchanged,
    check_own_memory,
    check_same_twice,
)


def row(cases):
    """Parametrise a test by `check` and `case`: every check of the row for each case, refusals once for each operation."""
    checks = [(check, case) for case in cases for check in ROW]
    checks += [(check_adjoint, case) for case in cases if case.linear]
    fullest = {case.name: case for case in sorted(cases, key=lambda case: len(case.shapes))}  # with a bias
    checks += [(check_refusals, case) for case in fullest.values()]
    ids = [f"{check.__name__.removeprefix('check_')}-{case}" for check, case in checks]
    return pytest.mark.parametrize(("check", "case"), checks, ids=ids)


# --- what the checks are made of ---


def on(xp, arrays, dtype=None):
    """{name: array} on the device of `xp`."""
    return {name: asarray(a if dtype is None else a.astype(dtype), xp) for name, a in arrays.items()}


def assert_close(a, b, tolerance):
    """Same shape, and nowhere further apart than `tolerance` times the largest of b."""
    a, b = to_numpy(a), to_numpy(b)
    assert a.shape == b.shape
    assert np.isfinite(a).all()
    difference = np.abs(a.astype(np.float64) - b).max()
    assert difference <= tolerance * np.abs(b).max(), (
        f"differs by {difference}, the largest is {np.abs(b).max()}"
    )


def refuses(error, name, call):
    """`call` raises `error`, whose one line holds `name` as a word."""
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
    """The values of a, the last axis in memory first."""
    return xp.ascontiguousarray(a.T).T


def _strided(xp, a):
    """The values of a, with gaps between them on every axis."""
    wide = xp.zeros(tuple(2 * size + 1 for size in a.shape), a.dtype)
    part = wide[tuple(slice(1, None, 2) for _ in a.shape)]
    part[...] = a
    return part


def _turned(xp, a):
    """The values of a, every axis running backwards through memory."""
    turn = tuple(slice(None, None, -1) for _ in a.shape)
    return xp.ascontiguousarray(a[turn])[turn]


# --- a VGG-16 that is small enough to differentiate numerically ---


def vgg_weights(until="relu4_3", dtype=np.float64):
    """{"conv1_1": (w, b), ...} up to layer `until`: random, with 3, 4, 5, 6, 7 channels in the five blocks."""
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
