"""The kernels of norms, enlargement, pooling, Gram matrices, losses and Adam, at sizes with several blocks
and parts of which none is full. The row of checks in test_ops.py has the small sizes."""

import numpy as np
import pytest
from cases import Case, assert_close, on, photos, plain, small_vgg
from test_losses import gram, normal, total_variation
from test_ops import batch, conditional, instance, one

from tinynst import losses, ops
from tinynst.device import asarray, floats, to_numpy
from tinynst.losses import StyleObjective
from tinynst.networks import style_net
from tinynst.ops.fast.cuda import launch
from tinynst.optim import Adam

DTYPES = pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-10)])


NORMS = [  # 37 channels: a block of 32 and one of 5; 437 pixels of an image: 7 parts
    batch((2, 19, 23, 37), relu=True),
    batch((2, 19, 23, 37), training=False),
    instance((2, 19, 23, 37)),
    instance((2, 19, 23, 37), relu=True),
    conditional((2, 19, 23, 37), styles=5, relu=True),
]
GRAMS = [Case("gram_matrix", {"f": shape}) for shape in ((2, 23, 29, 7), (1, 17, 31, 130))]  # 130: 6 tiles
CASES = [
    *NORMS,
    *GRAMS,
    *one("reflect_pad2d", None, (2, 45, 47, 3), pad=40),
    *one("upsample_nearest", None, (2, 11, 13, 20), scale=3),
    *one("upsample_smooth", None, (2, 11, 13, 20)),
    *one("upsample_bicubic", None, (2, 11, 13, 20), scale=4),
    *one("max_pool2d", None, (2, 26, 29, 33), size=3),
    *one("scaled_tanh", None, (2, 17, 19, 3)),
    *one("relu", None, (2, 17, 19, 3)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@DTYPES
def test_agrees_with_the_plain_version(cp, case, dtype, tolerance):
    arrays, dy = on(np, case.draw(), dtype), case.dy.astype(dtype)
    y, gradients = case.run(on(cp, arrays), asarray(dy, cp))
    expected, slopes = case.run(on(np, arrays, np.float64), dy.astype(np.float64), plain)
    assert y.dtype == dtype
    assert_close(y, expected, tolerance)
    for name, slope in slopes.items():
        assert gradients[name].dtype == dtype
        assert_close(gradients[name], slope, tolerance)


@DTYPES
def test_batch_norm_updates_running_statistics(cp, dtype, tolerance):
    arrays = on(np, batch((2, 19, 23, 37)).draw(), dtype)
    running = [arrays.pop(name) for name in ("running_mean", "running_var")]
    there = [asarray(np.stack([a, a], axis=1), cp)[:, 0] for a in running]  # not contiguous
    ops.batch_norm(**on(cp, arrays), running_mean=there[0], running_var=there[1], momentum=0.3)
    plain("batch_norm")(**arrays, running_mean=running[0], running_var=running[1], momentum=0.3)
    for a, expected in zip(there, running, strict=True):
        assert_close(a, expected, tolerance)


def test_not_a_number_is_passed_on(cp):
    """Otherwise a net that diverges would not be noticed."""
    x = np.ones((1, 4, 4, 3))
    x[0, 1, 1, 1] = np.nan
    x = asarray(x, cp)
    y, cache = ops.instance_norm(x, cp.ones(3), cp.zeros(3), relu=True)
    for result in (y, *ops.instance_norm_backward(x, cache)[:1]):
        assert np.isnan(to_numpy(result)[..., 1]).all() and np.isfinite(to_numpy(result)[..., ::2]).all()
    assert np.isnan(to_numpy(ops.max_pool2d(x)[0])).sum() == 1


# --- losses and Adam ---


@DTYPES
def test_losses_of_many_parts(cp, dtype, tolerance):
    f, target = (normal(2, 29, 31, 70, seed=seed).astype(dtype) for seed in (0, 1))
    one_gram = gram(target[:1].astype(np.float64)).astype(dtype)
    for goal in (one_gram, one_gram[0], gram(target.astype(np.float64)).astype(dtype)):
        value, df = losses.style_loss(asarray(f, cp), asarray(goal, cp), 2.5)
        expected, slope = losses.style_loss(f.astype(float), goal.astype(float), 2.5)
        assert abs(float(value) - expected) <= tolerance * expected
        assert_close(df, slope, tolerance)
    value, df = losses.feature_loss(asarray(f, cp), asarray(target, cp), 2.5)
    expected = 2.5 * ((f.astype(float) - target) ** 2).mean()
    assert abs(float(value) - expected) <= tolerance * expected
    assert_close(df, 5 * (f.astype(float) - target) / f.size, tolerance)
    value, df = losses.tv_loss(asarray(f, cp), 2.5)
    assert abs(float(value) - 2.5 * total_variation(f.astype(float))) <= tolerance * float(value)
    assert_close(df, losses.tv_loss(f.astype(float), 2.5)[1], tolerance)


@DTYPES
def test_adam(cp, dtype, tolerance):
    start = {"a": normal(7, 90).astype(dtype), "b": normal(1, seed=1).astype(dtype)}
    ours, theirs = on(cp, start), {name: a.astype(float) for name, a in start.items()}
    ours["b"] = cp.stack([ours["b"], ours["b"]], axis=1)[:, 0]  # not contiguous
    optimizers = [Adam(ours, lr=0.1), Adam(theirs, lr=0.1)]
    for k in range(4):
        gradients = {name: normal(*a.shape, seed=k).astype(dtype) for name, a in start.items()}
        for optimizer, put in zip(optimizers, (cp, np), strict=True):
            optimizer.rates = {"b": 3.0}
            optimizer.step(
                {n: asarray(g if put is cp else g.astype(float), put) for n, g in gradients.items()}
            )
    for name, array in ours.items():
        assert_close(array, theirs[name], tolerance)
        for kind in ("m", "v"):
            assert_close(getattr(optimizers[0], kind)[name], getattr(optimizers[1], kind)[name], tolerance)


# --- launches ---


@pytest.mark.parametrize(("case", "launches"), [(NORMS[2], 4), (GRAMS[0], 5), *((c, 2) for c in CASES[7:12])])
def test_few_launches(kernels, case, launches):
    """Forward and backward; Gram's backward pass is two array expressions and a product."""
    arrays, dy = on(kernels, case.draw()), asarray(case.dy, kernels)
    case.run(arrays, dy)
    kernels.reset_counters()
    case.run(arrays, dy)
    assert (kernels.launches, kernels.synchronisations) == (launches, 0)


def test_a_training_step(kernels):
    """By kernels, it has the losses that it has on the CPU, and few launches; it never waits for the GPU."""
    style = {name: 5.0 for name in ("relu1_2", "relu2_2", "relu3_3", "relu4_3")}

    def steps(xp):
        net, vgg = style_net(width=1, padding="each", xp=xp), small_vgg(xp, "relu4_3", np.float32)
        batch = asarray(photos(2, 8, 9, 3, dtype=np.float32), xp)
        objective, adam = (
            StyleObjective(vgg, batch[:1], {"relu2_2": 1.0}, style, 1e-3),
            Adam(net.parameters()),
        )
        for _ in range(2):
            kernels.reset_counters()
            y = net.forward(batch, training=True)
            terms, dy = objective(y, objective.targets(batch), read=False)
            net.backward(dy, need=("w",))
            adam.step(net.gradients())
            yield terms, kernels.launches, kernels.synchronisations

    for (terms, launches, waits), (expected, *_) in zip(steps(kernels), steps(np), strict=True):
        assert launches <= 350 and waits == 0
        assert floats(terms) == pytest.approx(expected, rel=1e-4)


# --- what would go wrong ---

BARRIERS = {"norm.cu": NORMS[2], "norm_backward.cu": NORMS[2], "gram.cu": GRAMS[0], "losses.cu": None}
REMOVED = [
    (file, which)
    for file in BARRIERS
    for which in range((launch.FOLDER / file).read_text().count("__syncthreads();"))
]


@pytest.mark.parametrize(("file", "which"), REMOVED)
def test_a_removed_barrier_is_found(kernels, monkeypatch, file, which):
    source = launch.source
    pieces = source(file).split("__syncthreads();")
    broken = "__syncthreads();".join(pieces[: which + 1]) + "__syncthreads();".join(pieces[which + 1 :])
    monkeypatch.setattr(launch, "source", lambda name: broken if name == file else source(name))
    case = BARRIERS[file]
    with pytest.raises(RuntimeError, match="order of threads"):
        if case is None:
            losses.tv_loss(asarray(normal(2, 5, 7, 3), kernels))
        else:
            case.run(on(kernels, case.draw()), asarray(case.dy, kernels))
