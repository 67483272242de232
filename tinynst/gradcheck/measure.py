"""Forward and backward at fixed inputs: what they return, what they change, and the Jacobian by differences.

Every element of an input is moved a little in both directions, which gives a row of the Jacobian
J[i, k] = dy_k / dx_i. The rows are measured once; slips.py uses them again.

Two step sizes tell how far to trust a row: the error of a smooth function shrinks with the step, a kink
such as ReLU's stays, rounding grows.
"""

import time

import numpy as np

from ..device import array_module, asarray, to_numpy
from .report import Diagnosis
from .shares import index_text, largest

STEP = 2.0**-16  # 1.5e-5 of an element's size: with two steps, truncation and rounding are both near 1e-10
FEWEST = 3  # elements that are measured, however slow forward is


def _float64(value):
    """A NumPy or CuPy array or a number as a new array of NumPy's; None stays None."""
    return None if value is None else np.array(to_numpy(value) if hasattr(value, "dtype") else value, float)


class Problem:
    """forward and backward at fixed inputs and one random dy; all arrays here are float64 and NumPy's.

    y, gradients   of the inputs; gradients is {name: array}, empty when backward's result cannot be used
    other, before  other inputs, and the gradients of a first call with them: a backward that still gives
                   these has a stale cache
    cost           seconds of one forward and backward;   coarse   does forward compute in float32?
    """

    def __init__(self, forward, backward, inputs, names, mutable, check, seed):
        self.f, self.b, self.names, self.mutable, self.check = forward, backward, names, mutable, check
        self.xp, rng, start = array_module(*inputs), np.random.default_rng(seed), time.monotonic()
        self.inputs, self.notes = [_float64(x) for x in inputs], []
        self.other = [x if x is None else rng.permutation(x.ravel()).reshape(x.shape) for x in self.inputs]
        y, cache = self.forward(self.other)
        self.dy = rng.standard_normal(y.shape)
        self.before = self.named(self.b(self.copy(self.dy), cache)) or {}
        self.cost, self.measured, self.kinks, self.doubts = time.monotonic() - start, {}, {}, {}

    def input(self, name):
        return self.inputs[self.names.index(name)]

    def replaced(self, name, array):
        """The inputs with another array in place of one of them."""
        return [array if n == name else x for n, x in zip(self.names, self.inputs, strict=True)]

    def copy(self, array):
        """What forward and backward get: a copy on the inputs' device, or a plain number."""
        return None if array is None else asarray(array.copy(), self.xp) if np.ndim(array) else float(array)

    def call(self, arrays):
        result = self.f(*arrays)
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError(f"forward must return (y, cache), got {type(result).__name__}")
        return _float64(result[0]), result[1]

    def forward(self, inputs):
        return self.call(map(self.copy, inputs))

    def named(self, gradients):
        """{name: array} of what backward returned; None when the number of gradients fits nothing."""
        gradients = list(gradients) if isinstance(gradients, (tuple, list)) else [gradients]
        while len(gradients) > len(self.names) and gradients[-1] is None:  # conv2d without b: dx, dw, None
            gradients.pop()
        for names in (self.names, [n for n in self.names if n not in self.mutable]):
            if len(gradients) == len(names):
                return dict(zip(names, map(_float64, gradients), strict=True))

    def again(self, inputs=None, dy=None):
        """The gradients for other inputs or another dy; {} where forward or backward raises."""
        try:
            _, cache = self.forward(self.inputs if inputs is None else inputs)
            return self.named(self.b(self.copy(self.dy if dy is None else dy), cache)) or {}
        except Exception:
            return {}

    def run(self):
        """Run forward and backward, then backward again. Returns Diagnoses of what numbers do not show."""
        given, dy, start = [self.copy(x) for x in self.inputs], self.copy(self.dy), time.monotonic()
        self.y, cache = self.call(given)
        between = [_float64(x) for x in given]
        self.gradients = self.named(self.b(dy, cache))
        self.cost = min(self.cost, time.monotonic() - start)  # one call alone may meet a busy machine
        if self.gradients is None:
            self.gradients, wanted = {}, [f"d{n}" for n in self.names if n not in self.mutable]
            evidence = f"backward does not return {len(wanted)} gradients: {', '.join(wanted)}"
            return [Diagnosis("wrong-shape", "all", evidence, "Return one for each input, in their order.")]
        if not np.isfinite(self.y).all():
            self.gradients, odd = {}, np.count_nonzero(~np.isfinite(self.y))
            return [Diagnosis("not-finite", "all", f"{odd} of {self.y.size} elements of y are inf or nan")]
        found = []
        arrays = [(*row, "forward") for row in zip(self.names, self.inputs, between, strict=True)]
        arrays += [(*row, "backward") for row in zip(self.names, between, map(_float64, given), strict=True)]
        for name, before, after, who in [*arrays, ("dy", self.dy, _float64(dy), "backward")]:
            cause = "running-statistics" if name in self.mutable else "changed-input"
            if before is None or np.array_equal(before, after) or (name in self.mutable and who == "forward"):
                continue
            place = tuple(np.argwhere(before != after)[0])
            evidence = f"{who} changes {name} in place: {name}{index_text(place)} is "
            evidence += f"{before[place]:.4g} before the call, {after[place]:.4g} after it"
            found.append(Diagnosis(cause, name if name == "dy" else f"d{name}", evidence))
        try:
            second = self.named(self.b(self.copy(self.dy), cache))
            pairs = [(g, second[n]) for n, g in self.gradients.items() if g is not None]
            same = all(np.allclose(g, again, 1e-9, 1e-12, equal_nan=True) for g, again in pairs)
            wrong = None if same else "gives another gradient"
        except Exception as error:
            wrong = f"raises {type(error).__name__}: {error}"
        if wrong:
            hint = "backward must leave the cache as it is: work on copies, and pop nothing from it."
            wrong = f"a second backward with the same cache {wrong}"
            found.append(Diagnosis("stale-cache", "all", wrong, hint))
        y, _ = self.forward([x if x is None else x * (1 + 1e-9) for x in self.inputs])
        self.coarse = bool(y.any()) and np.array_equal(y, np.float32(y))
        for name in self.check:
            if self.gradients.get(name) is None:
                self.gradients[name] = np.zeros(self.input(name).shape)
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
            top = int(np.argmax(abs(gradient))) if gradient.size == x.size else order[0]
            order = np.append(top, order[order != top][: self.samples - 1])
        typical, start, found = float(np.sqrt(np.mean(x**2))) or 1.0, time.monotonic(), {}
        for count, i in enumerate(order):
            if count >= FEWEST and time.monotonic() - start > self.seconds:
                at = f"{count} of {len(order)} elements of {name}"
                self.notes.append(f"stopped after {self.seconds:.0f} s at {at}")
                order = order[:count]
                break
            row, doubt = self._row(name, i, self.step * max(abs(x.flat[i]), 0.1 * typical))
            if row is not None:
                found[int(i)] = row, doubt
        rows, self.kinks[name] = np.array(sorted(found), int), len(order) - len(found)
        doubts = np.array([found[i][1] for i in rows])
        least = max(self.rounding(name), 0.3 * np.median(doubts)) if found else 0  # one may be small by luck
        self.doubts[name] = np.maximum(doubts, least)
        return rows, np.array([found[i][0] for i in rows]).reshape(len(rows), self.y.size)

    def _row(self, name, i, h):
        """(row, doubt) for element i; row is None at a kink: where the slopes on both sides stay apart."""
        bends = []
        for step in () if self.coarse else (h, h / 16, h / 256):  # a smaller one gets away from a kink nearby
            (right, left), (right2, left2) = self._slopes(name, i, step), self._slopes(name, i, step / 2)
            wide, narrow = (right + left) / 2, (right2 + left2) / 2
            bend, bend2 = np.max(abs(right - left)), np.max(abs(right2 - left2))
            allowed = 1e-7 * np.max(abs(narrow)) + 100 * np.finfo(float).eps * largest(self.y) / step
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
