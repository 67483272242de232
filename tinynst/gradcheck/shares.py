"""A wrong array next to the right one: is it scaled or moved, or are only some shares of it there?

This needs nothing but the two arrays: it serves for what forward returns as well as for gradients. Each test
returns (cause, evidence) when it recognises its mistake, to six digits, and None when not.
"""

import itertools

import numpy as np

EXACT = 1e-6  # relative to the largest number: what agrees better is the same
SPACE = ("H", "W", "KH", "KW")


def largest(array):
    return np.max(abs(array), initial=1e-300)


def same(a, b):
    """The same up to EXACT of b's largest number?"""
    return a is not None and a.shape == b.shape and bool(np.all(abs(a - b) <= EXACT * largest(b)))


def indices(flat, shape):
    """(elements, axes): the index of each flat position."""
    return np.column_stack(np.unravel_index(flat, shape)) if shape else np.zeros((len(flat), 0), int)


def index_text(index):
    return f"[{', '.join(map(str, index))}]"


class Compared:
    """An array `name` ("y", "dx"), and which values are right at the flat indices `rows`.

    a, n       the given and the right values there;   axes, at   letters of the axes, the index of each row
    sizes      {"N": 3, ...}, to give a factor its name;   J, B   for gradients: see slips.py
    """

    J = B = None

    def __init__(self, name, array, rows, right, axes, sizes=None):
        self.name, self.array, self.shape, self.rows, self.axes = name, array, array.shape, rows, axes
        self.a, self.n, self.at = array.ravel()[rows], right, indices(rows, array.shape)
        self.whole, self.sizes = len(rows) == array.size, sizes or dict(zip(axes, array.shape, strict=True))

    def diagnose(self, tests):
        """What the first of the tests says that recognises its mistake."""
        with np.errstate(all="ignore"):
            return next((found for found in (test(self) for test in tests) if found), None)


def zero(f):
    if not f.array.any():
        return "zero", f"{f.name} is 0 everywhere; the right one is up to {largest(f.n):.4g}"


def noise(f):
    """Rounding errors look random: an error in proportion to the right numbers is none."""
    off = f.a - f.n
    error, float32 = largest(off) / largest(f.n), np.array_equal(f.array, np.float32(f.array))
    random = abs(off @ f.n) < 0.9 * np.linalg.norm(off) * np.linalg.norm(f.n)
    if error < 1e-4 and (float32 or random):
        digits = ", and has float32's digits" if float32 else ": float32's rounding errors are as large"
        return "noise", f"{f.name} is off by {error:.1e} of its largest element{digits}"


def scaled(f):
    a, n = (f.a, f.n) if f.B is None else (f.B.ravel(), f.J.ravel())
    factor = float(a @ n / (n @ n)) if n.any() else 0.0
    text, single = factor_name(factor, f.sizes), f.J is None and not f.shape
    if abs(factor) > 1e-9 and same(a, factor * n) and (text or not single):  # any two numbers have a factor
        return (
            "scaled",
            f"{'it' if single else 'every element'} is {factor:.6g} times what it should be{text}",
        )


def factor_name(factor, sizes):
    """ "; 3 is N", "; 0.5 is 1/2 or 1/C" and the like."""
    products = {"2": 2, "-1": -1}
    for letters in (c for k in (1, 2, 3, 4) for c in itertools.combinations(sizes, k)):
        products["*".join(letters)] = int(np.prod([sizes[letter] for letter in letters]))
    found = [name for name, value in products.items() if np.isclose(factor, value)]
    inverse = [name for name, value in products.items() if value > 1 and np.isclose(factor * value, 1)]
    found += [f"1/({name})" if "*" in name else f"1/{name}" for name in inverse]
    return f"; {factor:.6g} is {' or '.join(found[:2])}" if found else ""


def moves(shape, axes):
    """(cause, text, move): the ways to flip, transpose and shift an array."""
    space = [k for k in range(len(shape)) if shape[k] > 1 and axes[k] in SPACE]
    for turn in dict.fromkeys([tuple(space), *[(k,) for k in space]] if space else ()):
        text = f"flipped along {' and '.join(axes[k] for k in turn)}"
        yield "flipped", text, lambda v, turn=turn: np.flip(v, turn)
    for order in list(itertools.permutations(range(len(shape))))[1:]:
        text = f"with its axes in the order ({', '.join(axes[k] for k in order)})"
        permuted, back = [shape[k] for k in order], np.argsort(order)
        yield "transposed", text, lambda v, order=order: v.transpose(order).reshape(v.shape)
        yield "transposed", f"read {text}", lambda v, p=permuted, back=back: v.reshape(p).transpose(back)
    for steps in itertools.product((0, 1, -1, 2, -2), repeat=len(space)):
        if any(steps):
            by = " and ".join(f"{s} along {axes[k]}" for s, k in zip(steps, space, strict=True) if s)
            yield "shifted", f"moved by {by}", lambda v, steps=steps: _shift(v, steps, space)


def _shift(v, steps, space):
    """v moved by `steps` along the axes `space`; zeros come in, what leaves is lost."""
    for k, step in zip(space, steps, strict=True):
        v = np.roll(v, step, k)
        v.swapaxes(0, k)[slice(0, step) if step >= 0 else slice(step, None)] = 0
    return v


def moved(f):
    """The array, or the dy that a gradient is computed from, is flipped, transposed or shifted."""
    tries, close = [], EXACT * largest(f.n)
    if f.whole:
        right = f.n.reshape(f.shape)
        tries.append((f.shape, f.axes, lambda move: move(right).ravel(), f.name))
    if f.J is not None and f.y.ndim > 1:
        tries.append((f.y.shape, f.out, lambda move: f.J @ move(f.dy).ravel(), "gradient for a dy"))
    for shape, axes, guess_of, what in tries:
        for cause, text, move in moves(shape, axes):
            guess = guess_of(move)
            if same(f.a, guess) and not same(f.n, guess):
                return cause, f"it is the right {what} {text}"
            if cause == "shifted":  # what comes in at the border can be anything
                used = abs(guess) + abs(f.a) > close
                fits, unmoved = (np.mean(abs(f.a - n)[used] <= close) for n in (guess, f.n))
                if fits > max(0.35, 2 * unmoved):
                    return cause, f"away from the border it is the right {what} {text}"


def edge(at, wrong, shape, axes):
    """Is the middle of the picture (or of the kernel) right, and wrong only what is near its border?"""
    space = [k for k in range(len(shape)) if axes[k] in SPACE and shape[k] > 2]
    bad, good = (np.zeros([shape[k] for k in space], bool) for _ in range(2))
    good[tuple(at[:, space].T)], bad[tuple(at[wrong][:, space].T)] = True, True
    good &= ~bad
    starts = [range(min(size // 2, 9) + 1) for size in bad.shape]
    stops = [range(size, max(size // 2, size - 9), -1) for size in bad.shape]
    for sides in itertools.product(*starts, *stops) if space and wrong.any() else ():
        box = tuple(map(slice, sides[: len(space)], sides[len(space) :]))
        if not bad[box].any() and 2 * np.count_nonzero(good[box]) >= np.count_nonzero(good) > 0:
            return True
    return False


def overwritten_inside(f):
    """Is some dy inside of the picture without effect, because the next at the same place replaces it? Near
    a border, where reflection lets gradients meet, `=` in place of `+=` looks like a slip at the border."""
    arrives = abs(f.B).any(0)
    for k in range(f.to.shape[1]):
        lost = np.setdiff1d(f.to[:, k], f.to[arrives, k])
        if lost.size and arrives.any() and f.to[arrives, k].min() < lost.max() < f.to[arrives, k].max():
            found = shares(f)
            return found if found and found[0] == "overwritten" else None


def border(f):
    if f.B is not None and (found := overwritten_inside(f)):
        return found
    wrong = abs(f.a - f.n) > 2 * EXACT * largest(f.n)
    if len(f.shape) > 1 and edge(f.at, wrong, f.shape, f.axes):
        return "border", f"{f.name} is exact in the interior and wrong near the border"
    if f.B is not None and edge(f.to, np.max(abs(f.B - f.J), axis=0) > 3e-6 * largest(f.J), f.y.shape, f.out):
        return "border", "what comes from the interior of dy is exact; what comes from its border is wrong"


def follows(values, at):
    """The fewest axes whose indices determine the values; None where each element has its own."""
    every = range(at.shape[1])
    for axes in (list(axes) for count in every for axes in itertools.combinations(every, count)):
        groups = np.unique(at[:, axes], axis=0, return_inverse=True)[1].ravel() if axes else 0 * at[:, 0]
        found = [values[groups == g] for g in range(groups.max() + 1)]
        if 1.5 * len(found) <= len(values) and all(np.ptp(v) <= 1e-4 * largest(values) for v in found):
            return axes


def shares(f):
    """Does each element of the array, or of dy, count with a factor: 0 or 1, or one for each channel?"""
    if f.B is None:
        return _shares(f.a[:, None], f.n[:, None], f.at, f.axes, f.name)
    of_dy = f.B.T, f.J.T, f.to, f.out, "dy"
    return _shares(f.B, f.J, f.at, f.axes, f.name) or _shares(*of_dy)


def _shares(B, J, at, axes, name):
    """The same question for the rows of two matrices, B given and J right."""
    full = np.max(abs(J), axis=1, initial=0) > (1e-3 if J.shape[1] == 1 else EXACT) * largest(J)
    factors = (B * J).sum(1) / np.where(full, (J * J).sum(1), 1)
    rest = abs(B - factors[:, None] * np.where(full[:, None], J, 0))
    if full.sum() < 3 or np.any(rest > 3e-6 * largest(J) * max(1, largest(factors))):
        return None
    factors, at, of_dy = factors[full], at[full], name == "dy"
    kept, lost, following = abs(factors - 1) < 1e-4, abs(factors) < 1e-6, follows(factors, at)
    if kept.all() or (following is None and of_dy):
        return None
    if not np.all(kept | lost) or not kept.any():
        spread = f"{np.min(factors):.4g} to {np.max(factors):.4g}"
        letters = " and ".join(axes[k] for k in following or ())
        return following and ("scaled", f"{name} is off by a factor for each {letters}: {spread}")
    counted, every = ([len(np.unique(p[:, k])) for k in range(len(axes))] for p in (at[kept], at))
    partly = [k for k in range(len(axes)) if counted[k] < every[k]]
    pixels = [k for k in partly if axes[k] in SPACE]
    sums = "missing-sum"
    if all(at[kept][:, k].max() == at[:, k].max() for k in partly):
        sums = "overwritten"  # the last one stays
    numbers = " and ".join(f"{counted[k]} of {every[k]} along {axes[k]}" for k in partly)
    text = f"only a part of {name} counts, exactly: {numbers}"
    if following and 0 in partly and axes[0] == "N":
        if pixels and all(counted[k] == 1 for k in pixels):
            return sums, text
        which = ", ".join(map(str, np.unique(at[kept][:, 0])))
        return "partial-batch", f"only sample {which} of {every[0]} counts, exactly"
    return following and (sums if pixels else "missing-sum" if of_dy else "zero", text)


def wrong_shape(what, shape, right, axes):
    """How a shape differs: which axis is off by how much, and what that looks like."""
    text = f"{what} has shape {shape}, it should be {right}; "
    if 0 in shape:
        return text + "an axis is empty: with pad 0, pad:-pad is 0:-0, which is empty; use pad : pad + H"
    if len(shape) != len(right):
        return text + f"it has {len(shape)} axes in place of {len(right)}"
    if sorted(shape) == sorted(right):
        return text + "the sizes are right but not their order"
    off = {axes[k]: shape[k] - right[k] for k in range(len(shape)) if shape[k] != right[k]}
    text += ", ".join(f"{axis} is {abs(by)} too {'large' if by > 0 else 'small'}" for axis, by in off.items())
    by = off.get("H", 1)
    if by % 2 == 0 and off == {"H": by, "W": by}:
        looks = "as if the padding is left on" if by > 0 else "cropped"
        text += f": it looks {looks} by {abs(by) // 2} pixels on each side"
    return text
