"""Instance norm: each image by itself."""

import numpy as np
import pytest
from cases import Case, assert_close, on, one_row_blocks, refuses, row

from tinynst import ops
from tinynst.device import asarray, to_numpy


def case(image=(2, 5, 7, 3), **options):
    linear = () if options.get("relu") else ("gamma", "beta")
    return Case("instance_norm", {"x": image, "gamma": image[3:], "beta": image[3:]}, options, linear)


def conditional(image=(2, 5, 7, 3), styles=4, **options):
    shapes = {"x": image, "gamma": (styles, image[3]), "beta": (styles, image[3]), "mix": (image[0], styles)}
    return Case(
        "conditional_instance_norm", shapes, options, () if options.get("relu") else ("gamma", "beta", "mix")
    )


CASES = [case(), case(eps=0.1), case(relu=True), case((3, 2, 2, 4))]
CASES += [conditional(), conditional(eps=0.1), conditional(relu=True), conditional((3, 2, 2, 4), styles=1)]


@row(CASES)
def test_row(xp, check, case):
    check(xp, case)


@pytest.mark.parametrize("case", [CASES[0], CASES[2], CASES[6]], ids=str)
def test_many_blocks(xp, monkeypatch, case):
    y, gradients = case.run(on(xp, case.draw()), asarray(case.dy, xp))
    one_row_blocks(monkeypatch)
    y_cut, gradients_cut = case.run(on(xp, case.draw()), asarray(case.dy, xp))
    assert_close(y_cut, y, 1e-12)
    for name, gradient in gradients.items():
        assert_close(gradients_cut[name], gradient, 1e-12)


def test_by_hand(xp):
    x = xp.asarray(np.array([[1.0, 2, 3, 6], [-5, -5, -5, -5]]).reshape(2, 2, 2, 1))
    y, _ = ops.instance_norm(x, xp.full(1, 2.0), xp.full(1, 7.0), eps=0.5)  # sqrt(14/4 + 0.5) = 2
    assert_close(y, np.array([5.0, 6, 7, 10, 7, 7, 7, 7]).reshape(2, 2, 2, 1), 1e-14)


def test_an_image_does_not_know_its_neighbours(xp):
    """Each image of a batch comes out as it does alone, whatever its brightness and contrast."""
    arrays = on(xp, CASES[0].draw())
    y, _ = ops.instance_norm(**arrays, eps=0)
    louder = {**arrays, "x": xp.concatenate([100 * arrays["x"][1:] + 50, arrays["x"][:1]])}
    assert_close(ops.instance_norm(**louder, eps=0)[0][0], y[1], 1e-10)


def test_each_image_gets_its_own_row(xp):
    """A row of the table is plain instance norm with that gamma and beta, and only rows in use get a gradient."""
    arrays = on(xp, conditional().draw())
    arrays["mix"] = xp.asarray(np.array([[0.0, 0, 1, 0], [1, 0, 0, 0]]))
    y, cache = ops.conditional_instance_norm(**arrays)
    dy = asarray(CASES[0].dy, xp)
    _, dgamma, dbeta, _ = ops.conditional_instance_norm_backward(dy, cache)
    for image, style in ((0, 2), (1, 0)):
        one = slice(image, image + 1)
        plain, plain_cache = ops.instance_norm(
            arrays["x"][one], arrays["gamma"][style], arrays["beta"][style]
        )
        _, *expected = ops.instance_norm_backward(dy[one], plain_cache)
        assert_close(y[one], plain, 1e-12)
        assert_close(dgamma[style], expected[0], 1e-12)
        assert_close(dbeta[style], expected[1], 1e-12)
    for unused in (1, 3):
        assert to_numpy(dgamma[unused]).tolist() == to_numpy(dbeta[unused]).tolist() == [0, 0, 0]


def test_one_pixel(xp):
    """A 1x1 image has no contrast: y is beta, and no gradient goes back to x."""
    x, gamma, beta = xp.full((2, 1, 1, 3), 9.0), xp.ones(3), xp.full(3, 0.25)
    y, cache = ops.instance_norm(x, gamma, beta)
    dx, dgamma, dbeta = ops.instance_norm_backward(xp.ones(y.shape), cache)
    assert np.array_equal(to_numpy(y), np.full((2, 1, 1, 3), 0.25))
    assert np.array_equal(to_numpy(dx), np.zeros((2, 1, 1, 3)))
    assert to_numpy(dgamma).tolist() == [0, 0, 0]
    assert to_numpy(dbeta).tolist() == [2, 2, 2]


def test_far_from_zero_in_float32(xp):
    """Mean 1000, standard deviation 0.1: E[x^2] - E[x]^2 would leave nothing of it in float32."""
    rng = np.random.default_rng(0)
    x = (1000 + 0.1 * rng.standard_normal((2, 61, 67, 3))).astype(np.float32)
    dy = rng.standard_normal(x.shape).astype(np.float32)
    results = []
    for dtype in (np.float32, np.float64):
        y, cache = ops.instance_norm(asarray(x.astype(dtype), xp), xp.ones(3, dtype), xp.zeros(3, dtype))
        results.append((y, *ops.instance_norm_backward(asarray(dy.astype(dtype), xp), cache)))
    for single, double in zip(*results, strict=True):
        assert single.dtype == np.float32
        assert_close(
            single, double, 1e-3
        )  # a mean in float32 is known to 6e-5, which is 6e-4 of the deviation


@pytest.mark.parametrize("name", ["gamma", "beta"])
def test_wrong_number_of_channels_is_named(name):
    refuses(ValueError, name, lambda: ops.instance_norm(**CASES[0].draw() | {name: np.zeros(4)}))


@pytest.mark.parametrize(
    ("name", "shape"), [("gamma", (4, 4)), ("beta", (3, 3)), ("mix", (2, 3)), ("mix", (1, 4))]
)
def test_wrong_rows_are_named(name, shape):
    refuses(
        ValueError,
        name,
        lambda: ops.conditional_instance_norm(**conditional().draw() | {name: np.zeros(shape)}),
    )
