"""Adam against its formula; L-BFGS against dense matrices and on functions with known minima."""

import json
import math
from functools import partial

import numpy as np
import pytest
from cases import assert_close, photos, refuses, small_vgg
from scipy.optimize import rosen, rosen_der

from tinynst.device import asarray, to_numpy
from tinynst.losses import StyleObjective
from tinynst.networks import style_net
from tinynst.optim import LBFGS, Adam, next_length

SHAPES = {"w": (2, 3), "b": (4,)}


def draw(xp, seed, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return {name: asarray(rng.standard_normal(shape).astype(dtype), xp) for name, shape in SHAPES.items()}


def saved(groups, numbers):
    """An optimiser's state after a trip through NumPy and JSON, as a checkpoint holds it."""
    groups = {key: {name: to_numpy(a).copy() for name, a in named.items()} for key, named in groups.items()}
    return groups, json.loads(json.dumps(numbers))


@pytest.mark.parametrize("settings", [(1e-3, 0.9, 0.999, 1e-8), (0.1, 0.5, 0.8, 1e-2)])
def test_adam_is_algorithm_1(xp, settings):
    """Also with a rate that changes, and with a share of the rate for one parameter. It works in place."""
    lr, b1, b2, eps = settings
    own, expected = draw(xp, 0), draw(np, 0)
    adam, views = Adam(own, lr, (b1, b2), eps), {name: p[:] for name, p in own.items()}
    adam.rates = {"b": 0.25}
    m, v = ({name: np.zeros(shape) for name, shape in SHAPES.items()} for _ in range(2))
    for t in range(1, 11):
        g = draw(np, t)
        given = {name: asarray(array.copy(), xp) for name, array in g.items()}
        adam.lr = lr * (1.5 if t > 5 else 1.0)
        adam.step(given)
        for name, p in expected.items():
            m[name] = b1 * m[name] + (1 - b1) * g[name]
            v[name] = b2 * v[name] + (1 - b2) * g[name] ** 2
            rate = adam.lr * (0.25 if name == "b" else 1.0)
            p -= rate * (m[name] / (1 - b1**t)) / (np.sqrt(v[name] / (1 - b2**t)) + eps)
            assert_close(views[name], p, 1e-14)
            assert np.array_equal(to_numpy(given[name]), g[name])


def test_adam_resumes_bit_for_bit(xp):
    """Straight through, and with the state saved and loaded after three steps; float32 stays float32."""
    straight, own = draw(xp, 0, np.float32), draw(xp, 0, np.float32)
    adam, first, second = Adam(straight), Adam(own), Adam(own)
    for step in range(6):
        if step == 3:
            second.load(*saved(*first.state()))
        for optimizer in (adam, first if step < 3 else second):
            optimizer.step(draw(xp, step, np.float32))
    assert second.t == 6 and all(p.dtype == np.float32 for p in own.values())
    assert all(np.array_equal(to_numpy(p), to_numpy(straight[name])) for name, p in own.items())


def test_wrong_settings_and_gradients_are_named():
    wrong = {"lr": [-1.0, math.nan], "eps": [0.0], "betas": [(0.9, 1.0), (-0.1, 0.9)]}
    wrong_lbfgs = {"memory": [0], "first_step": [0.0, math.nan], "c1": [0.95], "longest_search": [0]}
    for optimizer, settings, value in ((Adam, wrong, ()), (LBFGS, wrong_lbfgs, (1.0,))):
        for name, values in settings.items():
            for setting in values:
                refuses(ValueError, name, partial(optimizer, draw(np, 0), **{name: setting}))
        own = draw(np, 0)
        for name, g in (
            ("w", own | {"w": np.ones((3, 2))}),
            ("extra", own | {"extra": 0}),
            ("b", {"w": own["w"]}),
        ):
            refuses(ValueError, name, partial(optimizer(own).step, g, *value))
            assert all(np.array_equal(p, draw(np, 0)[key]) for key, p in own.items())
    refuses(ValueError, "nan", lambda: LBFGS(np.zeros(2)).step(np.ones(2), math.nan))
    refuses(ValueError, "gradient", lambda: LBFGS(np.zeros(2)).step(np.full(2, np.inf), 1.0))


def quadratic(xp=np, dtype=np.float64):
    """(x -> value and gradient of x.A.x/2 - c.x, its minimum): 12 numbers, A's eigenvalues from 1 to 100."""
    rng = np.random.default_rng(7)
    rotation, _ = np.linalg.qr(rng.standard_normal((12, 12)))
    a, c = (rotation * np.geomspace(1, 100, 12)) @ rotation.T, rng.standard_normal(12)
    minimum, (a, c) = np.linalg.solve(a, c), (asarray(array.astype(dtype), xp) for array in (a, c))
    return lambda x: (float((x * (0.5 * (a @ x) - c)).sum()), a @ x - c), minimum


@pytest.mark.filterwarnings("ignore:(invalid value|divide by zero)")
@pytest.mark.parametrize(
    ("objective", "start", "first_step", "evaluations", "minimum"),
    [
        (lambda x: (rosen(x), rosen_der(x)), [-1.2, 1.0] * 5, 1.0, 110, 1.0),
        (lambda x: (rosen(x), rosen_der(x)), [-1.2] * 6, 30.0, 90, 1.0),
        (quadratic()[0], [0.0] * 12, 1e-6, 50, quadratic()[1]),
        (quadratic()[0], [0.0] * 12, 1e3, 50, quadratic()[1]),
        (lambda x: (float(np.sin(x).sum()), np.cos(x)), [1.8, 1.6, 2.4], 0.01, 40, 1.5 * np.pi),
        (lambda x: (float((x - np.log(x)).sum()), 1 - 1 / x), [5.0, 9.0, 0.2], 50.0, 40, 1.0),
        (lambda x: (float(x @ x), np.where(abs(x + 0.5) < 0.2, np.nan, 2 * x)), [3.0, 4.0], 4.5, 12, 0.0),
    ],
    ids=["valley", "valley, long steps", "short", "long", "negative curvature", "value nan", "gradient nan"],
)
def test_lbfgs_finds_the_minimum(request, objective, start, first_step, evaluations, minimum):
    """And keeps the lowest point; one whose value or gradient is not finite is not taken."""
    x, values, usable = np.array(start), [], []
    optimizer = LBFGS({"a": x[:1].reshape(1, 1), "b": x[1:]}, first_step=first_step)
    for _ in range(evaluations):
        value, g = objective(x)
        optimizer.step({"a": g[:1].reshape(1, 1), "b": g[1:]}, value)
        usable.append(bool(np.isfinite(value) and np.isfinite(g).all()))
        values.append(value if usable[-1] else math.inf)
        best = np.concatenate([array.ravel() for array in optimizer.best().values()])
        assert optimizer.value == min(values) == pytest.approx(objective(best)[0], rel=1e-12)
        assert not np.shares_memory(optimizer.best()["b"], x)
    assert np.abs(best - minimum).max() < 1e-5
    assert optimizer.evaluations == evaluations and all(usable) == ("nan" not in request.node.name)


@pytest.mark.parametrize("memory", [1, 3, 20])
def test_lbfgs_directions_are_those_of_dense_bfgs(memory):
    """H from the last pairs by Nocedal and Wright's (6.17), starting from (7.20), in full matrices."""
    x, pairs = np.array([-1.2, 1.0, -0.7, 0.4, 0.3]), []
    start, optimizer = x.copy(), LBFGS(x, memory=memory)
    value, g = rosen(x), rosen_der(x)
    optimizer.step(g, value)
    for _ in range(12):
        h = np.eye(5) * (pairs[-1][0] @ pairs[-1][1] / (pairs[-1][1] @ pairs[-1][1]) if pairs else 1.0)
        for s, y in pairs[-memory:]:
            v = np.eye(5) - np.outer(y, s) / (s @ y)
            h = v.T @ h @ v + np.outer(s, s) / (s @ y)
        d = -h @ g
        tried, length = [(0.0, value, g @ d)], 1.0 if pairs else 1.0 / abs(d).max()
        while length is not None:
            assert_close(x, start + length * d, 1e-9)
            value, new, step = rosen(x), rosen_der(x), length * d
            optimizer.step(new, value)
            tried.append((length, value, new @ d))
            length = next_length(tried)
        pairs.append((step, new - g))
        start, g = start + step, new


def minimise(optimizer, objective, x, evaluations):
    for _ in range(evaluations):
        value, g = objective(x)
        optimizer.step(g, value)


def test_lbfgs_stops_at_the_minimum_and_stays_there(xp):
    objective, minimum = quadratic(xp)
    x = xp.zeros(12)
    optimizer = LBFGS(x)
    minimise(optimizer, objective, x, 40)
    assert_close(optimizer.best(), minimum, 1e-6)
    minimise(optimizer, objective, x, 160)
    before = to_numpy(x).copy()
    minimise(optimizer, objective, x, 2)
    assert optimizer.converged and isinstance(optimizer.best(), xp.ndarray)
    assert np.array_equal(to_numpy(x), before) and np.array_equal(before, to_numpy(optimizer.best()))
    flat = LBFGS(xp.ones(3))
    flat.step(xp.zeros(3), 5.0)  # a gradient of zero leads nowhere
    assert flat.converged and float(flat.best().sum()) == 3


@pytest.mark.parametrize(("stop", "first_step"), [(0, 20.0), (1, 20.0), (2, 20.0), (2, 1e-3), (20, 20.0)])
def test_lbfgs_resumes_bit_for_bit(xp, stop, first_step):
    """In float32, at any evaluation, also in the middle of a line."""
    objective, _ = quadratic(xp, np.float32)
    straight, own, again = (xp.ones(12, np.float32) for _ in range(3))
    optimizer, first, second = (LBFGS(x, memory=4, first_step=first_step) for x in (straight, own, again))
    minimise(optimizer, objective, straight, 26)
    minimise(first, objective, own, stop)
    state = saved(*first.state())
    second.load(*state)
    assert np.array_equal(to_numpy(again), to_numpy(own))
    minimise(second, objective, again, 26 - stop)
    for x, expected in ((again, straight), (second.best(), optimizer.best())):
        assert np.array_equal(to_numpy(x), to_numpy(expected))
    assert second.value == optimizer.value and second.evaluations == 26
    with pytest.raises(ValueError, match="saved for 12 numbers, the parameters hold 5"):
        LBFGS(xp.zeros(5, np.float32)).load(*state)


@pytest.mark.parametrize("first", [1e-3, 0.1, 1.0, 10.0, 1e3])
def test_the_search_ends_where_the_strong_wolfe_conditions_hold(first):
    for valley in (
        lambda t: (-t / (t * t + 2), (t * t - 2) / (t * t + 2) ** 2),  # Moré and Thuente: steep, then flat
        lambda t: (0.02 * (t - 5) ** 2 - np.sin(t), 0.04 * (t - 5) - np.cos(t)),
        lambda t: ((t - 2) ** 2, 2 * (t - 2)) if t < 3 else (math.nan, math.nan),
    ):
        tried, length = [(0.0, *valley(0.0))], first
        while length is not None and len(tried) <= 12:
            tried.append((length, *valley(length)))
            length = next_length(tried)
        (_, value, slope), (last, new_value, new_slope) = tried[0], tried[-1]
        assert length is None
        assert new_value <= value + 1e-4 * last * slope and abs(new_slope) <= 0.9 * abs(slope)
    for point, least, most in (
        ((1.0, 9.9995, -1.0), 0.1, 0.9),  # lower, but by less than c1 of what the slope promised
        ((1.0, 6.0, 7.5), 0.1, 0.9),  # past the minimum, and too steep
        ((1.0, 2.5, -7.5), 2.0, 10.0),  # as steep as before: the minimum is far
        ((1.0, math.inf, math.nan), 0.1, 0.1),  # close to the start
    ):
        assert least <= next_length([(0.0, 10.0, -8.0), point]) <= most
    assert next_length([(0.0, 10.0, -8.0), (1.0, 6.0, 6.0)]) is None


def test_a_training_step_hardly_waits_for_the_gpu(strict):
    """Python waits only where the losses are read, all at once; with read=False not even there."""
    net, vgg = style_net("batch", width=1, xp=strict), small_vgg(strict, "relu2_2", np.float32)
    batch = asarray(photos(2, 7, 10, 3, dtype=np.float32), strict)
    objective, adam = (
        StyleObjective(vgg, batch[:1], {"relu2_2": 1.0}, {"relu1_2": 5.0}, 1e-5),
        Adam(net.parameters()),
    )
    for read in (True, False, False):
        strict.reset_counters()
        _, dy = objective(net.forward(batch, training=True), objective.targets(batch), read)
        net.backward(dy, need=("w",))
        adam.step(net.gradients())
        assert strict.synchronisations == read
