"""Adam against a scalar reference, and a whole training step; L-BFGS on functions whose minimum is known, and
on VGG."""

import json
import math

import numpy as np
import pytest
from cases import assert_close, photos, refuses, small_vgg

from tinynst.device import asarray, to_numpy
from tinynst.losses import StyleObjective
from tinynst.networks import style_net
from tinynst.optim import LBFGS, Adam, next_length


def parameters(xp, dtype=np.float64):
    rng = np.random.default_rng(0)
    return {
        name: asarray(rng.standard_normal(shape).astype(dtype), xp)
        for name, shape in {"w": (2, 3), "b": (4,)}.items()
    }


def gradients(xp, step, dtype=np.float64):
    rng = np.random.default_rng(100 + step)
    drawn = {"w": rng.standard_normal((2, 3)), "b": 1e-3 * rng.standard_normal(4)}
    return {name: asarray(g.astype(dtype), xp) for name, g in drawn.items()}


def reference(p, gs, lr, b1, b2, eps):
    """Algorithm 1 of the paper for one number, as it stands there."""
    m = v = 0.0
    for t, g in enumerate(gs, 1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        p -= lr * (m / (1 - b1**t)) / (math.sqrt(v / (1 - b2**t)) + eps)
    return p


@pytest.mark.parametrize("settings", [(1e-3, 0.9, 0.999, 1e-8), (0.1, 0.5, 0.8, 1e-2)])
def test_ten_steps_are_the_papers(xp, settings):
    lr, b1, b2, eps = settings
    own = parameters(xp)
    adam = Adam(own, lr, (b1, b2), eps)
    for step in range(10):
        adam.step(gradients(xp, step))
    for name, start in parameters(np).items():
        for place in np.ndindex(start.shape):
            gs = [gradients(np, step)[name][place] for step in range(10)]
            assert abs(float(own[name][place]) - reference(start[place], gs, *settings)) < 1e-14


def test_a_constant_gradient_moves_by_lr(xp):
    """However large it is, from the first step on: that is what the division by 1 - b^t is for."""
    p = {"p": xp.zeros(3)}
    adam = Adam(p, lr=0.01)
    for step in (1, 2, 3):
        adam.step({"p": xp.asarray(np.array([1e-3, -1.0, 1e6]))})
        assert_close(p["p"], 0.01 * step * np.array([-1, 1, -1]), 1e-4)


def test_in_place_and_nothing_else_changes(xp):
    own, g = parameters(xp, np.float32), gradients(xp, 0, np.float32)
    same = dict(own)
    views = {name: p[:1] for name, p in own.items()}  # what shares the memory sees the step
    adam = Adam(own)
    adam.step(g)
    for name, start in parameters(np, np.float32).items():
        assert own[name] is same[name]
        assert own[name].dtype == np.float32
        assert np.array_equal(to_numpy(g[name]), gradients(np, 0, np.float32)[name])
        assert (to_numpy(views[name]) != start[:1]).all()


def test_the_rate_can_fall(xp):
    own = parameters(xp)
    adam = Adam(own)
    adam.lr = 0.0
    adam.step(gradients(xp, 0))
    for name, start in parameters(np).items():
        assert np.array_equal(to_numpy(own[name]), start)


def test_a_saved_state_goes_on_as_if_nothing_had_been(xp):
    """Straight through, and saved in NumPy arrays and taken back in the middle: the same bits."""
    straight = parameters(xp)
    adam = Adam(straight)
    for step in range(6):
        adam.step(gradients(xp, step))

    own = parameters(xp)
    first = Adam(own)
    for step in range(3):
        first.step(gradients(xp, step))
    moments, t = first.state()
    saved = {
        kind: {name: to_numpy(a).copy() for name, a in arrays.items()} for kind, arrays in moments.items()
    }
    assert t == 3
    second = Adam({name: p.copy() for name, p in own.items()})
    second.load(saved, t)
    for step in range(3, 6):
        second.step(gradients(xp, step))
    for name, p in second.parameters.items():
        assert np.array_equal(to_numpy(p), to_numpy(straight[name]))


@pytest.mark.parametrize("change", [lambda g: g.pop("b"), lambda g: g.update(extra=g["b"])])
def test_other_names_are_refused_before_anything_moves(change):
    own, g = parameters(np), gradients(np, 0)
    change(g)
    adam = Adam(own)
    odd = "extra" if "extra" in g else "b"
    refuses(ValueError, odd, lambda: adam.step(g))
    for name, start in parameters(np).items():
        assert np.array_equal(own[name], start)
    assert adam.t == 0


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"lr": -1.0}, "lr"),
        ({"lr": math.nan}, "lr"),
        ({"eps": 0.0}, "eps"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"betas": (-0.1, 0.9)}, "betas"),
    ],
)
def test_settings_that_cannot_be(settings, name):
    refuses(ValueError, name, lambda: Adam(parameters(np), **settings))


# --- L-BFGS ---


def quadratic(xp, n=12, condition=100.0, dtype=np.float64):
    """(value and gradient of x.A.x/2 - b.x, its minimum), A with eigenvalues from 1 to `condition`, NumPy's
    numbers on `xp`."""
    rng = np.random.default_rng(7)
    rotation, _ = np.linalg.qr(rng.standard_normal((n, n)))
    a = (rotation * np.geomspace(1, condition, n)) @ rotation.T
    b = rng.standard_normal(n)
    own_a, own_b = asarray(a.astype(dtype), xp), asarray(b.astype(dtype), xp)

    def objective(x):
        ax = own_a @ x
        return float((x * (0.5 * ax - own_b)).sum()), ax - own_b

    return objective, np.linalg.solve(a, b)


def rosenbrock(x):
    """A curved valley: the sum of 100 (x2 - x1^2)^2 + (1 - x1)^2 over neighbours; the minimum is 0, where all
    are 1."""
    a, b = x[:-1], x[1:]
    g = np.zeros_like(x)
    g[:-1] += -400 * a * (b - a * a) - 2 * (1 - a)
    g[1:] += 200 * (b - a * a)
    return float((100 * (b - a * a) ** 2 + (1 - a) ** 2).sum()), g


def minimise(optimizer, objective, x, evaluations):
    """The values, one for each evaluation, and what the optimiser said of the lowest after each."""
    values, lowest = [], []
    for _ in range(evaluations):
        value, g = objective(x)
        optimizer.step(g, value)
        values.append(value)
        lowest.append(optimizer.value)
    return values, lowest


def test_a_quadratic_is_solved_in_about_as_many_evaluations_as_it_has_directions(xp):
    objective, minimum = quadratic(xp)
    x = xp.zeros(12)
    optimizer = LBFGS(x)
    minimise(optimizer, objective, x, 40)
    assert_close(optimizer.best(), minimum, 1e-6)
    assert isinstance(optimizer.best(), xp.ndarray)


@pytest.mark.parametrize(("n", "evaluations"), [(2, 60), (10, 110)])
def test_rosenbrocks_valley_is_followed_to_its_end(n, evaluations):
    x = np.full(n, -1.2)
    x[1::2] = 1.0
    optimizer = LBFGS(x)
    minimise(optimizer, rosenbrock, x, evaluations)
    assert np.abs(optimizer.best() - 1).max() < 1e-5
    assert optimizer.evaluations == evaluations


def test_the_lowest_point_is_kept_and_handed_out():
    """Value and picture agree after every evaluation, also in the middle of a line; the caller's array is
    another one."""
    x = np.full(6, -1.2)
    optimizer, seen = LBFGS(x, first_step=30.0), []
    for _ in range(60):
        value, g = rosenbrock(x)
        seen.append(value)
        optimizer.step(g, value)
        assert optimizer.value == min(seen)
        best = optimizer.best()
        assert rosenbrock(best)[0] == optimizer.value
        assert not np.shares_memory(best, x)
    assert max(seen[1:]) > seen[0]  # some steps were too long, and were taken back
    assert optimizer.value < 1e-3 * seen[0]


@pytest.mark.parametrize("first_step", [1e-6, 1e-3, 1.0, 1e3])
def test_a_bad_first_step_costs_a_few_evaluations(first_step):
    objective, minimum = quadratic(np)
    x = np.zeros(12)
    optimizer = LBFGS(x, first_step=first_step)
    minimise(optimizer, objective, x, 50)
    assert_close(optimizer.best(), minimum, 1e-5)


def test_what_is_not_finite_is_stepped_back_from():
    """-log(x) + x has its minimum at 1 and no value below 0."""

    def objective(x):
        return float((x - np.log(x)).sum()), 1 - 1 / x

    x = np.array([5.0, 9.0, 0.2])
    with np.errstate(invalid="ignore", divide="ignore"):
        optimizer = LBFGS(x, first_step=50.0)
        values, lowest = minimise(optimizer, objective, x, 40)
    assert not np.isfinite(values).all()
    assert_close(optimizer.best(), np.ones(3), 1e-5)
    assert np.isfinite(lowest).all()


def test_a_gradient_that_is_not_finite_is_stepped_back_from():
    """The value is good there, the gradient says nothing: the point is not taken."""

    def objective(x):
        g = 2 * (x - 3)
        return float(((x - 3) ** 2).sum()), np.where(abs(x - 3) < 1, np.nan, g) if objective.calls == 2 else g

    x = np.array([0.0, -1.0])
    optimizer = LBFGS(x, first_step=3.5)
    for calls in range(1, 12):
        objective.calls = calls
        value, g = objective(x)
        optimizer.step(g, value)
    assert_close(optimizer.best(), np.full(2, 3.0), 1e-6)


def test_where_curvature_is_negative_it_goes_on_downhill():
    """Between two valleys, sin has none: pairs without curvature are passed over, and a minimum is found."""

    def objective(x):
        return float(np.sin(x).sum()), np.cos(x)

    x = np.array([1.8, 1.6, 2.4])
    optimizer = LBFGS(x, first_step=0.01)
    minimise(optimizer, objective, x, 40)
    assert_close(np.sin(optimizer.best()), -np.ones(3), 1e-9)


def test_at_the_minimum_it_stops_and_stays(xp):
    objective, _ = quadratic(xp)
    x = xp.zeros(12)
    optimizer = LBFGS(x)
    minimise(optimizer, objective, x, 400)
    assert optimizer.converged
    before = to_numpy(x).copy()
    assert np.array_equal(before, to_numpy(optimizer.best()))
    minimise(optimizer, objective, x, 3)
    assert np.array_equal(to_numpy(x), before)

    flat = xp.ones(3)
    optimizer = LBFGS(flat)
    optimizer.step(xp.zeros(3), 5.0)  # a gradient of zero leads nowhere
    assert optimizer.converged and float(flat.sum()) == 3


def test_a_dict_is_as_good_as_one_array(xp):
    objective, _ = quadratic(xp)
    whole = xp.zeros(12)
    parts = {"a": xp.zeros((2, 3)), "b": xp.zeros(6)}
    views = dict(parts)
    one, many = LBFGS(whole), LBFGS(parts)
    for _ in range(15):
        value, g = objective(whole)
        one.step(g, value)
        value, g = objective(xp.concatenate([parts["a"].ravel(), parts["b"]]))
        many.step({"a": g[:6].reshape(2, 3), "b": g[6:]}, value)
    best = many.best()
    assert np.array_equal(
        to_numpy(one.best()), np.concatenate([to_numpy(best["a"]).ravel(), to_numpy(best["b"])])
    )
    assert all(parts[name] is views[name] for name in views)


@pytest.mark.parametrize("stop", [0, 1, 2, 7, 20])
def test_lbfgs_saved_and_taken_back_goes_on_bit_for_bit(xp, stop):
    """In float32, at any evaluation, in the middle of a line too; the state goes through JSON and NumPy."""
    objective, _ = quadratic(xp, dtype=np.float32)
    straight, own = xp.ones(12, np.float32), xp.ones(12, np.float32)
    optimizer = LBFGS(straight, memory=4, first_step=20.0)
    minimise(optimizer, objective, straight, 26)

    first = LBFGS(own, memory=4, first_step=20.0)
    minimise(first, objective, own, stop)
    arrays, numbers = first.state()
    saved = {
        group: {name: to_numpy(a).copy() for name, a in named.items()} for group, named in arrays.items()
    }
    numbers = json.loads(json.dumps(numbers))
    again = xp.zeros(12, np.float32)
    second = LBFGS(again, memory=4, first_step=20.0)
    second.load(saved, numbers)
    assert np.array_equal(to_numpy(again), to_numpy(own))
    minimise(second, objective, again, 26 - stop)
    assert np.array_equal(to_numpy(again), to_numpy(straight))
    assert np.array_equal(to_numpy(second.best()), to_numpy(optimizer.best()))
    assert second.value == optimizer.value and second.evaluations == 26
    with pytest.raises(ValueError, match="saved for 12 numbers, the parameters hold 5"):
        LBFGS(xp.zeros(5, np.float32)).load(saved, numbers)


def test_memory_is_what_it_was_told():
    objective, _ = quadratic(np)
    x = np.zeros(12)
    optimizer = LBFGS(x, memory=3)
    minimise(optimizer, objective, x, 20)
    assert len(optimizer.pairs) == 3


def test_the_direction_is_newtons_where_all_is_remembered():
    """With pairs along every direction of a quadratic, the two loops multiply by the inverse of its
    matrix."""
    objective, _ = quadratic(np, n=5, condition=10)
    matrix = np.stack([objective(e)[1] - objective(np.zeros(5))[1] for e in np.eye(5)])
    x = np.zeros(5)
    optimizer = LBFGS(x)
    _, vectors = np.linalg.eigh(matrix)
    for s in vectors.T:  # conjugate directions: s.A.t = 0 for two of them
        optimizer._remember(s, matrix @ s)
    optimizer.g = np.random.default_rng(8).standard_normal(5)
    assert_close(optimizer._direction(), -np.linalg.solve(matrix, optimizer.g), 1e-10)


def test_lbfgs_lowers_a_vgg_objective_the_same_on_both_devices(xp):
    """A small VGG, float32: much lower than it began, by the same steps as on NumPy in float64."""

    def totals(xp, dtype):
        objective = StyleObjective(
            small_vgg(xp, "relu2_2", dtype),
            asarray(photos(1, 12, 9, 3).astype(dtype), xp),
            {"relu2_2": 1.0},
            {"relu1_2": 5.0},
            1e-5,
        )
        y = asarray(photos(1, 11, 14, 3, seed=6).astype(dtype), xp)
        targets = objective.targets(asarray(photos(1, 11, 14, 3, seed=7).astype(dtype), xp))
        optimizer = LBFGS(y, first_step=10.0)

        def value(y):
            terms, dy = objective(y, targets)
            return terms["total"], dy

        return minimise(optimizer, value, y, 25)[1]

    lowest, expected = totals(xp, np.float32), totals(np, np.float64)
    assert lowest[3] < 0.9 * lowest[0] and lowest[-1] < 0.1 * lowest[0]
    assert np.allclose(lowest[:6], expected[:6], rtol=1e-3)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"memory": 0}, "memory"),
        ({"first_step": 0.0}, "first_step"),
        ({"first_step": math.nan}, "first_step"),
        ({"c1": 0.9, "c2": 0.5}, "c1"),
        ({"longest_search": 0}, "longest_search"),
    ],
)
def test_lbfgs_settings_that_cannot_be(settings, name):
    refuses(ValueError, name, lambda: LBFGS(np.zeros(2), **settings))


def test_lbfgs_refuses_a_bad_start_and_other_gradients():
    refuses(ValueError, "nan", lambda: LBFGS(np.zeros(2)).step(np.ones(2), math.nan))
    refuses(ValueError, "gradient", lambda: LBFGS(np.zeros(2)).step(np.full(2, np.inf), 1.0))
    refuses(ValueError, "b", lambda: LBFGS({"a": np.zeros(2)}).step({"a": np.ones(2), "b": np.ones(2)}, 1.0))
    refuses(ValueError, "a", lambda: LBFGS({"a": np.zeros(2)}).step({"a": np.ones(3)}, 1.0))


# --- the line search ---


def looked_at(function, first, most=20):
    """[(length, value, slope), ...] as `next_length` asks for them; the last is accepted."""
    tried, length = [(0.0, *function(0.0))], first
    while length is not None and len(tried) <= most:
        tried.append((length, *function(length)))
        length = next_length(tried)
    return tried


VALLEYS = {
    "parabola": lambda t: ((t - 7) ** 2, 2 * (t - 7)),
    "steep, then flat": lambda t: (
        -t / (t * t + 2),
        (t * t - 2) / (t * t + 2) ** 2,
    ),  # More and Thuente, function 1
    "waves": lambda t: (0.02 * (t - 5) ** 2 - np.sin(t), 0.04 * (t - 5) - np.cos(t)),
    "a wall": lambda t: (-t, -1.0) if t < 3 else (math.inf, math.nan),
    "a wall behind the bottom": lambda t: ((t - 2) ** 2, 2 * (t - 2)) if t < 3 else (math.nan, math.nan),
}


@pytest.mark.parametrize("first", [1e-3, 0.1, 1.0, 10.0, 1e3])
@pytest.mark.parametrize("name", [name for name in VALLEYS if name != "a wall"])
def test_the_search_ends_where_the_strong_wolfe_conditions_hold(name, first):
    tried = looked_at(VALLEYS[name], first)
    (_, value, slope), (length, new_value, new_slope) = tried[0], tried[-1]
    assert len(tried) <= 12
    assert new_value <= value + 1e-4 * length * slope
    assert abs(new_slope) <= 0.9 * abs(slope)


def test_a_slope_that_never_flattens_is_followed_up_to_the_wall():
    """No place fulfils the conditions: the search closes in on the wall from the good side."""
    tried = looked_at(VALLEYS["a wall"], 1.0)
    assert min(value for _, value, _ in tried) < -2.9


def test_the_unit_step_is_taken_at_once_where_it_will_do():
    assert next_length([(0.0, 10.0, -8.0), (1.0, 6.0, -1.0)]) is None
    assert next_length([(0.0, 10.0, -8.0), (1.0, 6.0, 6.0)]) is None
    assert (
        next_length([(0.0, 10.0, -8.0), (1.0, 9.9995, -1.0)]) < 1
    )  # lower, but by less than c1 of what was promised
    assert (
        2 <= next_length([(0.0, 10.0, -8.0), (1.0, 2.5, -7.5)]) <= 10
    )  # as steep as before: the bottom is far


# --- all together ---


def train(xp, steps, norm):
    """`steps` of training; returns the last terms, all parameters and buffers."""
    net = style_net(norm, width=2, xp=xp, dtype=np.float64)
    objective = StyleObjective(
        small_vgg(xp, "relu2_2"), asarray(photos(1, 12, 9, 3), xp), {"relu2_2": 1.0}, {"relu1_2": 5.0}, 1e-5
    )
    adam = Adam(net.parameters())
    batch = asarray(photos(2, 11, 14, 3, seed=6), xp)
    for _ in range(steps):
        y = net.forward(batch, training=True)
        terms, dy = objective(y, objective.targets(batch))
        net.backward(dy, need=("w",))
        adam.step(net.gradients())
    return terms, {**net.parameters(), **net.buffers()}


@pytest.mark.parametrize("xp", ["strict", pytest.param("cupy", marks=pytest.mark.gpu)], indirect=True)
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_training_is_the_same_on_the_gpu(xp, norm):
    expected, arrays = train(np, 3, norm)
    terms, on_device = train(xp, 3, norm)
    assert terms.keys() == expected.keys()
    for name, value in terms.items():
        assert abs(value - expected[name]) <= 1e-8 * abs(expected[name])
    for name, array in arrays.items():
        assert_close(on_device[name], array, 1e-4)


def test_training_lowers_the_loss():
    first, second = (train(np, steps, "instance")[0]["total"] for steps in (1, 6))
    assert second < first


def test_a_step_hardly_waits_for_the_gpu(strict):
    """Python waits only where a loss becomes a float: content, style, and total variation's two sums."""
    train(strict, 1, "instance")  # and what making the nets costs
    once = strict.synchronisations
    strict.reset_counters()
    train(strict, 2, "instance")
    assert strict.synchronisations - once == 4


def test_adam_gives_some_parameters_a_share_of_the_rate():
    """The first step is lr in size whatever the gradient is."""
    p = {"a": np.zeros(3), "b": np.zeros(3)}
    adam = Adam(p, lr=0.1)
    adam.rates = {"b": 0.25}
    adam.step({"a": np.array([1.0, -2, 3]), "b": np.array([1.0, -2, 3])})
    np.testing.assert_allclose(p["a"], [-0.1, 0.1, -0.1], rtol=1e-6)
    np.testing.assert_allclose(p["b"], [-0.025, 0.025, -0.025], rtol=1e-6)
