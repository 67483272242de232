"""Transposed convolution (the paper's "stride 1/2"): each input pixel paints the kernel, times its value, on the output.

    y[n, i*stride + a - pad, j*stride + b - pad, c] += x[n, i, j, o] * w[a, b, c, o]

With the same w it is the adjoint of conv2d: <conv2d(u, w), x> = <u, conv_transpose2d(x, w)>; so each is the other's backward.
Painting would make neighbours write on the same pixel. Seen from the output, the pixels whose row and column have the same
remainder by `stride` see the same taps of the kernel: stride*stride small ordinary convolutions of x, none of which meets
another.
"""

import numpy as np

from . import arguments
from .conv import bias_gradient, correlate, kernel_gradient


def conv_transpose2d(x, w, b=None, stride=2, pad=1, output_pad=1):
    """Transposed convolution of x (N, H, W, IN) with w (KH, KW, OUT, IN), plus b (OUT,): y (N, OH, OW, OUT),
    OH = (H - 1)*stride - 2*pad + KH + output_pad (3x3, stride 2, pad 1, output_pad 1: twice the size).

    `output_pad` (less than stride) rows and columns more at the bottom and right: of the input sizes that conv2d maps to H,
    it picks one. Returns (y, cache). Raises ValueError for a wrong shape, TypeError for a wrong dtype or mixed devices.
    """
    arguments.floating(x=x, w=w, b=b)
    arguments.shape("x", x, "N", "H", "W", "IN")
    arguments.shape("w", w, "KH", "KW", "OUT", x.shape[3])
    if b is not None:
        arguments.shape("b", b, w.shape[2])
    stride, pad = arguments.whole("stride", stride, 1), arguments.whole("pad", pad, 0)
    output_pad = arguments.whole("output_pad", output_pad, 0)
    if output_pad >= stride:
        raise ValueError(f"output_pad is {output_pad}; it should be less than the stride, {stride}")
    size = tuple((x.shape[k + 1] - 1) * stride - 2 * pad + w.shape[k] + output_pad for k in (0, 1))
    if min(size) < 1:
        raise ValueError(f"pad {pad} leaves nothing of the output ({size[0]}x{size[1]}); use a smaller pad")
    return transposed(x, w, size, stride, pad, pad, b), (x, w, b is not None, stride, pad, size)


def conv_transpose2d_backward(dy, cache, need=("x", "w")):
    """Return dx, dw, db for dy (N, OH, OW, OUT): dx is conv2d of dy with w, dw is conv2d's with x and dy in each other's
    place, db the sum of dy. None where there is no b or the gradient is not in `need`."""
    x, w, has_b, stride, pad, size = cache
    arguments.floating(x=x, dy=dy)
    arguments.shape("dy", dy, x.shape[0], *size, w.shape[2])
    dx = dw = db = None
    if "x" in need:
        dx = correlate(dy, w, x.shape[1:3], stride, pad, pad)
    if "w" in need:
        dw = kernel_gradient(dy, x, w.shape[:2], stride, pad, pad)
        db = bias_gradient(dy) if has_b else None
    return dx, dw, db


def transposed(x, w, size, stride, top, left, b=None, mask=None, memo=None):
    """y (N, *size, OUT), the adjoint of `correlate`; `mask` and `memo` as there.

    Output row stride*q + r sees kernel rows a = a0, a0 + stride, ... with a0 = (r + top) mod stride, and the input rows
    q + (r + top)//stride, and before: a convolution of x with those rows of the kernel, turned round.
    """
    xp = arguments.floating(x=x)
    y = xp.empty((x.shape[0], *size, w.shape[2]), x.dtype)
    for r in range(min(stride, size[0])):
        for s in range(min(stride, size[1])):
            out = y[:, r::stride, s::stride]
            key = (r, s)
            part = memo.setdefault(key, {}) if memo is not None else {}
            if "w" not in part:
                taps = w[(r + top) % stride :: stride, (s + left) % stride :: stride]
                part["w"] = taps[::-1, ::-1].transpose(0, 1, 3, 2)
            taps = part["w"]
            if 0 in taps.shape:  # a kernel smaller than the stride leaves gaps
                out[...] = 0 if b is None else b
                continue
            above, before = taps.shape[0] - 1 - (r + top) // stride, taps.shape[1] - 1 - (s + left) // stride
            correlate(
                x,
                taps,
                out.shape[1:3],
                1,
                above,
                before,
                b,
                mask=mask,
                memo=None if memo is None else part,
                out=out,
            )
    return y


def conv_transpose2d_naive(x, w, b=None, stride=2, pad=1, output_pad=1):
    """The definition in plain loops, for tests and lessons: y as conv_transpose2d's."""
    (n, h, wd, _), (kh, kw, c, _) = x.shape, w.shape
    oh, ow = (h - 1) * stride - 2 * pad + kh + output_pad, (wd - 1) * stride - 2 * pad + kw + output_pad
    y = np.zeros((n, oh, ow, c), x.dtype)
    for k in range(n):
        for i in range(h):
            for j in range(wd):
                for a in range(kh):
                    for e in range(kw):
                        row, column = i * stride + a - pad, j * stride + e - pad
                        if 0 <= row < oh and 0 <= column < ow:
                            y[k, row, column] += w[a, e] @ x[k, i, j]
    return y if b is None else y + b
