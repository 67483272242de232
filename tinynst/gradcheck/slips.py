"""What is wrong with a gradient: which common mistake gives exactly these numbers?

J holds dy_k / dx_i as measured by differences, with a row for each element of the input and a column for each
element of y. B holds what backward sends from each dy_k to each element: one call for each unit vector dy. A
mistake is named when it turns J, dy or the right gradient into what backward gave, to six digits: random
numbers do not agree by chance. The first function of SLIPS that recognises its mistake gives the diagnosis.
"""

import itertools

import numpy as np

from .report import Diagnosis, axis_names

EXACT = 1e-6  # relative to the largest number: what agrees better is the same
LARGEST_Y = 2000  # elements; backward is called once for each of them
PATIENCE = 6.0  # seconds for B, and for the moves of one array

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


def diagnose(problem, name):
    """The Diagnosis of a gradient of the right shape that is wrong."""
    with np.errstate(all="ignore"):
        facts = Facts(problem, name)
        for slip in SLIPS:
            found = slip(facts)
            if found:
                cause, evidence = found
                return Diagnosis(cause, f"d{name}", evidence, HINTS[cause])


class Facts:
    """Of one input x: its gradient g; a (given) and n (right) at the measured rows; J and B.

    at, to   the index of each row of J in x, and of each column in y;   axes, out   their axes' letters
    loss     is y a single number? Then there is no B, and J is the gradient itself
    """

    def __init__(self, problem, name):
        self.problem, self.name, self.k = problem, name, problem.names.index(name)
        self.x, self.g, self.y, self.dy = problem.input(name), problem.gradients[name], problem.y, problem.dy
        if len(problem.jacobian(name)[0]) < self.x.size <= 1000 and problem.cost < 0.002:
            problem.samples = 1000  # measured on a sample only, and a look at all of it is cheap
            problem.measured.pop(name)
        self.rows, self.J = problem.jacobian(name)
        self.n, self.a = self.J @ self.dy.ravel(), self.g.ravel()[self.rows]
        self.axes, self.out = axis_names(name, self.x.shape), axis_names("y", self.y.shape)
        self.at, self.to = places(self.rows, self.x.shape), places(np.arange(self.y.size), self.y.shape)
        self.whole = len(self.rows) == self.x.size
        self.loss = self.y.size == 1
        self.largest = largest(self.J)
        self.B = None if self.loss else self.backward_matrix()

    def backward_matrix(self):
        """B, or None where it would take too long or backward is not made for it."""
        p = self.problem
        if self.y.size > LARGEST_Y or self.y.size * p.cost > PATIENCE:
            return None
        if not hasattr(p, "unit_gradients"):  # one round of calls serves all inputs
            p.unit_gradients = [p.again(dy=unit.reshape(self.y.shape)) for unit in np.eye(self.y.size)]
        columns = [gradients.get(self.name) for gradients in p.unit_gradients]
        if all(column is not None and column.shape == self.x.shape for column in columns):
            return np.array([column.ravel()[self.rows] for column in columns]).T
        return None

    def patient(self, calls):
        return calls * self.problem.cost < PATIENCE

    def gradient(self, **changes):
        """The gradient that backward gives with other inputs or another dy; None where it raises."""
        return self.problem.again(**changes).get(self.name)

    def value(self, array):
        """y for another array in the place of x."""
        return self.problem.forward(self.problem.replaced(self.name, array))[0]


def places(flat, shape):
    return np.column_stack(np.unravel_index(flat, shape)) if shape else np.zeros((len(flat), 0), int)


def same(a, b, size=None):
    """The same up to EXACT of b's largest number?"""
    if a is None or a.shape != b.shape:
        return False
    size = largest(b) if size is None else size
    return bool(np.max(abs(a - b), initial=0) <= EXACT * size)


def largest(array):
    return np.max(abs(array), initial=1e-300)


def named(axes):
    return " and ".join(axes)


# --- all of the gradient ---


def zero(f):
    if not f.g.any():
        return "zero", f"backward gives 0 everywhere, differences up to {np.max(abs(f.n)):.4g}"


def stale(f):
    """Backward's result for these inputs is right for the inputs of the call before."""
    before, p = f.problem.before.get(f.name), f.problem
    if not same(before, f.g):
        return None
    up, down = ([v + s * f.g if j == f.k else v for j, v in enumerate(p.other)] for s in (1e-6, -1e-6))
    slope = float(((p.forward(up)[0] - p.forward(down)[0]) * f.dy).sum() / 2e-6)
    here = float(f.a @ f.n)
    if abs(slope - (f.g**2).sum()) < 1e-3 * abs(slope) and abs(here - slope) > 1e-3 * abs(slope):
        return "stale-cache", "this is the right gradient for the inputs of an earlier call, not for these"


def not_linear(f):
    """A backward is linear in dy: twice the dy gives twice the gradient, -dy the opposite."""
    minus, twice = f.gradient(dy=-f.dy), f.gradient(dy=2 * f.dy)
    if same(twice, f.g):
        factor = f": it is {float(f.dy):.3g} here, and 1 in training" if f.loss else ""
        cause = "scaled" if f.loss else "missing-term"
        return cause, f"the gradient stays the same when dy is doubled{factor}"
    if same(twice, 2 * f.g) and not same(minus, -f.g):
        return "wrong-mask", "what passes depends on the sign of dy, not on x"
    if twice is not None and same((twice - f.g).ravel()[f.rows], f.n):
        return "border", f"a number is added whatever dy is: {np.max(abs(2 * f.g - twice)):.4g} at most"


def swapped(f):
    for name in f.problem.check:
        if name != f.name and f.problem.input(name).shape == f.x.shape:
            rows, J = f.problem.jacobian(name)
            theirs = J @ f.dy.ravel()
            if same(f.g.ravel()[rows], theirs) and not (len(rows) == len(f.n) and same(-f.n, theirs)):
                return "swapped-gradients", f"these are exactly the numbers that belong in d{name}"


def scaled(f):
    a, n = (f.a, f.n) if f.B is None else (f.B.ravel(), f.J.ravel())
    factor = float(a @ n / (n @ n)) if n.any() else 0.0
    sizes = dict(zip(f.axes, f.x.shape, strict=True))
    if abs(factor) > 1e-9 and same(a, factor * n):
        return "scaled", f"every element is {factor:.6g} times what it should be{factor_name(factor, sizes)}"


def factor_name(factor, sizes):
    """ "; 3 is N", "; 0.5 is 1/2 or 1/C" and the like; `sizes` are {"N": 3, ...}."""
    known = {"2": 2.0, "-1": -1.0}
    for count in range(1, len(sizes) + 1):
        for letters in itertools.combinations(sizes, count):
            known["*".join(letters)] = float(np.prod([sizes[letter] for letter in letters]))
    found = [name for name, value in known.items() if np.isclose(factor, value)]
    found += [f"1/({name})" for name, value in known.items() if value != -1 and np.isclose(factor * value, 1)]
    return f"; {factor:.6g} is {' or '.join(found[:2])}" if found else ""


def noise(f):
    error = np.max(abs(f.a - f.n)) / max(np.max(abs(f.n)), 1e-300)
    g = f.g / float(f.dy) if f.loss else f.g
    if error < 1e-4 and same(g, g.astype(np.float32), 1e-6 * np.max(abs(g))):
        return (
            "noise",
            f"off by {error:.1e}, and the numbers have float32's digits: it is computed in float32",
        )


# --- the right numbers in the wrong place ---


def moves(shape, axes):
    """(cause, words, move): the ways to turn round, transpose and shift an array."""
    space = [k for k in range(len(shape)) if shape[k] > 1 and axes[k] in ("H", "W", "KH", "KW")]
    for turn in [tuple(space), *[(k,) for k in space]] if len(space) > 1 else [(k,) for k in space]:
        yield (
            "flipped",
            f"turned round along {named(axes[k] for k in turn)}",
            lambda v, turn=turn: np.flip(v, turn),
        )
    for order in list(itertools.permutations(range(len(shape))))[1:]:
        words = f"with its axes in the order ({', '.join(axes[k] for k in order)})"
        yield "transposed", words, lambda v, order=order: v.transpose(order).reshape(v.shape)
        back = lambda v, order=order: v.reshape([v.shape[k] for k in order]).transpose(np.argsort(order))  # noqa: E731
        yield "transposed", f"read {words}", back
    for steps in itertools.product((0, 1, -1, 2, -2), repeat=len(space)):
        if any(steps):
            words = "moved by " + named(
                f"{s} along {axes[k]}" for s, k in zip(steps, space, strict=True) if s
            )
            yield "shifted", words, lambda v, steps=steps: np.roll(v, steps, space)
            yield "shifted", words, lambda v, steps=steps: shift(v, steps, space)


def shift(v, steps, space):
    """v moved by `steps` along the axes `space`; zeros come in, what leaves is lost."""
    out, here, there = np.zeros_like(v), [slice(None)] * v.ndim, [slice(None)] * v.ndim
    for k, s in zip(space, steps, strict=True):
        here[k], there[k] = slice(max(-s, 0), min(-s, 0) or None), slice(max(s, 0), min(s, 0) or None)
    out[tuple(there)] = v[tuple(here)]
    return out


def moved(f):
    """The gradient, the dy it is computed from, or another input is turned round, transposed or shifted."""
    return moved_gradient(f) or moved_dy(f) or moved_input(f)


def moved_gradient(f):
    if not (f.whole and f.x.ndim):
        return None
    right = f.n.reshape(f.x.shape)
    for cause, words, move in moves(f.x.shape, f.axes):
        if same(f.g, move(right)):
            return cause, f"it is the right d{f.name} {words}"
    pixels = [k for k, letter in enumerate(f.axes) if letter in ("H", "W", "KH", "KW")]
    for steps in itertools.product((0, 1, -1, 2, -2), repeat=len(pixels)):
        kept = shift(np.ones(right.shape), steps, pixels) > 0
        there = shift(right, steps, pixels)[kept]
        if any(steps) and np.count_nonzero(there) > right.size / 3 and same(f.g[kept], there):
            words = named(f"{s} along {f.axes[k]}" for s, k in zip(steps, pixels, strict=True) if s)
            return "shifted", f"every element is right but moved by {words}"
    for m in range(len(right) if f.axes[0] == "N" and len(right) > 1 else 0):
        if all(same(g, right[m]) for g in f.g):
            return "partial-batch", f"every sample has the gradient of sample {m}"


def moved_dy(f):
    if f.y.ndim < 2:
        return None
    right_now = np.mean(abs(f.a - f.n) <= EXACT * np.max(abs(f.n)))
    for cause, words, move in moves(f.y.shape, f.out):
        guess = f.J @ move(f.dy).ravel()
        if same(f.a, guess):
            return cause, f"it is the right gradient for a dy {words}"
        fits = abs(f.a - guess) <= EXACT * np.max(abs(f.n))
        if cause == "shifted" and fits.mean() > max(0.35, 2 * right_now) and guess[fits].any():
            return cause, f"away from the border it is the right gradient for a dy {words}"


def moved_input(f):
    for name in f.problem.names:
        x = f.problem.input(name)
        if name == f.name or x is None or not f.patient(100):
            continue
        for cause, words, move in moves(x.shape, axis_names(name, x.shape)):
            if cause == "shifted":
                break

            def exchanged(v, x=x, move=move):
                return move(v).copy() if v.shape == x.shape and np.array_equal(v, x) else v

            for changes in ({"inputs": f.problem.replaced(name, move(x).copy())}, {"change": exchanged}):
                guess = f.gradient(**changes)
                if guess is not None and same(guess.ravel()[f.rows], f.n):
                    return (
                        cause,
                        f"backward would be right with {name} {words}: it uses {name} the wrong way round",
                    )


def identity(f):
    """Where y = something + x: is dy added in the wrong place, not at all, or too often?"""
    if f.x.shape != f.y.shape or f.x.ndim < 2 or not f.whole:
        return None
    error = f.g - f.n.reshape(f.x.shape)
    for times, words in (
        (-1, "dy itself is missing"),
        (-2, "dy is subtracted"),
        (1, "dy is added once too often"),
    ):
        if same(error, times * f.dy):
            return "missing-term", f"{words}: y = ... + x gives dx = ... + dy"
    for cause, words, move in moves(f.x.shape, f.axes):
        if same(error + f.dy, move(f.dy)):
            return cause, f"the term dy, of the x that is added to y, arrives {words}"
    off_diagonal = f.J - np.diag(np.diag(f.J))
    if same(f.g, f.dy) and np.max(abs(off_diagonal)) > 1e-3 * f.largest:
        return "missing-term", "it is dy and nothing else: what came through the other terms of y is missing"


def reordered(f):
    if f.B is not None and len(f.B) and np.isfinite(f.B).all():
        rows = [sorted(map(tuple, np.round(m.T / f.largest, 4) + 0.0)) for m in (f.J, f.B)]
        if rows[0] == rows[1]:
            return (
                "transposed",
                "each element of dy has the effect that another element should have: its axes are mixed up",
            )


# --- shares: what each element of x, or of dy, contributes ---


def running(f):
    for name in f.problem.mutable:
        inputs = f.problem.replaced(name, 2 * f.problem.input(name) + 1)
        if np.allclose(f.problem.forward(inputs)[0], f.y, rtol=1e-9) and not same(
            f.gradient(inputs=inputs), f.g
        ):
            return "running-statistics", f"the gradient changes with {name}, but y does not depend on it"


def edge(places, wrong, shape, axes):
    """Are the wrong ones those near the border in height and width, and only those?"""
    space = [k for k in range(len(shape)) if axes[k] in ("H", "W", "KH", "KW") and shape[k] > 2]
    if not space or not wrong.any() or wrong.all():
        return False
    depth = np.min([np.minimum(places[:, k], shape[k] - 1 - places[:, k]) for k in space], axis=0)
    width = depth[wrong].max() + 1
    return bool(np.any(depth >= width))


def follows(values, places):
    """The fewest axes whose indices determine the values; None where each element has its own."""
    for count in range(places.shape[1]):
        for axes in itertools.combinations(range(places.shape[1]), count):
            group = np.zeros(len(values), int)
            if axes:
                group = np.unique(places[:, axes], axis=0, return_inverse=True)[1].ravel()
            if group.max() + 1 > len(values) / 1.5:
                continue
            if all(np.ptp(values[group == g]) <= 1e-4 * np.max(abs(values)) for g in range(group.max() + 1)):
                return axes
    return None


def shares(f):
    """Each element of x, or of dy, counts with a factor: 0 or 1, or one that follows some axes."""
    if f.B is None:
        return share(f, f.a[:, None], f.n[:, None], f.at, f.x.shape, f.axes, of_x=True)
    found = share(f, f.B, f.J, f.at, f.x.shape, f.axes, of_x=True)
    return found or share(f, f.B.T, f.J.T, f.to, f.y.shape, f.out, of_x=False)


def share(f, B, J, places, shape, axes, of_x):
    full = np.max(abs(J), axis=1, initial=0) > (1e-3 if f.B is None else EXACT) * largest(J)
    factors = (B * J).sum(1) / np.where(full, (J * J).sum(1), 1)
    rest = abs(B - factors[:, None] * np.where(full[:, None], J, 0))
    if full.sum() < 3 or np.any(rest > 3e-6 * largest(J) * max(1, np.max(abs(factors)))):
        return None
    factors, places = factors[full], places[full]
    kept, lost, following = abs(factors - 1) < 1e-4, abs(factors) < 1e-6, follows(factors, places)
    whose = f"element of {f.name}" if of_x else "element of dy"
    if kept.all():
        return None
    if not np.all(kept | lost) or not kept.any():
        if following is None:
            return None
        if kept.any() and edge(places, ~kept, shape, axes):
            return "border", f"the interior is exact, and each {whose} near the border is off by a factor"
        spread = f"{np.min(factors):.4g} to {np.max(factors):.4g}"
        letters = named(axes[k] for k in following)
        return "scaled", f"each {whose} is off by a factor for each {letters}: {spread}"
    counted = [len(np.unique(places[kept][:, k])) for k in range(len(shape))]
    every = [len(np.unique(places[:, k])) for k in range(len(shape))]
    pixels = [k for k in range(len(shape)) if axes[k] in ("H", "W", "KH", "KW") and counted[k] < every[k]]
    last = pixels and all(places[kept][:, k].max() == places[:, k].max() for k in pixels)
    if following is None and not (of_x or f.loss):
        return None
    if following and axes[0] == "N" and counted[0] < every[0]:
        one_pixel = pixels and all(counted[k] == 1 for k in pixels)
        which = ", ".join(str(k) for k in np.unique(places[kept][:, 0]))
        cause = "missing-sum" if one_pixel else "partial-batch"
        return cause, f"only sample {which} of {every[0]} counts, exactly"
    if edge(places, ~kept, shape, axes) and (of_x or not pixels or counted[pixels[0]] > every[pixels[0]] / 2):
        return "border", f"the interior is exact, and each {whose} near the border is lost"
    letters = named(axes[k] for k in pixels)
    if following is not None and pixels:
        cause = "overwritten" if last else "missing-sum"
        numbers = named(f"{counted[k]} of {every[k]} along {axes[k]}" for k in pixels)
        return cause, f"only some {letters} count ({numbers}), and those exactly"
    if following:
        letters = named(axes[k] for k in following)
        cause = "zero" if of_x else "missing-sum"
        return cause, f"only some {letters} count, and those exactly; the others give 0"


def one_sample(f):
    if f.x.ndim != 4 or len(f.x) < 2:
        return None
    filled = [m for m, g in enumerate(f.g) if g.any()]
    if len(filled) == 1:
        return "partial-batch", f"only sample {filled[0]} of {len(f.g)} has a gradient, the others have 0"
    if f.B is not None and f.out[0] == "N":
        used = [np.unique(f.to[np.any(abs(m) > EXACT * largest(m), axis=0), 0]) for m in (f.J, f.B)]
        if len(used[1]) == 1 < len(used[0]):
            return "partial-batch", f"only the dy of sample {used[1][0]} is used"


# --- entry by entry ---


def entries(f):
    """Single entries of B next to J's: lost where several meet, or open where forward is shut."""
    if f.B is None:
        return None
    close = 3e-6 * f.largest
    there, right, gone = abs(f.J) > 10 * close, abs(f.B - f.J) <= close, abs(f.B) <= close
    lost, kept = there & gone, there & right
    if np.all(right | gone) and lost.any() and kept.any():
        meeting = lost.any(1)
        if kept[meeting].any(1).all():
            row = int(np.flatnonzero(meeting)[0])
            where = f"d{f.name}[{', '.join(map(str, f.at[row]))}]"
            counts = f"{np.count_nonzero(there[row])} meet in {where}, {np.count_nonzero(kept[row])} count"
            return "overwritten", f"where several gradients meet, only some stay: {counts}"
    if right.all() or not flat_pieces(f):
        return None
    if np.all(~there[~right] ^ gone[~right]):
        return "wrong-mask", "dy gets through where forward's slope is 0, or is stopped where it is not"
    picks = len(np.unique(np.round(f.J[there] / f.largest, 5))) == 1
    if picks and f.x.ndim == 4 and f.y.shape != f.x.shape and np.any(~right & ~there):
        return "wrong-mask", "dy goes to an element that forward did not pick"


def flat_pieces(f):
    """Is y piecewise linear in x: straight nearby and bent further away, as with ReLU and maximum?"""
    bends = []
    for size in (1e-3, 3.0):
        step = size * np.random.default_rng(9).permutation(f.x.ravel()).reshape(f.x.shape)
        up, down = f.value(f.x + step) - f.y, f.value(f.x - step) - f.y
        bends.append((abs(up + down), np.max(abs(up - down))))
    (near, slope), (far, reach) = bends
    return np.median(near) <= 1e-8 * slope and np.max(far) > 1e-6 * reach


def open_everywhere(f):
    """Forward has kinks, yet backward's result does not depend on x."""
    if f.loss or f.x.ndim == 0:
        return None
    if same(f.gradient(inputs=f.problem.replaced(f.name, 3 * f.x[::-1])), f.g) and flat_pieces(f):
        return (
            "wrong-mask",
            f"forward bends where {f.name} changes, but d{f.name} does not depend on it: no mask",
        )


def pairs(f):
    """Of a loss that is a sum over neighbours: which neighbour's share is lost or scaled, and where?

    The second derivative says how much each element's gradient feels each other element: by differences of
    the returned gradient (mine), and of the value (right). Neighbours of one kind lie in one direction.
    """
    if not f.loss or not f.whole or f.x.ndim != 4 or not f.patient(6000):
        return None
    size, h = f.x.size, 0.03 * np.sqrt(np.mean(f.x**2))
    steps = h * np.eye(size).reshape(-1, *f.x.shape)
    at = lambda x: f.gradient(inputs=f.problem.replaced(f.name, x))  # noqa: E731
    ends = [(at(f.x + step), at(f.x - step)) for step in steps]
    if any(g is None or g.shape != f.x.shape for pair in ends for g in pair):
        return None
    mine = np.array([(up - down).ravel() / (2 * h * float(f.dy)) for up, down in ends]).T
    i, j = np.nonzero((abs(mine) > EXACT * largest(mine)) & ~np.eye(size, dtype=bool))
    kinds = np.unique(np.concatenate([f.at[j] - f.at[i], f.at[i] - f.at[j]]), axis=0)
    for kind in kinds if len(kinds) < 12 else ():  # more: not a sum over neighbours
        i = np.flatnonzero(np.all((f.at + kind >= 0) & (f.at + kind < f.x.shape), axis=1))
        j = np.ravel_multi_index(tuple((f.at[i] + kind).T), f.x.shape)
        right = []
        for p, q in zip(steps[i], steps[j], strict=True):
            corners = [float(f.value(f.x + s * p + t * q)) * s * t for s in (1, -1) for t in (1, -1)]
            right.append(sum(corners) / (4 * h * h))
        factors = mine[i, j] / np.array(right)
        whole, gone = abs(factors - 1) < 1e-3, abs(factors) < 1e-3
        where = named(f"{s:+d} along {a}" for s, a in zip(kind, f.axes, strict=True) if s)
        words = f"the share of the neighbour at {where}"
        if np.all(whole | gone) and gone.any() and whole.any():
            return "overwritten", f"{words} is right at some elements and lost where another share meets it"
        if not (whole | gone).any() and np.ptp(factors) < 1e-3:
            return "scaled", f"{words} is {factors[0]:.4g} times what it should be"


def border(f):
    wrong = abs(f.a - f.n) > 2 * EXACT * np.max(abs(f.n))
    if f.x.ndim > 1 and edge(f.at, wrong, f.x.shape, f.axes):
        return "border", f"d{f.name} is exact in the interior and wrong near the border"
    if f.B is not None and edge(f.to, np.max(abs(f.B - f.J), axis=0) > 3e-6 * f.largest, f.y.shape, f.out):
        return "border", "what comes from the interior of dy is exact; what comes from its border is wrong"


# --- the formula ---


def norm_term(f):
    """Of a normalisation: is the error exactly the mean's term or the standard deviation's?"""
    if f.x.ndim != 4 or f.x.shape != f.y.shape or not f.whole:
        return None
    error = f.g - f.n.reshape(f.x.shape)
    for axes, words in (((1, 2), "each channel of each image"), ((0, 1, 2), "each channel")):
        centred = f.x - f.x.mean(axes, keepdims=True)
        mean = np.broadcast_to(error.mean(axes, keepdims=True), error.shape)
        std = centred * (error * centred).mean(axes, keepdims=True) / (centred**2).mean(axes, keepdims=True)
        size = np.max(abs(error))
        for term, which in (
            (mean, "the mean's term"),
            (std, "the std's term"),
            (mean + std, "both terms, mean's and std's,"),
        ):
            if same(error, term, 10 * size):
                return (
                    "missing-term",
                    f"the error is exactly {which} of {words}: dy goes back through it too",
                )


def formula(f):
    error = np.max(abs(f.a - f.n)) / largest(f.n)
    if f.B is not None:
        where = abs(f.J) > EXACT * f.largest
        if (f.B[~where] ** 2).sum() > (f.B[where] ** 2).sum():
            return (
                "unknown",
                f"off by {error:.2g} of the largest, and dy reaches elements that forward did not use for it",
            )
    wrong = np.mean(abs(f.a - f.n) > 10 * EXACT * largest(f.n))
    words = "no share is lost, moved or scaled: the formula itself differs from forward's derivative"
    return "missing-term", f"{words}, at {wrong:.0%} of the elements, by up to {error:.2g} of the largest"


SLIPS = (
    zero,
    noise,
    stale,
    not_linear,
    swapped,
    scaled,
    moved,
    identity,
    running,
    shares,
    one_sample,
    entries,
    open_everywhere,
    border,
    pairs,
    reordered,
    norm_term,
    formula,
)


# --- what is not a matter of numbers ---


def changed(cause, gradient, who, name, before, after):
    """The Diagnosis of an array that forward or backward has changed."""
    place = np.argwhere(before != after)[0]
    where = f"{name}[{', '.join(map(str, place))}]"
    numbers = f"{before[tuple(place)]:.4g} before the call, {after[tuple(place)]:.4g} after it"
    return Diagnosis(
        cause, gradient, f"{who} changes {name} in place: {where} is {numbers}", HINTS["changed-input"]
    )


def malformed(problem, name, gradient):
    """Diagnoses of a gradient whose shape is wrong or that is not finite."""
    x, gradient_name = problem.input(name), f"d{name}"
    if not np.isfinite(gradient).all():
        count = np.count_nonzero(~np.isfinite(gradient))
        return [
            Diagnosis(
                "not-finite", gradient_name, f"{count} of {gradient.size} are inf or nan", HINTS["not-finite"]
            )
        ]
    found, notes = [], shape_notes(gradient.shape, x.shape, axis_names(name, x.shape), problem.y.shape)
    for other in problem.check:
        if other != name and problem.input(other).shape == gradient.shape:
            rows, J = problem.jacobian(other)
            if np.allclose(gradient.ravel()[rows], J @ problem.dy.ravel(), rtol=1e-5, atol=1e-9):
                words = f"these are exactly the numbers that belong in d{other}"
                found.append(Diagnosis("swapped-gradients", gradient_name, words, HINTS["swapped-gradients"]))
    rows, J = problem.jacobian(name)
    for axes in itertools.chain.from_iterable(
        itertools.combinations(range(gradient.ndim), k) for k in (1, 2, 3)
    ):
        summed = gradient.sum(axis=axes)
        if (
            not found
            and summed.size == x.size != gradient.size
            and same(summed.ravel()[rows], J @ problem.dy.ravel())
        ):
            words = f"summed over axis {', '.join(map(str, axes))} it would be right"
            found.append(Diagnosis("missing-sum", gradient_name, words, HINTS["missing-sum"]))
    words = f"d{name} has shape {gradient.shape}, it should be {x.shape}{notes}"
    return [*found, Diagnosis("wrong-shape", gradient_name, words, HINTS["wrong-shape"])]


def shape_notes(shape, right, axes, y_shape=None):
    """How a shape differs, as text to append: which axis is off by how much, and what that looks like."""
    if 0 in shape:
        return "; an axis is empty: with pad 0, pad:-pad is 0:-0, which is empty; use pad : pad + H"
    if len(shape) != len(right):
        return f"; it has {len(shape)} axes in place of {len(right)}"
    if sorted(shape) == sorted(right):
        return "; the sizes are right but not their order"
    off = {axes[k]: shape[k] - right[k] for k in range(len(shape)) if shape[k] != right[k]}
    text = "; " + ", ".join(
        f"{axis} is {abs(by)} too {'large' if by > 0 else 'small'}" for axis, by in off.items()
    )
    by = next(iter(off.values()))
    if y_shape and set(off) <= {"H", "W"} and shape[1:3] == y_shape[1:3]:
        return f"{text}: that is the height and width of y"
    if set(off) == {"H", "W"} and set(off.values()) == {by} and by % 2 == 0:
        sides = f"{abs(by) // 2} pixel{'s' if abs(by) > 2 else ''} on each side"
        return text + (
            f": it looks as if the padding is left on, {sides}"
            if by > 0
            else f": it looks cropped by {sides}"
        )
    return text


def ties(problem):
    """What backward does at exact zeros and at two equal largest values, where forward has two slopes."""
    name = problem.check[0]
    x = problem.input(name)
    zeros, top = x.copy(), x.copy()
    zeros.flat[:: max(1, x.size // 6)] = 0
    at_zero = [[int(i)] for i in np.flatnonzero(zeros.ravel() == 0)]
    right, left = slopes(problem, name, zeros, [i for spot in at_zero for i in spot])
    tries = [(zeros, at_zero)] if abs(right - left) > 1e-3 * max(abs(right), abs(left)) else []
    if x.ndim == 4 and x.shape[1] > 1 and x.shape[2] > 1:
        top[:, 0, :2] = x.max() + 1
        tries.append((top, [[0, x.shape[3]]]))  # x[0, 0, 0, 0] and x[0, 0, 1, 0]
    for array, spots in tries:
        gradient = problem.again(problem.replaced(name, array)).get(name)
        for spot in spots if gradient is not None else []:
            right, left = slopes(problem, name, array, spot)
            flat, steep = sorted((right, left), key=abs)
            given, both = gradient.flat[spot].sum(), f"{left:.3g} to the left and {right:.3g} to the right"
            place = f"{name}[{', '.join(str(int(i)) for i in np.unravel_index(spot[0], x.shape))}]"
            if len(spot) == 1 and abs(flat) < 1e-6 * abs(steep) and abs(given - steep) < 1e-5 * abs(steep):
                words = f"at {place} = 0 forward's slope is {both}: the rule is 0, not {given:.3g}"
                return [
                    Diagnosis("wrong-mask", f"d{name}", words, "Use > in place of >= (or < in place of <=).")
                ]
            if (
                len(spot) == 2
                and abs(right - left) <= 1e-3 * abs(steep)
                and abs(given - steep) > 1e-3 * abs(steep)
            ):
                words = (
                    f"{place} and its neighbour are the equal largest: they get {given:.3g}, not {steep:.3g}"
                )
                return [
                    Diagnosis(
                        "wrong-mask",
                        f"d{name}",
                        words,
                        "Give dy to one of them, for example the first (argmax).",
                    )
                ]
    return []


def slopes(problem, name, array, spot, h=1e-6):
    """The slopes of L to the right and to the left when the elements of `spot` move together."""
    y, sides = problem.forward(problem.replaced(name, array))[0], []
    for step in (h, -h):
        moved = array.copy()
        moved.flat[spot] += step
        sides.append(
            float(((problem.forward(problem.replaced(name, moved))[0] - y) * problem.dy).sum() / step)
        )
    return sides
