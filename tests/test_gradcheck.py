"""gradcheck: right gradients pass, wrong ones fail and are named, and what cannot be told is inconclusive."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tinynst import losses, ops
from tinynst.errors import UserError
from tinynst.gradcheck import command, gradcheck, main
from tinynst.gradcheck.cases import CASES, Case, operation_case


def draw(*shapes, seed=3):
    rng = np.random.default_rng(seed)
    return tuple(rng.standard_normal(shape) for shape in shapes)


def square(x):
    return x**2, x


def square_backward(dy, x):
    return 2 * x * dy


def relu(x):
    return np.maximum(x, 0), x


def causes(report):
    return [(d.cause, d.gradient) for d in report.diagnoses]


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_right_gradients_pass_at_every_size(size):
    x = size * draw((5, 8))[0]
    report = gradcheck(square, square_backward, (x,))
    assert report.passed is True and report.error < 1e-7
    assert len(report.inputs[0].rows) == 40 and report.diagnoses == [] and report.inputs[0].kinks == 0


def test_a_loss_is_checked_directly():
    y, target = draw((2, 4, 5, 3), (2, 4, 5, 3))
    assert gradcheck(losses.tv_loss, (y,)).passed is True
    assert [r.name for r in gradcheck(losses.pixel_loss, None, (y, target)).inputs] == ["y"]
    report = gradcheck(lambda y: (float((y**2).sum()), y), (y,))
    assert causes(report) == [("scaled", "dy")] and "0.5 times" in report.diagnoses[0].evidence


def test_inputs_are_left_alone_and_the_seed_repeats_the_result():
    (x,) = draw((4, 4))
    before = x.copy()
    first, second = (gradcheck(square, lambda dy, x: 3 * x * dy, (x,), seed=5) for _ in range(2))
    assert np.array_equal(x, before) and np.array_equal(first.inputs[0].numeric, second.inputs[0].numeric)
    other = gradcheck(square, square_backward, (x,))
    assert first.inputs[0].numeric != pytest.approx(other.inputs[0].numeric)


def test_float32_inputs_are_checked_as_float64_and_large_ones_sampled():
    x = draw((100, 50))[0].astype(np.float32)
    report = gradcheck(square, square_backward, (x,), samples=30)
    assert report.passed is True and report.notes == ["x was float32, checked as float64"]
    assert len(report.inputs[0].rows) == 30 and "a random 30 of 5000 elements" in str(report)


def test_arrays_of_either_device(xp):
    x, w = (xp.asarray(a) for a in draw((2, 5, 4, 3), (3, 3, 3, 2)))
    assert gradcheck(ops.conv2d, ops.conv2d_backward, (x, w, None), names=("x", "w", "b")).passed is True
    report = gradcheck(ops.relu, lambda dy, cache: 2 * ops.relu_backward(dy, cache)[0], (x,))
    assert causes(report) == [("scaled", "dx")]


def test_a_slow_forward_is_measured_at_fewer_elements_and_the_report_says_so():
    report = gradcheck(square, square_backward, draw((10, 10)), seconds=0.0)
    assert report.notes == ["stopped after 0 s at 3 of 100 elements of x"] and report.passed is True


def test_one_wrong_element_fails_and_the_report_shows_it_first():
    def backward(dy, x):
        dx = 2 * x * dy
        dx[2, 3] *= 1.01
        return dx

    report = gradcheck(square, backward, draw((5, 8)))
    assert report.passed is False and "dx[2, 3]   backward" in str(report)
    assert report.inputs[0].place(report.inputs[0].worst[0]) == "dx[2, 3]"
    assert len(str(report).splitlines()) <= 24 and len(repr(report).splitlines()) == 2


@pytest.mark.parametrize(
    ("factor", "words"), [(2.0, "2 is 2"), (-1.0, "-1 is -1"), (1 / 15, "1/(N*C)"), (0.3, "0.3 times")]
)
def test_a_constant_factor_is_named(factor, words):
    report = gradcheck(square, lambda dy, x: factor * 2 * x * dy, draw((3, 5)))
    assert causes(report) == [("scaled", "dx")] and words in report.diagnoses[0].evidence


def test_a_norms_missing_term_is_named():
    def backward(dy, cache):
        dx, dgamma, dbeta = ops.instance_norm_backward(dy, cache)
        return dx + dy.mean(axis=(1, 2), keepdims=True), dgamma, dbeta

    report = gradcheck(ops.instance_norm, backward, (*draw((2, 5, 4, 3)), np.ones(3), np.zeros(3)))
    assert "exactly the mean's term of each channel of each image" in report.diagnoses[0].evidence


CROPPED = "H is 4 too small, W is 4 too small: it looks cropped by 2 pixels on each side"
SHAPES = [
    (np.s_[:, 2:-2, 2:-2], CROPPED),
    (np.s_[:, 0:-0], "an axis is empty"),
    (np.s_[0], "has 3 axes in place"),
]


@pytest.mark.parametrize(("shape", "words"), SHAPES)
def test_a_wrong_shape_says_which_axis_is_off_by_how_much(shape, words):
    report = gradcheck(ops.relu, lambda dy, cache: dy[shape], draw((2, 6, 7, 3)))
    assert causes(report) == [("wrong-shape", "dx")] and words in report.diagnoses[0].evidence


def test_kinks_are_left_out_and_do_not_hide_a_wrong_gradient():
    (x,) = draw((5, 8))
    x[1, :3] = 0
    x[2, :4] = [1e-6, -1e-6, 3e-7, -3e-7]  # within the step, which then shrinks
    report = gradcheck(relu, lambda dy, x: dy * (x > 0), (x,))
    assert report.passed is True and report.inputs[0].kinks == 3 and len(report.inputs[0].rows) == 37
    assert gradcheck(relu, lambda dy, x: dy, (x,)).passed is False
    x[:4] = 0
    assert gradcheck(relu, lambda dy, x: dy * (x > 0), (x,)).passed is None


def test_what_backward_does_at_ties_is_checked():
    report = gradcheck(relu, lambda dy, x: dy * (x >= 0), draw((5, 8)))
    assert report.passed is False and causes(report) == [("wrong-mask", "dx")]
    assert "at random inputs" in str(report) and "at x[0, 0] = 0 forward's slope is" in str(report)
    assert "largest |error|" not in str(report)


def test_a_zero_gradient_is_inconclusive_unless_backward_says_otherwise():
    one_pixel = draw((2, 1, 1, 3), (3,), (3,))  # normalised, one pixel is always 0
    report = gradcheck(ops.instance_norm, ops.instance_norm_backward, one_pixel)
    assert [r.passed for r in report.inputs] == [None, None, True] and report.passed is None
    assert gradcheck(lambda x: (0 * x + 3, x), lambda dy, x: dy, draw((3, 3))).passed is False


def test_noise_is_inconclusive_and_hides_no_gross_error():
    rng = np.random.default_rng(0)
    random = gradcheck(lambda x: (x * (rng.random(x.shape) > 0.5), x), lambda dy, x: dy, draw((4, 4)))
    assert random.passed is not True

    def coarse(x):
        return (x.astype(np.float32) ** 2).astype(np.float64), x

    report = gradcheck(coarse, square_backward, draw((5, 8)))
    assert report.passed is None and causes(report) == [("noise", "dx")]
    assert gradcheck(coarse, lambda dy, x: 3 * x * dy, draw((5, 8))).passed is False


def test_side_effects_fail():
    def changes_x(x):
        x *= 2
        return x.copy(), None

    def changes_dy(dy, x):
        dy *= 2 * x
        return dy

    def pops(dy, cache):
        return 2 * cache.pop() * dy

    report = gradcheck(changes_x, lambda dy, cache: 2 * dy, draw((3, 4)))
    assert ("changed-input", "dx") in causes(report) and report.passed is False
    assert "forward changes x in place: x[0, 0] is" in report.diagnoses[0].evidence
    assert causes(gradcheck(square, changes_dy, draw((3, 4)))) == [("changed-input", "dy")]
    assert causes(gradcheck(lambda x: (x**2, [x]), pops, draw((3, 4)))) == [("stale-cache", "all")]


def test_an_output_that_is_not_finite_fails():
    report = gradcheck(lambda x: (x * np.inf, x), square_backward, draw((3, 4)))
    assert report.passed is False and causes(report) == [("not-finite", "all")]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((square, square_backward, ()), {}, TypeError, "inputs must be"),
        ((square, square_backward, (np.arange(3),)), {}, TypeError, "dtype int64"),
        ((square, square_backward, (np.zeros((0, 3)),)), {}, ValueError, "no elements"),
        ((square, square_backward, draw((3,))), {"names": ("x", "y")}, ValueError, "1 different words"),
        ((square, square_backward, draw((3,))), {"check": "z"}, ValueError, "'z' is not an input"),
        ((square, square_backward, (None,)), {}, ValueError, "nothing to check"),
        ((lambda x: x, square_backward, draw((3,))), {}, TypeError, "must return"),
    ],
)
def test_misuse_is_explained(arguments, options, error, words):
    with pytest.raises(error, match=words):
        gradcheck(*arguments, **options)


SMALL = [case for case in CASES if case.name not in ("style_net", "super_resolution_net")]


@pytest.mark.parametrize("case", SMALL, ids=lambda case: f"{case.name} {case.label}")
def test_the_library_passes(case):
    report = case.check(samples=20)
    assert report.passed is True, str(report)


@pytest.mark.parametrize("label", ["norm=instance, upsample=transpose", "factor=2"])
def test_the_nets_pass(label):
    case = next(case for case in CASES if case.label == label)
    assert case.check(samples=1).passed is True


def test_a_net_that_starts_as_bicubic_enlargement_passes_as_the_command_checks_it():
    case = next(case for case in CASES if "residual=True" in case.label)
    assert case.check(seed=0).passed is True


def test_the_cases_run_where_the_arrays_live(xp):
    for name in ("conv2d", "batch_norm", "tv_loss", "Residual"):
        report = next(case for case in CASES if case.name == name).check(0, xp, samples=4)
        assert report.passed is True, str(report)


# --- the command ---


@pytest.fixture
def two_cases(monkeypatch):
    """A library of two operations, the second of them wrong."""
    shapes = {"x": (2, 3, 4, 2)}
    good = operation_case("relu", ops.relu, ops.relu_backward, shapes)
    bad = operation_case("twice", ops.relu, lambda dy, y: (2 * ops.relu_backward(dy, y)[0],), shapes)
    monkeypatch.setattr(command, "CASES", [good, bad])
    assert isinstance(good, Case)


def test_all_cases_one_line_each_and_the_status_of_a_failure(two_cases, capsys):
    assert main([]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:2]] == [["relu", "ok"], ["twice", "FAIL"]]
    assert lines[2] == "1 of 2 failed; see: tinynst gradcheck twice"


def test_json_and_a_plot_of_the_first_failure(two_cases, capsys, tmp_path):
    assert main(["--json", "--plot", str(tmp_path / "a.png")]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["passed"] is False and [c["passed"] for c in found["checks"]] == [True, False]
    assert found["checks"][1]["report"]["diagnoses"][0]["cause"] == "scaled"
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_a_report_shows_itself_in_a_notebook():
    report = gradcheck(square, lambda dy, x: 3 * x * dy, draw((3, 4)))
    assert "scaled (dx)" in report._repr_html_() and "data:image/png;base64" in report._repr_html_()


def test_list_and_mistakes(capsys, tmp_path):
    assert main(["--list"]) == 0
    assert {"conv2d", "tv_loss", "Residual", "VGG16"} <= set(capsys.readouterr().out.split())
    for arguments, words in (
        (["conv2"], "did you mean conv2d"),
        (["--seed", "-1"], "0 or more"),
        (["relu", "--plot", "a.txt"], "should end in"),
        ([str(tmp_path), "--json"], "not with a folder"),
        (["nothing.py"], "no such file"),
    ):
        with pytest.raises(UserError, match=words):
            main(arguments)


def test_the_command_line_ends_with_status_2_and_one_line(tmp_path):
    command = [sys.executable, "-m", "tinynst.gradcheck", "conv2"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2 and result.stderr.count("\n") == 1 and result.stdout == ""
