"""forward and backward on fixed inputs and one upstream gradient: what they return, and what they leave behind."""

import time
import warnings
from functools import cached_property

import numpy as np

from ..device import array_module, asarray, to_numpy
from .report import Diagnosis

SECONDS = 3.0  # for measuring what backward does with each element of dy


class Problem:
    """forward and backward on fixed inputs and one fixed dy.

    exact   False once forward was seen to lose digits (float32 inside)
    cost    seconds of one forward, of the processor: other programs do not count
    """

    def __init__(self, forward, backward, inputs, names, mutable, rng, title=""):
        self.forward, self.backward, self.inputs, self.names, self.mutable = (
            forward,
            backward,
            inputs,
            names,
            mutable,
        )
        self.rng, self.title, self.exact = rng, title, True
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
        start = time.process_time()
        self.y, cache = self.value(inputs)
        self.cost = time.process_time() - start
        after_forward = [None if x is None else x.copy() for x in inputs]
        diagnoses += self._changed(self.inputs, inputs, "forward", skip=self.mutable)
        if not np.all(np.isfinite(to_numpy(self.y))):
            diagnoses.append(
                Diagnosis(
                    "not-finite", "y", "forward gives inf or nan", "Look for log, sqrt or / of 0, or overflow"
                )
            )
            self.reason = "the output is not finite"
            return {}, diagnoses
        if self.y.dtype != np.float64:
            notes.append(
                f"forward returned {self.y.dtype} for float64 inputs: differences are that much coarser"
            )
        self.upstream = self.rng.standard_normal(self.y.shape).astype(self.y.dtype)
        self.dy = asarray(self.upstream, array_module(self.y))
        self.size = float(np.linalg.norm(to_numpy(self.y) * self.upstream))

        dy = self._dy()
        self.found = first = self._gradients(self.backward(dy, cache))
        if isinstance(first, Diagnosis):
            return {}, [*diagnoses, first]
        for name, g in first.items():
            if g is not None and g.dtype != np.float64:
                notes.append(f"d{name} came back as {g.dtype}: its last digits are lost")
        diagnoses += self._changed(after_forward, inputs, "backward")
        if not isinstance(dy, float) and not same(dy, self.dy):
            evidence, hint = "backward changes dy in place", "Work on a copy: others still need dy"
            diagnoses.append(Diagnosis("changed-input", "dy", evidence, hint))
        diagnoses += self._stale(first, cache)
        if self._noisy():
            self.blocked, self.reason = None, "forward gives two results for the same inputs"
            diagnoses.append(
                Diagnosis("noise", "y", self.reason, "Fix its random numbers, or what it remembers")
            )
            return {}, diagnoses
        return self._wellformed(check, first, diagnoses), diagnoses

    @staticmethod
    def asarray(array, like):
        """A NumPy array where `like` lives."""
        return asarray(array, array_module(like))

    def gradients(self, inputs, dy=None, remembered=None):
        """{name: gradient} of one forward and backward for these inputs (and `dy`, NumPy; None: the check's own).

        `remembered`: (name, change): backward finds change(input `name`) in its cache in that input's place. Raises
        LookupError when the input is not in the cache.
        """
        _, cache = self.value(inputs)
        if remembered:
            name, change = remembered
            cache, found = _exchanged(cache, self.inputs[self.names.index(name)], change)
            if not found:
                raise LookupError(name)
        return self._named(self.backward(self._dy(dy), cache))

    def second_call(self, check):
        """A Diagnosis when backward, right the first time, is wrong for other inputs: it kept something. None else."""
        rng = np.random.default_rng(8)
        other, ways = self.copies(), {}
        for k, name in enumerate(self.names):
            if name in check:
                x = to_numpy(self.inputs[k])
                other[k][...] = self.asarray(rng.permutation(x.ravel()).reshape(x.shape), other[k])
                ways[name] = rng.standard_normal(x.shape) * (float(np.sqrt(np.mean(x**2))) or 1.0)
        start = [None if x is None else x.copy() for x in other]
        try:
            y, cache = self.value([None if x is None else x.copy() for x in start])
            gradients = self._named(self.backward(self._dy(), cache))
        except Exception:  # a learner's function may raise anything
            return None
        if y.shape != self.y.shape or not all(
            g is None or np.all(np.isfinite(g)) for g in gradients.values()
        ):
            return None

        def slopes(names, t):
            """Of L to the right and to the left, all of `names` moving along their ways."""
            sides = []
            for sign in (1, -1):
                moved = [None if x is None else x.copy() for x in start]
                for name in names:
                    k = self.names.index(name)
                    moved[k] += self.asarray(sign * t * ways[name], moved[k])
                sides.append(float(((self.value(moved)[0] - y) * self.dy).sum()) / (sign * t))
            return sides

        def wrong(names):
            claimed = sum(float((gradients[n] * ways[n]).sum()) for n in names)
            size = max(np.linalg.norm(gradients[n] * ways[n]) for n in names)
            (right, left), again = slopes(names, 1e-6), slopes(names, 3e-7)
            size = max(size, abs(right), abs(left))
            steady = np.ptp([right, left, *again]) <= 1e-3 * size  # no kink, no noise
            return steady and abs(claimed - (right + left) / 2) > 3e-3 * size

        names = [n for n in ways if gradients.get(n) is not None and gradients[n].shape == ways[n].shape]
        with np.errstate(all="ignore"):
            if not names or not wrong(names):
                return None
            name = next((n for n in names if wrong([n])), names[0])
        evidence = f"d{name} is right on the first call and wrong on the second, with other inputs"
        hint = "Something of the first call is kept outside the cache: a global, a default argument, an attribute"
        return Diagnosis("stale-cache", "d" + name, evidence, hint)

    @cached_property
    def operator(self):
        """{name: what dy at each place of y sends to each element}, (elements, y.size): the columns that backward gives for
        a dy of 1 in one place. Empty where it would take too long, or backward fails."""
        columns, start = {}, time.process_time()
        _, cache = self.value(self.copies())
        for j in range(self.y.size):
            unit = np.zeros(self.y.shape)
            unit.reshape(-1)[j] = 1.0
            try:
                found = self._named(self.backward(self._dy(unit), cache))
                if j == 0:  # a cache that is used up or changed: a new one each time
                    again = self._named(self.backward(self._dy(unit), cache))
                    self.keeps = all(close(found[name], again[name]) for name in found)
            except Exception:  # a learner's function may raise anything
                self.keeps, found = False, None
            if not self.keeps:
                try:
                    found = self.gradients(self.copies(), unit)
                except Exception:
                    return {}
            for name, g in found.items():
                if g is not None:
                    columns.setdefault(name, []).append(g.ravel())
            if time.process_time() - start > SECONDS:
                return {}
        return {name: np.array(c).T for name, c in columns.items() if len(c) == self.y.size}

    def _named(self, gradients):
        found = self._gradients(gradients)
        return {} if isinstance(found, Diagnosis) else found

    def _dy(self, dy=None):
        """dy for one call of backward: a plain float where y is a number."""
        dy = self.dy if dy is None else asarray(dy.astype(self.upstream.dtype), array_module(self.dy))
        return float(dy) if dy.ndim == 0 else dy.copy()

    def _changed(self, before, after, who, skip=()):
        found = []
        for name, old, new in zip(self.names, before, after, strict=True):
            if old is None or name in skip or same(old, new):
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
            evidence = (
                f"backward returns {len(gradients)} gradients for {len(names)} inputs ({', '.join(names)})"
            )
            self.reason = evidence
            return Diagnosis(
                "wrong-shape", "all", evidence, "Return one for each input, None where there is none"
            )
        return {
            n: None if g is None else np.array(to_numpy(g)) for n, g in zip(names, gradients, strict=True)
        }

    def _stale(self, first, cache):
        """Does a second backward with the same cache repeat the first?"""
        hint = "backward must leave its cache as it found it"
        try:
            second = self._gradients(self.backward(self._dy(), cache))
        except Exception as error:  # whatever a used-up cache raises
            evidence = f"a second backward with the same cache raises {type(error).__name__}: {error}"
            return [Diagnosis("stale-cache", "all", evidence, hint)]
        if isinstance(second, Diagnosis):
            return [
                Diagnosis("stale-cache", "all", "a second backward returns fewer or more gradients", hint)
            ]
        evidence = "a second backward with the same cache gives another gradient"
        return [
            Diagnosis("stale-cache", "d" + name, evidence, hint)
            for name in first
            if not close(first[name], second[name])
        ]

    def _noisy(self):
        """Two forwards on the same inputs: more apart than the order of a sum could explain?"""
        start = time.process_time()
        again, _ = self.value(self.copies())
        self.cost = min(
            self.cost, time.process_time() - start
        )  # the first call may have had something to import
        return not close(to_numpy(self.y), to_numpy(again))

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

    def complex_slope(self, k, i):
        """Slope of L by a complex step, Im L(x + ih) / h; None where forward does not take complex numbers."""
        moved = self.copies()
        moved[k] = moved[k].astype(complex)
        h = 1e-20
        moved[k].reshape(-1)[i] += 1j * h
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # numbers that lose their imaginary part on the way
                y = self.forward(*moved)[0]
            return (
                float((y.imag * self.dy).sum()) / h
                if np.iscomplexobj(y) and y.shape == self.y.shape
                else None
            )
        except Exception:  # a learner's function may raise anything
            return None

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
            if name in self.mutable and inputs[k] is not None and not same(inputs[k], self.inputs[k]):
                other = self.copies()
                other[k] = inputs[k]
                if not close(to_numpy(self.y), to_numpy(self.value(other)[0])):
                    return name
        return None


def _exchanged(cache, array, change):
    """The cache with change(array) wherever it holds a copy of `array`, and whether it did."""
    if isinstance(cache, (tuple, list)):
        parts = [_exchanged(part, array, change) for part in cache]
        whole = (
            type(cache)(p for p, _ in parts)
            if not hasattr(cache, "_fields")
            else type(cache)(*(p for p, _ in parts))
        )
        return whole, any(found for _, found in parts)
    if isinstance(cache, dict):
        parts = {key: _exchanged(part, array, change) for key, part in cache.items()}
        return {key: p for key, (p, _) in parts.items()}, any(found for _, found in parts.values())
    if hasattr(cache, "shape") and getattr(cache, "dtype", None) == array.dtype and same(cache, array):
        return array_module(array).ascontiguousarray(change(cache)), True
    return cache, False


def same(a, b):
    """Bit for bit (so nan is itself)."""
    return a.shape == b.shape and to_numpy(a).tobytes() == to_numpy(b).tobytes()


def close(a, b):
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
