"""The exercises as lessons/solutions solves them: what the grader must pass, and where bugs are planted."""

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "lessons" / "solutions"
SOLUTIONS = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.py"))}
RELU = SOLUTIONS["relu"]
TANH = SOLUTIONS["tanh"]
FEATURE = SOLUTIONS["feature_loss"]
TV = SOLUTIONS["tv_loss"]
GRAM = SOLUTIONS["gram"]
STYLE = SOLUTIONS["style_loss"]
PAD = SOLUTIONS["reflect_pad"]
POOL = SOLUTIONS["max_pool"]
CONV = SOLUTIONS["conv"]
TRANSPOSE = SOLUTIONS["conv_transpose"]
INSTANCE_NORM = SOLUTIONS["instance_norm"]
BATCH_NORM = SOLUTIONS["batch_norm"]
RESIDUAL = SOLUTIONS["residual"]
ADAM = SOLUTIONS["adam"]

# these are no exercises, but bugs are planted in them as well

CROP = """
import numpy as np


def center_crop(x, crop):
    return x[:, crop : x.shape[1] - crop, crop : x.shape[2] - crop], (x, crop)


def center_crop_backward(dy, cache):
    x, crop = cache
    dx, top, left = np.zeros_like(x), crop, crop
    dx[:, top : top + dy.shape[1], left : left + dy.shape[2]] = dy
    return dx
"""

UPSAMPLE = """
def upsample_nearest(x, scale=2):
    return x.repeat(scale, 1).repeat(scale, 2), (x.shape, scale)


def upsample_nearest_backward(dy, cache):
    (n, h, w, c), s = cache
    return dy.reshape(n, h, s, w, s, c).sum(axis=(2, 4))
"""

BLOCK = """
import numpy as np


def block(x, w, u):
    hidden = np.maximum(x @ w, 0)
    return hidden @ u + x, (x, w, u, hidden)


def block_backward(dy, cache):
    x, w, u, hidden = cache
    du = np.tensordot(hidden, dy, ((0, 1, 2), (0, 1, 2)))
    dhidden = (dy @ u.T) * (hidden > 0)
    dw = np.tensordot(x, dhidden, ((0, 1, 2), (0, 1, 2)))
    dx = dhidden @ w.T + dy
    return dx, dw, du
"""


def changed(text, *edits):
    """`text` with each old text replaced by the new; the old text must be there."""
    for old, new in zip(edits[::2], edits[1::2], strict=True):
        assert old in text, f"{old!r} is not in the solution"
        text = text.replace(old, new)
    return text
