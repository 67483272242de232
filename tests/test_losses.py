"""The losses against their formulas, and the whole objective through a small VGG."""

import numpy as np
import pytest
from cases import assert_close, one_row_blocks, photos, refuses, slope, small_vgg

from tinynst import ops
from tinynst.device import asarray, to_numpy
from tinynst.losses import StyleObjective, feature_loss, grid_loss, pixel_loss, style_loss, tv_loss

SHAPE = (2, 5, 7, 3)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


F, TARGET = normal(*SHAPE), normal(*SHAPE, seed=1)


def gram(f):
    n, h, w, c = f.shape
    pixels = f.reshape(n, h * w, c)
    return np.stack([p.T @ p / (c * h * w) for p in pixels])


GRAM = gram(normal(1, 4, 9, 3, seed=2))  # a painting of another size
GRAMS = gram(normal(*SHAPE, seed=3))


def sum_of_neighbours(y):
    down = sum(((y[:, i + 1] - y[:, i]) ** 2).sum() for i in range(y.shape[1] - 1))
    return down + sum(((y[:, :, j + 1] - y[:, :, j]) ** 2).sum() for j in range(y.shape[2] - 1))


def grid(difference, period=2, side=2):
    """By loops: of each square of `side` periods and each channel, the variance of the means at its period^2
    places."""
    h, w = difference.shape[1:3]
    down, across = min(side, h // period) * period, min(side, w // period) * period
    found = []
    for i in range(0, h - h % down, down):
        for j in range(0, w - w % across, across):
            square = difference[:, i : i + down, j : j + across]
            places = [
                square[:, a::period, b::period].mean((1, 2)) for a in range(period) for b in range(period)
            ]
            found.append(np.var(places, axis=0))
    return np.mean(found)


LOSSES = {
    "feature": (
        feature_loss,
        TARGET,
        lambda f: sum(((f[n] - TARGET[n]) ** 2).sum() / (3 * 5 * 7) for n in (0, 1)) / 2,
    ),
    "pixel": (
        pixel_loss,
        TARGET,
        lambda y: sum(((y[n] - TARGET[n]) ** 2).sum() / (3 * 5 * 7) for n in (0, 1)) / 2,
    ),
    "grid": (grid_loss, TARGET, lambda y: grid(y - TARGET)),
    "style (1,C,C)": (
        style_loss,
        GRAM,
        lambda f: sum(np.linalg.norm(gram(f)[n] - GRAM[0]) ** 2 for n in (0, 1)) / 2,
    ),
    "style (C,C)": (
        style_loss,
        GRAM[0],
        lambda f: sum(np.linalg.norm(gram(f)[n] - GRAM[0]) ** 2 for n in (0, 1)) / 2,
    ),
    "style (N,C,C)": (
        style_loss,
        GRAMS,
        lambda f: sum(np.linalg.norm(gram(f)[n] - GRAMS[n]) ** 2 for n in (0, 1)) / 2,
    ),
    "tv": (tv_loss, None, lambda y: 0.5 * sum_of_neighbours(y) / 2),
}


def call(xp, name, f, dtype=np.float64):
    loss, target, _ = LOSSES[name]
    return loss(*(asarray(a.astype(dtype), xp) for a in (f, target) if a is not None))


@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient(xp, name):
    value, df = call(xp, name, F)
    formula = LOSSES[name][2]
    assert type(value) is float
    assert abs(value - formula(F)) <= 1e-12 * formula(F)
    assert isinstance(df, xp.ndarray)
    assert df.shape == SHAPE
    df = to_numpy(df)
    for seed in (4, 5):
        direction = normal(*SHAPE, seed=seed)
        assert abs((df * direction).sum() - slope(formula, F, direction, 1e-5)) <= 1e-6 * np.linalg.norm(df)


@pytest.mark.parametrize("name", LOSSES)
def test_float32_and_arguments(xp, name):
    value, df = call(xp, name, F)
    value32, df32 = call(xp, name, F, np.float32)
    assert df32.dtype == np.float32
    assert abs(value32 - value) <= 1e-5 * value
    assert_close(df32, df, 1e-5)
    loss, target, _ = LOSSES[name]
    arrays = [asarray(a, xp) for a in (F, target) if a is not None]
    _, df = loss(*arrays)
    for given, before in zip(arrays, (F, target), strict=False):
        assert np.array_equal(to_numpy(given), before)
        assert not xp.may_share_memory(df, given)


@pytest.mark.parametrize("name", LOSSES)
def test_the_mean_over_the_batch(xp, name):
    """A batch of one image twice has the image's loss, and each copy half its gradient."""
    loss, target, _ = LOSSES[name]
    targets = {(2, 5, 7, 3): TARGET[:1], (2, 3, 3): GRAMS[:1]}
    one = target if target is None else targets.get(target.shape, target)
    two = one if one is None or len(one) != 1 or one is GRAM else np.concatenate([one, one])
    value, df = loss(*(asarray(a, xp) for a in (F[:1], one) if a is not None))
    value2, df2 = loss(*(asarray(a, xp) for a in (np.concatenate([F[:1], F[:1]]), two) if a is not None))
    assert abs(value2 - value) <= 1e-12 * value
    assert_close(2 * df2[1:], df, 1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_weight_and_many_blocks(xp, monkeypatch, name):
    """Value and gradient times the weight, however the work is cut."""
    loss, target, _ = LOSSES[name]
    value, df = call(xp, name, F)
    one_row_blocks(monkeypatch)
    arrays = [asarray(a, xp) for a in (F, target) if a is not None]
    weighted, weighted_df = loss(*arrays, weight=2.5)
    assert abs(weighted - 2.5 * value) <= 1e-12 * value
    assert_close(weighted_df, 2.5 * df, 1e-12)


@pytest.mark.parametrize("period", [1, 2, 3, 4, 5])
def test_grids_of_other_periods(xp, period):
    value, df = grid_loss(asarray(F, xp), asarray(TARGET, xp), period=period)
    assert abs(value - grid(F - TARGET, period)) <= 1e-12
    step = normal(*SHAPE, seed=6)
    change = (grid(F + 1e-5 * step - TARGET, period) - grid(F - 1e-5 * step - TARGET, period)) / 2e-5
    assert abs(float((to_numpy(df) * step).sum()) - change) <= 1e-8


def test_a_grid_costs_more_than_texture_of_the_same_strength():
    """A pattern of plus and minus one that repeats every four pixels, and the same numbers in any order."""
    pattern = np.tile(np.where(np.arange(16) % 2, 1.0, -1.0).reshape(1, 4, 4, 1), (1, 8, 8, 3))
    shuffled = np.random.default_rng(0).permutation(pattern.ravel()).reshape(pattern.shape)
    still = np.zeros(pattern.shape)
    assert grid_loss(pattern, still, period=4)[0] == 1.0
    assert (
        0.2 < grid_loss(shuffled, still, period=4)[0] < 0.3
    )  # of four numbers' mean the variance is a quarter


def test_zero_at_the_target(xp):
    f = asarray(F, xp)
    for value, df in (
        feature_loss(f, f),
        pixel_loss(f, f),
        grid_loss(f, f),
        grid_loss(f + 2, f),  # brighter, but no grid
        style_loss(f, asarray(gram(F), xp)),
        tv_loss(0 * f + 3),
        tv_loss(f[:, :1, :1]),  # a single pixel has no neighbour
    ):
        assert abs(value) < 1e-25
        assert abs(to_numpy(df)).max() < 1e-15


def test_wrong_arguments_are_named():
    refuses(ValueError, "target", lambda: feature_loss(F, TARGET[:1]))
    refuses(ValueError, "target", lambda: pixel_loss(F, TARGET[:, :4]))
    refuses(ValueError, "target", lambda: grid_loss(F, TARGET[:, :4]))
    refuses(ValueError, "period", lambda: grid_loss(F, TARGET, period=6))
    refuses(ValueError, "period", lambda: grid_loss(F, TARGET, period=0))
    refuses(ValueError, "target_gram", lambda: style_loss(F, normal(4, 4)))
    refuses(ValueError, "target_gram", lambda: style_loss(F, normal(3, 3, 3)))
    refuses(TypeError, "target", lambda: feature_loss(F, TARGET.astype(np.float32)))
    refuses(TypeError, "target", lambda: feature_loss(F, TARGET.tolist()))
    refuses(TypeError, "y", lambda: tv_loss(np.zeros(SHAPE, np.uint8)))
    refuses(ValueError, "y", lambda: tv_loss(np.zeros((5, 7, 3))))


# --- the objective ---

CONTENT, STYLE, TV = {"relu2_2": 0.7}, {"relu1_2": 5.0, "relu2_2": 3.0, "relu3_1": 2.0}, 1e-3


def objective(xp, content=CONTENT, style=STYLE, tv=TV):
    painting, photo, y = photos(1, 9, 14, 3), photos(2, 13, 10, 3, seed=6), photos(2, 13, 10, 3, seed=7)
    made = StyleObjective(small_vgg(xp, "relu3_1"), asarray(painting, xp), content, style, tv)
    return made, made.targets(asarray(photo, xp)), painting, photo, y


def test_terms_are_the_formulas(xp):
    """Official normalisation: the mean of the squared differences of two Gram matrices, eq. 4 divided by
    C^2."""
    made, targets, painting, photo, y = objective(xp)
    terms, _ = made(asarray(y, xp), targets)
    vgg = small_vgg(np, "relu3_1")
    of_y, of_painting, of_photo = (vgg.forward(image, tuple(STYLE)) for image in (y, painting, photo))
    content = 0.7 * ((of_y["relu2_2"] - of_photo["relu2_2"]) ** 2).mean()
    style = sum(
        weight * ((gram(of_y[name]) - gram(of_painting[name])) ** 2).mean() for name, weight in STYLE.items()
    )
    assert abs(terms["content"] - content) <= 1e-10 * content
    assert abs(terms["style"] - style) <= 1e-10 * style
    assert abs(terms["tv"] - TV * 0.25 * sum_of_neighbours(y)) <= 1e-10 * terms["tv"]
    assert terms["total"] == terms["content"] + terms["style"] + terms["tv"]
    assert {type(value) for value in terms.values()} == {float}


@pytest.mark.parametrize(
    ("content", "style", "tv"),
    [(CONTENT, STYLE, TV), (CONTENT, {}, 0), ({}, STYLE, 0), ({"relu3_1": 1.0}, {"relu1_1": 4.0}, TV)],
)
def test_gradient_by_the_images(xp, content, style, tv):
    made, targets, *_, y = objective(xp, content, style, tv)
    _, dy = made(asarray(y, xp), targets)
    assert dy.shape == y.shape
    dy = to_numpy(dy)

    def total(y):
        return made(asarray(y, xp), targets)[0]["total"]

    for seed in (8, 9):
        direction = normal(*y.shape, seed=seed)
        assert abs((dy * direction).sum() - slope(total, y, direction, 1e-5)) <= 1e-6 * np.linalg.norm(dy)


def test_the_photo_as_its_own_picture_has_no_content_loss(xp):
    made, targets, _, photo, _ = objective(xp)
    terms, _ = made(asarray(photo, xp), targets)
    assert terms["content"] == 0
    assert terms["style"] > 0


def test_grams_of_the_painting_are_made_once(xp):
    made, targets, painting, *_ = objective(xp)
    features = small_vgg(xp, "relu3_1").forward(asarray(painting, xp), tuple(STYLE))
    assert list(made.grams) == list(STYLE)
    for name, f in features.items():
        assert_close(made.grams[name], ops.gram_matrix(f)[0], 1e-14)
    assert list(targets) == ["relu2_2"]
