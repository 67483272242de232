"""What there is to know about one wrong gradient, measured once for all hypotheses.

A backward pass is linear in dy: gradient = B dy, with a matrix B that has a row for each element of the input and a column
for each element of the output. The right one is the Jacobian J of forward. Both can be measured: a row of J by moving one
element of the input and watching all of y, a column of B by a dy that is 1 in one place. Where they differ says more than
the gradients' difference: which output's share is missing, doubled, or went to the wrong place.

A loss has one output, so its two matrices would be single columns. For a loss the *second* derivatives are taken in their
place: what the gradient of element i feels of element k.
"""

import itertools
import time
from functools import cached_property

import numpy as np

from ..device import array_module, asarray, to_numpy

EXACT = 1e-6  # an explanation must give the wrong gradient to so many digits: chance does not
SECONDS = 2.0  # for each of the measurements that go element by element
LARGE = 4_000_000  # numbers in a matrix


class Facts:
    """One input's wrong gradient and what can be asked about it.

    analytic   what backward gave, NumPy, of whatever shape
    rows       flat indices of the elements that were measured (kinks left out); coords: their (len(rows), ndim) indices
    jac, own   J and B (see above), (len(rows), columns); `own` is None where it would take too long. columns, and
               out_coords: the output's elements (for a loss: the input's)
    a, n       backward's gradient and the one by differences, at `rows`
    tol        to how many digits `jac` can be trusted
    """

    def __init__(self, problem, k, analytic, rows):
        self.problem, self.k, self.analytic = problem, k, analytic
        self.name, self.x = problem.names[k], to_numpy(problem.inputs[k])
        self.y, self.dy = to_numpy(problem.y), np.asarray(problem.upstream, dtype=np.float64)
        self.loss = self.y.size == 1
        self.axes, self.out_axes = axis_names(self.name, self.x.shape), axis_names("y", self.y.shape)
        self.tol = EXACT if problem.exact else 3e-2
        self.rows = np.asarray(rows)
        columns, smooth = jacobian(problem, k, self.rows)
        self.rows, self.columns = self.rows[smooth], columns[smooth]
        self.coords = _coords(self.rows, self.x.shape)
        self.n = self.columns @ self.dy.ravel()

    @property
    def fits(self):
        return self.analytic.shape == self.x.shape

    @property
    def a(self):
        return self.analytic.ravel()[self.rows]

    @property
    def whole(self):
        """Was every element measured?"""
        return len(self.rows) == self.x.size

    def same(self, a, b):
        """Do two arrays agree to the digits that can be trusted?"""
        a, b = np.asarray(a), np.asarray(b)
        if a.shape != b.shape or not a.size:
            return False
        return bool(np.max(np.abs(a - b)) <= self.tol * max(np.max(np.abs(b)), 1e-300))

    # --- the two matrices

    @cached_property
    def _matrices(self):
        if self.loss:
            return self._second_derivatives()
        own = self.problem.operator.get(self.name)
        return self.columns, None if own is None or own.shape[0] != self.x.size else own[self.rows]

    @property
    def jac(self):
        return self._matrices[0]

    @property
    def own(self):
        return self._matrices[1]

    @cached_property
    def matrix_rows(self):
        """Of `rows`, those that the matrices have (for a loss a few)."""
        return self._few if self.loss else np.arange(len(self.rows))

    @property
    def out_coords(self):
        return (
            _coords(np.arange(self.x.size), self.x.shape)
            if self.loss
            else _coords(np.arange(self.y.size), self.y.shape)
        )

    @property
    def column_axes(self):
        return self.axes if self.loss else self.out_axes

    def _second_derivatives(self):
        """J and B of a loss: by x_k, of what differences and of what backward give for x_i, for some elements i.

        H_ik = (L(+i+k) - L(+i) - L(+k) + 2 L - L(-i) - L(-k) + L(-i-k)) / (2 h^2), where +i is a step h at element i.
        """
        wrong = np.abs(self.a - self.n) > self.tol * np.max(np.abs(self.n))
        pick = [np.flatnonzero(part)[:: max(1, np.count_nonzero(part) // 6)][:6] for part in (wrong, ~wrong)]
        self._few = np.sort(np.concatenate(pick))
        rows, start = self.rows[self._few], time.process_time()
        h = 1e-3 * (float(np.sqrt(np.mean(self.x**2))) or 1.0)

        def moved(*steps):
            inputs = self.problem.copies()
            for k, step in steps:
                inputs[self.k].reshape(-1)[k] += step
            return inputs

        def value(*steps):
            return float(self.problem.value(moved(*steps))[0].sum())

        jac, own = np.zeros((len(rows), self.x.size)), np.zeros((len(rows), self.x.size))
        middle, alone = value(), {k: value((k, h)) + value((k, -h)) for k in range(self.x.size)}
        for k in range(self.x.size):
            for r, i in enumerate(rows):
                both = value((i, h), (k, h)) + value((i, -h), (k, -h))
                jac[r, k] = (both - alone[i] - alone[k] + 2 * middle) / (2 * h * h) * self.dy.item()
            sides = [self.problem.gradients(moved((k, step))).get(self.name) for step in (h, -h)]
            if any(side is None for side in sides) or time.process_time() - start > 2 * SECONDS:
                return None, None
            own[:, k] = (sides[0] - sides[1]).ravel()[rows] / (2 * h)
        return jac, own

    # --- questions

    @cached_property
    def linear(self):
        """Is y linear (up to a constant) in this input, however far it moves? Then no mask can depend on it."""
        if not self.whole:
            return None
        step = np.random.default_rng(5).permutation(self.x.ravel()).reshape(self.x.shape) * 3
        moved = self.problem.copies()
        moved[self.k] += asarray(step, array_module(moved[self.k]))
        y = to_numpy(self.problem.value(moved)[0])
        return bool(
            np.max(np.abs(y.ravel() - self.y.ravel() - self.columns.T @ step.ravel()))
            <= 1e-5 * np.max(np.abs(y))
        )

    @cached_property
    def curved(self):
        """Does most of y bend as this input moves a little? Not where forward is made of flat pieces: a ReLU, a maximum."""
        step = (
            np.random.default_rng(9).standard_normal(self.x.shape)
            * 1e-3
            * (float(np.sqrt(np.mean(self.x**2))) or 1.0)
        )
        sides = []
        for sign in (1, -1):
            moved = self.problem.copies()
            moved[self.k] += asarray(sign * step, array_module(moved[self.k]))
            sides.append(to_numpy(self.problem.value(moved)[0]) - self.y)
        bend, way = np.abs(sides[0] + sides[1]), np.abs(sides[0] - sides[1])
        return bool(np.median(bend) > 1e-8 * np.max(way))

    def other_gradient(self, name):
        """The right gradient of another input, all of it; None if that would take too long."""
        k = self.problem.names.index(name)
        x = self.problem.inputs[k]
        if x is None or x.size * self.y.size > LARGE or x.size * self.problem.cost > SECONDS:
            return None
        columns, _ = jacobian(self.problem, k, np.arange(x.size))
        return (columns @ self.dy.ravel()).reshape(x.shape)

    def again(self, inputs=None, dy=None, remembered=None):
        """backward's gradient for other inputs, another dy or another memory (see Problem); None if it refuses them."""
        try:
            gradient = self.problem.gradients(inputs or self.problem.copies(), dy, remembered).get(self.name)
        except Exception:  # a learner's function may raise anything
            return None
        return gradient if gradient is not None and np.all(np.isfinite(gradient)) else None

    def replaced(self, name, change):
        """The inputs with `name` replaced by change(its array)."""
        inputs = self.problem.copies()
        k = self.problem.names.index(name)
        inputs[k] = array_module(inputs[k]).ascontiguousarray(change(inputs[k]))
        return inputs

    def others(self):
        """Names of the other inputs that are arrays."""
        pairs = zip(self.problem.names, self.problem.inputs, strict=True)
        return [name for name, x in pairs if x is not None and name != self.name]


def jacobian(problem, k, rows):
    """dy/dx for elements `rows` (flat) of input k: (len(rows), y.size), and which of the rows have no kink nearby."""
    x = to_numpy(problem.inputs[k]).ravel()
    typical = float(np.sqrt(np.mean(x**2))) or 1.0
    h = (2.0**-15 if problem.exact else 2.0**-8) * np.maximum(np.abs(x[rows]), 0.1 * typical)
    columns, bends = np.empty((len(rows), problem.y.size)), np.empty(len(rows))
    y = to_numpy(problem.y).ravel()
    for r, i in enumerate(rows):
        sides = []
        for sign in (1, -1):
            moved = problem.copies()
            moved[k].reshape(-1)[i] += sign * h[r]
            sides.append(to_numpy(problem.value(moved)[0]).ravel())
        columns[r] = (sides[0] - sides[1]) / (2 * h[r])
        bends[r] = np.max(np.abs(sides[0] + sides[1] - 2 * y)) / h[r]
    return columns, bends <= (1e-2 if problem.exact else 1.0) * max(
        np.max(np.abs(columns), initial=0.0), 1e-300
    )


def axis_names(name, shape):
    """Letters for the axes of an array of this name and shape."""
    last = name.rsplit(".", 1)[-1]
    if len(shape) == 4:
        return ("KH", "KW", "C", "O") if last == "w" else ("N", "H", "W", "C")
    if len(shape) == 3 and shape[1] == shape[2]:
        return ("N", "C", "C'")
    if len(shape) == 2 and last == "w":
        return ("C", "O")
    return {0: (), 1: ("C",), 2: ("N", "C"), 3: ("H", "W", "C")}.get(
        len(shape), tuple(f"axis {k}" for k in range(len(shape)))
    )


def _coords(flat, shape):
    return np.column_stack(np.unravel_index(flat, shape)) if shape else np.zeros((len(flat), 0), int)


def sizes(problem):
    """{name: size} of what a sum or a mean may run over, the first that is meant first."""
    found = {}
    x = next((x for x in problem.inputs if x is not None and x.ndim == 4), None)
    if x is not None:
        n, h, w, c = x.shape
        found |= {
            "N": n,
            "H*W": h * w,
            "C*H*W": c * h * w,
            "N*H*W": n * h * w,
            "N*C*H*W": n * c * h * w,
            "C": c,
            "H": h,
            "W": w,
        }
    elif problem.inputs[0] is not None:
        first = problem.inputs[0].shape
        found |= {"N": first[0] if first else 1, "the number of elements": int(np.prod(first))}
    if problem.y.ndim == 4:
        n, h, w, o = problem.y.shape
        found |= {
            "OH*OW": h * w,
            "N*OH*OW": n * h * w,
            "O": o,
            "O*OH*OW": o * h * w,
            "N*O*OH*OW": n * o * h * w,
        }
    for name, other in zip(problem.names, problem.inputs, strict=True):
        if other is not None and other.ndim == 4 and name.rsplit(".", 1)[-1] == "w":
            found |= {"KH*KW": other.shape[0] * other.shape[1], "KH*KW*C": int(np.prod(other.shape[:3]))}
    return {name: size for name, size in found.items() if size > 1}


def name_factor(factor, known):
    """What a factor is made of: 0.25 -> "1/N" where N is 4. `known`: {name: size}. None where nothing fits."""
    sign, size = ("-" if factor < 0 else ""), abs(factor)

    def near(value):
        return abs(size - value) <= 1e-6 * value

    if near(1):
        return f"{sign}1"
    named = {name: f"({name})" if "*" in name or " " in name else name for name in known}
    plain = [(name, known[name]) for name in known] + [
        (f"1/{named[name]}", 1 / known[name]) for name in known
    ]
    compound = []
    for name, value in known.items():
        compound += [
            (f"2*{name}", 2 * value),
            (f"2/{named[name]}", 2 / value),
            (f"1/(2*{name})", 0.5 / value),
        ]
        compound += [(f"{named[name]}^2", value**2), (f"1/{named[name]}^2", 1 / value**2)]
        compound += [
            (f"{name}/({name} - 1)", value / max(value - 1, 0.5)),
            (f"({name} - 1)/{named[name]}", (value - 1) / value),
        ]
    for form, number in [] if near(2) or near(0.5) else plain + compound:
        if near(number):
            return sign + form
    for number in (2, 3, 4, 8, 9, 16, 150, 255):
        if near(number):
            return f"{sign}{number}"
        if near(1 / number):
            return f"{sign}1/{number}"
    if near(np.sqrt(2)) or near(np.sqrt(0.5)):
        return sign + ("sqrt(2)" if size > 1 else "1/sqrt(2)")
    a, b = next(
        ((a, b) for a, b in itertools.permutations(known, 2) if near(known[a] / known[b])), (None, None)
    )
    return f"{sign}{a}/{b}" if a else None
