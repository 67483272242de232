"""Hypotheses about a gradient that is a sum: one of its terms is missing, or wrong by itself. (J and B: measure.py.)"""

import numpy as np

from .factors import told_factor


def norm_terms(f):
    """dx of a norm is s * (dy - mean(dy) - x^ * mean(dy * x^)): per group of pixels, s * dy + m + t * (x - mean(x)).
    Both gradients are fitted with that; which coefficient is off says which term."""
    if not f.fits or f.x.shape != f.y.shape or f.x.ndim < 2 or not f.whole:
        return None
    shape, last = f.x.shape, f.x.ndim - 1
    right, wrong = f.n.reshape(shape), f.analytic
    groupings = {
        (last,): "over N, H and W" if last == 3 else "over N",
        (0, last): "of each image",
        (0,): "of each sample",
    }
    for keep, words in groupings.items():
        for masked in (False, True):
            dy = f.dy * (f.y > 0) if masked else f.dy
            n_fit = _fit(f, right, dy, keep)
            if n_fit is None or not np.any(np.abs(n_fit[:, 1:]) > 1e-6 * np.max(np.abs(n_fit))):
                continue
            a_fit = _fit(f, wrong, dy, keep)
            if a_fit is None and masked and _fit(f, wrong, f.dy, keep) is not None:
                return (
                    "wrong-mask",
                    "ReLU's mask is not on dy: the norm's gradient is right without it",
                    "dy * (y > 0) first",
                )
            if a_fit is None:
                for fewer, over in {
                    (0, last): "over each image alone",
                    tuple(range(1, last + 1)): "over N alone",
                }.items():
                    if keep == (last,) and _fit(f, wrong, dy, fewer) is not None:
                        evidence = f"its means run {over}; here they should run over N, H and W"
                        return "missing-sum", evidence, "Batch norm: one mean a channel, over N, H and W"
                if _fit(f, wrong, dy, keep, unsummed=True) is not None:
                    evidence = (
                        "dy * x^ goes back as it is at each pixel, where its mean over all pixels belongs"
                    )
                    return (
                        "missing-sum",
                        evidence,
                        "The variance is one number: its gradient is a sum over the pixels",
                    )
                return None
            return _terms(f, a_fit, n_fit, words)
    return None


def _fit(f, gradient, dy, keep, unsummed=False):
    """(groups, 3) coefficients of dy, 1 and x - mean(x); None where they do not give `gradient`. `unsummed`: with a fourth,
    dy * (x - mean(x))^2."""
    axes = [k for k in range(f.x.ndim) if k not in keep]
    order = (*keep, *axes)
    size = int(np.prod([f.x.shape[k] for k in axes]))
    if size < 4:
        return None
    g, d, x = (v.transpose(order).reshape(-1, size) for v in (gradient, dy, f.x))
    found = []
    for row in range(len(g)):
        distance = x[row] - x[row].mean()
        design = np.column_stack([d[row], np.ones(size), distance] + [d[row] * distance**2] * unsummed)
        coefficients, *_ = np.linalg.lstsq(design, g[row], rcond=None)
        if np.max(np.abs(design @ coefficients - g[row])) > 1e-6 * max(np.max(np.abs(g)), 1e-300):
            return None
        found.append(coefficients)
    return np.array(found)


_TERMS = ("dy", "mean", "x-hat")


def _terms(f, a, n, words):
    ratios = []
    for k in range(3):
        top = np.max(np.abs(n[:, k]))
        r = a[:, k][np.abs(n[:, k]) > 1e-3 * top] / n[:, k][np.abs(n[:, k]) > 1e-3 * top]
        ratios.append(float(np.median(r)) if np.ptp(r) <= 1e-4 * max(np.max(np.abs(r)), 1e-3) else None)
    off = [k for k in range(3) if ratios[k] is None or abs(ratios[k] - 1) > 1e-4]
    formula = "dx = gamma/std * (dy - mean(dy) - x^ * mean(dy * x^))"
    if not off:
        return None
    gone = [k for k in off if ratios[k] is not None and abs(ratios[k]) < 1e-6]
    if gone == off:
        which = " and ".join(f"the {_TERMS[k]} term" for k in gone)
        evidence = (
            f"the error is {which} {words}, exactly: {'it is' if len(gone) == 1 else 'they are'} missing"
        )
        hint = "mean and std depend on every pixel, so dy goes back through them too: " + formula
        return "missing-term", evidence, hint
    k = off[-1] if 0 not in off else 0
    how = "varies" if ratios[k] is None else f"is {told_factor(f, ratios[k])} times what it should be"
    which = " and the ".join(_TERMS[k] for k in off)
    evidence = (
        f"of its terms the {which} term is off: {'it' if len(off) == 1 else f'the {_TERMS[k]} term'} {how}"
    )
    return "missing-term", evidence, f"A sign, or a sum where a mean belongs, inside {formula}"


def elementwise(f):
    """y_i depends on x_i alone: compare the derivatives as functions of y."""
    if f.loss or f.own is None or f.x.shape != f.y.shape or not f.whole or f.x.size < 6:
        return None
    j, b = np.diag(f.jac), np.diag(f.own)
    top = np.max(np.abs(j))
    if np.max(np.abs(f.jac - np.diag(j))) > f.tol * top or np.max(np.abs(f.own - np.diag(b))) > f.tol * max(
        top, np.abs(b).max()
    ):
        return None
    fits = [_parabola(f.y.ravel(), v) for v in (j, b)]
    if any(c is None for c in fits):
        return _other_function(f, j, b)
    right, wrong = (np.where(np.abs(c) > 1e-5 * np.max(np.abs(c)), c, 0.0) for c in fits)
    words = ("constant", "y", "y^2")
    gone = [words[k] for k in range(3) if right[k] and not wrong[k]]
    extra = [words[k] for k in range(3) if wrong[k] and not right[k]]
    both = [k for k in range(3) if right[k] and wrong[k] and abs(wrong[k] / right[k] - 1) > 1e-5]
    off = [f"the {words[k]} term is {told_factor(f, wrong[k] / right[k])} times as large" for k in both]
    if not (gone or extra or off):
        return None
    parts = (
        [f"the {g} term is missing" for g in gone] + [f"there is a {e} term too many" for e in extra] + off
    )
    return (
        "missing-term",
        "as a function of y the derivative lacks its form: " + "; ".join(parts),
        "Differentiate forward, in y",
    )


def _parabola(u, v):
    """(3,) coefficients of 1, u and u^2, with u brought to 1 at most; None where they do not give v."""
    u = u / np.max(np.abs(u))
    design = np.column_stack([np.ones_like(u), u, u**2])
    c = np.linalg.lstsq(design, v, rcond=None)[0]
    return c if np.max(np.abs(design @ c - v)) <= 1e-6 * max(np.max(np.abs(v)), 1e-300) else None


def _other_function(f, j, b):
    """Each element of dx is dy times some number that its own x tells, but for most of them not the derivative."""
    if not f.curved or np.mean(np.abs(b - j) > 1e-3 * np.abs(j)) < 0.75:
        return None
    turned = f.again(f.replaced(f.name, lambda x: x[::-1]), f.dy[::-1])
    if turned is None or not f.same(turned[::-1], f.analytic):
        return None
    k = int(np.argmax(np.abs(b - j)))
    evidence = f"dy is multiplied by another function of {f.name} than the derivative: at {f.name} = {f.x.ravel()[k]:.3g} by"
    evidence += f" {b[k]:.4g}, by differences it is {j[k]:.4g}"
    if _parabola(f.x.ravel(), b) is not None and _parabola(f.y.ravel(), j) is not None:
        evidence += f"; it is a square of {f.name} where a square of y belongs"
        return (
            "missing-term",
            evidence,
            "1 - tanh(x)^2 is written in what forward gives, y = tanh(x), not in x",
        )
    return (
        "missing-term",
        evidence,
        "Differentiate forward once more by hand: the outer function, times the inner one's derivative",
    )


def other_terms(f):
    """A sum of two ways back of which one is missing: a residual's identity, a product's second factor, a loss's target."""
    both = "Every way by which the input reaches the output adds its share"
    if f.loss:
        return _loss_terms(f)
    if f.own is not None and not f.same(f.own, 0 * f.own + f.jac):
        rest, past = f.jac - f.own, "the way past the layers, y = layers(x) + x"
        if not _selects(f.jac, f.tol * np.max(np.abs(f.jac))):
            for times, words in {
                1: "missing is",
                -1: "there once too often is",
                2: "subtracted, not added, is",
            }.items():
                if _selects(rest / times, f.tol * np.max(np.abs(f.jac))):
                    return "missing-term", f"what is {words} dy itself: {past}", both
            if all(_selects(np.maximum(s * rest, 0), f.tol * np.max(np.abs(f.jac))) for s in (1, -1)):
                return (
                    "shifted",
                    f"dy itself comes back to another place than it should: {past}",
                    "Crop and pad on the same sides",
                )
        if _selects(f.own, f.tol * np.max(np.abs(f.jac))) and f.x.ndim > 1 and not f.loss:
            if np.max(np.abs(rest)) > 1e-3 * np.max(np.abs(f.jac)) and not _selects(
                f.jac, f.tol * np.max(np.abs(f.jac))
            ):
                return (
                    "missing-term",
                    "only dy itself comes back: the way through the layers is missing",
                    both,
                )
    shape = f.y.shape
    if len(shape) >= 2 and shape[-1] == shape[-2] and f.fits:
        other = f.again(dy=f.dy.swapaxes(-1, -2))
        if other is not None and not f.same(other, f.analytic):
            for factor in (1.0, 0.5):
                if f.same(factor * (f.analytic + other).ravel()[f.rows], f.n):
                    evidence = "with dy's transpose added it is right: the input is in the product twice"
                    return "missing-term", evidence, "f.T @ f: one share from each factor, f @ (dG + dG.T)"
    if f.own is not None and f.x.ndim <= 1 and f.y.ndim >= 2 and _affine(f):
        evidence = "each channel's gradient is off by a multiple of the sum of dy: the mean was not taken off"
        return "missing-term", evidence, "dgamma is the sum of dy * x^, with x^ = (x - mean)/std, not x"
    return None


def _affine(f):
    """Is every row of B alpha * J + beta where J is not zero (per sample), with some beta that is not zero?"""
    betas = []
    for row in range(len(f.jac)):
        for n in range(f.y.shape[0]):
            here = (f.out_coords[:, 0] == n) & (np.abs(f.jac[row]) > f.tol * np.max(np.abs(f.jac)))
            if np.count_nonzero(here) < 4:
                return False
            design = np.column_stack([f.jac[row, here], np.ones(np.count_nonzero(here))])
            c, *_ = np.linalg.lstsq(design, f.own[row, here], rcond=None)
            if np.max(np.abs(design @ c - f.own[row, here])) > 1e-5 * max(np.max(np.abs(f.own)), 1e-300):
                return False
            betas.append(abs(c[1]))
    return max(betas) > 1e-3


def _selects(matrix, tol):
    """Does every column hold at most one 1 and else zeros, and some hold one?"""
    ones, zeros = np.abs(matrix - 1) <= max(tol, 1e-6), np.abs(matrix) <= max(tol, 1e-6)
    return bool(np.all(ones | zeros) and np.any(ones) and np.max(ones.sum(axis=0)) <= 1)


def _loss_terms(f):
    if f.jac is not None and np.max(np.abs(f.jac - f.own)) <= 1e-4 * np.max(np.abs(f.jac)):
        evidence = "the error does not change with the input: a constant, such as the target, is missing or there twice"
        return "missing-term", evidence, f"d/d{f.name} of (y - t)^2 is 2 * (y - t): both are in it"
    twice = f.again([None if x is None else 2 * x for x in f.problem.inputs])
    value = [
        float(f.problem.value([None if x is None else s * x for x in f.problem.inputs])[0].sum())
        for s in (1, 2)
    ]
    if twice is not None and np.any(f.analytic):
        degree = np.log2(abs((twice * f.analytic).sum() / (f.analytic**2).sum()))
        pure = f.same(twice, 2**degree * f.analytic) and abs(degree - round(degree)) < 1e-6
        if pure and abs(value[1] - 2 ** (degree + 1) * value[0]) > 1e-6 * abs(value[1]):
            evidence = (
                f"it grows with the power {round(degree)} of the input, as no gradient of this loss does"
            )
            return "missing-term", evidence, "A term is missing that does not grow so: is the target in it?"
    return None
