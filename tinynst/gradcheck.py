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

As a command it checks every operation, loss, layer and network of this library (gradcases.py), or a learner's own file.
"""

import difflib
import importlib.util
import inspect
import sys
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from . import losses, ops
from .cli import Parser, UserError, run
from .device import array_module, asarray, select, to_numpy
from .gradcases import CASES, LOSSES, OPERATIONS, OURS_ALONE, Case, describe, draw, loss_case, operation_case

STEP = 2.0**-15  # 3e-5, between the best for one step (cbrt(eps), 6e-6) and for two (eps^(1/5), 7e-4: more kinks)
FLOOR = 1e-3  # an error is never divided by less than this part of the input's largest gradient
NOTHING = 1e-8  # a gradient below this part of what it could be is no more than rounding


@dataclass
class Diagnosis:
    """What is wrong with one gradient: `cause` is one word, `evidence` what was seen, `hint` where to look."""

    cause: str
    gradient: str
    evidence: str
    hint: str


@dataclass
class InputResult:
    """The comparison for one input `name`; its gradient is called "d" + name.

    passed      True, False, or None (see `reason`)
    error       largest |analytic - numeric| / scale of the checked elements (nan when none was)
    indices     (checked, ndim) integers: the elements compared; analytic, numeric, errors: (checked,) float64
    kinks       elements skipped because the left and the right slope differ however small the step
    unresolved  elements where the differences are too noisy to tell
    size        elements of the whole input; `checked` of them were compared, `probed` looked at
    """

    name: str
    passed: bool | None
    reason: str = ""
    error: float = np.nan
    analytic: np.ndarray = field(default_factory=lambda: np.zeros(0))
    numeric: np.ndarray = field(default_factory=lambda: np.zeros(0))
    errors: np.ndarray = field(default_factory=lambda: np.zeros(0))
    indices: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), int))
    kink_indices: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), int))
    unresolved: int = 0
    size: int = 0

    @property
    def checked(self):
        return len(self.analytic)

    @property
    def kinks(self):
        return len(self.kink_indices)

    @property
    def probed(self):
        return self.checked + self.kinks + self.unresolved

    def __str__(self):
        head = f"  d{self.name:<8} {verdict(self.passed):12}"
        if not self.probed:
            return f"{head} {self.reason}"
        of = "all" if self.probed == self.size else "a random sample of"
        head += f" error {self.error:.1e}   {of} {self.probed} of {self.size} elements, {self.kinks} kinks skipped"
        lines = [head + (f", {self.unresolved} too noisy" if self.unresolved else "")]
        if self.reason:
            lines.append(f"            {self.reason}")
        if self.passed is False:
            for k in np.argsort(-np.abs(self.analytic - self.numeric))[:4]:
                place = ", ".join(str(i) for i in self.indices[k])
                values = f"backward {self.analytic[k]: .9g}   differences {self.numeric[k]: .9g}"
                lines.append(f"            d{self.name}[{place}]   {values}   error {self.errors[k]:.1e}")
        return "\n".join(lines)


@dataclass
class Report:
    """The result of a check: `passed` is True, False, or None when inconclusive; print it to read it."""

    title: str
    passed: bool | None
    inputs: list
    diagnoses: list
    seed: int
    tolerance: float
    notes: list

    @property
    def error(self):
        """The largest error of all inputs (nan when nothing was compared)."""
        return max((r.error for r in self.inputs if r.checked), default=np.nan)

    @property
    def kinks(self):
        return sum(r.kinks for r in self.inputs)

    def __str__(self):
        head = f"{self.title}: {verdict(self.passed)}   (seed {self.seed}, tolerance {self.tolerance:g})"
        lines = [head, *(str(result) for result in self.inputs)]
        lines += [f"  note: {note}" for note in self.notes]
        lines += [f"  {d.cause} ({d.gradient}): {d.evidence}. {d.hint}" for d in self.diagnoses[:8]]
        if len(self.diagnoses) > 8:
            lines.append(f"  and {len(self.diagnoses) - 8} more")
        return "\n".join(lines)


def verdict(passed):
    """The word for True, False and None."""
    return {True: "ok", False: "FAIL", None: "INCONCLUSIVE"}[passed]


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
    mutable   names of inputs that forward may change (running statistics)

    Failing counts more than passing: one element off is a FAIL. INCONCLUSIVE are a gradient that is zero everywhere,
    a check of which more than half are kinks or noise, and a forward that gives two results for the same inputs.
    A gradient of None counts as zero. A kink is skipped only where the left and the right slope differ by the same
    amount at steps from h/16 to h/512.

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
    rng = np.random.default_rng((seed, 1))  # not default_rng(seed): inputs drawn from that would make dy equal to x
    problem = _Problem(forward, backward, inputs, names, mutable, rng)
    gradients, diagnoses = problem.run(check, notes)

    results = []
    for k, name in enumerate(names):
        if name not in check:
            continue
        if name not in gradients:
            results.append(InputResult(name, problem.blocked, problem.reason))
            continue
        result = _compare(problem, k, gradients[name], step, tolerance, samples)
        results.append(result)
        if result.passed is False:
            diagnoses.append(_diagnose(problem, result, gradients[name]))
        elif result.unresolved > result.kinks and result.passed is None:
            evidence = f"{result.unresolved} of {result.probed} elements of {name} give no steady difference"
            diagnoses.append(Diagnosis("noise", "d" + name, evidence, "Does forward compute in float64 throughout?"))
    for d in diagnoses:  # a fault of one gradient's is that input's failure
        for result in results:
            if d.gradient == "d" + result.name and d.cause != "noise":
                result.passed = False
                result.reason = result.reason or ("" if result.probed else d.evidence)
    passed = _overall([r.passed for r in results], [d.cause for d in diagnoses])
    title = title or getattr(forward, "__name__", type(forward).__name__)
    return Report(title, passed, results, diagnoses, seed, tolerance, notes)


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


class _Problem:
    """forward and backward on fixed inputs and one fixed dy."""

    def __init__(self, forward, backward, inputs, names, mutable, rng):
        self.forward, self.backward, self.inputs, self.names, self.mutable = forward, backward, inputs, names, mutable
        self.rng = rng
        self.blocked, self.reason = False, ""  # verdict and reason where there is no gradient to compare

    def copies(self):
        return [None if x is None else x.copy() for x in self.inputs]

    def value(self, inputs):
        """(y, cache) of forward, y always an array (of no axes where forward gives a number)."""
        result = self.forward(*inputs)
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError(f"forward must return (y, cache), got {type(result).__name__}")
        y, cache = result
        if np.isscalar(y):
            y = np.asarray(y, dtype=np.float64)
        array_module(y)  # raises for what is no array
        if not np.issubdtype(y.dtype, np.floating):
            raise TypeError(f"forward must return a floating-point y, got {y.dtype}")
        return y, cache

    def run(self, check, notes):
        """Forward and backward once and again. Returns {name: gradient} of those in `check`, and [Diagnosis]."""
        diagnoses = []
        inputs = self.copies()
        self.y, cache = self.value(inputs)
        after_forward = [None if x is None else x.copy() for x in inputs]
        diagnoses += self._changed(self.inputs, inputs, "forward", skip=self.mutable)
        if not np.all(np.isfinite(to_numpy(self.y))):
            diagnoses.append(
                Diagnosis("not-finite", "y", "forward gives inf or nan", "Look for log, sqrt or / of 0, or overflow")
            )
            self.reason = "the output is not finite"
            return {}, diagnoses
        if self.y.dtype != np.float64:
            notes.append(f"forward returned {self.y.dtype} for float64 inputs: differences are that much coarser")
        self.upstream = self.rng.standard_normal(self.y.shape).astype(self.y.dtype)
        self.dy = asarray(self.upstream, array_module(self.y))
        self.size = float(np.linalg.norm(to_numpy(self.y) * self.upstream))

        dy = self._dy()
        first = self._gradients(self.backward(dy, cache))
        if isinstance(first, Diagnosis):
            return {}, [*diagnoses, first]
        for name, g in first.items():
            if g is not None and g.dtype != np.float64:
                notes.append(f"d{name} came back as {g.dtype}: its last digits are lost")
        diagnoses += self._changed(after_forward, inputs, "backward")
        if not isinstance(dy, float) and not _same(dy, self.dy):
            evidence, hint = "backward changes dy in place", "Work on a copy: others still need dy"
            diagnoses.append(Diagnosis("changed-input", "dy", evidence, hint))
        diagnoses += self._stale(first, cache)
        if self._noisy():
            self.blocked, self.reason = None, "forward gives two results for the same inputs"
            diagnoses.append(Diagnosis("noise", "y", self.reason, "Fix its random numbers, or what it remembers"))
            return {}, diagnoses
        return self._wellformed(check, first, diagnoses), diagnoses

    def _dy(self):
        """dy for one call of backward: a plain float where y is a number."""
        return float(self.dy) if self.dy.ndim == 0 else self.dy.copy()

    def _changed(self, before, after, who, skip=()):
        found = []
        for name, old, new in zip(self.names, before, after, strict=True):
            if old is None or name in skip or _same(old, new):
                continue
            cause = "running-statistics" if name in self.mutable else "changed-input"
            hint = "Work on a copy: +=, out= and x[...] = change the array itself"
            if name in self.mutable:
                hint = "Only forward may update running statistics"
            found.append(Diagnosis(cause, "d" + name, f"{who} changes {name} in place", hint))
        return found

    def _gradients(self, gradients):
        """{name: gradient copied to NumPy, or None}, or the Diagnosis of a wrong number of them."""
        gradients = gradients if isinstance(gradients, (tuple, list)) else (gradients,)
        names = self.names
        while len(gradients) > len(names) and gradients[-1] is None:  # conv2d without b: dx, dw, None
            gradients = gradients[:-1]
        if len(gradients) != len(names):
            names = [name for name in names if name not in self.mutable]
        if len(gradients) != len(names):
            evidence = f"backward returns {len(gradients)} gradients for {len(names)} inputs ({', '.join(names)})"
            self.reason = evidence
            return Diagnosis("wrong-shape", "all", evidence, "Return one for each input, None where there is none")
        return {n: None if g is None else np.array(to_numpy(g)) for n, g in zip(names, gradients, strict=True)}

    def _stale(self, first, cache):
        """Does a second backward with the same cache repeat the first?"""
        hint = "backward must leave its cache as it found it"
        try:
            second = self._gradients(self.backward(self._dy(), cache))
        except Exception as error:  # whatever a used-up cache raises
            evidence = f"a second backward with the same cache raises {type(error).__name__}: {error}"
            return [Diagnosis("stale-cache", "all", evidence, hint)]
        if isinstance(second, Diagnosis):
            return [Diagnosis("stale-cache", "all", "a second backward returns fewer or more gradients", hint)]
        evidence = "a second backward with the same cache gives another gradient"
        return [Diagnosis("stale-cache", "d" + name, evidence, hint) for name in first if not _close(first[name], second[name])]

    def _noisy(self):
        """Two forwards on the same inputs: more apart than the order of a sum could explain?"""
        again, _ = self.value(self.copies())
        return not _close(to_numpy(self.y), to_numpy(again))

    def _wellformed(self, check, gradients, diagnoses):
        """The gradients with the right shape and finite; the rest go into `diagnoses`. None becomes zeros."""
        good = {}
        for name, x in zip(self.names, self.inputs, strict=True):
            if name not in check or name not in gradients:
                continue
            g = gradients[name]
            if g is None:
                good[name] = np.zeros(x.shape)
            elif g.shape != x.shape:
                evidence = f"the gradient has shape {g.shape}, {name} has {x.shape}"
                hint = "Sum over the axes that were broadcast; a gradient has the shape of its input"
                diagnoses.append(Diagnosis("wrong-shape", "d" + name, evidence, hint))
            elif not np.all(np.isfinite(g)):
                count = np.size(g) - np.count_nonzero(np.isfinite(g))
                evidence = f"{count} of {g.size} elements are inf or nan, the first at {_first_bad(g)}"
                hint = "Look for / or sqrt of 0, or memory never written"
                diagnoses.append(Diagnosis("not-finite", "d" + name, evidence, hint))
            else:
                good[name] = g.astype(np.float64)
        return good

    def slopes(self, k, i, h):
        """Slope of L to the right and to the left of element i (flat) of input k, a step h away."""
        slopes = []
        for sign in (1, -1):
            moved = self.copies()  # forward may keep or change what it is given
            flat = moved[k].reshape(-1)
            start = float(flat[i])
            flat[i] = start + sign * h
            actual = float(flat[i]) - start  # the step as it was rounded
            with np.errstate(all="ignore"):
                y, _ = self.value(moved)
                # y - self.y before the sum: what did not move cancels without rounding
                slopes.append(float(((y - self.y) * self.dy).sum()) / actual)
        return slopes

    def noise(self, k, typical):
        """Rounding in one L: what a change of 1e-10 says of one of 1e-8, off by how much? None: digits are lost (float32)."""
        direction = typical * self.rng.standard_normal(self.inputs[k].shape)
        changes = []
        for t in (1e-10, 1e-8):
            moved = self.copies()
            moved[k] += asarray(t * direction, array_module(moved[k]))
            with np.errstate(all="ignore"):
                changes.append(to_numpy((self.value(moved)[0] - self.y) * self.dy))
        small, large = changes
        off = np.linalg.norm(large - 100 * small)
        if not off < 0.3 * np.linalg.norm(large):
            return None
        return max(off / 100, np.finfo(np.float64).eps * self.size)

    def depends_on_mutable(self):
        """Does forward update a mutable input and also let y depend on it?"""
        inputs = self.copies()
        self.value(inputs)
        for k, name in enumerate(self.names):
            if name in self.mutable and inputs[k] is not None and not _same(inputs[k], self.inputs[k]):
                other = self.copies()
                other[k] = inputs[k]
                if not _close(to_numpy(self.y), to_numpy(self.value(other)[0])):
                    return name
        return None


def _same(a, b):
    """Bit for bit (so nan is itself)."""
    return a.shape == b.shape and to_numpy(a).tobytes() == to_numpy(b).tobytes()


def _close(a, b):
    """The same up to the order of a sum."""
    if a is None or b is None:
        return a is b
    if a.shape != b.shape:
        return False
    if np.array_equal(a, b, equal_nan=True):
        return True
    room = (1e-10 if a.dtype == np.float64 else 1e-5) * np.max(np.abs(a), initial=0.0)
    return bool(np.max(np.abs(a - b), initial=0.0) <= room)


def _first_bad(g):
    return tuple(int(i) for i in np.argwhere(~np.isfinite(g))[0])


def _compare(problem, k, analytic, step, tolerance, samples):
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
    if noise is None:
        measured = [_rough_derivative(problem, k, i, step) for i, step in zip(where, h, strict=True)]
    else:
        measured = [_derivative(problem, k, i, step, noise, floor, tolerance) for i, step in zip(where, h, strict=True)]
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
        passed, reason = None, "the gradient is zero wherever it was looked at: these inputs cannot tell right from wrong"
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
    )


def _derivative(problem, k, i, h, noise, floor, tolerance):
    """The derivative by element i of input k: (value, doubt, "ok" | "kink" | "noisy").

    Each try measures at a step and at its half. It is good when both agree and the left and the right slope come
    together (for a smooth function their distance halves with the step). If not, a larger step gets away from
    rounding, smaller ones from a kink nearby or a sharp bend; slopes that stay apart are a kink at the very place.
    """
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


def _diagnose(problem, result, gradient):
    """The cause of a wrong gradient as far as it is certain."""
    name = "d" + result.name
    if not np.any(gradient):
        evidence = f"{name} is zero everywhere, by differences it reaches {np.max(np.abs(result.numeric)):.3g}"
        return Diagnosis("zero", name, evidence, "Is it computed, and returned in its place?")
    factor = _factor(result)
    if factor is not None:
        evidence = f"every element is {factor:.6g} times what it should be"
        if abs(factor) < 1:
            evidence += f" (1 / {1 / factor:.6g})"
        hint = "Look for a factor that is missing or there twice, or a sum that should be a mean"
        return Diagnosis("scaled", name, evidence, "The sign is wrong" if abs(factor + 1) < 1e-4 else hint)
    mutable = problem.depends_on_mutable()
    if mutable:
        evidence = f"forward updates {mutable}, and its result depends on it"
        hint = "While training, normalise with the batch's own statistics"
        return Diagnosis("running-statistics", name, evidence, hint)
    off = np.count_nonzero(result.errors > 1e-3)
    evidence = f"{off} of {result.checked} elements are off by more than 1 in 1000"
    return Diagnosis("unknown", name, evidence, "Start with the elements above: what have their indices in common?")


def _factor(result):
    """The one number that `analytic` is times `numeric`, or None."""
    a, n = result.analytic, result.numeric
    big = np.abs(n) > 1e-2 * np.max(np.abs(n), initial=0.0)
    if np.count_nonzero(big) < 2:
        return None
    factor = float(np.median(a[big] / n[big]))
    fits = np.all(np.abs(a - factor * n) <= 1e-6 * np.max(np.abs(a)))
    return factor if fits and abs(factor - 1) > 1e-5 else None


# --- a learner's file ----------------------------------------------------------------------------------------------


def _load_file(path):
    """The module of a Python file. Raises UserError when there is none or it does not import."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    spec = importlib.util.spec_from_file_location("learners_file", path)
    if spec is None:
        raise UserError(f"{path} is no Python file: its name should end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.resolve().parent))  # as `python FILE.py` would: it may import its neighbours
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UserError(f"{path} does not import: {_told(error, path)}") from None
    finally:
        sys.path.pop(0)
    return module


def _told(error, path):
    """An exception of the learner's in one line, with the last line of the file that it came through."""
    path = Path(path).resolve()
    places = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).resolve() == path]
    if isinstance(error, SyntaxError):
        places = [error.lineno]
    return f"{type(error).__name__}: {error}" + (f" (line {places[-1]})" if places else "")


def _is_ours(function):
    """Only imported from this library?"""
    return (getattr(function, "__module__", None) or "").startswith("tinynst.")


def _for_learners(shapes, options):
    """Inputs for a learner's function: none of our own options, and few channels, for it may be slow."""
    return not any(option in OURS_ALONE for option in options) and next(iter(shapes.values()))[-1] < 16


def check_file(path, seed=0, xp=np):
    """Check each operation and loss found in a learner's file; print what is found. Returns True when all is well.

    Looked for are the names of `tinynst.ops` (`conv2d` with `conv2d_backward`) and `tinynst.losses`. A forward is first
    compared with the library's naive twin. Raises UserError when the file does not import or holds nothing to check.
    """
    module = _load_file(path)
    known = [*dict.fromkeys(name for name, *_ in OPERATIONS), *dict.fromkeys(name for name, _ in LOSSES)]
    found = {}
    for name in known:
        pair = getattr(module, name, None), getattr(module, f"{name}_backward", None)
        if any(pair) and not all(f is None or _is_ours(f) for f in pair):
            found[name] = pair
    for name, value in vars(module).items():
        base = name.removesuffix("_backward")
        if base != name and base not in known and callable(value) and not name.startswith("_"):
            near = difflib.get_close_matches(base, known, 1)
            meant = f"did you mean {near[0]}_backward?" if near else f"known are {', '.join(known)}"
            print(f"{name}: not checked, there is no operation {base!r}; {meant}", flush=True)
            found.setdefault(name, None)
    if not any(found.values()):
        raise UserError(f"{path} has nothing to check: define pairs such as conv2d and conv2d_backward")
    good = [pair is not None and _check_pair(path, name, pair, seed, xp) for name, pair in found.items()]
    return all(good)


def _check_pair(path, name, pair, seed, xp):
    """Check one operation or loss of the learner's on the library's inputs, up to the first that fails."""
    forward, backward = pair
    is_loss = any(name == loss for loss, _ in LOSSES)
    if forward is None or (backward is None and not is_loss):
        there, missing = (name, f"{name}_backward") if forward else (f"{name}_backward", name)
        print(f"{name}: {there} is there but no {missing}", flush=True)
        return False
    if is_loss:
        variants = [(shapes, {}, loss_case(forward, shapes)) for loss, shapes in LOSSES if loss == name]
    else:
        variants = [
            (shapes, options, operation_case(forward, backward, shapes, options))
            for operation, shapes, options in OPERATIONS
            if operation == name and _for_learners(shapes, options)
        ]
    for shapes, options, make in variants:
        label = describe(shapes, options)
        try:
            fault = _forward_fault(name, forward, is_loss, shapes, options, seed, xp)
            report = None if fault else _checked(Case(name, label, make), seed, xp, samples=50)
        except NotImplementedError as error:
            stub = _stub(error, path) or name
            print(f"{stub}: not yet written", flush=True)
            return False
        except Exception as error:  # whatever a learner's function raises is a result, not our crash
            fault = _told(error, path)
        if fault:
            print(f"{name} ({label}): FAIL: {fault}", flush=True)
            return False
        if report.passed is not True:
            print(report, flush=True)
            return False
        print(_line(label, report, name), flush=True)
    return True


def _stub(error, path):
    """The name of the learner's function that raised."""
    path = Path(path).resolve()
    frames = [f.name for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).resolve() == path]
    return frames[-1] if frames else None


def _forward_fault(name, forward, is_loss, shapes, options, seed, xp):
    """What is wrong with the learner's forward result, or None: compared with the naive twin, or our own loss."""
    arrays = draw(shapes, np.random.default_rng(seed), xp)
    own = {key: array.copy() for key, array in arrays.items()}
    if is_loss:
        result, twin, what = forward(*own.values()), getattr(losses, name)(*arrays.values())[0], "value"
    else:
        result, what = forward(**own, **options), "y"
        plain = {key: to_numpy(array) for key, array in arrays.items()}
        twin = getattr(ops, f"{name}_naive")(**plain, **options)
    if not isinstance(result, tuple) or len(result) != 2:
        kind = "(value, gradient)" if is_loss else "(y, cache)"
        return f"{name} must return {kind}, it returns {type(result).__name__}"
    y, twin = np.asarray(to_numpy(result[0])), np.asarray(twin)
    fault = _difference(what, y, twin)
    if fault is None and "running_mean" in arrays:
        getattr(ops, name)(**arrays, **options)  # ours updates the statistics of `arrays`
        for key in ("running_mean", "running_var"):
            fault = fault or _difference(f"{key} after the forward", to_numpy(own[key]), to_numpy(arrays[key]))
    return fault


def _difference(what, mine, right):
    """Where two arrays differ by more than rounding, in words; None where they do not."""
    if mine.shape != right.shape:
        return f"{what} has shape {mine.shape}, it should be {right.shape}"
    bad = ~(np.abs(mine - right) <= 1e-8 * np.max(np.abs(right)))  # nan is bad
    if not bad.any():
        return None
    place = tuple(int(i) for i in np.argwhere(bad)[0])
    where = f"[{', '.join(map(str, place))}]" if place else ""
    count = f"; {np.count_nonzero(bad)} of {bad.size} elements differ" if bad.ndim else ""
    return f"{what}{where} is {mine[place]:.9g}, it should be {right[place]:.9g}{count}"


# --- the command ---------------------------------------------------------------------------------------------------


def _checked(case, seed, xp, samples=200):
    """The Report of one case."""
    arguments = case.make(np.random.default_rng(seed), xp)
    forward, backward, inputs = (arguments.pop(key) for key in ("forward", "backward", "inputs"))
    title = f"{case.name} ({case.label})"
    return gradcheck(forward, backward, inputs, **arguments, seed=seed, samples=min(case.samples, samples), title=title)


def _line(label, report, name):
    """One line: name, verdict, gradients checked, worst error, kinks, which variant."""
    gradients = f"{len(report.inputs)} gradient{'s' if len(report.inputs) > 1 else ''}"
    return f"{name:17}{verdict(report.passed):13}{gradients:13}error {report.error:.1e}  {report.kinks:3} kinks  {label}"


def main(arguments=None):
    """Check the whole library, some of it by name, or a learner's file. Status 0 when all passed, else 1."""
    parser = Parser(prog="tinynst gradcheck", description="Check gradients against differences, in float64.")
    parser.add_argument("what", nargs="*", help="names (see --list) or Python files; none: everything")
    parser.add_argument("--list", action="store_true", help="show what can be checked by name")
    parser.add_argument("--seed", type=int, default=0, help="of the inputs, the upstream gradient and the sampling")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to compute")
    options = parser.parse_args(arguments)
    if options.seed < 0:
        raise UserError(f"--seed must be 0 or more, not {options.seed}")
    names = list(dict.fromkeys(case.name for case in CASES))
    if options.list:
        print("\n".join(names))
        return 0
    for what in options.what:
        if what not in names and not _is_file(what):
            near = difflib.get_close_matches(what, names, 1)
            meant = f"did you mean {near[0]}?" if near else f"choose from {', '.join(names)}, or give a Python file"
            raise UserError(f"there is nothing called {what!r} to check; {meant}")
    xp = select(options.device)
    if not options.what:
        return 0 if _check_all(options.seed, xp) else 1
    good = []
    for what in options.what:
        if what not in names:
            good.append(check_file(what, options.seed, xp))
        for case in CASES:
            if case.name == what:
                report = _checked(case, options.seed, xp)
                print(report, flush=True)
                good.append(report.passed is True)
    return 0 if all(good) else 1


def _check_all(seed, xp):
    """One line for each case, with fewer elements; True when all passed."""
    failed = []
    for case in CASES:
        report = _checked(case, seed, xp, samples=60)
        print(_line(case.label, report, case.name), flush=True)
        if report.passed is not True:
            failed.append(case.name)
    if failed:
        print(f"{len(failed)} of {len(CASES)} did not pass; see: tinynst gradcheck {' '.join(dict.fromkeys(failed))}")
    else:
        print(f"all {len(CASES)} passed (seed {seed})")
    return not failed


def _is_file(what):
    return what.endswith(".py") or Path(what).exists()


if __name__ == "__main__":
    run(main, "gradcheck")
