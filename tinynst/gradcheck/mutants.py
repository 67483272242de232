"""Bugs people make: one small edit each in a backward pass that is right, and what the checker says of it.

    tinynst gradcheck --mutants

Each is (what goes wrong, which gradient, the cause to be named, the old text, the new text), applied to the source of the
library's own operation, or to `PLAIN`, convolution's backward as a learner writes it. The collection is there to be read (how
many ways there are to be wrong!) and keeps the diagnosis honest: tests count how many causes are named right.
"""

import importlib
import inspect
import types
from dataclasses import dataclass, field

import numpy as np

from .. import ops
from .cases import loss_case, operation_case
from .check import gradcheck

PLAIN = '''
"""Convolution's backward, one tap of the kernel after the other."""

import numpy as np

from tinynst.ops import conv2d


def conv2d_backward(dy, cache):
    x, w, has_b, stride, pad = cache[:5]
    (n, h, v, c), (kh, kw, _, o), (oh, ow) = x.shape, w.shape, dy.shape[1:3]
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    dpadded, dw = np.zeros_like(padded), np.zeros_like(w)
    for a in range(kh):
        for b in range(kw):
            seen = np.s_[:, a : a + stride * oh : stride, b : b + stride * ow : stride]
            dpadded[seen] += dy @ w[a, b].T
            dw[a, b] += np.tensordot(padded[seen], dy, ((0, 1, 2), (0, 1, 2)))
    dx = dpadded[:, pad : pad + h, pad : pad + v]
    return dx, dw, dy.sum(axis=(0, 1, 2)) if has_b else None
'''

PLAIN_RESIDUAL = '''
"""A residual block of two linear layers on each pixel, y = relu(x @ w) @ u + x."""

import numpy as np


def residual(x, w, u):
    hidden = np.maximum(x @ w, 0)
    return hidden @ u + x, (x, w, u, hidden)


def residual_backward(dy, cache):
    x, w, u, hidden = cache
    du = np.tensordot(hidden, dy, ((0, 1, 2), (0, 1, 2)))
    dhidden = (dy @ u.T) * (hidden > 0)
    dw = np.tensordot(x, dhidden, ((0, 1, 2), (0, 1, 2)))
    dx = dhidden @ w.T + dy
    return dx, dw, du
'''


@dataclass
class Mutant:
    """One planted bug: `edits` [(old, new), ...] made in `source`; `cause` is what it should be called."""

    operation: str
    gradient: str
    cause: str
    words: str
    source: str
    edits: tuple
    shapes: dict
    options: dict = field(default_factory=dict)

    def __str__(self):
        return f"{self.operation}, {self.gradient}: {self.words}"

    def check(self, seed=0, **options):
        """The Report of the wrong code."""
        module = edited(self.source, *self.edits)
        if self.operation.endswith("_loss"):
            make = loss_case(getattr(module, self.operation), self.shapes)
        else:
            forward = getattr(module, self.operation, None) or getattr(ops, self.operation)
            backward = getattr(module, f"{self.operation}_backward")
            make = operation_case(forward, backward, self.shapes, self.options)
        arguments = make(np.random.default_rng(seed), np)
        forward, backward, inputs = (arguments.pop(key) for key in ("forward", "backward", "inputs"))
        return gradcheck(
            forward,
            backward,
            inputs,
            **arguments,
            seed=seed,
            title=f"{self.operation} ({self.words})",
            **options,
        )


def edited(source, *edits):
    """A module made of `source` (a module's name, or text) with each old text replaced by the new."""
    text = source if "\n" in source else inspect.getsource(importlib.import_module(f"tinynst.{source}"))
    for old, new in edits:
        if old not in text:
            raise ValueError(f"{old!r} is not in the source any more")
        text = text.replace(old, new)
    module = types.ModuleType("tinynst.ops.edited")
    module.__package__ = "tinynst" if source == "losses" else "tinynst.ops"  # for the relative imports in it
    exec(compile(text, "<a planted bug>", "exec"), module.__dict__)
    return module


X = {"x": (3, 5, 7, 4)}
NORM = {"x": (3, 5, 4, 2), "gamma": (2,), "beta": (2,)}
BATCH = {**NORM, "running_mean": (2,), "running_var": (2,)}
CONV = {"x": (3, 5, 6, 2), "w": (3, 3, 2, 4), "b": (4,)}
SQUARE = {"x": (3, 5, 6, 4), "w": (3, 3, 4, 4), "b": (4,)}
TALL = {"x": (3, 6, 5, 2), "w": (3, 2, 2, 4), "b": (4,)}
UP = {"x": (3, 3, 4, 4), "w": (3, 3, 2, 4), "b": (2,)}
BLOCK = {"x": (2, 3, 4, 3), "w": (3, 3), "u": (3, 3)}

_DX = "dx = dpadded[:, pad : pad + h, pad : pad + v]"
_DW = "dw[a, b] += np.tensordot(padded[seen], dy, ((0, 1, 2), (0, 1, 2)))"
_DB = "dy.sum(axis=(0, 1, 2))"
_PAINT = "dpadded[seen] += dy @ w[a, b].T"
_TV = "dy[:, 1:] += down", "dy[:, :-1] -= down", "dy[:, :, 1:] += across", "dy[:, :, :-1] -= across"


def _plain(rows, shapes=CONV, **options):
    return [
        Mutant("conv2d", g, cause, words, PLAIN, edits, shapes, options) for g, cause, words, *edits in rows
    ]


def _of(operation, module, shapes, rows, **options):
    return [
        Mutant(operation, g, cause, words, module, edits, shapes, options) for g, cause, words, *edits in rows
    ]


MUTANTS = [
    *_plain(
        [
            ("dx", "overwritten", "= for +=: the last tap wins", ("dpadded[seen] +=", "dpadded[seen] =")),
            (
                "dx",
                "partial-batch",
                "all photos' shares go to the first",
                (_PAINT, "dpadded[seen][0] += (dy @ w[a, b].T).sum(axis=0)"),
            ),
            (
                "dx",
                "shifted",
                "the padding is cut off one pixel too late",
                (_DX, "dx = np.roll(dpadded, -1, 1)[:, pad : pad + h, pad : pad + v]"),
            ),
            ("dx", "shifted", "cropped from 0", (_DX, "dx = dpadded[:, :h, :v]")),
            (
                "dx",
                "flipped",
                "the kernel is not turned round",
                (_PAINT, "dpadded[seen] += dy @ w[kh - 1 - a, kw - 1 - b].T"),
            ),
            (
                "dx",
                "border",
                "only pixels with a full window",
                ("return dx, dw", "dx[:, [0, -1]] = 0\n    return dx, dw"),
            ),
            (
                "dx",
                "partial-batch",
                "only the first photo",
                ("return dx, dw", "dx[1:] = 0\n    return dx, dw"),
            ),
            (
                "dx",
                "missing-sum",
                "only the first output channel",
                (_PAINT, "dpadded[seen] += dy[..., :1] @ w[a, b, :, :1].T"),
            ),
            ("dw", "scaled", "mean over the batch", (_DW, _DW + " / n")),
            ("dw", "scaled", "mean over batch and pixels", (_DW, _DW + " / (n * oh * ow)")),
            ("dw", "scaled", "the wrong sign", (_DW, _DW.replace("+=", "-="))),
            ("dw", "flipped", "the kernel turned round", ("return dx, dw,", "return dx, dw[::-1, ::-1],")),
            (
                "dw",
                "partial-batch",
                "= in a loop over the batch",
                (
                    _DW,
                    "for k in range(n):\n                dw[a, b] = np.tensordot(padded[seen][k], dy[k], ((0, 1), (0, 1)))",
                ),
            ),
            (
                "dw",
                "partial-batch",
                "the first photo is left out",
                (_DW, "dw[a, b] += np.tensordot(padded[seen][1:], dy[1:], ((0, 1, 2), (0, 1, 2)))"),
            ),
            ("dw", "shifted", "taps counted from 1", ("dw[a, b] +=", "dw[a - 1, b] +=")),
            (
                "dw",
                "border",
                "the padding is forgotten",
                (
                    _DW,
                    "inner = np.s_[:, pad : oh - pad, pad : ow - pad]\n            "
                    + _DW.replace("padded[seen]", "padded[seen][inner]").replace("dy,", "dy[inner],"),
                ),
            ),
            ("dw", "zero", "computed, but not returned", ("return dx, dw,", "return dx, 0 * dw,")),
            ("db", "missing-sum", "only the first pixel", (_DB, "dy[:, 0, 0].sum(axis=0)")),
            ("db", "missing-sum", "no sum over the batch", (_DB, "dy.sum(axis=(1, 2))")),
            ("db", "scaled", "mean for sum", (_DB, _DB.replace("sum", "mean"))),
            ("db", "partial-batch", "only the last photo", (_DB, "dy[-1].sum(axis=(0, 1))")),
            ("db", "wrong-shape", "keepdims", (_DB, "dy.sum(axis=(0, 1, 2), keepdims=True)")),
            ("dw", "not-finite", "divided by a sum of nothing", (_DW, _DW + " / (0.0 * n)")),
            (
                "dx",
                "changed-input",
                "dy is used as a scratch pad",
                ("    padded = ", "    dy *= 2\n    dy /= 2.000001\n    padded = "),
            ),
        ],
        pad=1,
    ),
    *_plain([("dx", "transposed", "w for w.T", (_PAINT, "dpadded[seen] += dy @ w[a, b]"))], SQUARE, pad=1),
    *_plain(
        [
            (
                "dw",
                "transposed",
                "dy.T @ x for x.T @ dy",
                (_DW, _DW + ".T"),
                ("dw[a, b] += np", "dw[a, b] += np"),
            )
        ],
        SQUARE,
        pad=1,
    ),
    *_plain(
        [
            (
                "dw",
                "transposed",
                "reshape where transpose belongs",
                ("return dx, dw,", "return dx, dw.transpose(3, 2, 0, 1).reshape(w.shape),"),
            )
        ],
        TALL,
    ),
    *_plain(
        [
            (
                "dx",
                "swapped-gradients",
                "dw and dx in each other's place",
                ("return dx, dw,", "return dw, dx,"),
            )
        ],
        TALL,
    ),
    *_plain(
        [("dx", "overwritten", "= for +=, with a stride", ("dpadded[seen] +=", "dpadded[seen] ="))],
        TALL,
        stride=2,
        pad=1,
    ),
    *_of(
        "conv2d",
        "ops.conv",
        SQUARE,
        [
            ("dw", "wrong-mask", "ReLU's mask is forgotten", ("dy = dy * (mask > 0)", "pass")),
            ("dw", "wrong-mask", ">= for >", ("dy * (mask > 0)", "dy * (mask >= 0)")),
        ],
        pad=1,
        relu=True,
    ),
    *_of(
        "conv_transpose2d",
        "ops.conv_transpose",
        UP,
        [
            (
                "dx",
                "flipped",
                "the kernel turned round",
                ("correlate(dy, w,", "correlate(dy, w[::-1, ::-1],"),
            ),
            (
                "dw",
                "flipped",
                "the kernel turned round in dw",
                ("pad, pad)\n        db", "pad, pad)[::-1, ::-1]\n        db"),
            ),
            (
                "dw",
                "scaled",
                "mean over the batch",
                ("pad, pad)\n        db", "pad, pad) / len(x)\n        db"),
            ),
            (
                "dx",
                "shifted",
                "pad forgotten",
                ("x.shape[1:3], stride, pad, pad)", "x.shape[1:3], stride, pad - 1, pad - 1)"),
            ),
            (
                "db",
                "scaled",
                "counted for each of the stride's pixels",
                ("bias_gradient(dy)", "bias_gradient(dy) / stride**2"),
            ),
        ],
    ),
    *_of(
        "batch_norm",
        "ops.batch_norm",
        BATCH,
        [
            (
                "dx",
                "missing-term",
                "the mean is taken for a constant",
                ("-scale * dy_sum / pixels", "0 * dy_sum"),
            ),
            (
                "dx",
                "missing-term",
                "the std is taken for a constant",
                ("-scale * dyx_sum / (std * pixels)", "0 * dyx_sum"),
            ),
            (
                "dx",
                "missing-term",
                "dx = gamma/std * dy, as when not training",
                ("if not training", "if training"),
            ),
            (
                "dx",
                "running-statistics",
                "divided by the running std",
                (
                    "return y, (x, gamma, mean, std,",
                    "return y, (x, gamma, mean, xp.sqrt(running_var + eps)[None],",
                ),
            ),
            ("dx", "scaled", "gamma is forgotten", ("scale = gamma / std", "scale = 1 / std")),
            (
                "dx",
                "scaled",
                "1/std is forgotten",
                (
                    "dx = statistics.backward_apply(x, dy, mean, scale, b, c, mask)",
                    "dx = statistics.backward_apply(x, dy, mean, scale, b, c, mask) * std[:, None, None]",
                ),
            ),
            (
                "dgamma",
                "partial-batch",
                "only the last photo",
                ("dyx_sum[0].astype", "(sums[1] / std)[-1].astype"),
            ),
            (
                "dbeta",
                "scaled",
                "mean over the batch",
                ("dy_sum[0].astype(x.dtype)", "dy_sum[0].astype(x.dtype) / x.shape[0]"),
            ),
            (
                "dgamma",
                "swapped-gradients",
                "dbeta before dgamma",
                (
                    "return dx, dyx_sum[0].astype(x.dtype), dy_sum[0]",
                    "return dx, dy_sum[0].astype(x.dtype), dyx_sum[0]",
                ),
            ),
        ],
    ),
    *_of(
        "instance_norm",
        "ops.instance_norm",
        NORM,
        [
            (
                "dx",
                "missing-term",
                "the mean is taken for a constant",
                ("-scale * dy_sum / pixels", "0 * dy_sum"),
            ),
            (
                "dx",
                "missing-term",
                "the std is taken for a constant",
                ("-scale * dyx_sum / (std * pixels)", "0 * dyx_sum"),
            ),
            (
                "dx",
                "missing-term",
                "the x-hat term with the wrong sign",
                ("-scale * dyx_sum / (std", "scale * dyx_sum / (std"),
            ),
            (
                "dx",
                "scaled",
                "1/std is forgotten",
                ("    return dx, dyx_sum, dy_sum", "    return dx * std[:, None, None], dyx_sum, dy_sum"),
            ),
            (
                "dgamma",
                "scaled",
                "1/std is forgotten",
                ("    return dx, dyx_sum, dy_sum", "    return dx, dyx_sum * std, dy_sum"),
            ),
            (
                "dgamma",
                "missing-term",
                "x for x-hat",
                ("    return dx, dyx_sum, dy_sum", "    return dx, (dy * x).sum(axis=(1, 2)), dy_sum"),
            ),
            ("dbeta", "partial-batch", "only the first photo", ("dbeta.sum(axis=0)", "dbeta[0]")),
            (
                "dx",
                "noise",
                "computed in float32",
                (
                    "arguments.floating(x=x, dy=dy)",
                    "x, dy = (v.astype(np.float32).astype(v.dtype) for v in (x, dy))",
                ),
                (
                    "    return dx, dyx_sum, dy_sum",
                    "    return dx.astype(np.float32).astype(np.float64), dyx_sum, dy_sum",
                ),
            ),
        ],
    ),
    *_of(
        "reflect_pad2d",
        "ops.padding",
        X,
        [
            (
                "dx",
                "overwritten",
                "= for +=",
                ("dx[:, low : high + 1] +=", "dx[:, low : high + 1] ="),
                ("dx[:, high : low + 1] +=", "dx[:, high : low + 1] ="),
            ),
            (
                "dx",
                "border",
                "the mirror images are cut off",
                (
                    "return (_fold(_fold(dy, h, pad).swapaxes(1, 2), w, pad).swapaxes(1, 2),)",
                    "return (dy[:, pad : pad + h, pad : pad + w].copy(),)",
                ),
            ),
            (
                "dx",
                "border",
                "the mirror images are not turned round",
                ("dy[:, begin:end][:, ::-1]", "dy[:, begin:end]"),
            ),
        ],
        pad=1 + 1,
    ),
    *_of(
        "center_crop",
        "ops.padding",
        X,
        [
            (
                "dx",
                "shifted",
                "put back one pixel too high",
                (
                    "dx[:, crop : h - crop, crop : w - crop] = dy",
                    "dx[:, crop - 1 : h - crop - 1, crop : w - crop] = dy",
                ),
            ),
            ("dx", "scaled", "twice", ("crop : w - crop] = dy", "crop : w - crop] = 2 * dy")),
        ],
        crop=1,
    ),
    *_of(
        "max_pool2d",
        "ops.pooling",
        X,
        [
            ("dx", "wrong-mask", "one that is not the largest", ("xp.equal(squares", "xp.not_equal(squares")),
            (
                "dx",
                "wrong-mask",
                "everybody in the window",
                ("xp.greater(here, found, out=here)", "here[...] = True"),
            ),
            (
                "dx",
                "wrong-mask",
                "every one of several that are equal",
                ("xp.greater(here, found, out=here)", "pass"),
            ),
            ("dx", "scaled", "spread as for a mean", ("    return (dx,)\n", "    return (dx / size**2,)\n")),
            ("dx", "border", "the dropped column is filled too", ("dx[:, :h, w:] = 0", "dx[:, :h, w:] = 1")),
        ],
    ),
    *_of(
        "upsample_nearest",
        "ops.resampling",
        X,
        [
            ("dx", "missing-sum", "one of the square", (".sum(axis=(2, 4))", "[:, :, 0, :, 0].copy()")),
            (
                "dx",
                "missing-sum",
                "the sum over the square's rows only",
                (".sum(axis=(2, 4))", ".sum(axis=2)[:, :, :, 0].copy()"),
            ),
            (
                "dx",
                "overwritten",
                "the last of the square wins",
                (".sum(axis=(2, 4))", "[:, :, -1, :, -1].copy()"),
            ),
            ("dx", "scaled", "the mean of the square", (".sum(axis=(2, 4))", ".mean(axis=(2, 4))")),
            (
                "dx",
                "transposed",
                "the square's axes before the picture's",
                (
                    "dy.reshape(n, h, scale, w, scale, c).sum(axis=(2, 4))",
                    "dy.reshape(n, scale, h, scale, w, c).sum(axis=(1, 3))",
                ),
            ),
        ],
    ),
    *_of(
        "relu",
        "ops.activations",
        X,
        [
            ("dx", "wrong-mask", "the other side", ("dy * (y > 0)", "dy * (y <= 0)")),
            ("dx", "wrong-mask", ">= for >, and y is never negative", ("dy * (y > 0)", "dy * (y >= 0)")),
            ("dx", "wrong-mask", "the mask from dy", ("dy * (y > 0)", "dy * (dy > 0)")),
            (
                "dx",
                "wrong-mask",
                ">= for >, seen at exact zeros only",
                ("return y, y", "return y, x"),
                ("dy * (y > 0)", "dy * (y >= 0)"),
            ),
            ("dx", "missing-term", "dy is forgotten", ("dy * (y > 0)", "1.0 * (y > 0)")),
            (
                "dx",
                "stale-cache",
                "the first call's mask is kept",
                ("import math\n", "import math\nKEPT = []\n"),
                ("    return (dy * (y > 0),)", "    KEPT.append(y > 0)\n    return (dy * KEPT[0],)"),
            ),
        ],
    ),
    *_of(
        "scaled_tanh",
        "ops.activations",
        X,
        [
            ("dx", "scaled", "the scale is forgotten", ("(scale - y * y / scale)", "(1 - (y / scale) ** 2)")),
            ("dx", "missing-term", "tanh's square is forgotten", ("(scale - y * y / scale)", "scale")),
            ("dx", "missing-term", "1 - tanh for 1 - tanh^2", ("(scale - y * y / scale)", "(scale - y)")),
            (
                "dx",
                "missing-term",
                "1 - x^2 for 1 - tanh^2",
                ("return y, (y, scale)", "return y, (scale * x, scale)"),
            ),
            (
                "dx",
                "missing-term",
                "tanh of what is a tanh already",
                ("(scale - y * y / scale)", "scale * (1 - np.tanh(y / scale) ** 2)"),
            ),
        ],
    ),
    *_of(
        "gram_matrix",
        "ops.gram",
        {"f": X["x"]},
        [
            (
                "df",
                "missing-term",
                "one factor of the product only",
                ("(dgram + dgram.transpose(0, 2, 1))", "2 * dgram"),
            ),
            (
                "df",
                "partial-batch",
                "the first photo's dy for all",
                ("both[block[0]]", "both[:1].repeat(n, 0)[block[0]]"),
            ),
            (
                "df",
                "transposed",
                "the pixels read with H and W exchanged",
                ("    return (df,)", "    return (df.reshape(n, w, h, c).swapaxes(1, 2),)"),
            ),
            ("df", "scaled", "C*H*W is forgotten", (") / (c * h * w))\n", "))\n")),
            ("df", "scaled", "H*W for C*H*W", (") / (c * h * w))\n", ") / (h * w))\n")),
            (
                "df",
                "partial-batch",
                "the first photo's gradient for all",
                ("    f = cache\n", "    f, dgram = (a[:1].repeat(len(a), 0) for a in (cache, dgram))\n"),
            ),
        ],
    ),
    *_of(
        "feature_loss",
        "losses",
        {"f": (3, 4, 5, 2), "target": (3, 4, 5, 2)},
        [
            ("df", "scaled", "the square's 2 is forgotten", ("2 * weight / f.size", "weight / f.size")),
            ("df", "scaled", "divided by the batch only", ("2 * weight / f.size", "2 * weight / f.shape[0]")),
            ("df", "scaled", "target - f", ("difference *= 2", "difference *= -2")),
            (
                "df",
                "missing-term",
                "the target is forgotten",
                ("difference *= 2 * weight / f.size", "difference[...] = f[block] * (2 * weight / f.size)"),
            ),
            (
                "df",
                "partial-batch",
                "only the first photo",
                (
                    "    return weight * float(sum(squares)) / f.size, df",
                    "    df[1:] = 0\n    return weight * float(sum(squares)) / f.size, df",
                ),
            ),
        ],
    ),
    *_of(
        "style_loss",
        "losses",
        {"f": (2, 3, 4, 3), "target_gram": (3, 3)},
        [
            ("df", "scaled", "the square's 2 is forgotten", ("(2 * weight / n)", "(weight / n)")),
            (
                "df",
                "missing-term",
                "the painting's matrix is forgotten",
                ("(difference * (2 * weight / n)", "(gram * (2 * weight / n)"),
            ),
        ],
    ),
    *_of(
        "tv_loss",
        "losses",
        {"y": (2, 5, 6, 2)},
        [
            ("dy", "overwritten", "= for += in the last line", (_TV[3], "dy[:, :, :-1] = -across")),
            ("dy", "overwritten", "= for += in the second line", (_TV[1], "dy[:, :-1] = -down")),
            ("dy", "missing-term", "only down, not across", (_TV[2], "pass"), (_TV[3], "pass")),
            ("dy", "missing-term", "only one end of each pair", (_TV[1], "pass"), (_TV[3], "pass")),
            ("dy", "scaled", "the mean over the batch is forgotten", ("dy /= n", "pass")),
            ("dy", "scaled", "+= for -= once", (_TV[1], "dy[:, :-1] += down")),
            (
                "dy",
                "scaled",
                "the differences across have the wrong sign",
                (_TV[2], _TV[2].replace("+", "-")),
                (_TV[3], _TV[3].replace("-=", "+=")),
            ),
            (
                "dy",
                "scaled",
                "down counts twice",
                (_TV[0], "dy[:, 1:] += 2 * down"),
                (_TV[1], "dy[:, :-1] -= 2 * down"),
            ),
            ("dy", "border", "the last difference is left out", (_TV[1], "dy[:, :-2] -= down[:, :-1]")),
        ],
    ),
    *_of(
        "residual",
        PLAIN_RESIDUAL,
        BLOCK,
        [
            ("dx", "missing-term", "the identity is forgotten", ("@ w.T + dy", "@ w.T")),
            ("dx", "missing-term", "the identity is subtracted", ("@ w.T + dy", "@ w.T - dy")),
            ("dx", "missing-term", "the identity is added twice", ("@ w.T + dy", "@ w.T + 2 * dy")),
            (
                "dx",
                "shifted",
                "the identity arrives one pixel too low",
                ("@ w.T + dy", "@ w.T + np.roll(dy, 1, 1)"),
            ),
            ("dx", "missing-term", "only the identity", ("dx = dhidden @ w.T + dy", "dx = dy.copy()")),
            ("dx", "transposed", "w for w.T", ("dhidden @ w.T + dy", "dhidden @ w + dy")),
            ("dx", "wrong-mask", "the mask is forgotten", ("(dy @ u.T) * (hidden > 0)", "(dy @ u.T)")),
            ("dw", "swapped-gradients", "du before dw", ("return dx, dw, du", "return dx, du, dw")),
        ],
    ),
]


def figures(seed=0, show=print):
    """Check every mutant, tell each in a line, and return (planted, caught, named at once)."""
    caught = named = 0
    for mutant in MUTANTS:
        with np.errstate(all="ignore"):
            report = mutant.check(seed)
        first = report.diagnoses[0].cause if report.diagnoses else "nothing"
        caught += report.passed is not True
        named += first == mutant.cause
        mark, said = ("ok ", "") if first == mutant.cause else ("-- ", first)
        show(f"{mark} {mutant.cause:19}{str(mutant)[:62]:63}{said}".rstrip())
    show(f"{len(MUTANTS)} bugs planted: {caught} caught, {named} named at once")
    return len(MUTANTS), caught, named
