"""What is wrong with a gradient: which common mistake gives exactly these numbers?

J holds dy_k / dx_i as measured by differences, with a row for each element of the input and a column for each
element of y. B holds what backward sends from each dy_k to each element: one call for each unit vector dy. A
mistake is named when it turns J, dy or the right gradient into what backward gave, to six digits: random
numbers do not agree by chance. The first function of SLIPS that recognises its mistake gives the diagnosis.
"""

import itertools
import time

import numpy as np

from .report import Diagnosis, axis_names

EXACT = 1e-6  # relative to the largest number: what agrees better is the same
PATIENCE = 6.0  # seconds for the calls of one test
LARGEST_Y = 2000  # elements; backward is called once for each of them
SPACE = ("H", "W", "KH", "KW")

HINTS = {
    "scaled": "Look for a factor that is missing or there twice: a mean for a sum, a 2, a sign, gamma, std.",
    "transposed": "Look for a missing .T, for axes in another order, or for reshape in place of transpose.",
    "flipped": "Remove or add a [::-1]: backward uses each tap of the kernel where forward used it.",
    "swapped-gradients": "Return the gradients in the order of forward's arguments.",
    "missing-sum": "Each use of the number sends a gradient back: add up over all of them (check axis=).",
    "partial-batch": "Add up over the whole batch: += in a loop over N, or N among the axes of the sum.",
    "overwritten": "Where several gradients meet they add up: += in place of =.",
    "border": "Look at the padding, at the first and last index of a slice, and at what is cropped.",
    "shifted": "Compare each slice's start with forward's: what forward read from, backward writes to.",
    "missing-term": "Write the derivative term by term: each path from the input to y gives one.",
    "wrong-mask": "dy goes back where forward let x through: 0 at exactly 0, one of several equal largest.",
    "running-statistics": "In training the batch's own mean and std count; the running ones are for later.",
    "stale-cache": "Take everything from `cache`, and nothing from an earlier call or a global variable.",
    "changed-input": "Work on a copy: others still need the array (x = x * mask in place of x *= mask).",
    "wrong-shape": "A gradient has its input's shape: sum over broadcast axes, crop what was padded.",
    "not-finite": "Look for a division by 0, log or sqrt of 0, and for np.empty that is not filled.",
    "zero": "Is it computed, and is it what is returned in this place?",
    "noise": "Make new arrays in x's dtype: np.zeros(shape, x.dtype), np.zeros_like(x).",
    "unknown": "Check one small case by hand, for example a single pixel and a single channel.",
}


def diagnosis(cause, gradient, evidence, hint=None):
    return Diagnosis(cause, gradient, evidence, hint or HINTS[cause])


def diagnose(problem, name):
    """The Diagnosis of a gradient of the right shape that is wrong."""
    with np.errstate(all="ignore"):
        facts = Facts(problem, name)
        cause, evidence = next(found for found in (slip(facts) for slip in SLIPS) if found)
    return diagnosis(cause, f"d{name}", evidence)


class Facts:
    """Of one input x: its gradient g; a (given) and n (right) at the measured rows; J and B.

    at, to   the index of each row of J in x, and of each column in y;   axes, out   their axes' letters
    loss     is y a single number? Then there is no B, and J is the gradient itself
    """

    def __init__(self, problem, name):
        self.problem, self.name = problem, name
        self.x, self.g, self.y, self.dy = problem.input(name), problem.gradients[name], problem.y, problem.dy
        enough = 4 * self.x.size * problem.cost < 2 * PATIENCE
        if len(problem.jacobian(name)[0]) < self.x.size <= 1000 and enough:
            problem.samples = 1000  # measured on a sample only, and a look at all of it is cheap
            problem.measured.pop(name)
        self.rows, self.J = problem.jacobian(name)
        self.n, self.a = self.J @ self.dy.ravel(), self.g.ravel()[self.rows]
        self.axes, self.out = axis_names(name, self.x.shape), axis_names("y", self.y.shape)
        self.at, self.to = places(self.rows, self.x.shape), places(np.arange(self.y.size), self.y.shape)
        self.whole, self.loss = len(self.rows) == self.x.size, self.y.size == 1
        self.largest = largest(self.J)
        self.B = None if self.loss or self.y.size > LARGEST_Y else self.backward_matrix()

    def backward_matrix(self):
        """B, or None where that takes too long or backward raises."""
        start, columns = time.monotonic(), []
        for unit in np.eye(self.y.size):
            column = self.gradient(dy=unit.reshape(self.y.shape))
            if column is None or column.shape != self.x.shape or time.monotonic() - start > PATIENCE:
                return None
            columns.append(column.ravel()[self.rows])
        return np.array(columns).T

    def gradient(self, x=None, **changes):
        """The gradient with another x, other inputs or another dy; None where backward raises."""
        inputs = {} if x is None else {"inputs": self.problem.replaced(self.name, x)}
        return self.problem.again(**inputs, **changes).get(self.name)

    def value(self, x):
        return self.problem.forward(self.problem.replaced(self.name, x))[0]


def places(flat, shape):
    return np.column_stack(np.unravel_index(flat, shape)) if shape else np.zeros((len(flat), 0), int)


def largest(array):
    return np.max(abs(array), initial=1e-300)


def same(a, b):
    """The same up to EXACT of b's largest number?"""
    return a is not None and a.shape == b.shape and bool(np.all(abs(a - b) <= EXACT * largest(b)))


def words(axes):
    return " and ".join(axes)


# --- all of the gradient ---


def zero(f):
    if not f.g.any():
        return "zero", f"backward gives 0 everywhere, differences up to {largest(f.n):.4g}"


def noise(f):
    error, g = largest(f.a - f.n) / largest(f.n), f.g / float(f.dy) if f.loss else f.g
    if error < 1e-4 and same(g, g.astype(np.float32)):
        return "noise", f"off by {error:.1e}, with float32's digits: it is computed in float32"


def stale(f):
    """Backward's result for these inputs is right for the inputs of the call before."""
    p, k = f.problem, f.problem.names.index(f.name)
    if same(p.before.get(f.name), f.g):
        up, down = ([v + s * f.g if j == k else v for j, v in enumerate(p.other)] for s in (1e-6, -1e-6))
        slope = float(((p.forward(up)[0] - p.forward(down)[0]) * f.dy).sum() / 2e-6)
        if abs(slope - (f.g**2).sum()) < 1e-3 * abs(slope) < abs(f.a @ f.n - slope):
            return "stale-cache", "this is the right gradient for the inputs of an earlier call"


def not_linear(f):
    """A backward is linear in dy: twice the dy gives twice the gradient, -dy the opposite."""
    minus, twice = f.gradient(dy=-f.dy), f.gradient(dy=2 * f.dy)
    if same(twice, f.g):
        return "missing-term", "the gradient stays the same when dy is doubled: dy is not in it"
    if same(twice, 2 * f.g) and not same(minus, -f.g):
        return "wrong-mask", "what passes depends on the sign of dy, not on x"
    if twice is not None and same((twice - f.g).ravel()[f.rows], f.n):
        return "border", f"a number is added whatever dy is: {largest(2 * f.g - twice):.4g} at most"


def swapped(f):
    for name in f.problem.check:
        if name != f.name and belongs(f.problem, name, f.g) and not same(f.a, -f.n):
            return "swapped-gradients", f"these are exactly the numbers that belong in d{name}"


def belongs(problem, name, gradient):
    """Is `gradient` that of the input `name`?"""
    if problem.input(name).shape != gradient.shape:
        return False
    rows, J = problem.jacobian(name)
    return same(gradient.ravel()[rows], J @ problem.dy.ravel())


def scaled(f):
    a, n = (f.a, f.n) if f.B is None else (f.B.ravel(), f.J.ravel())
    factor = float(a @ n / (n @ n)) if n.any() else 0.0
    if abs(factor) > 1e-9 and same(a, factor * n):
        sizes = dict(zip(f.axes, f.x.shape, strict=True))
        return "scaled", f"every element is {factor:.6g} times what it should be{factor_name(factor, sizes)}"


def factor_name(factor, sizes):
    """ "; 3 is N", "; 0.5 is 1/2 or 1/C" and the like; `sizes` are {"N": 3, ...}."""
    known = {"2": 2, "-1": -1}
    for letters in itertools.chain.from_iterable(itertools.combinations(sizes, k) for k in (1, 2, 3, 4)):
        known["*".join(letters)] = int(np.prod([sizes[letter] for letter in letters]))
    found = [name for name, value in known.items() if np.isclose(factor, value)]
    found += [f"1/({name})" for name, value in known.items() if value > 1 and np.isclose(factor * value, 1)]
    return f"; {factor:.6g} is {' or '.join(found[:2])}" if found else ""


def running(f):
    for name in f.problem.mutable:
        inputs = f.problem.replaced(name, 2 * f.problem.input(name) + 1)
        if np.allclose(f.problem.forward(inputs)[0], f.y, 1e-9) and not same(f.gradient(inputs=inputs), f.g):
            return "running-statistics", f"the gradient changes with {name}, but y does not depend on it"


# --- the right numbers in the wrong place ---


def moves(shape, axes):
    """(cause, words, move): the ways to turn round, transpose and shift an array."""
    space = [k for k in range(len(shape)) if shape[k] > 1 and axes[k] in SPACE]
    for turn in dict.fromkeys([tuple(space), *[(k,) for k in space]] if space else ()):
        text = f"turned round along {words(axes[k] for k in turn)}"
        yield "flipped", text, lambda v, turn=turn: np.flip(v, turn)
    for order in list(itertools.permutations(range(len(shape))))[1:]:
        text = f"with its axes in the order ({', '.join(axes[k] for k in order)})"
        permuted, back = [shape[k] for k in order], np.argsort(order)
        yield "transposed", text, lambda v, order=order: v.transpose(order).reshape(v.shape)
        yield "transposed", f"read {text}", lambda v, p=permuted, back=back: v.reshape(p).transpose(back)
    for steps in itertools.product((0, 1, -1, 2, -2), repeat=len(space)):
        if any(steps):
            by = [f"{s} along {axes[k]}" for s, k in zip(steps, space, strict=True) if s]
            yield "shifted", f"moved by {words(by)}", lambda v, steps=steps: shift(v, steps, space)


def shift(v, steps, space):
    """v moved by `steps` along the axes `space`; zeros come in, what leaves is lost."""
    out, here, there = np.zeros_like(v), [slice(None)] * v.ndim, [slice(None)] * v.ndim
    for k, s in zip(space, steps, strict=True):
        here[k], there[k] = slice(max(-s, 0), min(-s, 0) or None), slice(max(s, 0), min(s, 0) or None)
    out[tuple(there)] = v[tuple(here)]
    return out


def moved(f):
    """The gradient, or the dy that it is computed from, is turned round, transposed or shifted."""
    tries = []
    if f.whole:
        right = f.n.reshape(f.x.shape)
        tries.append((f.x.shape, f.axes, lambda move: move(right).ravel(), f"d{f.name}"))
    if f.y.ndim > 1:
        tries.append((f.y.shape, f.out, lambda move: f.J @ move(f.dy).ravel(), "gradient for a dy"))
    for shape, axes, guess_of, what in tries:
        for cause, text, move in moves(shape, axes):
            guess = guess_of(move)
            if same(f.a, guess) and not same(f.n, guess):
                return cause, f"it is the right {what} {text}"
            if cause == "shifted":  # what comes in at the border can be anything
                fits, right_now = (abs(f.a - n) <= EXACT * largest(f.n) for n in (guess, f.n))
                used = abs(guess) + abs(f.a) > EXACT * largest(f.n)
                if fits[used].mean() > max(0.35, 2 * right_now[used].mean()):
                    return cause, f"away from the border it is the right {what} {text}"


def moved_input(f):
    """Backward would be right after a forward with another input turned round or transposed."""
    for name, x in zip(f.problem.names, f.problem.inputs, strict=True):
        for cause, text, move in () if x is None else moves(x.shape, axis_names(name, x.shape)):
            if name == f.name or cause == "shifted" or f.problem.cost > 0.05:
                break
            guess = f.gradient(inputs=f.problem.replaced(name, move(x).copy()))
            if guess is not None and same(guess.ravel()[f.rows], f.n):
                return cause, f"backward would be right with {name} {text}"


# --- shares: each element of x, or of dy, counts with a factor ---


def edge(places, wrong, shape, axes):
    """Are the wrong ones those near the border in height and width, and only those?"""
    space = [k for k in range(len(shape)) if axes[k] in SPACE and shape[k] > 2]
    if not space or not wrong.any():
        return False
    depth = np.min([np.minimum(places[:, k], shape[k] - 1 - places[:, k]) for k in space], axis=0)
    return bool(np.any(depth > depth[wrong].max()))


def follows(values, places):
    """The fewest axes whose indices determine the values; None where each element has its own."""
    subsets = (itertools.combinations(range(places.shape[1]), count) for count in range(places.shape[1]))
    for axes in itertools.chain.from_iterable(subsets):
        key = np.ravel_multi_index(places[:, axes].T, places.max(axis=0)[list(axes)] + 1) if axes else 0
        groups = np.unique(np.broadcast_to(key, len(values)), return_inverse=True)[1]
        found = [values[groups == g] for g in range(groups.max() + 1)]
        if 1.5 * len(found) <= len(values) and all(np.ptp(v) <= 1e-4 * largest(values) for v in found):
            return axes
    return None


def shares(f):
    B, J = (f.a[:, None], f.n[:, None]) if f.B is None else (f.B, f.J)
    found = share(B, J, f.at, f.x.shape, f.axes, f.loss, f"element of {f.name}")
    return found or (f.B is not None and share(f.B.T, f.J.T, f.to, f.y.shape, f.out, False, "element of dy"))


def share(B, J, places, shape, axes, loss, whose):
    """Is each row of B the row of J times a factor: 0 or 1, or one that follows some axes?"""
    of_x = whose != "element of dy"
    full = np.max(abs(J), axis=1, initial=0) > (1e-3 if J.shape[1] == 1 else EXACT) * largest(J)
    factors = (B * J).sum(1) / np.where(full, (J * J).sum(1), 1)
    rest = abs(B - factors[:, None] * np.where(full[:, None], J, 0))
    if full.sum() < 3 or np.any(rest > 3e-6 * largest(J) * max(1, largest(factors))):
        return None
    factors, places = factors[full], places[full]
    kept, lost, following = abs(factors - 1) < 1e-4, abs(factors) < 1e-6, follows(factors, places)
    if kept.all() or (following is None and not (np.all(kept | lost) and kept.any() and (of_x or loss))):
        return None
    if not np.all(kept | lost) or not kept.any():
        if edge(places, ~kept, shape, axes):
            return "border", f"the interior is exact, and each {whose} near the border is off by a factor"
        spread = f"{np.min(factors):.4g} to {np.max(factors):.4g}"
        letters = words(axes[k] for k in following)
        return "scaled", f"each {whose} is off by a factor for each {letters}: {spread}"
    counted, every = ([len(np.unique(p[:, k])) for k in range(len(shape))] for p in (places[kept], places))
    pixels = [k for k in range(len(shape)) if axes[k] in SPACE and counted[k] < every[k]]
    if following and axes[0] == "N" and counted[0] < every[0]:
        cause = "missing-sum" if pixels and all(counted[k] == 1 for k in pixels) else "partial-batch"
        which = ", ".join(map(str, np.unique(places[kept][:, 0])))
        return cause, f"only sample {which} of {every[0]} counts, exactly"
    if edge(places, ~kept, shape, axes) and (of_x or not pixels or 2 * counted[pixels[0]] > every[pixels[0]]):
        return "border", f"the interior is exact, and each {whose} near the border is lost"
    if following and pixels:
        last = all(places[kept][:, k].max() == places[:, k].max() for k in pixels)
        numbers = words(f"{counted[k]} of {every[k]} along {axes[k]}" for k in pixels)
        return "overwritten" if last else "missing-sum", f"only some pixels count, exactly: {numbers}"
    if following:
        letters = words(axes[k] for k in following)
        return "zero" if of_x else "missing-sum", f"only some {letters} count, exactly; the others give 0"


def samples(f):
    if f.whole and f.x.ndim == 4 and f.axes[0] == "N" and len(f.x) > 1:
        right, filled = f.n.reshape(f.x.shape), [m for m, g in enumerate(f.g) if g.any()]
        if len(filled) == 1:
            return "partial-batch", f"only sample {filled[0]} of {len(f.g)} has a gradient, the others have 0"
        if any(all(same(g, mine) for g in f.g) for mine in right):
            return "partial-batch", "every sample has the gradient of one and the same sample"


# --- entry by entry ---


def entries(f):
    """Single entries of B next to J's: lost where several meet, or open where forward is shut."""
    if f.B is None:
        return None
    close = 3e-6 * f.largest
    there, right, gone = abs(f.J) > 10 * close, abs(f.B - f.J) <= close, abs(f.B) <= close
    lost, kept = there & gone, there & right
    meeting = lost.any(1)
    if np.all(right | gone) and lost.any() and kept.any() and kept[meeting].any(1).all():
        row = int(np.flatnonzero(meeting)[0])
        where = f"d{f.name}[{', '.join(map(str, f.at[row]))}]"
        counts = f"{np.count_nonzero(there[row])} meet in {where}, {np.count_nonzero(kept[row])} count"
        return "overwritten", f"where several gradients meet, only some stay: {counts}"
    if right.all() or not bends(f):
        return None
    if np.all(~there[~right] ^ gone[~right]):
        return "wrong-mask", "dy gets through where forward's slope is 0, or is stopped where it is not"
    picks = len(np.unique(np.round(f.J[there] / f.largest, 5))) == 1
    if picks and f.x.ndim == 4 and f.y.shape != f.x.shape and np.any(~right & ~there):
        return "wrong-mask", "dy goes to an element that forward did not pick"


def pairs(f):
    """Of a loss that is a sum over neighbours: which neighbour's share is lost or scaled?

    B and J are then the second derivatives: how each element's gradient changes with each other element.
    """
    if not f.loss or not f.whole or f.x.ndim != 4 or f.x.size**2 * f.problem.cost > 2 * PATIENCE:
        return None
    h = 0.03 * np.sqrt(np.mean(f.x**2))
    steps = h * np.eye(f.x.size).reshape(-1, *f.x.shape)
    gradients = [f.gradient(x=f.x + step) for step in steps]
    if any(g is None or g.shape != f.x.shape for g in gradients):
        return None
    B = np.array([(g - f.g).ravel() for g in gradients]).T / (h * float(f.dy))
    np.fill_diagonal(B, 0)  # where all shares are added up
    once = np.array([float(f.value(f.x + step)) for step in steps])
    felt = np.argwhere(abs(B) > EXACT * largest(B))
    for way in np.unique(f.at[felt[:, 1]] - f.at[felt[:, 0]], axis=0)[:12]:
        i = np.flatnonzero(np.all((f.at + way >= 0) & (f.at + way < f.x.shape), axis=1))
        j = np.ravel_multi_index(tuple((f.at[i] + way).T), f.x.shape)
        both = [float(f.value(f.x + p + q)) for p, q in zip(steps[i], steps[j], strict=True)]
        J = np.array(both) - once[i] - once[j] + float(f.y)
        factors = B[i, j] * h**2 / J
        whole, gone = abs(factors - 1) < 1e-3, abs(factors) < 1e-3
        where = words(f"{s:+d} along {a}" for s, a in zip(way, f.axes, strict=True) if s)
        if np.all(whole | gone) and gone.any() and whole.any():
            return "overwritten", f"the share of the neighbour at {where} is lost where another meets it"
        if not (whole | gone).any() and np.ptp(factors) < 1e-3:
            return "scaled", f"the share of the neighbour at {where} is off by a factor of {factors[0]:.4g}"


def bends(f):
    """Is y piecewise linear in x: straight nearby and bent further away, as with ReLU and maximum?"""
    found = []
    for size in (1e-3, 3.0):
        step = size * np.random.default_rng(9).permutation(f.x.ravel()).reshape(f.x.shape)
        up, down = f.value(f.x + step) - f.y, f.value(f.x - step) - f.y
        found.append((abs(up + down), largest(up - down)))
    (near, slope), (far, reach) = found
    return np.median(near) <= 1e-8 * slope and np.max(far) > 1e-6 * reach


def border(f):
    wrong = abs(f.a - f.n) > 2 * EXACT * largest(f.n)
    if f.x.ndim > 1 and edge(f.at, wrong, f.x.shape, f.axes):
        return "border", f"d{f.name} is exact in the interior and wrong near the border"
    if f.B is not None and edge(f.to, np.max(abs(f.B - f.J), axis=0) > 3e-6 * f.largest, f.y.shape, f.out):
        return "border", "what comes from the interior of dy is exact; what comes from its border is wrong"


# --- the formula ---


def norm_term(f):
    """Of a normalisation: is the error exactly the mean's term or the standard deviation's?"""
    if f.x.ndim == 4 and f.x.shape == f.y.shape and f.whole:
        error = f.g - f.n.reshape(f.x.shape)
        for axes, where in (((1, 2), "each channel of each image"), ((0, 1, 2), "each channel")):
            centred = f.x - f.x.mean(axes, keepdims=True)
            mean = error.mean(axes, keepdims=True)
            std = (
                centred * (error * centred).mean(axes, keepdims=True) / (centred**2).mean(axes, keepdims=True)
            )
            for term, which in ((mean, "mean's"), (std, "std's"), (mean + std, "mean's and std's")):
                if largest(error - term) < 10 * EXACT * largest(error):
                    return (
                        "missing-term",
                        f"the error is exactly the {which} term of {where}: dy flows there too",
                    )


def formula(f):
    size, wrong = largest(f.a - f.n) / largest(f.n), np.mean(abs(f.a - f.n) > 10 * EXACT * largest(f.n))
    where = f"at {wrong:.0%} of the elements, by up to {size:.2g} of the largest"
    if f.B is not None:
        used = abs(f.J) > EXACT * f.largest
        if (f.B[~used] ** 2).sum() > (f.B[used] ** 2).sum():
            return "unknown", f"off {where}; dy reaches elements that forward did not use for it"
    return "missing-term", f"no share is lost, moved or scaled; the formula itself differs, {where}"


SLIPS = (
    *(zero, noise, stale, not_linear, swapped, scaled, moved, moved_input, running, shares, samples),
    *(entries, border, pairs, norm_term, formula),
)


# --- what is not a matter of numbers ---


def malformed(problem, name, gradient):
    """Diagnoses of a gradient whose shape is wrong or that is not finite."""
    x, which = problem.input(name), f"d{name}"
    odd = np.count_nonzero(~np.isfinite(gradient))
    if odd:
        return [diagnosis("not-finite", which, f"{odd} of {gradient.size} are inf or nan")]
    found, (rows, J) = [], problem.jacobian(name)
    for other in problem.check:
        if other != name and belongs(problem, other, gradient):
            evidence = f"these are exactly the numbers that belong in d{other}"
            found = [diagnosis("swapped-gradients", which, evidence)]
    for axes in (a for k in (1, 2, 3) for a in itertools.combinations(range(gradient.ndim), k)):
        summed = gradient.sum(axis=axes).ravel()
        if not found and summed.size == x.size < gradient.size and same(summed[rows], J @ problem.dy.ravel()):
            evidence = f"summed over axis {', '.join(map(str, axes))} it would be right"
            found = [diagnosis("missing-sum", which, evidence)]
    notes = shape_notes(gradient.shape, x.shape, axis_names(name, x.shape))
    evidence = f"{which} has shape {gradient.shape}, it should be {x.shape}{notes}"
    return [*found, diagnosis("wrong-shape", which, evidence)]


def shape_notes(shape, right, axes):
    """How a shape differs, as text to append: which axis is off by how much, and what that looks like."""
    if 0 in shape:
        return "; an axis is empty: with pad 0, pad:-pad is 0:-0, which is empty; use pad : pad + H"
    if len(shape) != len(right):
        return f"; it has {len(shape)} axes in place of {len(right)}"
    if sorted(shape) == sorted(right):
        return "; the sizes are right but not their order"
    off = {axes[k]: shape[k] - right[k] for k in range(len(shape)) if shape[k] != right[k]}
    text = ", ".join(f"{axis} is {abs(by)} too {'large' if by > 0 else 'small'}" for axis, by in off.items())
    by = off.get("H", 1)
    if by % 2 == 0 and off == {"H": by, "W": by}:
        looks = "as if the padding is left on" if by > 0 else "cropped"
        text += f": it looks {looks} by {abs(by) // 2} pixels on each side"
    return f"; {text}"


def ties(problem):
    """What backward does at exact zeros and at two equal largest values, where forward has two slopes."""
    name = problem.check[0]
    x = problem.input(name)

    def slopes(array, spot):
        """The slopes of L to the right and to the left when the elements of `spot` move together."""
        y, found = problem.forward(problem.replaced(name, array))[0], []
        for step in (1e-6, -1e-6):
            moved = array.copy()
            moved.flat[spot] += step
            change = problem.forward(problem.replaced(name, moved))[0] - y
            found.append(float((change * problem.dy).sum() / step))
        return found

    zeros, top, tries = x.copy(), x.copy(), []
    zeros.flat[:: max(1, x.size // 6)] = 0
    spots = np.flatnonzero(zeros.ravel() == 0)
    right, left = slopes(zeros, spots)
    if abs(right - left) > 1e-3 * max(abs(right), abs(left)):  # forward has a kink at 0
        tries = [(zeros, [int(i)]) for i in spots]
    if x.ndim == 4 and min(x.shape[1:3]) > 1:
        top[:, 0, :2] = x.max() + 1
        tries.append((top, [0, x.shape[3]]))  # x[0, 0, 0, 0] and x[0, 0, 1, 0]
    for array, spot in tries:
        right, left = slopes(array, spot)
        flat, steep = sorted((right, left), key=abs)
        given = (
            problem.again(problem.replaced(name, array)).get(name, np.full(x.shape, np.nan)).flat[spot].sum()
        )
        place, hint = f"{name}[{', '.join(map(str, places(spot, x.shape)[0]))}]", None
        if len(spot) == 1 and abs(flat) < 1e-6 * abs(steep) and abs(given - steep) < 1e-5 * abs(steep):
            sides = f"forward's slope is {left:.3g} to the left and {right:.3g} to the right"
            evidence = f"at {place} = 0 {sides}: the rule is 0, not {given:.3g}"
            hint = "Use > in place of >= (or < for <=)."
        elif len(spot) == 2 and abs(steep - flat) <= 1e-3 * abs(steep) < abs(given - steep):
            evidence = f"{place} and its neighbour, the equal largest, get {given:.3g} and not {steep:.3g}"
            hint = "Give dy to one of them only (argmax)."
        if hint:
            return [diagnosis("wrong-mask", f"d{name}", evidence, hint)]
    return []
