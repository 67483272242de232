"""Planted bugs are caught and named; right code of any shape raises no alarm."""

import numpy as np
import pytest

from tinynst import losses, ops
from tinynst.gradcheck import gradcheck, main
from tinynst.gradcheck.cases import loss_case, operation_case
from tinynst.gradcheck.mutants import MUTANTS, edited, figures

CAUSES = set(
    "scaled transposed flipped swapped-gradients missing-sum partial-batch overwritten border shifted missing-term wrong-mask "
    "running-statistics stale-cache changed-input wrong-shape not-finite zero noise unknown".split()
)
UNNAMED = ()  # caught, but called something else


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_planted_bug_is_caught_and_named_first(mutant):
    with np.errstate(all="ignore"):
        report = mutant.check(samples=500)
    assert report.passed is (None if mutant.cause == "noise" else False)
    assert {d.cause for d in report.diagnoses} <= CAUSES and all(
        d.evidence and d.hint for d in report.diagnoses
    )
    first = report.diagnoses[0]
    assert str(mutant) in UNNAMED or (
        first.cause == mutant.cause and first.gradient in (mutant.gradient, "dy")
    ), report


def test_the_collection_is_large_and_has_all_causes_but_unknown():
    assert len(MUTANTS) >= 100 and len({str(m) for m in MUTANTS}) == len(MUTANTS)
    assert {m.cause for m in MUTANTS} == CAUSES - {"unknown"}
    assert {m.operation for m in MUTANTS} >= {
        *(
            "conv2d",
            "conv_transpose2d",
            "batch_norm",
            "instance_norm",
            "reflect_pad2d",
            "center_crop",
            "max_pool2d",
        ),
        *(
            "upsample_nearest",
            "relu",
            "scaled_tanh",
            "gram_matrix",
            "feature_loss",
            "style_loss",
            "tv_loss",
            "residual",
        ),
    }


def test_the_figures_count_what_was_caught_and_named(monkeypatch, capsys):
    few = [m for m in MUTANTS if m.operation == "center_crop"]
    monkeypatch.setattr("tinynst.gradcheck.mutants.MUTANTS", few)
    assert figures() == (len(few), len(few), len(few))
    assert main(["--mutants"]) == 0
    assert (
        capsys.readouterr().out.splitlines()[-1]
        == f"{len(few)} bugs planted: {len(few)} caught, {len(few)} named at once"
    )


def test_an_edit_that_no_longer_fits_the_source_is_an_error():
    with pytest.raises(ValueError, match="not in the source"):
        edited("ops.gram", ("no such text", ""))


# --- right code ------------------------------------------------------------------------------------------------------


def right_cases(rng):
    """(name, make) of every operation and loss on random sizes from 1 up."""
    n, h, w, c, o = (int(v) for v in rng.integers(1, 6, 5))
    kh, kw, stride, pad = (int(v) for v in (*rng.integers(1, 4, 2), rng.integers(1, 4), rng.integers(0, 3)))
    image, big = (n, h, w, c), (n, h + 2, w + 2, c)
    norm = {"x": big, "gamma": (c,), "beta": (c,)}
    batch = {**norm, "running_mean": (c,), "running_var": (c,)}
    crop = int(rng.integers(0, 2))
    rows = [
        (
            "conv2d",
            {"x": (n, h + kh, w + kw, c), "w": (kh, kw, c, o), "b": (o,)},
            {"stride": stride, "pad": pad},
        ),
        (
            "conv_transpose2d",
            {"x": image, "w": (3, 3, o, c), "b": (o,)},
            {"stride": stride, "pad": min(pad, 1), "output_pad": stride - 1},
        ),
        ("batch_norm", batch, {"training": bool(rng.integers(2))}),
        ("instance_norm", norm, {}),
        ("reflect_pad2d", {"x": image}, {"pad": pad}),
        ("center_crop", {"x": big}, {"crop": crop}),
        ("max_pool2d", {"x": big}, {"size": int(rng.integers(2, 4))}),
        ("upsample_nearest", {"x": image}, {"scale": stride}),
        ("relu", {"x": image}, {}),
        ("scaled_tanh", {"x": image}, {"scale": float(rng.uniform(1, 200))}),
        ("gram_matrix", {"f": image}, {}),
    ]
    found = [
        (
            f"{name} {shapes} {options}",
            operation_case(getattr(ops, name), getattr(ops, f"{name}_backward"), shapes, options),
        )
        for name, shapes, options in rows
        if not (name == "max_pool2d" and min(big[1:3]) < options["size"])
    ]
    for name, shapes in (
        ("feature_loss", {"f": image, "target": image}),
        ("style_loss", {"f": image, "target_gram": (c, c)}),
        ("tv_loss", {"y": big}),
    ):
        found.append((f"{name} {shapes}", loss_case(getattr(losses, name), shapes)))
    return found


@pytest.mark.parametrize("part", range(4))
def test_right_code_of_any_shape_raises_no_alarm(part):
    rng = np.random.default_rng(part)
    checked = 0
    for trial in range(50):
        cases = right_cases(rng)
        for name, make in [cases[k] for k in rng.choice(len(cases), 2, replace=False)]:
            arguments = make(rng, np)
            forward, backward, inputs = (arguments.pop(key) for key in ("forward", "backward", "inputs"))
            report = gradcheck(forward, backward, inputs, **arguments, seed=trial, samples=6)
            assert report.passed is not False and not report.diagnoses, f"{name}\n{report}"
            checked += report.passed is True
    assert checked > 75  # a norm of one pixel, or a stride that skips the elements looked at, is inconclusive
