"""Where random numbers never go: exact zeros, and two equal largest values. `>=` for `>` shows nowhere else.

Differences have no answer at a kink, but they have two: the slope to the right and the one to the left. A rectifier's flat
side is the rule (0 at 0: PyTorch's too), and of several equal largest values one alone gets the gradient: moved together they
are no kink at all, and the gradients of all of them must add up to that slope.
"""

import numpy as np

from ..device import to_numpy
from .report import Diagnosis

ZEROS = 6  # elements that are set to exactly 0


def ties(problem, k):
    """A Diagnosis of what backward does at a tie in input k, or None."""
    x = to_numpy(problem.inputs[k])
    rng = np.random.default_rng(7)
    return _at_zero(problem, k, x, rng) or (
        _equal(problem, k, x) if x.ndim == 4 and min(x.shape[1:3]) > 1 else None
    )


def _at_zero(problem, k, x, rng):
    """Set some elements to 0: where that is a kink with a flat side, the gradient should not be the steep one."""
    places = rng.choice(x.size, min(ZEROS, x.size), replace=False)
    tied = x.copy()
    tied.reshape(-1)[places] = 0
    gradient = _gradient(problem, k, tied)
    if gradient is None:
        return None
    zeros = np.flatnonzero(tied == 0)
    together = _slopes(problem, k, tied, zeros)
    scale = np.max(np.abs(gradient), initial=0.0)
    if _smooth(*together, scale):  # all the zeros together are no kink: they are rivals for a maximum
        return None
    steep = []
    for place in places:
        right, left = _slopes(problem, k, tied, [place])
        flat, slope = sorted((right, left), key=abs)
        if _smooth(right, left, scale) or abs(flat) > 1e-6 * abs(slope):
            continue
        if abs(gradient.reshape(-1)[place] - slope) <= 1e-5 * abs(slope):
            steep.append(place)
    if not steep:
        return None
    name = problem.names[k]
    evidence = f"at {name} = 0 exactly backward lets dy through ({len(steep)} of {len(places)} places tried)"
    return Diagnosis(
        "wrong-mask", "d" + name, evidence, f"{name} > 0, not {name} >= 0: where a ReLU stops x it stops dy"
    )


def _equal(problem, k, x):
    """Make two neighbours equal and larger than all others: moved together they give one slope, which theirs must add to."""
    tied = x.copy()
    tied[:, 0, :2] = np.max(x) + 1.0
    gradient = _gradient(problem, k, tied)
    if gradient is None:
        return None
    scale = np.max(np.abs(gradient), initial=0.0)
    for n, c in [(0, 0), (x.shape[0] - 1, x.shape[3] - 1)]:
        pair = [np.ravel_multi_index((n, 0, j, c), x.shape) for j in (0, 1)]
        alone, both = _slopes(problem, k, tied, pair[:1]), _slopes(problem, k, tied, pair)
        if _smooth(*alone, scale) or not _smooth(*both, scale):
            continue
        total, right = float(gradient.reshape(-1)[pair].sum()), sum(both) / 2
        if abs(total - right) > 1e-4 * max(scale, abs(right)):
            evidence = f"of two equal largest values both get the gradient: together {total:.4g}, it should be {right:.4g}"
            hint = "Only one of them is passed on: take the first, and no other after it"
            return Diagnosis("wrong-mask", "d" + problem.names[k], evidence, hint)
    return None


def _with(problem, k, x):
    inputs = problem.copies()
    inputs[k][...] = type(problem).asarray(x, inputs[k])
    return inputs


def _gradient(problem, k, x):
    """backward's gradient of input k at x, or None where it is not to be had."""
    try:
        gradient = problem.gradients(_with(problem, k, x)).get(problem.names[k])
    except Exception:  # a learner's function may raise anything: not at the inputs that count
        return None
    if gradient is None or gradient.shape != x.shape or not np.all(np.isfinite(gradient)):
        return None
    return gradient


def _slopes(problem, k, x, places):
    """Slopes of L to the right and left when all `places` move together."""
    h = 1e-6 * (float(np.sqrt(np.mean(x**2))) or 1.0)
    start, slopes = problem.value(_with(problem, k, x))[0], []
    for sign in (1, -1):
        moved = x.copy()
        moved.reshape(-1)[places] += sign * h
        y = problem.value(_with(problem, k, moved))[0]
        slopes.append(float(((y - start) * problem.dy).sum()) / (sign * h))
    return slopes


def _smooth(right, left, scale):
    return abs(right - left) <= 1e-3 * max(abs(right), abs(left), 1e-3 * scale)
