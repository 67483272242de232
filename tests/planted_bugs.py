"""Mistakes people make, one small edit each in a right backward pass, and the cause to be named.

A row is (gradient, cause, old text, new text, ...). It is good reading: each line could have been yours.
"""

import solutions as s

from tinynst.gradcheck.cases import operation_case

X = {"x": (3, 5, 7, 4)}
NORM = {"x": (3, 5, 4, 2), "gamma": (2,), "beta": (2,)}
STATISTICS = {**NORM, "running_mean": (2,), "running_var": (2,)}
SMALL = {"x": (3, 5, 6, 2), "w": (3, 3, 2, 4), "b": (4,)}
SQUARE = {"x": (3, 5, 6, 4), "w": (3, 3, 4, 4), "b": (4,)}
TALL = {"x": (3, 6, 5, 2), "w": (3, 2, 2, 4), "b": (4,)}
UP = {"x": (3, 3, 4, 4), "w": (3, 3, 2, 4), "b": (2,)}
PAINT, DW, DB = (
    "dxp[at] += dy @ w[i, j].T",
    "dw[i, j] = np.tensordot(xp[at], dy, ((0, 1, 2), (0, 1, 2)))",
    "dy.sum(axis=(0, 1, 2))",
)
DX, END = "dx = dxp[:, pad : pad + x.shape[1], pad : pad + x.shape[2]]", "return dx, dw, db"
DOWN, UPWARDS, ACROSS, BACK = (
    "dy[:, 1:] += down",
    "dy[:, :-1] -= down",
    "dy[:, :, 1:] += across",
    "dy[:, :, :-1] -= across",
)

BUGS = [  # operation, solution, shapes, options, rows
    ("conv2d", s.CONV, SMALL, {"pad": 1}, [
        ("dx", "overwritten", "dxp[at] +=", "dxp[at] ="),
        ("dx", "partial-batch", PAINT, "dxp[at][0] += (dy @ w[i, j].T).sum(axis=0)"),
        ("dx", "shifted", DX, DX.replace("dxp[", "np.roll(dxp, -1, 1)[")),
        ("dx", "shifted", DX, "dx = dxp[:, : x.shape[1], : x.shape[2]]"),
        ("dx", "flipped", PAINT, "dxp[at] += dy @ w[kh - 1 - i, kw - 1 - j].T"),
        ("dx", "border", END, f"dx[:, [0, -1]] = 0; {END}"),
        ("dx", "partial-batch", END, f"dx[1:] = 0; {END}"),
        ("dx", "missing-sum", PAINT, "dxp[at] += dy[..., :1] @ w[i, j, :, :1].T"),
        ("dw", "scaled", DW, f"{DW} / n"),
        ("dw", "scaled", DW, f"{DW} / (n * oh * ow)"),
        ("dw", "scaled", DW, DW.replace("= np", "= -np")),
        ("dw", "flipped", END, "return dx, dw[::-1, ::-1], db"),
        ("dw", "partial-batch", "tensordot(xp[at], dy, ((0, 1, 2), (0, 1, 2)))",
            "tensordot(xp[at][-1], dy[-1], ((0, 1), (0, 1)))"),
        ("dw", "partial-batch", "xp[at], dy, (", "xp[at][1:], dy[1:], ("),
        ("dw", "shifted", "dw[i, j] =", "dw[i - 1, j] ="),
        ("dw", "border", "xp[at], dy, (", "xp[at][:, 1:-1, 1:-1], dy[:, 1:-1, 1:-1], ("),
        ("dw", "zero", END, "return dx, 0 * dw, db"),
        ("db", "missing-sum", DB, "dy[:, 0, 0].sum(axis=0)"),
        ("db", "missing-sum", DB, "dy.sum(axis=(1, 2))"),
        ("db", "scaled", DB, DB.replace("sum", "mean")),
        ("db", "partial-batch", DB, "dy[-1].sum(axis=(0, 1))"),
        ("db", "wrong-shape", DB, "dy.sum(axis=(0, 1, 2), keepdims=True)"),
        ("dw", "not-finite", DW, f"{DW} / (0.0 * n)"),
        ("dy", "changed-input", "    dxp, dw =", "    dy *= 2; dy /= 2.000001\n    dxp, dw ="),
    ]),
    ("conv2d", s.CONV, SQUARE, {"pad": 1}, [
        ("dx", "transposed", PAINT, "dxp[at] += dy @ w[i, j]"),
        ("dw", "transposed", DW, f"{DW}.T"),
    ]),
    ("conv2d", s.CONV, TALL, {}, [
        ("dw", "transposed", END, "return dx, dw.transpose(3, 2, 0, 1).reshape(w.shape), db"),
        ("dx", "swapped-gradients", END, "return dw, dx, db"),
    ]),
    ("conv2d", s.CONV, TALL, {"stride": 2, "pad": 1}, [("dx", "overwritten", "dxp[at] +=", "dxp[at] =")]),
    ("conv_transpose2d", s.TRANSPOSE, UP, {}, [
        ("dx", "flipped", "seen @ w[i, j]", "seen @ w[-1 - i, -1 - j]"),
        ("dw", "flipped", END, "return dx, dw[::-1, ::-1], db"),
        ("dw", "scaled", END, "return dx, dw / len(x), db"),
        ("dx", "shifted", "large[:, pad : shape[1] - pad, pad : shape[2] - pad]",
            "large[:, : dy.shape[1], : dy.shape[2]]"),
        ("db", "scaled", DB, f"{DB} / stride**2"),
    ]),
    ("batch_norm", s.BATCH_NORM, STATISTICS, {}, [
        ("dx", "missing-term", "dy - dy.mean(axis=AXES) -", "dy -"),
        ("dx", "missing-term", " - xhat * (dy * xhat).mean(axis=AXES)", ""),
        ("dx", "missing-term", "    if training:\n        dx", "    if not training:\n        dx"),
        ("dx", "running-statistics", "gamma / std * (dy -", "gamma / np.sqrt(running_var + 1e-5) * (dy -"),
        ("dx", "scaled", "dx = gamma / std * (dy -", "dx = 1 / std * (dy -"),
        ("dx", "scaled", "dx = gamma / std * (dy -", "dx = gamma * (dy -"),
        ("dgamma", "partial-batch", "(dy * xhat).sum(axis=AXES), dy", "(dy * xhat)[-1].sum(axis=(0, 1)), dy"),
        ("dbeta", "scaled", "dy.sum(axis=AXES)", "dy.sum(axis=AXES) / len(dy)"),
        ("dgamma", "swapped-gradients", "return dx, dgamma, dbeta", "return dx, dbeta, dgamma"),
    ]),
    ("instance_norm", s.INSTANCE_NORM, NORM, {}, [
        ("dx", "missing-term", "dy - mean_term -", "dy -"),
        ("dx", "missing-term", " - std_term", ""),
        ("dx", "missing-term", "- std_term", "+ std_term"),
        ("dx", "scaled", "gamma / std * (", "gamma * ("),
        ("dgamma", "scaled", "(dy * xhat).sum", "(dy * (xhat * std)).sum"),
        ("dgamma", "missing-term", "(dy * xhat).sum", "(dy * x).sum"),
        ("dbeta", "partial-batch", ", dy.sum(axis=(0, 1, 2))", ", dy[0].sum(axis=(0, 1))"),
        ("dx", "noise", "return dx,", "return dx.astype(np.float32).astype(float),"),
    ]),
    ("reflect_pad2d", s.PAD, X, {"pad": 2}, [
        ("dx", "overwritten", "[:, row] +=", "[:, row] =", "[:, :, column] +=", "[:, :, column] ="),
        ("dx", "border", "return dx", "return dy[:, 2 : 2 + h, 2 : 2 + w].copy()"),
        ("dx", "border", "enumerate(rows)", "enumerate([0, 1, 0, 1, 2, 3, 4, 3, 4])"),
    ]),
    ("center_crop", s.CROP, X, {"crop": 1}, [
        ("dx", "shifted", "crop, crop\n", "crop - 1, crop\n"),
        ("dx", "scaled", "= dy\n", "= 2 * dy\n"),
    ]),
    ("max_pool2d", s.POOL, X, {}, [
        ("dx", "wrong-mask", "argmax", "argmin"),
        ("dx", "wrong-mask", "(mask * dy[..., None])", "(np.ones(mask.shape) * dy[..., None])"),
        ("dx", "wrong-mask", "np.arange(size * size) == squares.argmax(axis=-1)[..., None]",
            "squares == squares.max(axis=-1)[..., None]"),
        ("dx", "scaled", "return dx", "return dx / size**2"),
        ("dx", "border", "return dx", "dx[:, :, -1] = 1; return dx"),
    ]),
    ("upsample_nearest", s.UPSAMPLE, X, {}, [
        ("dx", "missing-sum", ".sum(axis=(2, 4))", "[:, :, 0, :, 0].copy()"),
        ("dx", "missing-sum", ".sum(axis=(2, 4))", ".sum(axis=2)[:, :, :, 0].copy()"),
        ("dx", "overwritten", ".sum(axis=(2, 4))", "[:, :, -1, :, -1].copy()"),
        ("dx", "scaled", ".sum(axis=(2, 4))", ".mean(axis=(2, 4))"),
        ("dx", "transposed", "n, h, s, w, s, c).sum(axis=(2, 4))", "n, s, h, s, w, c).sum(axis=(1, 3))"),
    ]),
    ("relu", s.RELU, X, {}, [
        ("dx", "wrong-mask", "x > 0", "x <= 0"),
        ("dx", "wrong-mask", "x > 0", "x >= 0"),
        ("dx", "wrong-mask", "x > 0", "x > -9"),
        ("dx", "wrong-mask", "x > 0", "dy > 0"),
        ("dx", "missing-term", "dy * (x", "1.0 * (x"),
        ("dx", "stale-cache", "import numpy as np\n", "import numpy as np\nKEPT = []\n",
            "    return dy * (x > 0)", "    KEPT.append(x); return dy * (KEPT[0] > 0)"),
    ]),
    ("scaled_tanh", s.TANH, X, {}, [
        ("dx", "scaled", "dy * scale * (", "dy * ("),
        ("dx", "missing-term", " * (1 - t**2)", ""),
        ("dx", "missing-term", "t**2", "t"),
        ("dx", "missing-term", "t**2", "x**2"),
        ("dx", "missing-term", "t**2", "np.tanh(t) ** 2"),
    ]),
    ("gram_matrix", s.GRAM, {"f": X["x"]}, {}, [
        ("df", "missing-term", "(dgram + dgram.transpose(0, 2, 1))", "(2 * dgram)"),
        ("df", "partial-batch", "p @ (", "p[:1].repeat(n, 0) @ (",
            "+ dgram.transpose(0, 2, 1))", "+ dgram.transpose(0, 2, 1))[:1]"),
        ("df", "transposed", "reshape(n, h, w, c)", "reshape(n, w, h, c).swapaxes(1, 2)"),
        ("df", "scaled", " / (c * h * w)\n    return df", "\n    return df"),
        ("df", "scaled", " / (c * h * w)\n    return df", " / (h * w)\n    return df"),
    ]),
    ("feature_loss", s.FEATURE, {"f": (3, 4, 5, 2), "target": (3, 4, 5, 2)}, {}, [
        ("df", "scaled", "2 * d / f.size", "d / f.size"),
        ("df", "scaled", "2 * d / f.size", "2 * d / len(f)"),
        ("df", "scaled", "2 * d / f.size", "-2 * d / f.size"),
        ("df", "missing-term", "2 * d / f.size", "2 * f / f.size"),
        ("df", "partial-batch", "    return", "    df[1:] = 0\n    return"),
    ]),
    ("style_loss", s.STYLE, {"f": (2, 3, 4, 3), "target_gram": (3, 3)}, {}, [
        ("df", "scaled", "2 * p @", "p @"),
        ("df", "missing-term", "(2 * d)", "(2 * gram)"),
    ]),
    ("tv_loss", s.TV, {"y": (2, 5, 6, 2)}, {}, [
        ("dy", "overwritten", BACK, "dy[:, :, :-1] = -across"),
        ("dy", "overwritten", UPWARDS, "dy[:, :-1] = -down"),
        ("dy", "missing-term", ACROSS, "pass", BACK, "pass"),
        ("dy", "missing-term", UPWARDS, "pass", BACK, "pass"),
        ("dy", "scaled", "dy / n", "dy"),
        ("dy", "scaled", UPWARDS, "dy[:, :-1] += down"),
        ("dy", "scaled", ACROSS, ACROSS.replace("+", "-"), BACK, BACK.replace("-=", "+=")),
        ("dy", "scaled", DOWN, "dy[:, 1:] += 2 * down", UPWARDS, "dy[:, :-1] -= 2 * down"),
        ("dy", "border", UPWARDS, "dy[:, :-2] -= down[:, :-1]"),
    ]),
    ("block", s.BLOCK, {"x": (2, 3, 4, 3), "w": (3, 3), "u": (3, 3)}, {}, [
        ("dx", "missing-term", "@ w.T + dy", "@ w.T"),
        ("dx", "missing-term", "@ w.T + dy", "@ w.T - dy"),
        ("dx", "missing-term", "@ w.T + dy", "@ w.T + 2 * dy"),
        ("dx", "shifted", "@ w.T + dy", "@ w.T + np.roll(dy, 1, 1)"),
        ("dx", "missing-term", "dx = dhidden @ w.T + dy", "dx = dy.copy()"),
        ("dx", "transposed", "dhidden @ w.T + dy", "dhidden @ w + dy"),
        ("dx", "wrong-mask", "(dy @ u.T) * (hidden > 0)", "(dy @ u.T)"),
        ("dw", "swapped-gradients", "return dx, dw, du", "return dx, du, dw"),
    ]),
    # the held-out ones: written in one go when the checker was finished, and all named at the first run
    ("conv2d", s.CONV, SMALL, {"pad": 1}, [
        ("dx", "transposed", PAINT, "dxp[at] += dy @ w[j, i].T"),
        ("dx", "scaled", PAINT, "dxp[at] += dy @ w[i, j].T / (kh * kw)"),
        ("dw", "flipped", "dw[i, j] =", "dw[i, kw - 1 - j] ="),
        ("dw", "missing-sum", DW, "dw[i, j] = np.tensordot(xp[at][:, 0], dy[:, 0], ((0, 1), (0, 1)))"),
        ("db", "partial-batch", DB, "dy[:2].sum(axis=(0, 1, 2))"),
        ("dx", "border", END, f"dx[:, -1] *= 0.5; {END}"),
    ]),
    ("conv_transpose2d", s.TRANSPOSE, UP, {}, [
        ("dx", "partial-batch", "seen @ w[i, j]", "seen[:1] @ w[i, j]"),
        ("dw", "partial-batch", "(seen, x, ((0, 1, 2), (0, 1, 2)))", "(seen[0], x[0], ((0, 1), (0, 1)))"),
        ("dx", "overwritten", "dx += seen", "dx = seen"),
        ("db", "missing-sum", DB, "dy[:, ::2, ::2].sum(axis=(0, 1, 2))"),
    ]),
    ("batch_norm", s.BATCH_NORM, STATISTICS, {}, [
        ("dgamma", "missing-term", "(dy * xhat).sum(axis=AXES), dy", "(dy * xhat**2).sum(axis=AXES), dy"),
        ("dx", "scaled", "dx = gamma / std * (dy -", "dx = gamma / std**2 * (dy -"),
        ("dbeta", "missing-sum", "dy.sum(axis=AXES)", "dy[:, 0, 0].sum(axis=0)"),
    ]),
    ("instance_norm", s.INSTANCE_NORM, NORM, {}, [
        ("dx", "missing-term", "- std_term", "- 2 * std_term"),
        ("dgamma", "partial-batch", "(dy * xhat).sum(", "(dy * xhat)[1:].sum("),
        ("dgamma", "swapped-gradients", "return dx, dgamma, dbeta", "return dx, dbeta, dgamma"),
        ("dbeta", "scaled", "dy.sum(axis=(0, 1, 2))", "dy.mean(axis=(0, 1, 2))"),
    ]),
    ("reflect_pad2d", s.PAD, X, {"pad": 2}, [
        ("dx", "scaled", "return dx", "return dx / 2"),
        ("dx", "flipped", "enumerate(columns)", "enumerate(columns[::-1])"),
    ]),
    ("center_crop", s.CROP, X, {"crop": 1}, [
        ("dx", "partial-batch", "dx[:, top", "dx[1:, top", "= dy\n", "= dy[1:]\n"),
    ]),
    ("max_pool2d", s.POOL, X, {}, [
        ("dx", "wrong-mask", "size) == squares", "size) != squares"),
        ("dx", "scaled", "return dx", "return -dx"),
    ]),
    ("upsample_nearest", s.UPSAMPLE, X, {}, [
        ("dx", "missing-sum", ".sum(axis=(2, 4))", ".sum(axis=4)[:, :, 0].copy()"),
    ]),
    ("relu", s.RELU, X, {}, [("dx", "wrong-mask", "x > 0", "x > 0.5")]),
    ("scaled_tanh", s.TANH, X, {}, [("dx", "missing-term", "1 - t**2", "1 + t**2")]),
    ("gram_matrix", s.GRAM, {"f": X["x"]}, {}, [
        ("df", "missing-term", "(dgram + dgram.transpose(0, 2, 1))", "dgram"),
        ("df", "scaled", " / (c * h * w)\n    return df", " / (c * h * w) / n\n    return df"),
    ]),
    ("feature_loss", s.FEATURE, {"f": (3, 4, 5, 2), "target": (3, 4, 5, 2)}, {}, [
        ("df", "missing-term", "2 * d / f.size", "2 * abs(d) / f.size"),
    ]),
    ("style_loss", s.STYLE, {"f": (2, 3, 4, 3), "target_gram": (3, 3)}, {}, [
        ("df", "scaled", " / (c * h * w) / n", " / (c * h * w)"),
    ]),
    ("tv_loss", s.TV, {"y": (2, 5, 6, 2)}, {}, [("dy", "overwritten", ACROSS, "dy[:, :, 1:] = across")]),
]  # fmt: skip
PLANTED = [(name, text, shapes, options, row) for name, text, shapes, options, rows in BUGS for row in rows]


def report_of(name, text, shapes, options, row=(), seed=0):
    """The Report of a solution with the edits of a row."""
    module = {}
    exec(compile(s.changed(text, *row[2:]), "<a planted bug>", "exec"), module)
    return operation_case(name, module[name], module.get(f"{name}_backward"), shapes, options).check(seed)
