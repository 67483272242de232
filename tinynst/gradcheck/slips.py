"""What is wrong with a gradient: which common mistake gives exactly these numbers?

J holds dy_k / dx_i as measured by differences, with a row for each element of the input and a column for each
element of y. B holds what backward sends from each dy_k to each element: one call for each unit vector dy. A
mistake is named when it turns J, dy or the right gradient into what backward gave, to six digits: random
numbers do not agree by chance. The first test in SLIPS that recognises its mistake gives the diagnosis.
"""

import itertools
import time

import numpy as np

from .report import Diagnosis, axis_names
from .shares import (
    EXACT,
    Compared,
    border,
    index_text,
    indices,
    largest,
    moved,
    moves,
    noise,
    same,
    scaled,
    shares,
    wrong_shape,
    zero,
)

PATIENCE = 6.0  # seconds for the calls of one test
LARGEST_Y = 2000  # elements; backward is called once for each of them


def wrong_gradient(problem, name):
    """The Diagnosis of a gradient of the right shape that is wrong."""
    cause, evidence = Facts(problem, name).diagnose(SLIPS)
    return Diagnosis(cause, f"d{name}", evidence)


class Facts(Compared):
    """The gradient with respect to x, the input called `key`, with J and B, and calls that tell more.

    to, out   the index in y of each column of J, and y's axes
    loss      is y a single number? Then there is no B, and J is the gradient itself
    """

    def __init__(self, problem, key):
        self.problem, self.key, self.x, self.y, self.dy = (
            problem,
            key,
            problem.input(key),
            problem.y,
            problem.dy,
        )
        rows, self.J = problem.jacobian(key)
        if len(rows) < self.x.size <= 1000 and 4 * self.x.size * problem.cost < 2 * PATIENCE:
            problem.samples = 1000  # measured on a sample only, and a look at all of it is cheap
            del problem.measured[key]
            rows, self.J = problem.jacobian(key)
        right, axes = self.J @ self.dy.ravel(), axis_names(key, self.x.shape)
        super().__init__(f"d{key}", problem.gradients[key], rows, right, axes)
        self.to, self.out = indices(np.arange(self.y.size), self.y.shape), axis_names("y", self.y.shape)
        self.loss, start, columns = self.y.size == 1, time.monotonic(), []
        for unit in () if self.loss or self.y.size > LARGEST_Y else np.eye(self.y.size):
            column = self.gradient(dy=unit.reshape(self.y.shape))
            if column is None or column.shape != self.shape or time.monotonic() - start > PATIENCE:
                return
            columns.append(column.ravel()[rows])
        self.B = np.array(columns).T if columns else None

    def gradient(self, x=None, **changes):
        """The gradient with another x, other inputs or another dy; None where backward raises."""
        inputs = {} if x is None else {"inputs": self.problem.replaced(self.key, x)}
        return self.problem.again(**inputs, **changes).get(self.key)

    def value(self, x):
        return self.problem.forward(self.problem.replaced(self.key, x))[0]


# --- other inputs, another dy ---


def stale(f):
    """Backward's result for these inputs is right for the inputs of the call before."""
    p, g = f.problem, f.array
    if same(p.before.get(f.key), g):
        others = list(zip(p.names, p.other, strict=True))
        up, down = (p.forward([x + s * g if n == f.key else x for n, x in others])[0] for s in (1e-6, -1e-6))
        slope = float(((up - down) * f.dy).sum() / 2e-6)
        if abs(slope - (g**2).sum()) < 1e-3 * abs(slope) < abs(f.a @ f.n - slope):
            return "stale-cache", "this is the right gradient for the inputs of an earlier call"


def not_linear(f):
    """A backward is linear in dy: twice the dy gives twice the gradient, -dy the opposite."""
    g, minus, twice = f.array, f.gradient(dy=-f.dy), f.gradient(dy=2 * f.dy)
    if same(twice, g):
        return "missing-term", "the gradient stays the same when dy is doubled: dy is not in it"
    if same(twice, 2 * g) and not same(minus, -g):
        return "wrong-mask", "what passes depends on the sign of dy, not on x"
    if twice is not None and same((twice - g).ravel()[f.rows], f.n):
        return "border", f"a number is added whatever dy is: {largest(2 * g - twice):.4g} at most"


def swapped(f):
    for key in f.problem.check:
        if key != f.key and _belongs(f.problem, key, f.array) and not same(f.a, -f.n):
            return "swapped-gradients", f"these are exactly the numbers that belong in d{key}"


def _belongs(problem, key, gradient):
    """Is `gradient` that of the input `key`?"""
    if problem.input(key).shape == gradient.shape:
        rows, J = problem.jacobian(key)
        return same(gradient.ravel()[rows], J @ problem.dy.ravel())


def moved_input(f):
    """Backward would be right after a forward with another input flipped or transposed."""
    for key, x in zip(f.problem.names, f.problem.inputs, strict=True):
        for cause, text, move in (
            () if x is None or key == f.key else moves(x.shape, axis_names(key, x.shape))
        ):
            if cause == "shifted" or f.problem.cost > 0.05:
                break
            guess = f.gradient(inputs=f.problem.replaced(key, move(x).copy()))
            if guess is not None and same(guess.ravel()[f.rows], f.n):
                return cause, f"backward would be right with {key} {text}"


def running(f):
    for key in f.problem.mutable:
        inputs = f.problem.replaced(key, 2 * f.problem.input(key) + 1)
        if np.allclose(f.problem.forward(inputs)[0], f.y, 1e-9) and not same(
            f.gradient(inputs=inputs), f.array
        ):
            return "running-statistics", f"the gradient changes with {key}, but y does not depend on it"


def samples(f):
    if f.whole and f.x.ndim == 4 and f.axes[0] == "N" and len(f.x) > 1:
        filled = [m for m, g in enumerate(f.array) if g.any()]
        if len(filled) == 1:
            return "partial-batch", f"only sample {filled[0]} of {len(f.x)} has a gradient, the others have 0"
        if any(all(same(g, right) for g in f.array) for right in f.n.reshape(f.shape)):
            return "partial-batch", "every sample has the gradient of one and the same sample"


# --- entry by entry ---


def entries(f):
    """Single entries of B next to J's: lost where several meet, or open where forward is shut."""
    if f.B is None:
        return None
    top = largest(f.J)
    there, right, gone = abs(f.J) > 3e-5 * top, abs(f.B - f.J) <= 3e-6 * top, abs(f.B) <= 3e-6 * top
    lost, kept = there & gone, there & right
    meeting = lost.any(1)
    if np.all(right | gone) and lost.any() and kept[meeting].any(1).all():
        row = int(np.flatnonzero(meeting)[0])
        counts = f"of {there[row].sum()} in {f.name}{index_text(f.at[row])}, {kept[row].sum()} count"
        return "overwritten", f"where several gradients meet, only some stay: {counts}"
    if not bends(f):
        return None
    if np.all(~there[~right] ^ gone[~right]):
        return "wrong-mask", "dy gets through where forward's slope is 0, or is stopped where it is not"
    slopes = np.unique(np.round(f.J / top, 5))
    if len(slopes) <= 3 and np.isin(np.round(f.B / top, 5), [0, *slopes]).all():
        return "wrong-mask", "forward's slopes are a few numbers, and backward has them in other places"


def bends(f):
    """Is y piecewise linear in x: straight nearby and bent further away, as with ReLU and maximum?"""
    found = []
    for size in (1e-3, 3.0):
        step = size * np.random.default_rng(9).permutation(f.x.ravel()).reshape(f.shape)
        up, down = f.value(f.x + step) - f.y, f.value(f.x - step) - f.y
        found.append((abs(up + down), largest(up - down)))
    (near, slope), (far, reach) = found
    return np.median(near) <= 1e-8 * slope and np.max(far) > 1e-6 * reach


def reordered(f):
    """Are B's columns or rows those of J in another order?"""
    if f.B is not None:
        J, B = (np.round(matrix / largest(f.J), 4) + 0.0 for matrix in (f.J, f.B))
        for what, pair in (("dy", (B.T, J.T)), (f.name, (B, J))):
            if np.array_equal(*(matrix[np.lexsort(matrix.T)] for matrix in pair)):
                return "transposed", f"each element of {what} is used, but in another one's place"


def neighbours(f):
    """Of a loss that is a sum over neighbours: which neighbour's share is lost or scaled?

    Seen in the second derivatives: how each element's gradient changes with each other element.
    """
    if not f.loss or not f.whole or f.x.ndim != 4 or f.x.size**2 * f.problem.cost > 2 * PATIENCE:
        return None
    h = 0.03 * np.sqrt(np.mean(f.x**2))
    steps = h * np.eye(f.x.size).reshape(-1, *f.shape)
    gradients = [f.gradient(x=f.x + step) for step in steps]
    if any(g is None or g.shape != f.shape for g in gradients):
        return None
    given = np.array([(g - f.array).ravel() for g in gradients]).T * h / float(f.dy)
    np.fill_diagonal(given, 0)  # where all shares are added up
    once = np.array([float(f.value(f.x + step)) for step in steps])
    felt = np.argwhere(abs(given) > EXACT * largest(given))
    for way in np.unique(f.at[felt[:, 1]] - f.at[felt[:, 0]], axis=0)[:12]:
        i = np.flatnonzero(np.all((f.at + way >= 0) & (f.at + way < f.shape), axis=1))
        j = np.ravel_multi_index(tuple((f.at[i] + way).T), f.shape)
        both = np.array([float(f.value(f.x + p + q)) for p, q in zip(steps[i], steps[j], strict=True)])
        factors = given[i, j] / (both - once[i] - once[j] + float(f.y))
        whole, gone = abs(factors - 1) < 1e-3, abs(factors) < 1e-3
        where = " and ".join(f"{s:+d} along {a}" for s, a in zip(way, f.axes, strict=True) if s)
        if np.all(whole | gone) and gone.any() and whole.any():
            return "overwritten", f"the share of the neighbour at {where} is lost where another meets it"
        if not (whole | gone).any() and np.ptp(factors) < 1e-3:
            return "scaled", f"the share of the neighbour at {where} is off by a factor of {factors[0]:.4g}"


def formula(f):
    """None of these: the formula itself differs. Of a normalisation: by the term of its mean or its std?"""
    off, top = f.a - f.n, largest(f.n)
    for axes in ((1, 2), (0, 1, 2)) if f.x.ndim == 4 and f.shape == f.y.shape and f.whole else ():
        error, centred = off.reshape(f.shape), f.x - f.x.mean(axes, keepdims=True)
        slope = (error * centred).mean(axes, keepdims=True) / (centred**2).mean(axes, keepdims=True)
        mean, std = error.mean(axes, keepdims=True), slope * centred
        for which, term in (("mean's", mean), ("std's", std), ("mean's and std's", mean + std)):
            if largest(error - term) < 10 * EXACT * largest(error):
                where = "each channel of each image" if axes == (1, 2) else "each channel"
                return "missing-term", f"the error is exactly the {which} term of {where}: dy flows there too"
    where = f"at {np.mean(abs(off) > 10 * EXACT * top):.0%} of the elements, "
    where += f"by up to {largest(off) / top:.2g} of the largest"
    used = abs(f.J) > EXACT * largest(f.J)
    if f.B is not None and (f.B[~used] ** 2).sum() > (f.B[used] ** 2).sum():
        where += "; dy reaches elements that forward did not use for it"
    return "missing-term", f"no share is lost, moved or scaled; the formula itself differs, {where}"


SLIPS = (
    *(zero, noise, stale, not_linear, swapped, scaled, moved, moved_input, running, border),
    *(shares, samples, entries, reordered, neighbours, formula),
)


# --- what is not a matter of numbers ---


def malformed(problem, key, gradient):
    """Diagnoses of a gradient whose shape is wrong or that is not finite."""
    x, name, found = problem.input(key), f"d{key}", []
    odd = np.count_nonzero(~np.isfinite(gradient))
    if odd:
        return [Diagnosis("not-finite", name, f"{odd} of {gradient.size} are inf or nan")]
    rows, J = problem.jacobian(key)
    for axes in (a for k in (1, 2, 3) for a in itertools.combinations(range(gradient.ndim), k)):
        summed = gradient.sum(axis=axes).ravel()
        if summed.size == x.size < gradient.size and same(summed[rows], J @ problem.dy.ravel()):
            evidence = f"summed over axis {', '.join(map(str, axes))} it would be right"
            found = [Diagnosis("missing-sum", name, evidence)]
    for other in (other for other in problem.check if other != key and _belongs(problem, other, gradient)):
        evidence = f"these are exactly the numbers that belong in d{other}"
        found = [Diagnosis("swapped-gradients", name, evidence)]
    evidence = wrong_shape(name, gradient.shape, x.shape, axis_names(key, x.shape))
    return [*found, Diagnosis("wrong-shape", name, evidence)]


def ties(problem):
    """What backward does where forward has two slopes: at 0, and at two equal largest values of a pool."""
    key = problem.check[0]
    x = problem.input(key)

    def slopes(array, spot):
        """How L changes when the elements of `spot` move together: to the left, to the right, by backward."""
        inputs, found = problem.replaced(key, array), []
        for step in (-1e-6, 1e-6):
            moved = array.copy()
            moved.flat[spot] += step
            change = problem.forward(problem.replaced(key, moved))[0] - problem.forward(inputs)[0]
            found.append(float((change * problem.dy).sum() / step))
        return *found, problem.again(inputs).get(key, np.full(x.shape, np.nan)).flat[spot].sum()

    zeros, top, tries = x.copy(), x.copy(), []
    zeros.flat[:: max(1, x.size // 6)] = 0
    spots = np.flatnonzero(zeros.ravel() == 0)
    left, right, _ = slopes(zeros, spots)
    if abs(right - left) > 1e-3 * max(abs(right), abs(left)):
        tries += [(zeros, [i], "= 0", "Use > in place of >= (or < for <=).") for i in spots]
    if x.ndim == 4 and min(x.shape[1:3]) > 1:
        top[:, 0, :2] = x.max() + 1
        pair = [0, x.shape[3]]  # x[0, 0, 0, 0] and x[0, 0, 1, 0]
        tries.append((top, pair, "and its equal neighbour", "Give dy to one of them only (argmax)."))
    for array, spot, what, hint in tries:
        left, right, given = slopes(array, spot)
        rule, small = min(left, right, key=abs), 1e-4 * max(abs(left), abs(right))
        if min(abs(rule), abs(left - right)) < small < abs(given - rule):
            place = f"{key}{index_text(indices(spot, x.shape)[0])} {what}"
            sides = f"forward's slope is {left:.3g} to the left and {right:.3g} to the right"
            evidence = f"at {place} {sides}: the rule is {rule:.3g}, not {given:.3g}"
            return [Diagnosis("wrong-mask", f"d{key}", evidence, hint)]
    return []
