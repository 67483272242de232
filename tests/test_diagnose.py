"""What is said and shown of a wrong gradient, and what is tried beyond one call with random inputs."""

import json

import numpy as np
import pytest

from tinynst import ops
from tinynst.errors import UserError
from tinynst.gradcheck import Report, command, gradcheck, main, show
from tinynst.gradcheck.cases import Case, operation_case
from tinynst.gradcheck.measure import name_factor


def draw(*shapes, seed=3):
    rng = np.random.default_rng(seed)
    return tuple(rng.standard_normal(shape) for shape in shapes)


def square(x):
    return x**2, x


def square_backward(dy, x):
    return (2 * x * dy,)


CONV = draw((3, 4, 5, 2), (3, 3, 2, 4), (4,))


def conv_with(change):
    """conv2d_backward with {name: gradient} changed by `change`."""

    def backward(dy, cache):
        gradients = dict(zip(("dx", "dw", "db"), ops.conv2d_backward(dy, cache), strict=True))
        return tuple({**gradients, **change(gradients, dy, cache)}.values())

    return backward


def first(report):
    return report.diagnoses[0].cause, report.diagnoses[0].gradient


# --- causes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (1 / 3, "1/N"),
        (0.05, "1/(H*W)"),
        (40.0, "C*H*W"),
        (-1.0, "-1"),
        (2.0, "2"),
        (1 / 60, "1/(N*H*W)"),
        (1.7, "1.7"),
    ],
)
def test_a_factor_is_named_by_what_it_is_made_of(factor, words):
    report = gradcheck(ops.conv2d, conv_with(lambda g, *_: {"dw": factor * g["dw"]}), CONV)
    assert first(report) == ("scaled", "dw") and words in report.diagnoses[0].evidence


@pytest.mark.parametrize("x", [np.full((), 3.0), np.full((1, 1, 1, 1), 3.0)], ids=["no axes", "one pixel"])
def test_one_number_may_be_scaled_too(x):
    report = gradcheck(lambda x: (2 * x, None), lambda dy, cache: (3 * dy,), (x,))
    assert first(report) == ("scaled", "dx") and "1.5" in report.diagnoses[0].evidence


def test_a_wrong_sign_of_y_minus_t_is_not_taken_for_the_gradient_of_t():
    def loss(y, t):
        return float(((y - t) ** 2).sum()), y - t

    report = gradcheck(loss, lambda dy, d: (-2 * dy * d, -2 * dy * d), draw((2, 3, 4, 2), (2, 3, 4, 2)))
    assert [(d.cause, d.gradient) for d in report.diagnoses] == [("scaled", "dy")]
    assert (
        gradcheck(loss, lambda dy, d: (2 * dy * d, -2 * dy * d), draw((2, 3, 4, 2), (2, 3, 4, 2))).passed
        is True
    )


@pytest.mark.parametrize(
    ("mean", "words"),
    [
        (lambda v: v.mean(axis=0, keepdims=True), "over N alone"),
        (lambda v: v.mean(axis=(1, 2), keepdims=True), "over each image alone"),
        (lambda v: v, "as it is at each pixel"),
    ],
    ids=["N alone", "H and W alone", "none"],
)
def test_a_norms_mean_over_too_few_axes_is_a_missing_sum(mean, words):
    def norm(x):
        std = x.std(axis=(0, 1, 2))
        xhat = (x - x.mean(axis=(0, 1, 2))) / std
        return xhat, (xhat, std)

    def backward(dy, cache):
        xhat, std = cache
        mean_term = dy.mean(axis=(0, 1, 2)) if "pixel" in words else mean(dy)
        return ((dy - mean_term - xhat * mean(dy * xhat)) / std,)

    report = gradcheck(norm, backward, draw((5, 4, 3, 2)))
    assert first(report) == ("missing-sum", "dx") and words in report.diagnoses[0].evidence


def test_a_gram_loss_with_one_factor_of_the_product_is_told_by_its_targets_transpose():
    def loss(f, target):
        pixels = f.reshape(-1, f.shape[-1])
        gram = pixels.T @ pixels
        return float(((gram - target) ** 2).sum()), (f, gram, target)

    def backward(dy, cache, sides=1):
        f, gram, target = cache
        d = 2 * dy * (gram - target)
        return f @ (d + d.T * (sides == 2)), -d

    report = gradcheck(loss, backward, draw((2, 3, 4, 3), (3, 3)))
    assert first(report) == ("missing-term", "df") and "transpose" in report.diagnoses[0].evidence
    assert (
        gradcheck(loss, lambda dy, cache: backward(dy, cache, 2), draw((2, 3, 4, 3), (3, 3))).passed is True
    )


def test_a_derivative_in_x_where_y_belongs_shows_a_place_and_both_slopes():
    report = gradcheck(lambda x: (np.tanh(x), x), lambda dy, x: (dy * (1 - x**2),), draw((2, 3, 4, 2)))
    assert (
        first(report) == ("missing-term", "dx")
        and "a square of x where a square of y" in report.diagnoses[0].evidence
    )


def test_factors_and_their_names():
    known = {"N": 4, "H*W": 35, "C*H*W": 105}
    names = [name_factor(f, known) for f in (0.25, 35, 1 / 105, -4, 2 / 35, 1, 35 / 34, 1.2345, 2)]
    assert names == ["1/N", "H*W", "1/(C*H*W)", "-N", "2/(H*W)", "1", "H*W/(H*W - 1)", None, "2"]


def test_several_wrong_gradients_are_all_named_and_what_is_known_comes_first():
    def change(g, dy, cache):
        rng = np.random.default_rng(0)
        return {
            "dx": g["dx"] + dy.sum() * rng.standard_normal(g["dx"].shape),
            "dw": -g["dw"],
            "db": g["db"] / 3,
        }

    report = gradcheck(ops.conv2d, conv_with(change), CONV)
    assert [(d.cause, d.gradient) for d in report.diagnoses] == [
        ("scaled", "dw"),
        ("scaled", "db"),
        ("unknown", "dx"),
    ]


def test_a_small_real_error_is_not_taken_for_noise_nor_noise_for_an_error():
    (x,) = draw((4, 6))
    small = gradcheck(square, lambda dy, x: (1 + 3e-6) * 2 * x * dy, (x,))
    assert small.passed is False and first(small) == ("scaled", "dx")

    def in_float32(dy, x):
        total = (1e3 + (2 * x * dy).astype(np.float32)) - np.float32(1e3)  # digits lost on the way
        return total.astype(np.float64)

    noisy = gradcheck(square, in_float32, (x,))
    assert noisy.passed is None and first(noisy) == ("noise", "dx")
    assert "float32" in noisy.diagnoses[0].evidence


def test_a_wrong_shape_that_sums_or_turns_to_the_right_one_says_so_first():
    report = gradcheck(ops.conv2d, conv_with(lambda g, dy, _: {"db": dy.sum(axis=(1, 2))}), CONV)
    assert [d.cause for d in report.diagnoses] == ["missing-sum", "wrong-shape"]
    report = gradcheck(ops.conv2d, conv_with(lambda g, *_: {"dw": g["dw"].transpose(3, 2, 0, 1)}), CONV)
    assert [d.cause for d in report.diagnoses] == ["transposed", "wrong-shape"]
    report = gradcheck(ops.conv2d, conv_with(lambda g, *_: {"dx": g["dw"], "dw": g["dx"]}), CONV)
    assert [(d.cause, d.gradient) for d in report.diagnoses][:1] == [("swapped-gradients", "dx")]


def test_a_diagnosis_runs_where_the_arrays_live(xp):
    inputs = tuple(xp.asarray(a) for a in CONV)
    report = gradcheck(
        ops.conv2d, conv_with(lambda g, *_: {"dx": xp.concatenate([g["dx"][:1], 0 * g["dx"][1:]])}), inputs
    )
    assert first(report) == ("partial-batch", "dx")

    def unflipped(dy, cache):
        x, w, *rest = cache
        return ops.conv2d_backward(dy, (x, xp.ascontiguousarray(w[::-1, ::-1]), *rest))

    assert first(gradcheck(ops.conv2d, unflipped, inputs)) == ("flipped", "dx")
    norm = [xp.asarray(a) for a in draw((2, 4, 3, 2), (2,), (2,))]
    report = gradcheck(
        ops.instance_norm,
        lambda dy, c: (c[1] / c[3][:, None, None] * dy, *ops.instance_norm_backward(dy, c)[1:]),
        norm,
    )
    assert first(report) == ("missing-term", "dx")


def test_large_inputs_are_diagnosed_from_a_sample():
    x, w = draw((2, 60, 60, 8), (3, 3, 8, 8))

    def backward(dy, cache):
        dx, dw, _ = ops.conv2d_backward(dy, cache)
        return 0.5 * dx, dw[::-1, ::-1]

    report = gradcheck(lambda x, w: ops.conv2d(x, w, pad=1), backward, (x, w), samples=20)
    assert [(d.cause, d.gradient) for d in report.diagnoses] == [("scaled", "dx"), ("flipped", "dw")]
    assert report.inputs[0].probed == 20


# --- ties, second calls, complex steps, time -------------------------------------------------------------------------


def test_a_mask_that_is_wrong_at_exact_zeros_only_is_caught():
    (x,) = draw((4, 5))
    relu = lambda x: (np.maximum(x, 0), x)  # noqa: E731
    assert gradcheck(relu, lambda dy, x: dy * (x > 0), (x,)).passed is True
    report = gradcheck(relu, lambda dy, x: dy * (x >= 0), (x,))
    assert (
        report.passed is False
        and first(report) == ("wrong-mask", "dx")
        and ">= 0" in report.diagnoses[0].hint
    )


def test_slopes_at_a_kink_without_a_flat_side_are_nobodys_fault():
    (x,) = draw((4, 5))
    for sign in (lambda x: np.sign(x), lambda x: np.where(x >= 0, 1.0, -1.0)):
        assert gradcheck(lambda x: (np.abs(x), x), lambda dy, x, s=sign: dy * s(x), (x,)).passed is True


def test_what_is_kept_from_the_first_call_is_caught_but_a_layers_own_memory_is_not():
    kept = []

    def stale(dy, x):
        kept.append(x)
        return 2 * kept[0] * dy

    report = gradcheck(square, stale, draw((3, 4)))
    assert report.passed is False and first(report) == ("stale-cache", "dx")

    class Layer:
        def forward(self, x):
            self.x = x.copy()
            return x**2, None

        def backward(self, dy, cache):
            return 2 * self.x * dy

    layer = Layer()
    assert gradcheck(layer.forward, layer.backward, draw((3, 4))).passed is True


def test_a_complex_step_is_taken_where_forward_allows_it_and_agrees():
    report = gradcheck(lambda x: (np.exp(x), x), lambda dy, x: dy * np.exp(x), draw((3, 4)))
    assert (
        report.inputs[0].method == "complex step"
        and report.error < 1e-14
        and "by complex step" in str(report)
    )
    assert gradcheck(ops.relu, ops.relu_backward, draw((3, 4))).inputs[0].method == "differences"
    # np.var takes complex numbers but not their derivative: differences decide
    report = gradcheck(
        lambda x: (float(np.var(x)) if not np.iscomplexobj(x) else np.var(x), x),
        lambda dy, x: dy * 2 * (x - x.mean()) / x.size,
        draw((3, 4)),
    )
    assert report.passed is True


def test_a_slow_forward_is_checked_at_fewer_elements_and_the_report_says_so():
    report = gradcheck(square, square_backward, draw((10, 10)), seconds=0.0)
    assert report.passed is True and report.inputs[0].checked == 8
    assert "8 of 100 elements of x" in report.notes[0] and "random sample of 8 of 100" in str(report)


# --- what is shown ---------------------------------------------------------------------------------------------------


def border_report():
    def change(g, dy, cache):
        dx = g["dx"].copy()
        dx[:, -1] = 0
        return {"dx": dx}

    return gradcheck(
        lambda x, w, b: ops.conv2d(x, w, b, 1, 1), conv_with(change), draw((2, 6, 5, 2), (3, 3, 2, 4), (4,))
    )


def test_one_screen_has_the_cause_the_picture_the_worst_elements_and_what_to_try():
    lines = str(border_report()).splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 110
    place = [
        next(k for k, text in enumerate(lines) if word in text)
        for word in ("border (dx)", "|backward", "dx[", "step", "try:")
    ]
    assert place == sorted(place)
    picture = lines[place[1] + 1 : place[1] + 7]
    assert all(set(row.split()) == {"·"} for row in picture[:5]) and "█" in picture[5]


def test_a_map_shows_where_it_is_wrong_along_the_two_axes_that_tell_most():
    gap = np.zeros((2, 5, 7, 3))
    gap[:, 2, :, 1] = 1.0
    lines = show.heat_map(gap, ("N", "H", "W", "C"))
    assert "H down, C across" in lines[0]
    assert [row.strip() for row in lines[1:]] == ["· · ·", "· · ·", "· ██·", "· · ·", "· · ·"]
    assert show.heat_map(np.zeros((3, 4)), ("N", "C")) == []
    assert len(show.heat_map(np.eye(300), ("N", "C"))) <= 9
    assert len(show.heat_map(np.array([0.0, 1.0, np.nan]), ("C",))) == 2


def test_the_error_against_the_step_truncates_on_one_side_and_rounds_on_the_other():
    report = gradcheck(lambda x: (np.sin(3 * x) * (x == x.real), x), lambda dy, x: 0 * x, draw((3, 4)))
    steps, errors = zip(*report.inputs[0].steps, strict=True)
    best = int(np.argmin(errors))
    assert 0.005 < steps[0] < 1 and 0 < best < len(errors) - 1
    assert errors[0] > 1e3 * errors[best] and errors[-1] > 1e3 * errors[best]


def test_a_report_draws_itself(tmp_path):
    report = border_report()
    assert (
        report._repr_png_().startswith(b"\x89PNG")
        and "<pre>" in report._repr_html_()
        and "base64" in report._repr_html_()
    )
    path = tmp_path / "error.png"
    report.plot(path)
    assert path.read_bytes().startswith(b"\x89PNG") and [p.name for p in tmp_path.iterdir()] == ["error.png"]
    assert gradcheck(square, square_backward, draw((3, 4)))._repr_png_().startswith(b"\x89PNG")
    empty = Report("nothing", None, [], [], 0, 1e-6, [])
    assert empty._repr_png_().startswith(b"\x89PNG")


def test_a_report_for_machines_is_plain_json():
    found = json.loads(json.dumps(border_report().as_json(), allow_nan=False))
    assert found["passed"] is False and found["seed"] == 0
    assert found["diagnoses"][0]["cause"] == "border" and found["diagnoses"][0]["gradient"] == "dx"
    dx = found["inputs"][0]
    assert (
        dx["gradient"] == "dx"
        and dx["passed"] is False
        and dx["size"] == 120
        and dx["worst"][0]["index"][1] == 5
    )


# --- the command -----------------------------------------------------------------------------------------------------


def wrong_case():
    return Case(
        "relu",
        "wrong",
        operation_case(ops.relu, lambda dy, cache: (2 * dy * (cache > 0),), {"x": (2, 3, 4, 2)}, {}),
    )


def test_the_command_prints_json_alone_and_draws_the_first_failure(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(
        command, "CASES", [c for c in command.CASES if c.name == "center_crop"] + [wrong_case()]
    )
    picture = tmp_path / "wrong.png"
    assert main(["--json", "--plot", str(picture)]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["passed"] is False and [c["passed"] for c in found["checks"]] == [True, False]
    assert found["checks"][1]["report"]["diagnoses"][0]["cause"] == "scaled"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main(["center_crop", "--plot", str(picture)]) == 0
    assert f"drawn in {picture}" in capsys.readouterr().out


def test_options_that_do_not_go_together_are_refused(tmp_path):
    picture = tmp_path / "old.png"
    picture.write_bytes(b"an older result")
    with pytest.raises(UserError, match=r"should end in \.png"):
        main(["relu", "--plot", "picture"])
    with pytest.raises(UserError, match="folder"):
        main([str(tmp_path), "--json"])
    with pytest.raises(UserError, match="--mutants"):
        main(["relu", "--mutants"])
    with pytest.raises(UserError, match="nothing called"):
        main(["no_such", "--plot", str(picture)])
    assert picture.read_bytes() == b"an older result"
