"""Adam against a scalar reference, and a whole training step."""

import math

import numpy as np
import pytest
from cases import assert_close, photos, refuses, small_vgg

from tinynst.device import asarray, to_numpy
from tinynst.losses import StyleObjective
from tinynst.networks import style_net
from tinynst.optim import Adam


def parameters(xp, dtype=np.float64):
    rng = np.random.default_rng(0)
    return {name: asarray(rng.standard_normal(shape).astype(dtype), xp) for name, shape in {"w": (2, 3), "b": (4,)}.items()}


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
    saved = {kind: {name: to_numpy(a).copy() for name, a in arrays.items()} for kind, arrays in moments.items()}
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
        net.backward(dy, input_gradient=False)
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
