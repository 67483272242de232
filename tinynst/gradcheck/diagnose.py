"""From a wrong gradient and the right one: what most likely happened."""

import itertools

import numpy as np

from .hypotheses import HYPOTHESES
from .measure import LARGE, SECONDS, Facts
from .report import Diagnosis
from .whole import swapped

READ = {
    "conv2d": "tinynst/ops/conv.py, conv2d_backward",
    "conv_transpose2d": "tinynst/ops/conv_transpose.py",
    "batch_norm": "tinynst/ops/batch_norm.py, batch_norm_backward",
    "instance_norm": "tinynst/ops/instance_norm.py, instance_norm_backward",
    "reflect_pad2d": "tinynst/ops/padding.py, reflect_pad2d_backward",
    "center_crop": "tinynst/ops/padding.py, center_crop_backward",
    "max_pool2d": "tinynst/ops/pooling.py, max_pool2d_backward",
    "upsample_nearest": "tinynst/ops/resampling.py",
    "upsample_bicubic": "tinynst/ops/resampling.py",
    "relu": "tinynst/ops/activations.py, relu_backward",
    "scaled_tanh": "tinynst/ops/activations.py, scaled_tanh_backward",
    "gram_matrix": "eq. 3 and tinynst/ops/gram.py",
    "feature_loss": "eq. 2 and tinynst/losses.py",
    "pixel_loss": "tinynst/losses.py",
    "grid_loss": "tinynst/losses.py",
    "style_loss": "eq. 4 and tinynst/losses.py",
    "tv_loss": "tinynst/losses.py",
}


def diagnose(problem, k, analytic, rows):
    """Diagnoses of the wrong gradient `analytic` of input k, most likely first, and the Facts. `rows`: the elements that were
    compared; where there is time all are measured."""
    size = problem.inputs[k].size
    if size * problem.cost * 2 <= SECONDS and size * problem.y.size <= LARGE:
        rows = np.arange(size)
    facts = Facts(problem, k, analytic, rows)
    found = None
    if facts.fits and len(facts.rows):
        with np.errstate(all="ignore"):
            found = next((answer for answer in (h(facts) for h in HYPOTHESES) if answer), None)
    return [_diagnosis(problem, facts, *found)] if found else [], facts


def misshapen(problem, k, analytic, diagnosis):
    """What may be said of a gradient of the wrong shape, before `diagnosis`, which says that it is."""
    size = problem.inputs[k].size
    if (
        size * problem.cost * 2 > SECONDS
        or size * problem.y.size > LARGE
        or not np.all(np.isfinite(analytic))
    ):
        return [diagnosis]
    facts = Facts(problem, k, analytic, np.arange(size))
    if not facts.whole:
        return [diagnosis]
    right = facts.n.reshape(facts.x.shape)
    found = swapped(facts) or _unsummed(facts, right) or _unturned(facts, right)
    return [*([_diagnosis(problem, facts, *found)] if found else []), diagnosis]


def _unsummed(facts, right):
    a = facts.analytic
    for count in range(1, a.ndim + 1):
        for axes in itertools.combinations(range(a.ndim), count):
            if all(a.shape[k] == 1 for k in axes):
                continue
            summed = a.sum(axis=axes)
            if summed.size == right.size and facts.same(summed.ravel(), right.ravel()):
                evidence = f"summed over axes {', '.join(map(str, axes))} its shape {a.shape} becomes {right.shape}, and it is right"
                return (
                    "missing-sum",
                    evidence,
                    "The input is used there again and again: its gradient is the sum of all its uses",
                )
    return None


def _unturned(facts, right):
    a = facts.analytic
    for order in itertools.permutations(range(a.ndim)) if a.ndim <= 4 else ():
        if a.transpose(order).shape == right.shape and facts.same(a.transpose(order), right):
            evidence = f"its shape is {a.shape}; transposed by {order} it has {right.shape}, and is right"
            return "transposed", evidence, "A gradient has its input's shape, axis for axis"
    return None


def _diagnosis(problem, facts, cause, evidence, hint):
    names = problem.title.replace("_backward", "").split()
    read = READ.get(names[0]) if names else None
    return Diagnosis(
        cause,
        "d" + facts.name,
        evidence,
        f"{hint}{'' if hint.endswith('?') else '.'} Read: {read}" if read else hint,
    )
