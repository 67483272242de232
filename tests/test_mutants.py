"""Planted bugs are caught and named; right code of any shape raises no alarm."""

import time

import numpy as np
import pytest
from planted_bugs import PLANTED, report_of

from tinynst import losses, ops
from tinynst.gradcheck import gradcheck
from tinynst.gradcheck.cases import operation_case


def label(bug):
    name, *_, (gradient, cause, _, new, *_) = bug
    return f"{name}-{gradient}-{cause}-{new.strip()[:30]}"


UNNAMED = {  # caught, but the cause that is named is less specific
    "block-dx-shifted-@ w.T + np.roll(dy, 1, 1)",
    "block-dx-transposed-dhidden @ w + dy",
    "block-dx-wrong-mask-(dy @ u.T)",
}


@pytest.mark.parametrize("bug", PLANTED, ids=label)
def test_a_planted_bug_is_caught_and_named(bug):
    with np.errstate(all="ignore"):
        report = report_of(*bug)
    gradient, cause = bug[-1][:2]
    assert report.passed is (None if cause == "noise" else False), str(report)
    named = [(d.cause, d.gradient) for d in report.diagnoses][:1] == [(cause, gradient)]
    assert named is (label(bug) not in UNNAMED), str(report)


def right_cases(rng):
    """Some operations and losses of random sizes from 1 up."""
    n, h, w, c, o = (int(v) for v in rng.integers(1, 6, 5))
    kh, kw, stride, pad = (int(v) for v in (*rng.integers(1, 4, 3), rng.integers(0, 3)))
    image, big = (n, h, w, c), (n, h + 3, w + 3, c)
    norm = {"x": big, "gamma": (c,), "beta": (c,)}
    batch = {**norm, "running_mean": (c,), "running_var": (c,)}
    up = {"stride": stride, "pad": min(pad, 1), "output_pad": stride - 1}
    rows = [
        ("conv2d", {"x": (n, h + kh, w + kw, c), "w": (kh, kw, c, o)}, {"stride": stride, "pad": pad}),
        ("conv_transpose2d", {"x": image, "w": (3, 3, o, c), "b": (o,)}, up),
        ("batch_norm", batch, {"training": bool(rng.integers(2))}),
        ("instance_norm", norm, {}),
        ("reflect_pad2d", {"x": image}, {"pad": pad}),
        ("center_crop", {"x": big}, {"crop": int(rng.integers(0, 2))}),
        ("max_pool2d", {"x": big}, {"size": int(rng.integers(2, 4))}),
        ("upsample_nearest", {"x": image}, {"scale": stride}),
        ("relu", {"x": image}, {}),
        ("scaled_tanh", {"x": image}, {"scale": float(rng.uniform(1, 200))}),
        ("gram_matrix", {"f": image}, {}),
    ]
    cases = [operation_case(k, getattr(ops, k), getattr(ops, f"{k}_backward"), s, o) for k, s, o in rows]
    for name, shapes in (("feature_loss", {"f": image, "target": image}), ("tv_loss", {"y": big})):
        cases.append(operation_case(name, getattr(losses, name), None, shapes))
    return cases


@pytest.mark.parametrize("part", range(4))
def test_right_code_of_any_shape_raises_no_alarm(part):
    rng, verdicts = np.random.default_rng(part), []
    for trial in range(50):
        cases = right_cases(rng)
        for case in [cases[k] for k in rng.choice(len(cases), 2, replace=False)]:
            report = case.check(trial, samples=6)
            assert report.passed is not False and not report.diagnoses, str(report)
            verdicts.append(report.passed)
    assert verdicts.count(True) > 75  # some random cases can tell nothing, a norm of one pixel for example


def test_one_slow_call_does_not_change_the_name():
    calls = []

    def backward(dy, cache):  # wrong at the border, and interrupted once, as on a busy machine
        calls.append(0)
        time.sleep(0.05 * (len(calls) == 2))
        return dy[:, 2:-2, 2:-2].copy()

    x = np.random.default_rng(0).standard_normal((3, 5, 7, 4))
    report = gradcheck(lambda x: ops.reflect_pad2d(x, 2), backward, (x,))
    assert [(d.cause, d.gradient) for d in report.diagnoses] == [("border", "dx")]
