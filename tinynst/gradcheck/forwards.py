"""A wrong forward result beside the right one: where they differ, and what the wrong one turns out to be.

The surest explanation is an exact one: where the kernel turned round gives the learner's numbers to the last digit, the
learner turned the kernel round. So each common slip is here as a way to compute the wrong result.
"""

import itertools

import numpy as np

from .. import ops
from .show import heat_map

NEAR = 1e-8  # of the largest number: results further apart than this are not the same


def fault(what, mine, right, slips=(), sizes=None):
    """What is wrong with an array (or number) of the learner's called `what`, as lines of text; [] where nothing is.

    `slips` are [(words, function without arguments that makes that slip's result)], `sizes` are {"N": 2, ...}, to give a
    factor its name. First comes where the two differ, then, where that is known, why, then a map of an image's errors.
    """
    if mine.shape != right.shape:
        return [f"{what} has shape {mine.shape}, it should be {right.shape}", *_why_shape(mine, right)]
    bad = ~_near(mine, right)
    if not bad.any():
        return []
    place = tuple(int(i) for i in np.argwhere(bad)[0])
    where = f"[{', '.join(map(str, place))}]" if place else ""
    count = f"; {np.count_nonzero(bad)} of {bad.size} elements differ" if bad.ndim else ""
    first = f"{what}{where} is {mine[place]:.9g}, it should be {right[place] + 0.0:.9g}{count}"
    return [first, *_why(mine, right, bad, slips, sizes or {}), *_picture(mine, right)]


def _picture(mine, right):
    """Where an image is wrong, as a map; [] for what is no image."""
    if right.ndim != 4 or not np.isfinite(mine).all():
        return []
    lines = heat_map(np.abs(mine - right).max(axis=(0, 3)), "HW")
    return [text.replace("|backward - differences|", "largest |yours - right| of a pixel") for text in lines]


def _near(mine, right):
    """Where the two are the same up to rounding; nan is not."""
    return np.abs(mine - right) <= NEAR * np.max(np.abs(right), initial=0.0)


def _same(mine, right):
    """The same everywhere up to rounding, with nan in the same places."""
    if mine.shape != right.shape:
        return False
    number = ~np.isnan(right)
    return (
        np.array_equal(number, ~np.isnan(mine))
        and number.any()
        and bool(_near(mine[number], right[number]).all())
    )


def _why_shape(mine, right):
    if mine.ndim == right.ndim and sorted(mine.shape) == sorted(right.shape):
        return ["the sizes are right but not their order: images are (N, H, W, C)"]
    if mine.ndim == right.ndim:
        return [
            f"axis {k}: {m} instead of {r}"
            for k, (m, r) in enumerate(zip(mine.shape, right.shape, strict=True))
            if m != r
        ]
    return []


def _why(mine, right, bad, slips, sizes):
    """The first explanation that fits, as a list of one line, or []."""
    for words, wrong in slips:
        if _same(mine, np.asarray(wrong())):
            return [f"to the last digit this is what comes out {words}"]
    odd = np.count_nonzero(~np.isfinite(mine))
    if odd:
        return [
            f"{odd} of {mine.size} elements are inf or nan: look for log, sqrt or / of 0, or memory not set"
        ]
    if mine.dtype == np.float32 and np.allclose(
        mine, right, rtol=1e-4, atol=1e-5 * np.abs(right).max(initial=0.0)
    ):
        return [
            "these are float32's digits, but the inputs are float64: make new arrays with np.zeros(shape, x.dtype)"
        ]
    if not mine.any():
        return ["it is zero everywhere: is it filled in?"]
    factor = float((mine * right).sum() / (right * right).sum()) if right.any() else 0.0
    names = _factor_names(factor, sizes)
    if _same(mine, factor * right) and (
        mine.ndim or names
    ):  # of two numbers one is always some factor times the other
        which = f"; {factor:.6g} is {' or '.join(names)}" if names else ""
        return [f"{'every element' if mine.ndim else 'it'} is {factor:.6g} times what it should be{which}"]
    if mine.ndim < 2:
        return []
    off = mine - right
    if _same(mine, right + off.mean()):
        return [f"every element is {abs(off.mean()):.6g} too {'large' if off.mean() > 0 else 'small'}"]
    if mine.ndim == 4 and _same(mine, right + off.mean(axis=(0, 1, 2))):
        return ["every channel is off by a number of its own: is what is added to a channel (a bias) right?"]
    return _why_place(mine, right, bad)


def _factor_names(factor, sizes):
    """What `factor` may be: 2, -1, 1/N, C*H*W, ...; `sizes` has the letters."""
    known = {"2": 2.0, "-1": -1.0} | ({"C*C": sizes["C"] ** 2} if "C" in sizes else {})
    for count in range(1, len(sizes) + 1):
        for letters in itertools.combinations(sizes, count):
            known["*".join(letters)] = float(np.prod([sizes[letter] for letter in letters]))
    names = [name for name, value in known.items() if np.isclose(factor, value)]
    return names + [
        f"1/({name})" for name, value in known.items() if name != "-1" and np.isclose(factor * value, 1.0)
    ]


def _why_place(mine, right, bad):
    """Explanations that say where: axes, images, channels, borders."""
    names = "NHWC" if mine.ndim == 4 else [f"axis {k}" for k in range(mine.ndim)]
    for a, b in itertools.combinations(range(mine.ndim), 2):
        if _same(mine, right.swapaxes(a, b)):
            return [f"{names[a]} and {names[b]} are exchanged"]
    for k in range(mine.ndim):
        if _same(mine, np.flip(right, k)):
            return [f"it runs backwards along {names[k]}"]
    late, early = slice(1, None), slice(None, -1)
    for k, (one, other) in itertools.product(range(1, mine.ndim - 1), ((late, early), (early, late))):
        before = (slice(None),) * k
        if mine.shape[k] > 2 and _same(mine[(*before, one)], right[(*before, other)]):
            return [f"it is shifted by one pixel along {names[k]}"]
    if mine.ndim < 3:
        return []
    images = bad.reshape(len(bad), -1).any(axis=1)
    if not images.all():
        return [
            f"right in image {_listed(~images)}, wrong in image {_listed(images)}: is each of the batch treated alike?"
        ]
    channels = bad.reshape(-1, bad.shape[-1]).any(axis=0)
    if not channels.all():
        return [f"right in channel {_listed(~channels)}, wrong in channel {_listed(channels)}"]
    if mine.ndim == 4:
        height, width = mine.shape[1:3]
        for ring in range(1, (min(height, width) + 1) // 2):
            if not bad[:, ring : height - ring, ring : width - ring].any():
                return [f"only pixels within {ring} of the border are wrong: look at the padding"]
    return []


def _listed(mask):
    return ", ".join(str(k) for k in np.flatnonzero(mask))


# --- slips: wrong results, made on purpose ------------------------------------------------------------------------


def slips(name, arrays, options):
    """[(words, function)] of the operation or loss `name` for these NumPy arrays: what `fault` takes."""
    return [
        (words, lambda wrong=wrong: wrong(arrays, options)) for words, wrong in SLIPS.get(name, {}).items()
    ]


def _naive(name, without=None, **changed):
    """The naive twin with other arguments, or without one of them."""

    def wrong(a, o):
        given = {key: value for key, value in {**a, **o}.items() if key != without}
        return getattr(ops, f"{name}_naive")(**{**given, **changed})

    return wrong


def _turned(name):
    return lambda a, o: getattr(ops, f"{name}_naive")(**{**a, **o, "w": a["w"][::-1, ::-1]})


def _padded(mode):
    return lambda a, o: np.pad(a["x"], ((0, 0), (o["pad"],) * 2, (o["pad"],) * 2, (0, 0)), mode)


def _norm(axes, gamma=True, beta=True, ddof=0, std=lambda var, eps: np.sqrt(var + eps)):
    """A norm over other axes, without its parameters, with another variance or another std."""

    def wrong(a, o):
        x = a["x"]
        mean, var = x.mean(axis=axes, keepdims=True), x.var(axis=axes, ddof=ddof, keepdims=True)
        y = (x - mean) / std(var, o.get("eps", 1e-5))
        return y * (a["gamma"] if gamma else 1) + (a["beta"] if beta else 0)

    return wrong


def _norm_slips(axes):
    return {
        "without gamma": _norm(axes, gamma=False),
        "without beta": _norm(axes, beta=False),
        "without eps": _norm(axes, std=lambda var, eps: np.sqrt(var)),
        "when eps is added after the root, std = sqrt(var) + eps": _norm(
            axes, std=lambda var, eps: np.sqrt(var) + eps
        ),
        "when x is divided by the variance and not by its root": _norm(axes, std=lambda var, eps: var + eps),
        "when the variance is divided by the count - 1": _norm(axes, ddof=1),
        "with mean and variance over the channels (layer norm)": _norm((3,)),
        "with mean and variance over H, W and C": _norm((1, 2, 3)),
    }


SLIPS = {
    "relu": {
        "with the mask on the wrong side, min(x, 0)": lambda a, o: np.minimum(a["x"], 0),
        "with |x|": lambda a, o: np.abs(a["x"]),
    },
    "scaled_tanh": {
        "without the scale": lambda a, o: np.tanh(a["x"]),
        "with the scale inside, tanh(scale * x)": lambda a, o: np.tanh(o.get("scale", 150.0) * a["x"]),
    },
    "conv2d": {
        "when the kernel is turned by 180 degrees; here w[0, 0] meets the first pixel of the patch": _turned(
            "conv2d"
        ),
        "without b": _naive("conv2d", without="b"),
    },
    "conv_transpose2d": {
        "when the kernel is turned by 180 degrees; here w[0, 0] paints the first pixel": _turned(
            "conv_transpose2d"
        ),
        "without b": _naive("conv_transpose2d", without="b"),
    },
    "instance_norm": {
        "with mean and variance over the whole batch: that is batch norm": _norm((0, 1, 2)),
        **_norm_slips((1, 2)),
    },
    "batch_norm": {
        "with the batch's own statistics; with training=False the running ones count": _norm((0, 1, 2)),
        "with the running statistics; in training the batch's own count": _naive(
            "batch_norm", training=False
        ),
        "with mean and variance of each image alone: that is instance norm": _norm((1, 2)),
        **_norm_slips((0, 1, 2)),
    },
    "reflect_pad2d": {
        "when the border pixel itself is repeated (mode 'symmetric')": _padded("symmetric"),
        "when the border pixel fills the padding (mode 'edge')": _padded("edge"),
        "when the padding is zero": _padded("constant"),
        "when the other border is seen (mode 'wrap')": _padded("wrap"),
    },
    "max_pool2d": {"with the smallest of each square": lambda a, o: -ops.max_pool2d_naive(-a["x"], **o)},
    "feature_loss": {
        "with |f - target| in place of its square": lambda a, o: np.abs(a["f"] - a["target"]).mean()
    },
    "style_loss": {
        "when the Gram matrix is not divided by C*H*W": lambda a, o: (
            ((ops.gram_matrix_naive(a["f"]) * a["f"][0].size - a["target_gram"]) ** 2).sum() / len(a["f"])
        )
    },
    "tv_loss": {
        "with the differences down only": lambda a, o: (
            0.5 * (np.diff(a["y"], axis=1) ** 2).sum() / len(a["y"])
        ),
        "with the differences across only": lambda a, o: (
            0.5 * (np.diff(a["y"], axis=2) ** 2).sum() / len(a["y"])
        ),
    },
}


def statistics_slips(name, arrays, momentum=0.1):
    """The same for a running statistic of batch norm, `name`; `arrays` are as they were before the forward."""
    x, old = arrays["x"], arrays[name]
    batch = x.mean(axis=(0, 1, 2)) if name == "running_mean" else x.var(axis=(0, 1, 2), ddof=1)
    found = {
        f"when it stays as it was: `{name} = ...` only makes another array, `{name}[...] = ...` changes this one": old,
        "with momentum on the wrong side, momentum * old + (1 - momentum) * batch's": momentum * old
        + (1 - momentum) * batch,
        "when the batch's is added to all of the old": old + momentum * batch,
        "when it is updated: with training=False it stays as it was": (1 - momentum) * old + momentum * batch,
    }
    if name == "running_var":
        biased = (1 - momentum) * old + momentum * x.var(axis=(0, 1, 2))
        found["with the variance divided by N*H*W; what runs is the one divided by N*H*W - 1"] = biased
    return [(words, lambda wrong=wrong: wrong) for words, wrong in found.items()]


# --- Adam -----------------------------------------------------------------------------------------------------------

ADAM_SLIPS = {
    "sign": "when the step goes up the gradient: p += ... in place of p -= ...",
    "no correction": "when m and v are not divided by 1 - b1^t and 1 - b2^t",
    "corrected kept": "when m and v are overwritten by m / (1 - b1^t) and v / (1 - b2^t): those are for this step only",
    "memory lost": "when m and v start at zero again in each step",
    "all lost": "when each step is a first step: m, v and t live from one to the next",
    "t stays": "when t is 1 in every step: count it up",
    "t per parameter": "when t is counted up for each parameter; it counts steps",
    "no mean": "when m is b1*m + g: the factor (1 - b1) is missing",
    "no mean of squares": "when v is b2*v + g^2: the factor (1 - b2) is missing",
    "no square": "when v is a mean of g and not of its square",
    "no root": "when m^ is divided by v^ and not by its root",
    "eps inside": "when eps is added before the root is taken",
    "betas": "when the two betas are exchanged",
    "no momentum": "when g is used in place of m^",
    "rate": "when lr is not used",
}


def adam_slips(p, gradients, settings, place, count):
    """The same for a parameter p after these gradients; it is number `place` of `count` parameters."""
    return [
        (words, lambda slip=slip: adam(p, gradients, **settings, slip=slip, place=place, count=count)[-1])
        for slip, words in ADAM_SLIPS.items()
    ]


def adam(p, gradients, lr, betas, eps, slip="", place=0, count=1):
    """The values of one parameter p after each of `gradients`: algorithm 1 of arXiv:1412.6980, with a `slip` of ADAM_SLIPS."""
    b1, b2 = reversed(betas) if slip == "betas" else betas
    m, v, path = np.zeros_like(p), np.zeros_like(p), []
    for t, g in enumerate(gradients, 1):
        if slip in ("memory lost", "all lost"):
            m, v = 0 * m, 0 * v
        t = {"t stays": 1, "all lost": 1, "t per parameter": (t - 1) * count + place + 1}.get(slip, t)
        m = b1 * m + (1 if slip == "no mean" else 1 - b1) * g
        v = b2 * v + (1 if slip == "no mean of squares" else 1 - b2) * (g if slip == "no square" else g * g)
        first, second = (m, v) if slip == "no correction" else (m / (1 - b1**t), v / (1 - b2**t))
        if slip == "corrected kept":
            m, v = first, second
        root = second if slip == "no root" else np.sqrt(second + eps * (slip == "eps inside"))
        step = (g if slip == "no momentum" else first) / (root + eps * (slip != "eps inside"))
        p = p - (-1 if slip == "sign" else 1) * (1 if slip == "rate" else lr) * step
        path.append(p)
    return path
