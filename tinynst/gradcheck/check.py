"""The gradient checker: is `backward` the derivative of `forward`?

    report = gradcheck(forward, backward, (x, w, b))
    report.passed      True, False, or None when the check could not tell
    print(report)      the worst elements, and what is known about the cause

A random `dy` turns any output into one number, L = sum(y * dy), whose gradient by each input is what
`backward(dy, cache)` claims. Differences of L, element by element and in float64, give the same gradient without any
calculus:

    right = (L(x + h) - L(x)) / h      left = (L(x) - L(x - h)) / h      numeric = (right + left) / 2

Two steps, h and h/2, tell how far to trust `numeric`: truncation shrinks with h, rounding grows, and where a ReLU or
a maximum has its kink `right - left` stays. (Gradient checks by differences: CS231n's notes; the pair of steps:
Richardson, 1911.)

As a command it checks every operation, loss, layer and network of this library (cases.py), or a learner's own file.
"""

import inspect
import time

import numpy as np

from ..device import array_module, to_numpy
from .diagnose import diagnose, misshapen
from .measure import axis_names
from .problem import Problem
from .report import Diagnosis, InputResult, Report
from .ties import ties

STEP = (
    2.0**-15
)  # 3e-5, between the best for one step (cbrt(eps), 6e-6) and for two (eps^(1/5), 7e-4: more kinks)
FLOOR = 1e-3  # an error is never divided by less than this part of the input's largest gradient
SLOW = 0.1  # seconds of a forward beyond which ties and a second call are not looked at
FEWEST = 8  # elements that are looked at, however slow forward is
NOTHING = 1e-8  # a gradient below this part of what it could be is no more than rounding


def gradcheck(
    forward,
    backward,
    inputs,
    *,
    names=None,
    check=None,
    seed=0,
    step=None,
    tolerance=1e-6,
    samples=200,
    seconds=120.0,
    mutable=(),
    title=None,
):
    """Compare the gradients of `backward` with differences of `forward`. Returns a Report.

    forward   called as forward(*inputs), returns (y, cache); y an array, or a plain number for a loss
    backward  called as backward(dy, cache), returns the gradients in the order of the inputs: a tuple, or the one
              gradient; inputs named in `mutable` may be left out
    inputs    float64 arrays, NumPy or CuPy (other float types are converted), or None for an argument left out
    names     one for each input; None: the names of forward's parameters
    check     names of the inputs whose gradient to compare; None: all but None and the mutable ones
    seed      of dy (standard normal) and of the sampled elements
    step      h for every element; None: 3e-5 times the element's magnitude (at least a tenth of the input's rms)
    tolerance passes when |analytic - numeric| <= tolerance * max(|analytic|, |numeric|, largest gradient / 1000),
              or 10 times the doubt of `numeric` (what its two steps are apart, and the rounding measured in forward)
    samples   inputs of more elements than this are checked at so many random ones
    seconds   for comparing, shared by the inputs: a slow forward is checked at fewer elements, and the report says at how many
    mutable   names of inputs that forward may change (running statistics)

    Failing counts more than passing: one element off is a FAIL. INCONCLUSIVE are a gradient that is zero everywhere,
    a check of which more than half are kinks or noise, and a forward that gives two results for the same inputs.
    Where forward takes complex numbers the slope is Im L(x + ih) / h, which has no difference in it to round (Squire, Trapp
    1998); the differences must agree with it. A gradient of None counts as zero. A kink is skipped only where the left and
    the right slope differ by the same amount at steps from h/16 to h/512.

    When all is right so far, backward is also tried at exact ties (ties.py) and once more with other inputs (stale-cache).

    Raises ValueError or TypeError for arguments that make no check; what forward and backward raise passes through.
    """
    names = _names(forward, inputs, names)
    mutable = _known(mutable, names, "mutable")
    inputs, notes = _as_float64(inputs, names)
    if check is None:
        check = [n for n, x in zip(names, inputs, strict=True) if x is not None and n not in mutable]
    check = _known(check, names, "check")
    if not check:
        raise ValueError("nothing to check: every input is None or mutable")
    rng = np.random.default_rng(
        (seed, 1)
    )  # not default_rng(seed): inputs drawn from that would make dy equal to x
    title = title or getattr(forward, "__name__", type(forward).__name__)
    problem = Problem(forward, backward, inputs, names, mutable, rng, title)
    gradients, diagnoses = problem.run(check, notes)

    results = []
    for k, name in enumerate(names):
        if name not in check:
            continue
        if name not in gradients:
            results.append(InputResult(name, problem.blocked, problem.reason))
            for d in [d for d in diagnoses if d.cause == "wrong-shape" and d.gradient == "d" + name]:
                at = diagnoses.index(d)
                diagnoses[at : at + 1] = misshapen(problem, k, problem.found[name], d)
            continue
        result = _compare(problem, k, gradients[name], step, tolerance, samples, seconds / len(check), notes)
        results.append(result)
        if result.passed is False:
            rows = (
                np.ravel_multi_index(tuple(result.indices.T), inputs[k].shape)
                if inputs[k].ndim
                else np.zeros(1, int)
            )
            causes, facts = diagnose(problem, k, gradients[name], rows)
            diagnoses += causes
            result.gap.reshape(-1)[facts.rows] = np.abs(facts.a - facts.n)
            if [d.cause for d in causes] == ["noise"]:
                result.passed, result.reason = None, "the error is no larger than float32's rounding"
        elif result.unresolved > result.kinks and result.passed is None:
            evidence = f"{result.unresolved} of {result.probed} elements of {name} give no steady difference"
            diagnoses.append(
                Diagnosis("noise", "d" + name, evidence, "Does forward compute in float64 throughout?")
            )
    if not diagnoses and problem.exact and all(r.passed for r in results):
        diagnoses += _beyond(problem, names.index(check[0]), check)
    for d in diagnoses:  # a fault of one gradient's is that input's failure
        for result in results:
            if d.gradient == "d" + result.name and d.cause != "noise":
                result.passed = False
                result.reason = result.reason or ("" if result.probed else d.evidence)
    diagnoses.sort(
        key=lambda d: d.cause == "unknown"
    )  # a bug's named cause in one gradient before its traces in another
    passed = _overall([r.passed for r in results], [d.cause for d in diagnoses])
    return Report(title, passed, results, diagnoses, seed, tolerance, notes)


def _beyond(problem, k, check):
    """What random inputs and one call do not show: exact ties, and a second call with others. [Diagnosis] or []."""
    if problem.cost > SLOW:
        return []
    found = problem.second_call(check) or ties(problem, k)
    return [found] if found else []


def _overall(verdicts, causes):
    """One failure fails; else one doubt leaves doubt."""
    if False in verdicts or any(cause != "noise" for cause in causes):
        return False
    return None if None in verdicts or causes else True


def _names(forward, inputs, names):
    """The inputs' names: those given, else those of forward's parameters, else x0, x1, ..."""
    if not isinstance(inputs, (tuple, list)) or not inputs:
        raise TypeError(f"inputs must be a tuple or list of one or more arrays, got {inputs!r:.60}")
    if names is None:
        try:
            parameters = inspect.signature(forward).parameters.values()
            names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        except (TypeError, ValueError):  # a function written in C has no signature
            names = []
        names = names[: len(inputs)] if len(names) >= len(inputs) else [f"x{k}" for k in range(len(inputs))]
    names = list(names)
    if len(names) != len(inputs) or len(set(names)) != len(names):
        raise ValueError(f"names must be {len(inputs)} different words, one for each input, got {names}")
    return names


def _known(chosen, names, option):
    chosen = [chosen] if isinstance(chosen, str) else list(chosen)
    unknown = [name for name in chosen if name not in names]
    if unknown:
        raise ValueError(f"{option}: {unknown[0]!r} is not an input; the inputs are {', '.join(names)}")
    return chosen


def _as_float64(inputs, names):
    """Own, contiguous float64 copies of the inputs, on their device, and a note for each that was converted."""
    copies, notes = [], []
    for name, x in zip(names, inputs, strict=True):
        if x is None:
            copies.append(None)
            continue
        xp = array_module(x)
        if not np.issubdtype(x.dtype, np.floating):
            raise TypeError(f"input {name} has dtype {x.dtype}: only floating-point inputs have a gradient")
        if x.size == 0:
            raise ValueError(f"input {name} of shape {x.shape} has no elements to check")
        if x.dtype != np.float64:
            notes.append(f"{name} was {x.dtype}, checked as float64")
        copies.append(xp.array(x, dtype=np.float64, order="C"))
    return copies, notes


def _compare(problem, k, analytic, step, tolerance, samples, seconds, notes):
    """Compare the gradient of input k with differences: an InputResult."""
    x = to_numpy(problem.inputs[k])
    where = np.arange(x.size)
    if x.size > samples:
        where = np.sort(problem.rng.choice(x.size, samples, replace=False))
    a = analytic.reshape(-1)[where]
    typical = float(np.sqrt(np.mean(x**2))) or 1.0
    h = np.full(len(where), step) if step else STEP * np.maximum(np.abs(x.reshape(-1)[where]), 0.1 * typical)
    floor = FLOOR * np.max(np.abs(a), initial=0.0)
    noise = problem.noise(k, typical)
    problem.exact = noise is not None
    measured, start, method = {}, time.monotonic(), "differences"
    if noise is not None and problem.complex_slope(k, where[0]) is not None:
        method = "complex step"
    for j in problem.rng.permutation(len(where)):
        if noise is None:
            measured[j] = _rough_derivative(problem, k, where[j], h[j])
        else:
            exact = problem.complex_slope(k, where[j]) if method == "complex step" else None
            measured[j] = _derivative(problem, k, where[j], h[j], noise, floor, tolerance, exact)
        if time.monotonic() - start > seconds and len(measured) >= min(FEWEST, len(where)):
            break
    done = np.sort(np.array(list(measured), int))
    if len(done) < len(where):
        notes.append(
            f"stopped after {seconds:.0f} s at {len(done)} of {len(where)} elements of {problem.names[k]}"
        )
        where, a = where[done], a[done]
    measured = [measured[j] for j in done]
    n, doubt, state = (np.array(column) for column in zip(*measured, strict=True))

    resolved, noisy, kink = state == "ok", state == "noisy", state == "kink"
    if noise is None:  # one element's doubt may be small by luck
        doubt[noisy] = np.maximum(doubt[noisy], np.median(doubt[noisy]))
    largest = np.max(np.maximum(np.abs(a), np.abs(n))[resolved], initial=0.0)
    scale = np.maximum(np.maximum(np.abs(a), np.abs(n)), max(FLOOR * largest, np.finfo(float).tiny))
    gap = np.abs(a - n)
    wrong = ~kink & (gap > tolerance * scale) & (gap > 10 * doubt)
    unresolved = noisy & ~wrong & (gap > tolerance * scale)
    compared = ~kink & ~unresolved

    could_be = problem.size / typical
    nothing = NOTHING * could_be
    zero = np.max(np.abs(np.concatenate([a[~kink], n[compared]])), initial=0.0) <= nothing
    passed, reason = True, ""
    if zero and not kink.all():
        passed, reason = (
            None,
            "the gradient is zero wherever it was looked at: these inputs cannot tell right from wrong",
        )
    elif wrong.any():
        passed = False
    elif 2 * np.count_nonzero(compared) < len(where):
        passed, reason = None, "more than half of the elements are kinks or too noisy: choose other inputs"
    shape = np.column_stack(np.unravel_index(where, x.shape)) if x.ndim else np.zeros((len(where), 0), int)
    errors = (gap / scale)[compared]
    return InputResult(
        problem.names[k],
        passed,
        reason,
        error=float(np.max(errors)) if errors.size else np.nan,
        analytic=a[compared],
        numeric=n[compared],
        errors=errors,
        indices=shape[compared],
        kink_indices=shape[kink],
        unresolved=int(np.count_nonzero(unresolved)),
        size=x.size,
        method=method,
        gap=_spread(x.shape, where[compared], gap[compared]),
        axes=axis_names(problem.names[k], x.shape),
        curve=_curve(problem, k, where[compared], gap[compared], n[compared], typical),
    )


def _spread(shape, where, values):
    """An array of `shape` with `values` at the flat indices `where`, nan elsewhere."""
    full = np.full(shape, np.nan)
    full.reshape(-1)[where] = values
    return full


def _curve(problem, k, where, gap, numeric, typical):
    """curve() for InputResult: at the worst element, how far plain central differences of each step are from `numeric`."""

    def curve():
        worst = int(np.argmax(gap))
        errors = []
        for exponent in range(1, 12):
            h = typical * 10.0**-exponent
            right, left = problem.slopes(k, where[worst], h)
            errors.append((h, abs((right + left) / 2 - float(numeric[worst]))))
        return errors

    return curve


def _derivative(problem, k, i, h, noise, floor, tolerance, exact=None):
    """The derivative by element i of input k: (value, doubt, "ok" | "kink" | "noisy"). `exact`: by a complex step, to be taken
    where differences say the same.

    Each try measures at a step and at its half. It is good when both agree and the left and the right slope come
    together (for a smooth function their distance halves with the step). If not, a larger step gets away from
    rounding, smaller ones from a kink nearby or a sharp bend; slopes that stay apart are a kink at the very place.
    """
    if exact is not None:
        wide, rounding = sum(problem.slopes(k, i, h)) / 2, 2 * noise / h
        if abs(wide - exact) <= 1e-5 * max(abs(exact), floor) + 10 * rounding:
            return exact, 1e-12 * abs(exact), "ok"
    tries, bends = [1], []
    value, least = 0.0, np.inf
    for rung in tries:
        (right, left), (right2, left2) = problem.slopes(k, i, h * rung), problem.slopes(k, i, h * rung / 2)
        wide, narrow = (right + left) / 2, (right2 + left2) / 2
        bend, bend2 = abs(right - left), abs(right2 - left2)
        estimate = (4 * narrow - wide) / 3  # h^2 cancels: Richardson
        rounding = 2 * noise / (h * rung)
        doubt = abs(narrow - wide) + rounding
        room = tolerance * max(abs(estimate), floor)
        apart = bend2 > max(0.6 * bend, room, 10 * rounding)
        if doubt <= 0.1 * room and not apart:
            return estimate, doubt, "ok"
        doubt += bend2 if apart else 0
        if doubt < least:
            value, least = estimate, doubt
        if rung == 1:
            tries += [1 / 16, 1 / 256] if apart or doubt > 5 * rounding else [16]
        elif rung < 1:
            bends += [bend, bend2]
    if bends:
        middle = np.median(bends)
        if middle > 20 * rounding and middle > room and np.all(np.abs(bends - middle) <= 0.3 * middle):
            return value, least, "kink"
    return value, least, "noisy"


def _rough_derivative(problem, k, i, h):
    """The same for a coarse forward: one large step, and the doubt that goes with it."""
    (right, left), (right2, left2) = problem.slopes(k, i, 16 * h), problem.slopes(k, i, 8 * h)
    value = (right + left) / 2
    return value, abs((right2 + left2) / 2 - value) + abs(right - left), "noisy"
