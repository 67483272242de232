"""The gradient checker: is `backward` the derivative of `forward`?

    report = gradcheck(forward, backward, (x, w, b))
    report.passed      True, False, or None when the check could not tell
    print(report)      which gradient is wrong, where, and the mistake that gives exactly these numbers

A random dy turns y into one number, L = sum(y * dy). Its gradient is J @ dy with the Jacobian J that
measure.py finds by differences, and `backward(dy, cache)` must return the same.
"""

import contextlib
import inspect

import numpy as np

from .measure import STEP, Problem
from .report import Diagnosis, InputResult, Report
from .shares import largest
from .slips import malformed, ties, wrong_gradient

FLOOR = 1e-3  # an error is never divided by less than this part of the input's largest gradient
SLOW = 0.1  # seconds of a call; beyond that no tries at ties


def gradcheck(forward, backward=None, inputs=None, *, names=None, check=None, seed=0, step=STEP,
              tolerance=1e-6, samples=220, seconds=120.0, mutable=(), title=None):  # fmt: skip
    """Compare the gradients of `backward` with differences of `forward`. Returns a Report.

    forward    called as forward(*inputs), returns (y, cache)
    backward   called as backward(dy, cache), returns the gradients in the order of the inputs; None or left
               out: forward is a loss that returns (value, gradient with respect to its first input)
    inputs     float arrays, NumPy or CuPy (checked as float64), or None for an argument that is left out
    names      one for each input; None: the names of forward's parameters
    check      names of the inputs whose gradient is compared; None: all but the mutable ones
    seed       of dy (standard normal) and of the sampled elements
    step       relative to each element's magnitude (at least a tenth of the input's rms)
    tolerance  of |analytic - numeric|, relative to max(|analytic|, |numeric|, largest gradient / 1000)
    samples    of inputs with more elements, so many random ones are measured
    seconds    for the measurement; a slow forward is measured at fewer elements, which the report says
    mutable    names of inputs that forward may change, such as running statistics

    A gradient of None counts as zero. Inconclusive are a gradient that is zero wherever it was measured, a
    check of which more than half is kinks or rounding noise, and errors as small as float32's rounding.

    Raises ValueError or TypeError for unusable arguments; what forward and backward raise passes through.
    """
    if backward is not None and not callable(backward):  # gradcheck(loss, inputs)
        backward, inputs = None, backward
    names = _names(forward, inputs, names)
    if backward is None:
        check = names[:1] if check is None else check
        backward = lambda dy, gradient: (dy * gradient, *[None] * (len(names) - 1))  # noqa: E731
    mutable = _known(mutable, names, "mutable")
    present = {name: x for name, x in zip(names, inputs, strict=True) if x is not None}
    for name, x in present.items():
        if not np.issubdtype(x.dtype, np.floating):
            raise TypeError(f"input {name} has dtype {x.dtype}: only floating-point inputs have a gradient")
        if x.size == 0:
            raise ValueError(f"input {name} of shape {x.shape} has no elements to check")
    check = [n for n in present if n not in mutable] if check is None else _known(check, names, "check")
    if not check:
        raise ValueError("nothing to check: every input is None or mutable")

    problem = Problem(forward, backward, inputs, names, mutable, check, (seed, 1))
    problem.step, problem.samples, problem.seconds = step, samples, seconds / len(check)
    converted = ((n, x.dtype) for n, x in present.items() if x.dtype != np.float64)
    problem.notes += [f"{name} was {dtype}, checked as float64" for name, dtype in converted]
    diagnoses = problem.run()
    results = [_compare(problem, name, tolerance, diagnoses) for name in check]
    if not diagnoses and all(r.passed for r in results) and problem.cost < SLOW:
        diagnoses += ties(problem)
    sure = [d.gradient for d in diagnoses if d.cause != "noise"]
    for result in results:  # a mistake that the compared numbers do not show fails all the same
        if f"d{result.name}" in sure or "all" in sure:
            result.passed = False
    diagnoses.sort(key=lambda d: d.cause in ("missing-term", "unknown"))  # what is certain comes first
    verdicts = [r.passed for r in results]
    passed = False if sure or False in verdicts else None if None in verdicts else True
    title = title or getattr(forward, "__name__", type(forward).__name__)
    return Report(title, passed, results, diagnoses, seed, tolerance, problem.notes)


def _names(forward, inputs, names):
    """The inputs' names: those given, else those of forward's parameters, else x0, x1, ..."""
    if not isinstance(inputs, (tuple, list)) or not inputs:
        raise TypeError(f"inputs must be a tuple or list of one or more arrays, got {inputs!r:.60}")
    if names is None:
        with contextlib.suppress(TypeError, ValueError):  # a function written in C has no signature
            parameters = inspect.signature(forward).parameters.values()
            names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        enough = names and len(names) >= len(inputs)
        names = names[: len(inputs)] if enough else [f"x{k}" for k in range(len(inputs))]
    if len(names) != len(inputs) or len(set(names)) != len(names):
        raise ValueError(f"names must be {len(inputs)} different words, got {list(names)}")
    return list(names)


def _known(chosen, names, option):
    chosen = [chosen] if isinstance(chosen, str) else list(chosen)
    for name in set(chosen) - set(names):
        raise ValueError(f"{option}: {name!r} is not an input; the inputs are {', '.join(names)}")
    return chosen


def _compare(problem, name, tolerance, diagnoses):
    """Compare one gradient with differences: its InputResult. Adds to `diagnoses` what is wrong."""
    gradient, x = problem.gradients.get(name), problem.input(name)
    if gradient is None:
        return InputResult(name, False, "not compared", shape=x.shape)
    if gradient.shape != x.shape or not np.isfinite(gradient).all():
        found = malformed(problem, name, gradient)
        diagnoses += found
        return InputResult(name, False, found[-1].cause.replace("-", " "), shape=x.shape)
    rows, jacobian = problem.jacobian(name)
    kinks, doubt = problem.kinks[name], problem.doubts[name]
    a, n = gradient.ravel()[rows], jacobian @ problem.dy.ravel()
    top, gap = max(largest(n), largest(a)), abs(a - n)
    scale = np.maximum(np.maximum(abs(a), abs(n)), FLOOR * top)
    wrong = (gap > tolerance * scale) & (gap > doubt)
    unclear = int(np.count_nonzero(~wrong & (doubt > 100 * tolerance * scale)))
    float32 = np.max(gap, initial=0) > 1e-8 * top and np.array_equal(gradient, np.float32(gradient))
    result = InputResult(name, True, "", float(np.max(gap / scale, initial=0)), x.shape, rows, a, n, kinks)
    if wrong.any() or float32:
        result.differs, cause = True, wrong_gradient(problem, name)
        result.passed = None if cause.cause == "noise" else False
        diagnoses.append(cause)
    elif not len(rows) or np.all(abs(n) <= np.minimum(doubt, problem.rounding(name))):
        result.passed = None
        result.reason = "the gradient is zero wherever it was measured: try other inputs"
    elif 2 * (kinks + unclear) > len(rows) + kinks:
        result.passed = None
        result.reason = "more than half of the elements are at kinks or too noisy: choose other inputs"
        if unclear > kinks:
            evidence = f"differences of forward are too noisy at {unclear} of {len(rows)} elements of {name}"
            hint = "Does forward compute in float64 throughout?"
            diagnoses.append(Diagnosis("noise", f"d{name}", evidence, hint))
    return result
