"""A wrong forward next to the right one: what turns the right result into exactly the wrong one?"""

import numpy as np

from .. import losses, ops
from .report import axis_names, heat_map
from .slips import factor_name, moves, shape_notes

NEAR = 1e-8  # of the largest number: closer results are the same


def explain(what, mine, right, slips=(), sizes=None):
    """What is wrong with a result `mine`, as lines of text; [] where nothing is.

    slips   {words: a function that makes the result of that mistake}
    sizes   {"N": 3, ...} to give a factor its name
    """
    axes = axis_names(what, right.shape)
    if mine.shape != right.shape:
        notes = shape_notes(mine.shape, right.shape, axes)
        return [f"{what} has shape {mine.shape}, it should be {right.shape}{notes}"]
    wrong = ~near(mine, right)
    if not wrong.any():
        return []
    place = tuple(int(i) for i in np.argwhere(wrong)[0])
    where = f"[{', '.join(map(str, place))}]" if place else ""
    count = f"; {np.count_nonzero(wrong)} of {wrong.size} elements differ" if wrong.ndim else ""
    lines = [f"{what}{where} is {mine[place]:.7g}, it should be {right[place] + 0.0:.7g}{count}"]
    why = next(
        (f"exactly this comes out {words}" for words, slip in dict(slips).items() if same(mine, slip())), None
    )
    why = why or _why(what, mine, right, wrong, sizes or {}, axes)
    lines += [why] if why else []
    if right.ndim == 4 and np.isfinite(mine).all():
        lines += heat_map(abs(mine - right).max(axis=(0, 3)), "HW")
    return lines


def near(mine, right):
    return abs(mine - right) <= NEAR * np.max(abs(right), initial=0)


def same(mine, right):
    right = np.asarray(right)
    if mine.shape != right.shape or not np.array_equal(np.isnan(mine), np.isnan(right)):
        return False
    number = ~np.isnan(right)
    return bool(number.any() and near(mine[number], right[number]).all())


def _why(what, mine, right, wrong, sizes, axes):
    odd = np.count_nonzero(~np.isfinite(mine))
    if odd:
        return f"{odd} of {mine.size} elements are inf or nan: look for log, sqrt or / of 0"
    if np.allclose(mine, right, 1e-4, 1e-5 * np.max(abs(right))) and same(mine, mine.astype(np.float32)):
        return "these are float32's digits, but x is float64: make new arrays with np.zeros(shape, x.dtype)"
    if not mine.any():
        return "it is zero everywhere: is it filled in?"
    factor = float((mine * right).sum() / (right * right).sum())
    name = factor_name(factor, sizes)
    if same(mine, factor * right) and (mine.ndim or name):  # any two numbers are some factor apart
        return f"{'every element' if mine.ndim else 'it'} is {factor:.6g} times what it should be{name}"
    if mine.ndim < 2:
        return None
    off = mine - right
    if same(mine, right + off.mean()):
        return f"every element is {abs(off.mean()):.6g} too {'large' if off.mean() > 0 else 'small'}"
    if mine.ndim == 4 and same(mine, right + off.mean(axis=(0, 1, 2))):
        return "every channel is off by a number of its own: is what is added to a channel (a bias) right?"
    for cause, words, move in moves(right.shape, axes):
        if same(mine, move(right)):
            return f"it is the right {what} {words} ({cause})"
    for axis, letter in ((0, "image"), (-1, "channel")) if mine.ndim > 2 else ():
        bad = np.moveaxis(wrong, axis, 0).reshape(wrong.shape[axis], -1).any(axis=1)
        if not bad.all():
            good, bad = (", ".join(map(str, np.flatnonzero(mask))) for mask in (~bad, bad))
            return f"right in {letter} {good}, wrong in {letter} {bad}"
    if mine.ndim == 4 and not wrong[:, 1:-1, 1:-1].any() and min(wrong.shape[1:3]) > 2:
        return "only pixels at the border are wrong: look at the padding"
    return None


# --- the usual mistakes, made on purpose ---


def _norm(axes, std=lambda var, eps: np.sqrt(var + eps), gamma=1, beta=1, ddof=0):
    """A normalisation over other axes, with another std, or without its parameters."""

    def wrong(a, o):
        mean, var = a["x"].mean(axes, keepdims=True), a["x"].var(axes, ddof=ddof, keepdims=True)
        return (a["x"] - mean) / std(var, 1e-5) * a["gamma"] ** gamma + a["beta"] * beta

    return wrong


def _norm_slips(axes):
    return {
        "without gamma": _norm(axes, gamma=0),
        "without beta": _norm(axes, beta=0),
        "when eps is added after the root, std = sqrt(var) + eps": _norm(
            axes, lambda var, eps: np.sqrt(var) + eps
        ),
        "without eps": _norm(axes, lambda var, eps: np.sqrt(var)),
        "when x is divided by the variance, not by its root": _norm(axes, lambda var, eps: var + eps),
        "when the variance is divided by the count - 1": _norm(axes, ddof=1),
        "with mean and variance over the channels (layer norm)": _norm((3,)),
    }


def _pad(mode):
    return lambda a, o: np.pad(a["x"], ((0, 0), (o["pad"],) * 2, (o["pad"],) * 2, (0, 0)), mode)


def _convolution(name):
    op = getattr(ops, name)
    return {
        "when the kernel is turned by 180 degrees": lambda a, o: op(
            **{**a, **o, "w": a["w"][::-1, ::-1].copy()}
        )[0],
        "without b": lambda a, o: op(a["x"], a["w"], **o)[0],
    }


SLIPS = {
    "relu": {"with min(x, 0)": lambda a, o: np.minimum(a["x"], 0), "with |x|": lambda a, o: abs(a["x"])},
    "scaled_tanh": {
        "without the scale": lambda a, o: np.tanh(a["x"]),
        "with the scale inside, tanh(scale * x)": lambda a, o: np.tanh(o.get("scale", 150.0) * a["x"]),
    },
    "conv2d": _convolution("conv2d"),
    "conv_transpose2d": _convolution("conv_transpose2d"),
    "instance_norm": {
        "with mean and variance over the whole batch: that is batch norm": _norm((0, 1, 2)),
        **_norm_slips((1, 2)),
    },
    "batch_norm": {
        "with the batch's own statistics; with training=False the running ones count": _norm((0, 1, 2)),
        "with the running statistics; in training the batch's own count": lambda a, o: ops.batch_norm(
            **a, training=False
        )[0],
        "with mean and variance of each image alone: that is instance norm": _norm((1, 2)),
        **_norm_slips((0, 1, 2)),
    },
    "reflect_pad2d": {
        f"with np.pad's mode '{mode}'": _pad(mode) for mode in ("symmetric", "edge", "constant", "wrap")
    },
    "max_pool2d": {"with the smallest of each square": lambda a, o: -ops.max_pool2d(-a["x"], **o)[0]},
    "feature_loss": {
        "with |f - target| in place of its square": lambda a, o: abs(a["f"] - a["target"]).mean()
    },
    "style_loss": {
        "when the Gram matrix is not divided by C*H*W": lambda a, o: losses.style_loss(
            a["f"] * np.sqrt(a["f"][0].size), a["target_gram"]
        )[0]
    },
    "tv_loss": {
        f"with the differences {words} only": lambda a, o, axis=axis: (
            (np.diff(a["y"], axis=axis) ** 2).sum() / 2 / len(a["y"])
        )
        for words, axis in (("down", 1), ("across", 2))
    },
}


def statistics_slips(name, arrays, momentum=0.1):
    """The same for batch norm's running statistic `name`; `arrays` are as they were before the forward."""
    x, old = arrays["x"], arrays[name]
    batch = x.mean(axis=(0, 1, 2)) if name == "running_mean" else x.var(axis=(0, 1, 2), ddof=1)
    biased = batch if name == "running_mean" else x.var(axis=(0, 1, 2))
    found = {
        f"when it stays as it was: `{name} = ...` makes a new array, use `{name}[...] = ...`": old,
        "with momentum on the wrong side": momentum * old + (1 - momentum) * batch,
        "when the batch's is added to all of the old": old + momentum * batch,
        "when it is updated: with training=False it stays as it was": (1 - momentum) * old + momentum * batch,
        "with the variance divided by N*H*W; divide this one by N*H*W - 1": (1 - momentum) * old
        + momentum * biased,
    }
    return {words: lambda result=result: result for words, result in found.items()}


ADAM_SLIPS = {
    "sign": "when the step goes up the gradient: p += ... in place of p -= ...",
    "no correction": "when m and v are not divided by 1 - b1^t and 1 - b2^t",
    "memory lost": "when m and v start at zero again in each step",
    "t stays": "when t is 1 in every step: count it up",
    "t per parameter": "when t is counted up for each parameter; it counts steps",
    "no mean": "when m is b1*m + g: the factor (1 - b1) is missing",
    "no mean of squares": "when v is b2*v + g^2: the factor (1 - b2) is missing",
    "no square": "when v is a mean of g, not of its square",
    "no root": "when m^ is divided by v^, not by its root",
    "eps inside": "when eps is added before the root is taken",
    "betas": "when the two betas are exchanged",
    "no momentum": "when g is used in place of m^",
    "rate": "when lr is not used",
}


def adam(p, gradients, lr, betas, eps, slip="", place=0, count=1):
    """A parameter after these gradients, with a slip; it is number `place` of `count` parameters."""
    b1, b2 = reversed(betas) if slip == "betas" else betas
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t, g in enumerate(gradients, 1):
        if slip == "memory lost":
            m, v = 0 * m, 0 * v
        t = {"t stays": 1, "t per parameter": (t - 1) * count + place + 1}.get(slip, t)
        m = b1 * m + (1 if slip == "no mean" else 1 - b1) * g
        v = b2 * v + (1 if slip == "no mean of squares" else 1 - b2) * (g if slip == "no square" else g * g)
        first, second = (m, v) if slip == "no correction" else (m / (1 - b1**t), v / (1 - b2**t))
        root = second if slip == "no root" else np.sqrt(second + eps * (slip == "eps inside"))
        step = (g if slip == "no momentum" else first) / (root + eps * (slip != "eps inside"))
        p = p - (-1 if slip == "sign" else 1) * (1 if slip == "rate" else lr) * step
    return p
