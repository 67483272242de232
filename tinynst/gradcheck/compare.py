"""The gradient checker: is `backward` the derivative of `forward`?

    report = gradcheck(forward, backward, (x, w, b))
    report.passed      True, False, or None when the check could not tell
    print(report)      which gradient is wrong, where, and the mistake that gives exactly these numbers

Every element of an input is moved a little in both directions, which gives a row of the Jacobian
J[i, k] = dy_k / dx_i by differences. A random dy turns y into one number, L = sum(y * dy). Its gradient is
J @ dy, and `backward(dy, cache)` must return the same. The rows are measured once; slips.py uses them again.

Two step sizes tell how far to trust a row: the error of a smooth function shrinks with the step, a kink
such as ReLU's stays, rounding grows.
"""

import inspect
import time

import numpy as np

from ..device import array_module, asarray, to_numpy
from . import slips
from .report import InputResult, Report

STEP = 2.0**-16  # 1.5e-5 of an element's size: with two steps, truncation and rounding are both near 1e-10
FLOOR = 1e-3  # an error is never divided by less than this part of the input's largest gradient
FEWEST = 3  # elements that are measured, however slow forward is
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
    mutable, notes = _known(mutable, names, "mutable"), []
    present = {name: x for name, x in zip(names, inputs, strict=True) if x is not None}
    for name, x in present.items():
        if not np.issubdtype(x.dtype, np.floating):
            raise TypeError(f"input {name} has dtype {x.dtype}: only floating-point inputs have a gradient")
        if x.size == 0:
            raise ValueError(f"input {name} of shape {x.shape} has no elements to check")
        if x.dtype != np.float64:
            notes.append(f"{name} was {x.dtype}, checked as float64")
    check = [n for n in present if n not in mutable] if check is None else _known(check, names, "check")
    if not check:
        raise ValueError("nothing to check: every input is None or mutable")

    problem = Problem(forward, backward, inputs, names, mutable, check, (seed, 1))
    problem.step, problem.samples, problem.seconds, problem.notes = step, samples, seconds / len(check), notes
    diagnoses = problem.side_effects()
    results = [_compare(problem, name, tolerance, diagnoses) for name in check]
    if not diagnoses and all(r.passed for r in results) and problem.cost < SLOW:
        diagnoses += slips.ties(problem)
    sure = [d.gradient for d in diagnoses if d.cause != "noise"]
    for result in results:  # a mistake that the compared numbers do not show fails all the same
        if f"d{result.name}" in sure or "all" in sure:
            result.passed = False
    diagnoses.sort(key=lambda d: d.cause in ("missing-term", "unknown"))  # what is certain comes first
    verdicts = [r.passed for r in results]
    passed = False if sure or False in verdicts else None if None in verdicts else True
    title = title or getattr(forward, "__name__", type(forward).__name__)
    return Report(title, passed, results, diagnoses, seed, tolerance, notes)


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
    if len(names) != len(inputs) or len(set(names)) != len(names):
        raise ValueError(f"names must be {len(inputs)} different words, got {list(names)}")
    return list(names)


def _known(chosen, names, option):
    chosen = [chosen] if isinstance(chosen, str) else list(chosen)
    for name in chosen:
        if name not in names:
            raise ValueError(f"{option}: {name!r} is not an input; the inputs are {', '.join(names)}")
    return chosen


def _compare(problem, name, tolerance, diagnoses):
    """Compare one gradient with differences: its InputResult. Adds to `diagnoses` what is wrong."""
    gradient, x = problem.gradients.get(name), problem.input(name)
    if gradient is None:
        return InputResult(name, False, "not compared", shape=x.shape)
    if gradient.shape != x.shape or not np.isfinite(gradient).all():
        found = slips.malformed(problem, name, gradient)
        diagnoses += found
        return InputResult(name, False, found[-1].cause.replace("-", " "), shape=x.shape)
    rows, jacobian = problem.jacobian(name)
    kinks, doubt = problem.kinks[name], problem.doubts[name]
    a, n = gradient.ravel()[rows], jacobian @ problem.dy.ravel()
    largest = max(slips.largest(n), slips.largest(a))
    scale = np.maximum(np.maximum(abs(a), abs(n)), FLOOR * largest)
    gap = abs(a - n)
    wrong = (gap > tolerance * scale) & (gap > doubt)
    unclear = int(np.count_nonzero(~wrong & (doubt > 100 * tolerance * scale)))
    float32 = np.max(gap, initial=0) > 1e-8 * largest and np.array_equal(gradient, np.float32(gradient))
    result = InputResult(name, not (wrong.any() or float32), "", np.nan, x.shape, rows, a, n, kinks)
    result.error = float(np.max(gap / scale, initial=0))
    if result.passed is False:
        result.differs = True
        diagnoses.append(slips.diagnose(problem, name))
        if diagnoses[-1].cause == "noise":
            result.passed, result.reason = None, "the error is no larger than float32's rounding"
    elif not len(rows) or np.all(abs(n) <= np.minimum(doubt, problem.rounding(name))):
        result.passed = None
        result.reason = "the gradient is zero wherever it was measured: try other inputs"
    elif 2 * (kinks + unclear) > len(rows) + kinks:
        result.passed = None
        result.reason = "more than half of the elements are at kinks or too noisy: choose other inputs"
        if unclear > kinks:
            evidence = f"differences of forward are too noisy at {unclear} of {len(rows)} elements of {name}"
            hint = "Does forward compute in float64 throughout?"
            diagnoses.append(slips.diagnosis("noise", f"d{name}", evidence, hint))
    return result


def _float64(value):
    """A NumPy or CuPy array or a number as a new array of NumPy's; None stays None."""
    return None if value is None else np.array(to_numpy(value) if hasattr(value, "dtype") else value, float)


class Problem:
    """forward and backward at fixed inputs and one random dy; all arrays here are float64 and NumPy's.

    y, gradients   of the inputs; gradients is {name: array}, empty when backward's result cannot be used
    other, before  other inputs, and the gradients of a first call with them: a backward that still gives
                   these has a stale cache
    cost           seconds of one forward and backward
    """

    def __init__(self, forward, backward, inputs, names, mutable, check, seed):
        self.f, self.b, self.names, self.mutable, self.check = forward, backward, names, mutable, check
        self.xp, rng = array_module(*inputs), np.random.default_rng(seed)
        self.inputs = [_float64(x) for x in inputs]
        self.other = [x if x is None else rng.permutation(x.ravel()).reshape(x.shape) for x in self.inputs]
        start = time.monotonic()
        y, cache = self.forward(self.other)
        self.dy = rng.standard_normal(y.shape)
        self.before = self.named(self.b(self.upstream(self.dy), cache)) or {}
        self.cost = time.monotonic() - start
        self.measured, self.kinks, self.doubts = {}, {}, {}

    def input(self, name):
        return self.inputs[self.names.index(name)]

    def replaced(self, name, array):
        """The inputs with another array in place of one of them."""
        return [array if n == name else x for n, x in zip(self.names, self.inputs, strict=True)]

    def copies(self, inputs):
        return [x if x is None else asarray(x.copy(), self.xp) for x in inputs]

    def upstream(self, dy):
        """dy as backward gets it: a copy on the device, or a plain number."""
        return asarray(dy.copy(), self.xp) if np.ndim(dy) else float(dy)

    def call(self, arrays):
        result = self.f(*arrays)
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError(f"forward must return (y, cache), got {type(result).__name__}")
        return _float64(result[0]), result[1]

    def forward(self, inputs):
        return self.call(self.copies(inputs))

    def named(self, gradients):
        """{name: array} of what backward returned; None when the number of gradients fits nothing."""
        gradients = list(gradients) if isinstance(gradients, (tuple, list)) else [gradients]
        while len(gradients) > len(self.names) and gradients[-1] is None:  # conv2d without b: dx, dw, None
            gradients.pop()
        for names in (self.names, [n for n in self.names if n not in self.mutable]):
            if len(gradients) == len(names):
                return dict(zip(names, map(_float64, gradients), strict=True))
        return None

    def again(self, inputs=None, dy=None):
        """The gradients for other inputs or another dy; {} where forward or backward raises."""
        try:
            _, cache = self.forward(self.inputs if inputs is None else inputs)
            return self.named(self.b(self.upstream(self.dy if dy is None else dy), cache)) or {}
        except Exception:
            return {}

    def side_effects(self):
        """Run forward and backward. Returns diagnoses of what they change and of a second backward."""
        given, dy, start = self.copies(self.inputs), self.upstream(self.dy), time.monotonic()
        self.y, cache = self.call(given)
        between = [_float64(x) for x in given]
        first, found = self.named(self.b(dy, cache)), []
        self.gradients = first or {}
        self.cost = min(self.cost, time.monotonic() - start)  # one call alone may meet a busy machine
        if first is None:
            wanted = [f"d{n}" for n in self.names if n not in self.mutable]
            evidence = f"backward does not return {len(wanted)} gradients: {', '.join(wanted)}"
            hint = "Return one for each input, in the inputs' order."
            return [slips.diagnosis("wrong-shape", "all", evidence, hint)]
        if not np.isfinite(self.y).all():
            self.gradients = {}
            odd = np.count_nonzero(~np.isfinite(self.y))
            evidence = f"{odd} of {self.y.size} elements of y are inf or nan"
            return [slips.diagnosis("not-finite", "all", evidence)]
        arrays = [(*row, "forward") for row in zip(self.names, self.inputs, between, strict=True)]
        arrays += [(*row, "backward") for row in zip(self.names, between, map(_float64, given), strict=True)]
        for name, before, after, who in [*arrays, ("dy", self.dy, _float64(dy), "backward")]:
            updated = name in self.mutable
            if before is None or np.array_equal(before, after) or (updated and who == "forward"):
                continue
            place = tuple(np.argwhere(before != after)[0])
            evidence = f"{who} changes {name} in place: {name}[{', '.join(map(str, place))}] is "
            evidence += f"{before[place]:.4g} before the call, {after[place]:.4g} after it"
            cause = "running-statistics" if updated else "changed-input"
            which = name if name == "dy" else f"d{name}"
            found.append(slips.diagnosis(cause, which, evidence, slips.HINTS["changed-input"]))
        try:
            second = self.named(self.b(self.upstream(self.dy), cache))
            pairs = [(g, second[n]) for n, g in first.items() if g is not None]
            same = all(np.allclose(g, again, 1e-9, 1e-12, equal_nan=True) for g, again in pairs)
            evidence = "" if same else "gives another gradient"
        except Exception as error:
            evidence = f"raises {type(error).__name__}: {error}"
        if evidence:
            hint = "backward must leave the cache as it is: work on copies, and pop nothing from it."
            evidence = f"a second backward with the same cache {evidence}"
            found.append(slips.diagnosis("stale-cache", "all", evidence, hint))
        y, _ = self.forward([x if x is None else x * (1 + 1e-9) for x in self.inputs])
        self.coarse = bool(y.any()) and np.array_equal(y, np.float32(y))  # computed in float32
        for name in self.check:
            if first.get(name) is None:
                first[name] = np.zeros(self.input(name).shape)
        return found

    def rounding(self, name):
        """How large a difference of L over the usual step rounding alone can make, generously."""
        typical = np.sqrt(np.mean(self.input(name) ** 2)) or 1.0
        return 2e-11 * np.linalg.norm(self.y * self.dy) / typical

    def jacobian(self, name):
        """(rows, J): flat indices of the measured elements of an input, and dy_k / dx_i for each of them."""
        if name not in self.measured:
            self.measured[name] = self._measure(name)
        return self.measured[name]

    def _measure(self, name):
        x, gradient = self.input(name), self.gradients[name]
        order = np.random.default_rng(2).permutation(x.size)
        if x.size > self.samples:  # a random sample, and the largest gradient
            largest = int(np.argmax(abs(gradient))) if gradient.size == x.size else order[0]
            order = np.append(largest, order[order != largest][: self.samples - 1])
        typical, start, found = float(np.sqrt(np.mean(x**2))) or 1.0, time.monotonic(), {}
        for count, i in enumerate(order):
            if count >= FEWEST and time.monotonic() - start > self.seconds:
                where = f"{count} of {len(order)} elements of {name}"
                self.notes.append(f"stopped after {self.seconds:.0f} s at {where}")
                order = order[:count]
                break
            row, doubt = self._row(name, i, self.step * max(abs(x.flat[i]), 0.1 * typical))
            if row is not None:
                found[int(i)] = row, doubt
        rows = np.array(sorted(found), int)
        doubts = np.array([found[i][1] for i in rows])
        self.kinks[name] = len(order) - len(rows)
        if len(rows):  # one element's doubt may be small by luck
            doubts = np.maximum(doubts, max(self.rounding(name), 0.3 * np.median(doubts)))
        self.doubts[name] = doubts
        return rows, np.array([found[i][0] for i in rows]).reshape(len(rows), self.y.size)

    def _row(self, name, i, h):
        """(row, doubt) for element i; row is None at a kink: where the slopes on both sides stay apart."""
        bends = []
        for step in () if self.coarse else (h, h / 16, h / 256):  # a smaller one gets away from a kink nearby
            (right, left), (right2, left2) = self._slopes(name, i, step), self._slopes(name, i, step / 2)
            wide, narrow = (right + left) / 2, (right2 + left2) / 2
            bend, bend2 = np.max(abs(right - left)), np.max(abs(right2 - left2))
            allowed = 1e-7 * np.max(abs(narrow)) + 100 * np.finfo(float).eps * slips.largest(self.y) / step
            if abs(bend2 - bend / 2) <= 0.1 * bend + allowed:  # smooth: it halves
                return (4 * narrow - wide) / 3, 10 * np.linalg.norm((narrow - wide) * self.dy.ravel())
            bends.append(bend2)
        if bends and max(bends) < 3 * min(bends):
            return None, 0.0
        right, left = self._slopes(name, i, 256 * h)  # noise that grows as the step shrinks: a large step
        return (right + left) / 2, 10 * np.linalg.norm((right - left) * self.dy.ravel())

    def _slopes(self, name, i, h):
        """The slopes of y to the right and to the left of element i."""
        x, sides = self.input(name), []
        for step in (h, -h):
            moved = x.copy()
            moved.flat[i] += step
            change = self.forward(self.replaced(name, moved))[0] - self.y
            sides.append(change.ravel() / (moved.flat[i] - x.flat[i]))
        return sides
