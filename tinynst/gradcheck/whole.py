"""Hypotheses about a gradient as a whole: the right one scaled, turned round or moved, another input's, for another dy."""

import itertools

import numpy as np

from ..device import to_numpy
from .factors import factor_hint, told_factor
from .measure import axis_names
from .shares import edge_words


def zero(f):
    """Nothing there."""
    if not np.any(f.analytic):
        evidence = f"d{f.name} is zero everywhere, by differences it reaches {np.max(np.abs(f.n)):.3g}"
        return "zero", evidence, "Is it computed, and returned in its place?"
    return None


def nonlinear(f):
    """A backward pass is linear in dy; this one is not."""
    base, twice, minus = f.analytic, f.again(dy=2 * f.dy), f.again(dy=-f.dy)
    if twice is None or minus is None or twice.shape != base.shape:
        return None
    if f.same(twice, base):
        cause = "scaled" if f.loss else "missing-term"
        return (
            cause,
            "twice the dy gives the same gradient: dy is not in it",
            "The chain rule multiplies by dy, always",
        )
    if f.same(twice, 4 * base):
        return (
            "unknown",
            "twice the dy gives four times the gradient: dy is in it twice",
            "dy should be a factor once",
        )
    added = 2 * base - twice
    if (
        f.fits
        and np.any(np.abs(added) > f.tol * np.max(np.abs(base)))
        and f.same((base - added).ravel()[f.rows], f.n)
    ):
        edge = edge_words(f.coords, added.ravel()[f.rows] != 0, f.x.shape, f.axes)
        cause, where = ("border", edge) if edge else ("unknown", f"{np.count_nonzero(added)} elements")
        return (
            cause,
            f"in {where} something is added whatever dy is; without it all is right",
            "zeros, not empty or ones, to start",
        )
    if f.same(twice, 2 * base) and not f.same(minus, -base):
        evidence = "-dy does not give minus the gradient: what passes depends on the sign of dy"
        return "wrong-mask", evidence, "Take the mask from the forward pass (x > 0), never from dy"
    return None


def swapped(f):
    """It is another input's."""
    for name in f.others():
        if f.problem.inputs[f.problem.names.index(name)].size != f.analytic.size:
            continue
        theirs = f.other_gradient(name)
        if theirs is None or (f.whole and f.same(-f.n, theirs.ravel())):  # of y - t: a wrong sign is likelier
            continue
        if np.any(theirs) and f.same(f.analytic.ravel(), theirs.ravel()):
            evidence = f"what is returned as d{f.name} is the gradient of {name}, to the last digit"
            return "swapped-gradients", evidence, "Return the gradients in the order of forward's arguments"
    return None


def scaled(f):
    """One factor for all."""
    a, n = f.a, f.n
    if not f.loss and f.own is not None and f.jac.size > 1:
        a, n = f.own.ravel(), f.jac.ravel()
    big = np.abs(n) > 1e-2 * np.max(np.abs(n), initial=0.0)
    if np.count_nonzero(big) < min(2, a.size):
        return None
    c = float((a[big] * n[big]).sum() / (n[big] ** 2).sum())
    off, top = np.max(np.abs(a - c * n)), np.max(np.abs(n))
    if abs(c) < 1e-12 or off > f.tol * max(abs(c), 1e-3) * top or off > 0.1 * abs(c - 1) * top:
        return None
    if f.loss and abs(c * f.dy.item() - 1) < f.tol:
        return (
            "scaled",
            f"every element is 1/dy times what it should be: dy ({f.dy.item():.6g}) is not in it",
            "Multiply by dy",
        )
    return (
        "scaled",
        f"every element is {told_factor(f, c)} times what it should be, in 100 % of the elements",
        factor_hint(c, f.loss),
    )


def rearranged(f):
    """The right numbers in the wrong places: transposed, reshaped instead of transposed, turned round."""
    if not f.fits or f.x.ndim == 0:
        return None
    shape, ndim = f.x.shape, f.x.ndim
    orders = list(itertools.permutations(range(ndim))) if ndim <= 4 else [tuple(range(ndim))]
    turns = [
        s
        for k in range(ndim + 1)
        for s in itertools.combinations([d for d in range(ndim) if shape[d] > 1], k)
    ]
    if f.x.size > 100_000:
        orders, turns = orders[:1], turns[:16]
    for order in sorted(orders, key=lambda o: sum(k != v for k, v in enumerate(o))):
        moved = tuple(shape[k] for k in order)
        back = f.analytic.reshape(moved).transpose(np.argsort(order))
        again = f.analytic.transpose(order).reshape(shape)
        guesses = [(turn, np.flip(back, turn)) for turn in turns] + [((), again)]
        for turn, guess in guesses:
            if np.array_equal(guess, f.analytic) or not f.same(guess.ravel()[f.rows], f.n):
                continue
            swapped_axes = [f.axes[k] for k in range(ndim) if order[k] != k]
            if turn:
                way = _degrees([f.axes[k] for k in turn])
                evidence = f"d{f.name} turned round along {way} is right to the last digit"
                return (
                    "flipped",
                    evidence,
                    "One ::-1 too many or too few: convolution's two gradients turn the kernel once",
                )
            how = "transpose" if moved == shape else "reshape where transpose belongs"
            evidence = f"with the axes {', '.join(swapped_axes)} exchanged, d{f.name} is right to the last digit ({how})"
            return "transposed", evidence, "Write down each factor's axes and sum over the one they share"
    if f.axes[0] == "N" and shape[0] > 1 and f.whole:
        for n in range(shape[0]):
            right = f.n.reshape(shape)[n]
            if np.any(right) and all(f.same(f.analytic[m], right) for m in range(shape[0])):
                evidence = f"every sample has the gradient of sample {n}"
                return (
                    "partial-batch",
                    evidence,
                    "Index the batch axis in the loop, or let the operation run over all of it",
                )
    return None


def _degrees(axes):
    return " and ".join(axes) + (" (by 180 degrees)" if set(axes) in ({"KH", "KW"}, {"H", "W"}) else "")


def rearranged_dy(f):
    """Right for another dy: transposed, turned round, one pixel off, or a part of it."""
    if f.loss:
        return None
    shape, ndim = f.y.shape, f.y.ndim
    space = [k for k in range(ndim) if shape[k] > 1 and f.out_axes[k] in ("H", "W")]

    def right_with(dy):
        return not np.array_equal(dy, f.dy) and f.same(f.a, f.columns @ dy.ravel())

    for turn in [s for k in (1, 2) for s in itertools.combinations(space, k)]:
        if right_with(np.flip(f.dy, turn)):
            way = _degrees([f.out_axes[k] for k in turn])
            return (
                "flipped",
                f"it is the gradient for a dy that is turned round along {way}",
                "Turn the kernel, not dy",
            )
    if 1 < ndim <= 4:
        for order in itertools.permutations(range(ndim)):
            moved = f.dy.transpose(order)
            if right_with(moved.reshape(shape)):
                evidence = (
                    f"it is the gradient for a dy whose axes are {', '.join(f.out_axes[k] for k in order)}"
                )
                return (
                    "transposed",
                    evidence,
                    "dy has the axes of y; transpose where the order should change, reshape keeps it",
                )
            if right_with(f.dy.reshape([shape[k] for k in order]).transpose(np.argsort(order))):
                evidence = f"it is the gradient for a dy read as {', '.join(f.out_axes[k] for k in order)}"
                return (
                    "transposed",
                    evidence,
                    "dy has the axes of y; transpose where the order should change, reshape keeps it",
                )
    for steps in sorted(
        itertools.product((0, 1, -1, 2, -2), repeat=len(space)), key=lambda s: sum(map(abs, s))
    ):
        if any(steps) and (right_with(np.roll(f.dy, steps, space)) or _mostly(f, _moved(f.dy, steps, space))):
            way = ", ".join(f"{s:+d} along {f.out_axes[k]}" for s, k in zip(steps, space, strict=True) if s)
            return "shifted", f"it is the gradient for a dy that is moved by {way}", _SHIFT_HINT
    return None


def _mostly(f, dy):
    """Is it the gradient for this dy, but for some of the elements at the border?"""
    guess = f.columns @ dy.ravel()
    fits = np.abs(f.a - guess) <= f.tol * np.max(np.abs(f.n))
    count = np.count_nonzero(fits & (np.abs(guess) > 1e-3 * np.max(np.abs(f.n))))
    return (
        count >= max(6, len(fits) / 4)
        and np.count_nonzero(np.abs(f.a - f.n) <= f.tol * np.max(np.abs(f.n))) < count
    )


_SHIFT_HINT = "Off by one: check where the padding begins, and the first and last index of each slice"


def _moved(array, steps, axes):
    """np.roll with zeros for what comes in."""
    out = np.roll(array, steps, axes)
    for step, axis in zip(steps, axes, strict=True):
        gap = [slice(None)] * array.ndim
        gap[axis] = (
            slice(0, step) if step > 0 else slice(array.shape[axis] + step, None) if step < 0 else slice(0, 0)
        )
        out[tuple(gap)] = 0
    return out


def rearranged_input(f):
    """Right if another input is turned round or transposed first."""
    if not f.fits:
        return None
    for name in f.others():
        x = f.problem.inputs[f.problem.names.index(name)]
        axes = axis_names(name, x.shape)
        space = [k for k in range(x.ndim) if x.shape[k] > 1 and axes[k] in ("KH", "KW", "H", "W")]
        turns = [s for k in range(len(space) + 1) for s in itertools.combinations(space, k)]
        pairs = [
            (),
            *(p for p in itertools.combinations(range(x.ndim), 2) if x.shape[p[0]] == x.shape[p[1]] > 1),
        ]
        for turn, pair in itertools.product(turns, pairs):
            if not turn and not pair:
                continue

            def change(a, turn=turn, pair=pair):
                a = a[tuple(slice(None, None, -1) if k in turn else slice(None) for k in range(a.ndim))]
                return a.swapaxes(*pair) if pair else a

            for guess in (f.again(remembered=(name, change)), f.again(f.replaced(name, change))):
                if guess is None or guess.shape != f.x.shape:
                    continue
                if f.same(guess.ravel()[f.rows], f.n):
                    break
                if (
                    pair
                    and not turn
                    and any(f.same(c * (guess + f.analytic).ravel()[f.rows], f.n) for c in (1.0, 0.5))
                ):
                    evidence = f"what it is with {name}'s transpose added, it is right: the input is in the product twice"
                    return "missing-term", evidence, "f.T @ f: one share from each factor, f @ (dG + dG.T)"
            else:
                continue
            if turn:
                evidence = f"it would be right for a {name} that is turned round along {_degrees([axes[k] for k in turn])}"
                return (
                    "flipped",
                    evidence,
                    f"Turn {name} the other way round here ({name}[::-1, ::-1]): going back, each tap reaches the other way",
                )
            evidence = (
                f"it would be right for a {name} with the axes {axes[pair[0]]} and {axes[pair[1]]} exchanged"
            )
            return (
                "transposed",
                evidence,
                f"Use {name}'s transpose here: forward sums over {axes[pair[0]]}, backward over the other",
            )
    return None


def running_statistics(f):
    """Running averages where the batch's own belong."""
    p = f.problem
    named = p.depends_on_mutable()
    hint = "While training, normalise with the batch's own statistics"
    if named:
        return "running-statistics", f"forward updates {named}, and its result depends on it", hint
    for name in [n for n in p.mutable if p.inputs[p.names.index(n)] is not None]:
        inputs = f.replaced(name, lambda a: 2 * a + 1)
        still = np.allclose(
            to_numpy(p.value([None if x is None else x.copy() for x in inputs])[0]), f.y, rtol=1e-10
        )
        guess = f.again(inputs)
        if still and guess is not None and not f.same(guess, f.analytic):
            return "running-statistics", f"d{f.name} changes with {name}, y does not", hint
    return None


def shifted(f):
    """It is the right one a pixel or two further."""
    if not f.fits or f.x.ndim == 0:
        return None
    shape = f.x.shape
    space = [k for k in range(f.x.ndim) if f.axes[k] in ("H", "W", "KH", "KW")] or list(range(f.x.ndim))
    space = [k for k in space if shape[k] > 1]
    for steps in sorted(
        itertools.product((0, 1, -1, 2, -2), repeat=len(space)), key=lambda s: sum(map(abs, s))
    ):
        if not any(steps):
            continue
        at = f.coords.copy()
        for step, k in zip(steps, space, strict=True):
            at[:, k] += step
        inside = np.all((at >= 0) & (at < shape), axis=1)
        n = f.n[inside]
        if (
            np.count_nonzero(inside) < max(4, len(f.rows) / 3)
            or np.count_nonzero(np.abs(n) > 1e-3 * np.max(np.abs(f.n))) < 3
        ):
            continue
        if f.same(f.analytic[tuple(at[inside].T)], n):
            way = ", ".join(f"{s:+d} along {f.axes[k]}" for s, k in zip(steps, space, strict=True) if s)
            return (
                "shifted",
                f"d{f.name} is right, but every element stands {way} from its place",
                _SHIFT_HINT,
            )
    return None


def noise(f):
    """float32's rounding in backward: small, and without any order."""
    error = np.max(np.abs(f.a - f.n)) / max(np.max(np.abs(f.n)), 1e-300)
    if error > 1e-4 or not f.fits:
        return None
    g = f.analytic / (f.dy.item() if f.loss else 1.0)
    single = np.array_equal(g, g.astype(np.float32).astype(np.float64)) or np.allclose(
        g, g.astype(np.float32), rtol=1e-15
    )
    other = np.random.default_rng(6).standard_normal(f.dy.shape)
    parts = [f.again(dy=d) for d in (f.dy, other, f.dy + other)]
    rounding = 0.0
    if all(p is not None for p in parts):
        rounding = np.max(np.abs(parts[2] - parts[1] - parts[0])) / np.max(np.abs(parts[2]))
    if single or (rounding > 1e-10 and error < 100 * rounding):
        level = f"the error is {error:.0e} of the largest element, without any order, and backward keeps no more than 7 digits"
        return (
            "noise",
            level + " (float32)",
            "This is no bug of the formula: compute in float64 while checking",
        )
    return None


def unknown(f):
    """Where the errors are, at least."""
    wrong = np.abs(f.a - f.n) > 1e-3 * np.maximum(np.abs(f.n), 1e-3 * np.max(np.abs(f.n)))
    evidence = f"{np.count_nonzero(wrong)} of {len(wrong)} elements are off by more than 1 in 1000"
    for k in range(f.coords.shape[1]):
        there = np.unique(f.coords[wrong][:, k]) if np.any(wrong) else []
        if 0 < len(there) < len(np.unique(f.coords[:, k])):
            evidence += f", all at {f.axes[k]} = {', '.join(map(str, there[:6]))}"
    return "unknown", evidence, "Start with the elements below: what have their indices in common?"
