"""The checker must catch what is wrong, say so of the right gradient, and stay silent on what is right."""

import re
import subprocess
import sys

import numpy as np
import pytest

from tinynst import ops
from tinynst.errors import UserError
from tinynst.gradcheck import command, gradcheck, main
from tinynst.gradcheck.cases import CASES, Case, check_case, operation_case
from tinynst.networks import style_net


def draw(*shapes, seed=3):
    rng = np.random.default_rng(seed)
    return tuple(rng.standard_normal(shape) for shape in shapes)


def linear(x, w, b):
    return x @ w + b, (x, w)


def linear_backward(dy, cache):
    x, w = cache
    return dy @ w.T, x.T @ dy, dy.sum(axis=0)


def square(x):
    return x**2, x


def square_backward(dy, x):
    return (2 * x * dy,)


def relu(x):
    return np.maximum(x, 0), x


def relu_backward(dy, x):
    return (dy * (x > 0),)


LINEAR = draw((4, 3), (3, 3), (3,))  # w square: transposed, it keeps its shape


def causes(report):
    return [(d.cause, d.gradient) for d in report.diagnoses]


# --- what is right passes ------------------------------------------------------------------------------------------


def test_right_gradients_pass_with_every_element_checked():
    report = gradcheck(linear, linear_backward, LINEAR)
    assert report.passed is True and report.diagnoses == []
    assert [(r.name, r.checked, r.size, r.kinks) for r in report.inputs] == [
        ("x", 12, 12, 0),
        ("w", 9, 9, 0),
        ("b", 3, 3, 0),
    ]
    assert report.error < 1e-8


@pytest.mark.parametrize(
    ("forward", "backward"),
    [
        (square, square_backward),
        (lambda x: (np.exp(x), x), lambda dy, x: dy * np.exp(x)),
        (lambda x: (np.sin(50 * x), x), lambda dy, x: dy * 50 * np.cos(50 * x)),
        (
            lambda x: (np.tanh(x) + 1e4, x),
            lambda dy, x: dy * (1 - np.tanh(x) ** 2),
        ),  # little digits left of the slope
        (lambda x: (x / np.sqrt((x**2).sum()), x), None),
    ],
    ids=["square", "exp", "fast sine", "offset", "unit length"],
)
def test_curved_functions_pass(forward, backward):
    def unit_backward(dy, x):
        r = np.sqrt((x**2).sum())
        return dy / r - x * (dy * x).sum() / r**3

    assert gradcheck(forward, backward or unit_backward, draw((3, 5))).passed is True


def test_a_loss_that_is_a_plain_number_passes():
    report = gradcheck(lambda x: (float((x**3).sum()), 3 * x**2), lambda dy, g: dy * g, draw((2, 3)))
    assert report.passed is True and report.inputs[0].checked == 6


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_the_step_follows_the_size_of_the_inputs(size):
    (x,) = draw((3, 4))
    assert gradcheck(square, square_backward, (size * x,)).passed is True
    report = gradcheck(square, lambda dy, x: 2.002 * x * dy, (size * x,))
    assert report.passed is False and causes(report) == [("scaled", "dx")]


def test_elements_far_smaller_than_the_rest_are_no_alarm_but_their_errors_are():
    x = np.geomspace(1e-9, 1, 10)
    assert gradcheck(square, square_backward, (x,)).passed is True
    report = gradcheck(square, lambda dy, x: dy * (2 * x + 1e-7 * (x < 2e-5) * (x > 5e-6)), (x,))
    assert report.passed is False
    assert tuple(report.inputs[0].indices[np.argmax(report.inputs[0].errors)]) == (4,)


def test_random_shapes_and_values_raise_no_false_alarm():
    rng = np.random.default_rng(11)

    def fine(report):  # four elements can all be ones that the output does not depend on
        return report.passed or all(
            r.passed or (r.passed is None and not np.any(r.numeric)) for r in report.inputs
        )

    for trial in range(120):
        n, h, w, c = (int(v) for v in rng.integers(1, 6, 4))
        o, k, stride, pad = (
            int(v) for v in (rng.integers(1, 5), rng.integers(1, 4), rng.integers(1, 4), rng.integers(0, 3))
        )
        h, w, scale = max(h, k), max(w, k), 10 ** rng.uniform(-2, 3)
        x, kernel, b = (
            scale * rng.standard_normal((n, h, w, c)),
            rng.standard_normal((k, k, c, o)),
            rng.standard_normal(o),
        )
        report = gradcheck(
            lambda x, w, b, s=stride, p=pad: ops.conv2d(x, w, b, s, p),
            ops.conv2d_backward,
            (x, kernel, b),
            samples=4,
            seed=trial,
        )
        assert fine(report), report
        gamma, beta = rng.standard_normal((2, c))
        x = scale * rng.standard_normal((n, h + 1, w + 1, c))
        report = gradcheck(
            ops.instance_norm, ops.instance_norm_backward, (x, gamma, beta), samples=4, seed=trial
        )
        assert fine(report), report
        report = gradcheck(ops.relu, ops.relu_backward, (x,), samples=4, seed=trial)
        assert fine(report), report


def test_inputs_of_the_caller_are_left_alone_and_the_seed_repeats_the_result():
    inputs = tuple(a.copy() for a in LINEAR)
    first, second = (gradcheck(linear, linear_backward, inputs, seed=5, samples=4) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(inputs, LINEAR, strict=True))
    assert np.array_equal(first.inputs[0].indices, second.inputs[0].indices)
    assert np.array_equal(first.inputs[0].analytic, second.inputs[0].analytic)
    other = gradcheck(linear, linear_backward, inputs, seed=6, samples=4)
    assert not np.array_equal(first.inputs[0].analytic, other.inputs[0].analytic)
    assert "seed 5" in str(first)


def test_the_upstream_gradient_is_not_the_inputs_drawn_from_the_same_seed():
    seen = []

    def backward(dy, x):
        seen.append(dy)
        return 2 * x * dy

    x = np.random.default_rng(0).standard_normal((4, 4))
    assert gradcheck(square, backward, (x,), seed=0).passed is True
    assert not np.allclose(seen[0], x)


def test_float32_inputs_are_checked_as_float64_and_the_report_says_so():
    report = gradcheck(linear, linear_backward, tuple(a.astype(np.float32) for a in LINEAR))
    assert report.passed is True and report.notes[0] == "x was float32, checked as float64"
    assert "x was float32" in str(report)
    report = gradcheck(square, lambda dy, x: (2 * x * dy).astype(np.float32), draw((3, 4)))
    assert report.notes == ["dx came back as float32: its last digits are lost"]


def test_large_inputs_are_sampled():
    x = np.random.default_rng(0).standard_normal((1, 100, 100, 3))
    report = gradcheck(square, square_backward, (x,), samples=20)
    result = report.inputs[0]
    assert (result.checked, result.size, report.passed) == (20, 30000, True)
    assert len({tuple(i) for i in result.indices}) == 20
    at = tuple(result.indices.T)
    assert np.allclose(result.numeric / (2 * x[at]), result.analytic / (2 * x[at]), rtol=1e-6)
    assert "a random sample of 20 of 30000" in str(report)


def test_arrays_of_either_device(xp):
    x, w, b = (xp.asarray(a) for a in draw((1, 4, 5, 2), (3, 3, 2, 3), (3,)))
    report = gradcheck(ops.conv2d, ops.conv2d_backward, (x, w, b), samples=5)
    assert report.passed is True and isinstance(report.inputs[1].numeric, np.ndarray)

    def doubled(dy, cache):
        dx, dw, db = ops.conv2d_backward(dy, cache)
        return dx, 2 * dw, db

    assert causes(gradcheck(ops.conv2d, doubled, (x, w, b), samples=5)) == [("scaled", "dw")]


# --- what is wrong fails -------------------------------------------------------------------------------------------


def broken(**changes):
    """linear_backward with some gradients replaced: dw=lambda dy, x, w, dw: ..."""

    def backward(dy, cache):
        x, w = cache
        right = dict(zip(("dx", "dw", "db"), linear_backward(dy, cache), strict=True))
        return tuple(changes[n](dy, x, w, g) if n in changes else g for n, g in right.items())

    return backward


@pytest.mark.parametrize(
    ("bug", "cause"),
    [
        ({"dw": lambda dy, x, w, g: 2 * g}, "scaled"),
        ({"dw": lambda dy, x, w, g: -g}, "scaled"),
        ({"dw": lambda dy, x, w, g: g / 4}, "scaled"),
        ({"dw": lambda dy, x, w, g: (1 + 1e-4) * g}, "scaled"),
        ({"dx": lambda dy, x, w, g: dy @ w}, "transposed"),
        ({"dw": lambda dy, x, w, g: g.T}, "transposed"),
        ({"dw": lambda dy, x, w, g: x[1:].T @ dy[1:]}, "partial-batch"),
        ({"db": lambda dy, x, w, g: dy[0]}, "partial-batch"),
        ({"dw": lambda dy, x, w, g: 0 * g}, "zero"),
        ({"dw": lambda dy, x, w, g: None}, "zero"),
        ({"dw": lambda dy, x, w, g: g / 0.0 * 0}, "not-finite"),
        ({"db": lambda dy, x, w, g: g[:, None]}, "wrong-shape"),
        ({"db": lambda dy, x, w, g: dy}, "missing-sum"),
    ],
)
def test_a_planted_bug_fails_and_is_named(bug, cause):
    with np.errstate(all="ignore"):
        report = gradcheck(linear, broken(**bug), LINEAR)
    (name,) = bug
    assert report.passed is False
    assert causes(report)[0] == (cause, name)
    assert causes(report)[1:] in ([], [("wrong-shape", name)])
    assert {"d" + r.name: r.passed for r in report.inputs} == {n: n != name for n in ("dx", "dw", "db")}
    assert f"{cause} ({name})" in str(report) and "FAIL" in str(report).splitlines()[0]


def test_one_wrong_element_fails_and_the_report_shows_it_first():
    def backward(dy, cache):
        dx, dw, db = linear_backward(dy, cache)
        dw[1, 2] += 0.5
        return dx, dw, db

    report = gradcheck(linear, backward, LINEAR)
    assert report.passed is False
    result = report.inputs[1]
    worst = int(np.argmax(np.abs(result.analytic - result.numeric)))
    assert tuple(result.indices[worst]) == (1, 2)
    assert result.analytic[worst] - result.numeric[worst] == pytest.approx(0.5)
    assert re.search(r"dw\[(.*?)\]", str(report)).group(1) == "1, 2"


@pytest.mark.parametrize("factor", [2.0, -1.0, 0.125])
def test_a_constant_factor_is_named(factor):
    report = gradcheck(square, lambda dy, x: factor * 2 * x * dy, draw((3, 4)))
    assert report.diagnoses[0].cause == "scaled" and f"{factor:g} " in report.diagnoses[0].evidence


def test_a_missing_term_of_a_normalisation_fails():
    def backward(dy, cache):
        x, gamma, *_ = cache
        std = np.sqrt(x.var(axis=(1, 2), keepdims=True) + 1e-5)
        _, dgamma, dbeta = ops.instance_norm_backward(dy, cache)
        return gamma / std * (dy - dy.mean(axis=(1, 2), keepdims=True)), dgamma, dbeta

    report = gradcheck(ops.instance_norm, backward, draw((2, 4, 5, 3), (3,), (3,)))
    assert [r.passed for r in report.inputs] == [False, True, True]


def test_too_few_gradients_fail():
    report = gradcheck(linear, lambda dy, cache: linear_backward(dy, cache)[:2], LINEAR)
    assert report.passed is False and causes(report) == [("wrong-shape", "all")]
    assert "2 gradients for 3 inputs" in report.diagnoses[0].evidence


def test_only_chosen_gradients_are_checked():
    report = gradcheck(linear, broken(dw=lambda dy, x, w, g: 2 * g), LINEAR, check=("x", "b"))
    assert report.passed is True and [r.name for r in report.inputs] == ["x", "b"]


def test_an_output_that_is_not_finite_fails():
    def log(x):
        with np.errstate(all="ignore"):
            return np.log(x), x

    report = gradcheck(log, lambda dy, x: dy / x, (np.array([1.0, 0.0, 2.0]),))
    assert report.passed is False and causes(report) == [("not-finite", "y")]


# --- kinks and doubt -----------------------------------------------------------------------------------------------


def test_kinks_are_counted_and_skipped():
    (x,) = draw((5, 8))
    x[1, :3] = 0
    report = gradcheck(relu, relu_backward, (x,))
    result = report.inputs[0]
    assert report.passed is True and result.kinks == 3 and result.checked == 37
    assert sorted(map(tuple, result.kink_indices)) == [(1, 0), (1, 1), (1, 2)]


def test_a_kink_within_the_step_is_no_alarm_and_is_not_skipped():
    (x,) = draw((5, 8))
    x[2, :4] = [1e-6, -1e-6, 3e-7, -3e-7]  # the step is 3e-6 there
    report = gradcheck(relu, relu_backward, (x,))
    assert report.passed is True and report.kinks == 0 and report.inputs[0].checked == 40


def test_kinks_do_not_hide_a_wrong_gradient():
    (x,) = draw((5, 8))
    x[1, :] = 0
    report = gradcheck(relu, lambda dy, x: dy * (x > -10), (x,))  # no mask at all
    assert report.passed is False and report.inputs[0].kinks == 8
    report = gradcheck(
        lambda x: (40 * x**2, x), lambda dy, x: 80 * x * dy * (x > 0), (x,)
    )  # curved, not kinked
    assert report.passed is False and report.kinks == 0


def test_more_than_half_kinks_is_inconclusive():
    (x,) = draw((4, 5))
    x[:3] = 0
    report = gradcheck(relu, relu_backward, (x,))
    assert report.passed is None and report.inputs[0].kinks == 15
    assert "INCONCLUSIVE" in str(report).splitlines()[0]


def test_ties_of_a_maximum_are_kinks():
    x = np.zeros((1, 4, 4, 2))
    x[:, :2] = draw((1, 2, 4, 2))[0]
    report = gradcheck(ops.max_pool2d, ops.max_pool2d_backward, (x,))
    assert report.kinks == 16 and report.passed is True
    assert gradcheck(ops.max_pool2d, lambda dy, c: -ops.max_pool2d_backward(dy, c)[0], (x,)).passed is False


def test_a_gradient_that_is_zero_everywhere_is_inconclusive_unless_backward_says_otherwise():
    one_pixel = draw((2, 1, 1, 3), (3,), (3,))  # normalised, one pixel is always 0
    report = gradcheck(ops.instance_norm, ops.instance_norm_backward, one_pixel)
    assert report.passed is None
    assert [r.passed for r in report.inputs] == [None, None, True]
    report = gradcheck(lambda x: (0 * x + 3, x), lambda dy, x: dy, draw((3, 3)))
    assert report.passed is False


def test_the_random_upstream_catches_what_a_sum_would_not():
    """Under L = sum(y) a normalisation's gradient is 0, whatever the formula; here a wrong one shows, even at all ones."""
    inputs = (np.ones((2, 4, 5, 3)), *draw((3,), (3,)))
    assert gradcheck(ops.instance_norm, ops.instance_norm_backward, inputs, check="x").passed is True

    def wrong(dy, cache):
        dx, dgamma, dbeta = ops.instance_norm_backward(dy, cache)
        return dx - dx.mean(axis=3, keepdims=True), dgamma, dbeta

    assert gradcheck(ops.instance_norm, wrong, inputs, check="x").passed is False


def test_a_forward_of_random_results_is_inconclusive():
    rng = np.random.default_rng(0)
    report = gradcheck(lambda x: (x * (rng.random(x.shape) > 0.5), x), lambda dy, x: dy, draw((4, 4)))
    assert report.passed is None and causes(report) == [("noise", "y")]


def test_rounding_between_two_forwards_is_no_alarm():
    rng = np.random.default_rng(0)
    report = gradcheck(
        lambda x: (x**2 * (1 + 1e-15 * rng.standard_normal(x.shape)), x), square_backward, draw((4, 4))
    )
    assert report.passed is True


def test_float32_inside_is_noise_not_failure_and_hides_no_gross_error():
    def coarse(x):
        return (x.astype(np.float32) ** 2).astype(np.float64), x

    report = gradcheck(coarse, square_backward, draw((5, 8)))
    assert report.passed is None and causes(report) == [("noise", "dx")]
    assert gradcheck(coarse, lambda dy, x: 3 * x * dy, draw((5, 8))).passed is False


def test_a_jump_is_not_called_a_kink():
    x = np.linspace(-1, 1, 9)
    report = gradcheck(lambda x: (x + (x > 0), x), lambda dy, x: dy, (x,))
    assert report.kinks == 0 and report.inputs[0].checked + report.inputs[0].unresolved == 9


# --- what forward and backward leave behind ------------------------------------------------------------------------


def test_a_forward_that_changes_its_input_fails():
    def forward(x):
        x *= 2
        return x.copy(), None

    report = gradcheck(forward, lambda dy, cache: 2 * dy, draw((3, 4)))
    assert report.passed is False and ("changed-input", "dx") in causes(report)
    assert "forward changes x" in report.diagnoses[0].evidence


def test_a_backward_that_changes_an_input_or_dy_fails():
    def spoils_x(dy, x):
        g = 2 * x * dy
        x += 1
        return g

    def spoils_dy(dy, x):
        dy *= 2 * x
        return dy

    assert ("changed-input", "dx") in causes(gradcheck(square, spoils_x, draw((3, 4))))
    report = gradcheck(square, spoils_dy, draw((3, 4)))
    assert report.passed is False and causes(report) == [("changed-input", "dy")]


def test_a_cache_used_up_or_changed_fails():
    def forward(x):
        return x**2, [x]

    report = gradcheck(forward, lambda dy, cache: 2 * dy * cache.pop(), draw((3, 4)))
    assert report.passed is False and causes(report) == [("stale-cache", "all")]
    assert "IndexError" in report.diagnoses[0].evidence

    def grows(dy, cache):
        cache.append(cache[-1] * 2)
        return 2 * dy * cache[-2]

    report = gradcheck(forward, grows, draw((3, 4)))
    assert report.passed is False and ("stale-cache", "dx") in causes(report)


def norm_inputs():
    return (*draw((3, 4, 4, 2), (2,), (2,), (2,)), np.array([1.5, 0.5]))


def test_running_statistics_must_be_declared():
    assert gradcheck(
        ops.batch_norm, ops.batch_norm_backward, norm_inputs(), mutable=("running_mean", "running_var")
    ).passed
    report = gradcheck(
        ops.batch_norm, ops.batch_norm_backward, norm_inputs(), check=("x",), mutable=("running_mean",)
    )
    assert report.passed is False
    assert causes(report) == [("changed-input", "drunning_var"), ("wrong-shape", "all")]


def test_running_statistics_changed_by_backward_or_used_in_training_are_named():
    def normalise(x, mean):
        mean += 0.1 * (x.mean(axis=0) - mean)
        return (x - mean) ** 3, (x, mean.copy(), mean)

    def backward(dy, cache):
        x, mean, _ = cache
        return 3 * (x - mean) ** 2 * dy  # as though mean did not depend on x

    report = gradcheck(normalise, backward, draw((5, 3), (3,)), mutable="mean")
    assert report.passed is False and causes(report) == [("running-statistics", "dx")]

    def forward(x, mean):
        return x**2, (x, mean)

    def updates(dy, cache):
        x, mean = cache
        mean += 1
        return 2 * x * dy

    report = gradcheck(forward, updates, draw((5, 3), (3,)), mutable="mean")
    assert report.passed is False and causes(report) == [("running-statistics", "dmean")]


# --- misuse --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((np.arange(3),), {}, TypeError, "int64"),
        (([1.0, 2.0],), {}, TypeError, "list"),
        ((), {}, TypeError, "one or more arrays"),
        (draw((3,)), {"names": ("a", "b")}, ValueError, "names"),
        (draw((0, 3)), {}, ValueError, "no elements"),
        (draw((3,)), {"check": "z"}, ValueError, "'z' is not an input"),
        ((None,), {}, ValueError, "nothing to check"),
    ],
)
def test_misuse_is_explained(arguments, options, error, words):
    with pytest.raises(error, match=words):
        gradcheck(square, square_backward, arguments, **options)


def test_a_forward_without_a_cache_is_explained():
    with pytest.raises(TypeError, match=r"\(y, cache\)"):
        gradcheck(lambda x: x**2, square_backward, draw((3,)))


# --- the command ---------------------------------------------------------------------------------------------------


def test_every_operation_loss_and_layer_of_the_library_passes():
    wanted = {name.removesuffix("_naive") for name in dir(ops) if name.endswith("_naive")}
    assert "conv2d" in wanted and wanted <= {case.name for case in CASES}
    for case in CASES:
        if case.name != "style_net":
            report = check_case(case, 1, np, samples=12)
            assert report.passed is True, report


def test_the_cases_run_where_the_arrays_live(xp):
    for case in {case.name: case for case in CASES}.values():
        if case.name != "style_net":
            report = check_case(case, 2, xp, samples=2)
            assert report.passed is not False, report


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_the_style_net_passes(norm):
    (case,) = (
        c for c in CASES if c.name == "style_net" and c.label.startswith(f"norm={norm}, upsample=nearest")
    )
    report = check_case(case, 1, np, samples=1)
    assert report.passed is True, report
    assert len(report.inputs) == 1 + len(style_net(norm, "nearest", 2).parameters())


def test_one_name_gives_the_full_report_of_each_of_its_cases(capsys):
    assert main(["relu", "gram_matrix"]) == 0
    out = capsys.readouterr().out
    assert (
        "relu (x 2x5x7x3): ok" in out
        and "gram_matrix (f 2x5x7x3): ok" in out
        and "200 of 210 elements" in out
    )


def test_all_cases_one_line_each_and_the_status_of_a_failure(monkeypatch, capsys):
    few = [case for case in CASES if case.name in ("relu", "center_crop")]
    monkeypatch.setattr(command, "CASES", few)
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:-1]] == [["center_crop", "ok"], ["relu", "ok"]]
    wrong = Case("relu", "wrong", operation_case(ops.relu, lambda dy, cache: (dy,), {"x": (2, 3)}, {}))
    monkeypatch.setattr(command, "CASES", [*few, wrong])
    assert main([]) == 1
    out = capsys.readouterr().out
    assert (
        out.splitlines()[2].split()[:2] == ["relu", "FAIL"]
        and "1 of 3 did not pass; see: tinynst gradcheck relu" in out
    )


def test_list_and_mistakes(capsys, tmp_path):
    assert main(["--list"]) == 0
    assert "conv2d" in capsys.readouterr().out.splitlines()
    with pytest.raises(UserError, match="did you mean conv2d"):
        main(["conv2"])
    with pytest.raises(UserError, match="no such file"):
        main([str(tmp_path / "missing.py")])
    with pytest.raises(UserError, match="--seed"):
        main(["--seed", "-1", "relu"])


def test_the_command_line_ends_with_status_2_and_one_line(tmp_path):
    command = [sys.executable, "-m", "tinynst.gradcheck", str(tmp_path / "missing.py")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("tinynst gradcheck:")
