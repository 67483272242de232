"""The losses against their definitions, and the whole objective through a small VGG."""

from functools import partial

import numpy as np
import pytest
from cases import assert_close, one_row_blocks, photos, refuses, slope, small_vgg

from tinynst.device import asarray, to_numpy
from tinynst.losses import StyleObjective, feature_loss, grid_loss, pixel_loss, style_loss, tv_loss

SHAPE = (2, 5, 7, 3)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def gram(f):
    """Eq. 3, (N, C, C)."""
    return np.einsum("nhwc,nhwd->ncd", f, f) / f[0].size


F, TARGET = normal(*SHAPE), normal(*SHAPE, seed=1)
GRAM, GRAMS = gram(normal(1, 4, 9, 3, seed=2)), gram(normal(*SHAPE, seed=3))


def frobenius(target, f):
    return sum(np.linalg.norm(gram(f)[n] - target[n % len(target)]) ** 2 for n in (0, 1)) / 2


def total_variation(y):
    return 0.5 * sum((np.diff(y, axis=axis) ** 2).sum() for axis in (1, 2)) / 2


def grid(period, y):
    """In each square of 2x2 periods and each channel: the variance of the means at its period^2 places."""
    variances, places = [], range(period)
    down, across = (min(2, side // period) * period for side in SHAPE[1:3])
    for i in range(0, SHAPE[1] - down + 1, down):
        for j in range(0, SHAPE[2] - across + 1, across):
            square = (y - TARGET)[:, i : i + down, j : j + across]
            means = [square[:, p::period, q::period].mean((1, 2)) for p in places for q in places]
            variances.append(np.var(means, axis=0))
    return np.mean(variances)


@pytest.mark.parametrize(
    ("loss", "options", "target", "definition"),
    [
        (feature_loss, {}, TARGET, lambda f: ((f - TARGET) ** 2).sum() / (3 * 5 * 7) / 2),
        (pixel_loss, {}, TARGET, lambda f: ((f - TARGET) ** 2).sum() / (3 * 5 * 7) / 2),
        (style_loss, {}, GRAM, partial(frobenius, GRAM)),
        (style_loss, {}, GRAM[0], partial(frobenius, GRAM)),
        (style_loss, {}, GRAMS, partial(frobenius, GRAMS)),
        (tv_loss, {}, None, total_variation),
        (grid_loss, {}, TARGET, partial(grid, 2)),
        (grid_loss, {"period": 3}, TARGET, partial(grid, 3)),
        (grid_loss, {"period": 5}, TARGET, partial(grid, 5)),
    ],
)
def test_value_gradient_weight_and_dtype(xp, monkeypatch, loss, options, target, definition):
    arrays = [asarray(a, xp) for a in (F, target) if a is not None]
    value, df = loss(*arrays, **options)
    assert isinstance(value, float if xp is np else xp.ndarray)  # on a GPU, to be read later
    assert abs(float(value) - definition(F)) <= 1e-12 * definition(F)
    assert isinstance(df, xp.ndarray) and df.shape == SHAPE
    direction = normal(*SHAPE, seed=4)
    change = slope(definition, F, direction, 1e-5)
    assert abs((to_numpy(df) * direction).sum() - change) <= 1e-6 * np.linalg.norm(to_numpy(df))
    for given, before in zip(arrays, (F, target), strict=False):
        assert np.array_equal(to_numpy(given), before) and not xp.may_share_memory(df, given)
    value32, df32 = loss(*(a.astype(np.float32) for a in arrays), **options)
    assert df32.dtype == np.float32 and abs(float(value32) - float(value)) <= 1e-5 * float(value)
    assert loss(*(a.astype(np.float32) for a in arrays), weight=np.float64(2))[1].dtype == np.float32
    assert_close(df32, df, 1e-5)
    one_row_blocks(monkeypatch)  # the same numbers however the work is cut
    weighted, weighted_df = loss(*arrays, weight=2.5, **options)
    assert abs(float(weighted) - 2.5 * float(value)) <= 1e-12 * float(value)
    assert_close(weighted_df, 2.5 * df, 1e-12)


def test_zero_where_nothing_differs(xp):
    """A brighter image is no grid, nor is anything with a period of one; a single pixel has no neighbour."""
    f, target = asarray(F, xp), asarray(TARGET, xp)
    for value, df in (grid_loss(f + 2, f), grid_loss(f, target, period=1), tv_loss(f[:, :1, :1])):
        assert abs(float(value)) < 1e-25 and abs(to_numpy(df)).max() < 1e-15


def test_wrong_arguments_are_named():
    for loss, name, wrong in (
        (feature_loss, "target", [TARGET[:1], TARGET[:, :4], TARGET.astype(np.float32), TARGET.tolist()]),
        (grid_loss, "target", [TARGET[:, :4]]),
        (lambda f, period: grid_loss(f, TARGET, period=period), "period", [0, 6]),
        (style_loss, "target_gram", [normal(4, 4), normal(3, 3, 3)]),
        (lambda f, y: tv_loss(y), "y", [np.zeros(SHAPE, np.uint8), F[0]]),
    ):
        for argument in wrong:
            refuses((TypeError, ValueError), name, partial(loss, F, argument))


CONTENT, STYLE, TV = {"relu2_2": 0.7}, {"relu1_2": 5.0, "relu2_2": 3.0, "relu3_1": 2.0}, 1e-3
PAINTING, PHOTO, Y = photos(1, 9, 14, 3), photos(2, 13, 10, 3, seed=6), photos(2, 13, 10, 3, seed=7)


def objective(xp, content, style, tv):
    made = StyleObjective(small_vgg(xp, "relu3_1"), asarray(PAINTING, xp), content, style, tv)
    return made, made.targets(asarray(PHOTO, xp))


def test_terms_are_the_formulas(xp):
    """Official normalisation: the mean squared difference of two Gram matrices, eq. 4 divided by C^2."""
    made, targets = objective(xp, CONTENT, STYLE, TV)
    terms, _ = made(asarray(Y, xp), targets)
    vgg, names = small_vgg(np, "relu3_1"), tuple(STYLE)
    of_painting, of_photo, of_y = (vgg.forward(image, names) for image in (PAINTING, PHOTO, Y))
    grams = {name: gram(f) for name, f in of_painting.items()}
    expected = {
        "content": 0.7 * ((of_y["relu2_2"] - of_photo["relu2_2"]) ** 2).mean(),
        "style": sum(w * ((gram(of_y[name]) - grams[name]) ** 2).mean() for name, w in STYLE.items()),
        "tv": TV * total_variation(Y),
    }
    expected["total"] = sum(expected.values())
    assert terms == pytest.approx(expected, rel=1e-10)
    assert {type(value) for value in terms.values()} == {float}
    assert made.value(asarray(Y, xp), targets) == pytest.approx(expected["total"], rel=1e-10)
    assert made(asarray(PHOTO, xp), targets)[0]["content"] == 0


def test_gradient_with_respect_to_the_images(xp):
    direction = normal(*Y.shape, seed=8)
    for weights in ((CONTENT, STYLE, TV), (CONTENT, {}, 0), ({}, STYLE, 0), ({}, {}, TV)):
        made, targets = objective(xp, *weights)
        terms, dy = made(asarray(Y, xp), targets)
        assert dy.shape == Y.shape and terms["total"] == terms["content"] + terms["style"] + terms["tv"]
        change = slope(lambda y, f=made, t=targets: f(asarray(y, xp), t)[0]["total"], Y, direction, 1e-5)
        dy = to_numpy(dy)
        assert abs((dy * direction).sum() - change) <= 1e-6 * np.linalg.norm(dy)
