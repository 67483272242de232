"""Convolution: every output pixel is the dot product of a patch of the image with the kernel.

    y[n, i, j, o] = b[o] + sum over a, b, c of  x[n, i*stride + a - pad, j*stride + b - pad, c] * w[a, b, c, o]

Written as matrix products, `patches @ weights`, a block of output rows at a time, so that the patches (KH*KW times the
image) only ever exist for one block. Three ways to the same numbers, chosen by `correlate`:

    3x3, stride 1, many channels    Winograd's, a quarter of the products (winograd.py)
    few outputs, stride 1           product first, shift after (`_few_outputs`)
    all else                        the plain way (`_plain`)

Backward: the input's gradient is the transposed convolution of dy (conv_transpose.py), the kernel's gradient is
`patches.T @ dy`.
"""

import numpy as np

from .. import parallel
from . import arguments, winograd
from .windows import extended, patches


def conv2d(x, w, b=None, stride=1, pad=0, relu=False, memo=None):
    """Convolve x (N, H, W, C) with w (KH, KW, C, O), add b (O,): y (N, OH, OW, O), OH = (H + 2*pad - KH)//stride + 1.

    `relu=True` returns max(y, 0), done while each block is in cache. `memo`: a dict kept between calls with a kernel
    that never changes; it holds the kernel's Winograd transform. Returns (y, cache); float32 or float64 as x.
    Raises ValueError for a wrong shape, TypeError for a wrong dtype or mixed devices.
    """
    arguments.floating(x=x, w=w, b=b)
    arguments.shape("x", x, "N", "H", "W", "C")
    arguments.shape("w", w, "KH", "KW", x.shape[3], "O")
    if b is not None:
        arguments.shape("b", b, w.shape[3])
    stride, pad = arguments.whole("stride", stride, 1), arguments.whole("pad", pad, 0)
    size = tuple((x.shape[k + 1] + 2 * pad - w.shape[k]) // stride + 1 for k in (0, 1))
    if min(size) < 1:
        raise ValueError(
            f"x of {x.shape[1]}x{x.shape[2]} with pad {pad} is smaller than the kernel w of {w.shape[0]}x{w.shape[1]}; "
            "enlarge x or pad"
        )
    y = correlate(x, w, size, stride, pad, pad, b, relu, memo=memo)
    return y, (x, w, b is not None, stride, pad, y if relu else None, memo)


def conv2d_backward(dy, cache, need=("x", "w")):
    """Return dx, dw, db for dy (N, OH, OW, O); None where there is no b or the gradient is not in `need`.

    dx[n, h, w] = sum over the patches that (h, w) is in      db = sum of dy over N, OH, OW
    dw[a, b] = sum over n, i, j of  x[n, i*stride + a - pad, j*stride + b - pad] outer dy[n, i, j]
    """
    from .conv_transpose import transposed  # each convolution's backward is the other one

    x, w, has_b, stride, pad, mask, memo = cache
    arguments.floating(x=x, dy=dy)
    size = tuple((x.shape[k + 1] + 2 * pad - w.shape[k]) // stride + 1 for k in (0, 1))
    arguments.shape("dy", dy, x.shape[0], *size, w.shape[3])
    dx = dw = db = None
    if "x" in need:
        dx = transposed(dy, w, x.shape[1:3], stride, pad, pad, mask=mask, memo=memo)
    if "w" in need:
        if mask is not None:
            dy = dy * (mask > 0)
        dw = kernel_gradient(x, dy, w.shape[:2], stride, pad, pad)
        db = bias_gradient(dy) if has_b else None
    return dx, dw, db


def correlate(x, w, size, stride, top, left, b=None, relu=False, mask=None, memo=None, out=None):
    """The forward pass with every freedom that its callers need: y (N, *size, O) as above, where `top` and `left` stand
    for pad and may be any whole number, and x is zero outside its edges. `out`: where to put y, else a new array.
    `mask`: x counts as x * (mask > 0).
    """
    xp = arguments.floating(x=x)
    kh, kw, c, o = w.shape
    if out is None:
        out = xp.empty((x.shape[0], *size, o), x.dtype)
    finish = _finish(xp, b, relu)
    if winograd.suits(w.shape, stride):
        winograd.correlate(x, winograd.transformed(w, memo), size, top, left, finish, mask, out)
    elif stride == 1 and o * kh < c * kw // 4 and o < 16:
        _few_outputs(x, w, top, left, finish, mask, out)
    else:
        _plain(x, w, stride, top, left, finish, mask, out)
    return out


def _finish(xp, b, relu):
    """What is left to do with a block of y while it is in cache: bias and ReLU, in place."""

    def finish(y):
        if b is not None:
            y += b
        if relu:
            xp.maximum(y, 0, out=y)

    return finish


def _plain(x, w, stride, top, left, finish, mask, out):
    """y = patches @ w, a block of output rows at a time."""
    xp = arguments.floating(x=x)
    kh, kw, c, o = w.shape
    columns = out.shape[2]
    weights = w.reshape(-1, o)

    def job(block):
        image, row = block
        n, rows = image.stop - image.start, row.stop - row.start
        h, v = row.start * stride - top, -left
        window = extended(
            xp,
            x[image],
            h,
            h + (rows - 1) * stride + kh,
            v,
            v + (columns - 1) * stride + kw,
            "window",
            None if mask is None else mask[image],
        )
        patch = parallel.scratch(xp, "patch", (n, rows, columns, kh, kw * c), x.dtype)
        patch[...] = patches(xp, window, kh, kw, rows, columns, stride)
        y = parallel.scratch(xp, "y", (n * rows * columns, o), x.dtype)
        xp.matmul(patch.reshape(-1, kh * kw * c), weights, out=y)
        finish(y)
        out[image, row] = y.reshape(n, rows, columns, o)

    parallel.run(job, parallel.blocks(xp, out.shape[0], out.shape[1], columns * (kh * kw * c + o) * x.itemsize))


def _few_outputs(x, w, top, left, finish, mask, out):
    """Product first, shift after, at stride 1. A product with 3 columns wastes the machine, so each image row makes
    its contribution to all KH output rows that see it in one product with KH*O rows:

        p[a, o, h, j] = sum over b, c of  x[h, j + b - left, c] * w[a, b, c, o];     y[i] = sum over a of  p[a, :, i + a - top]
    """
    xp = arguments.floating(x=x)
    kh, kw, c, o = w.shape
    columns = out.shape[2]
    weights = xp.ascontiguousarray(w.transpose(0, 3, 1, 2).reshape(kh * o, kw * c))

    def job(block):
        image, row = block
        n, rows = image.stop - image.start, row.stop - row.start
        seen = rows + kh - 1
        window = extended(
            xp,
            x[image],
            row.start - top,
            row.start - top + seen,
            -left,
            columns + kw - 1 - left,
            "window",
            None if mask is None else mask[image],
        )
        patch = parallel.scratch(xp, "patch", (n, seen, columns, 1, kw * c), x.dtype)
        patch[...] = patches(xp, window, 1, kw, seen, columns, 1)
        p = parallel.scratch(xp, "product", (kh * o, n * seen * columns), x.dtype)
        xp.matmul(weights, patch.reshape(-1, kw * c).T, out=p)
        p = p.reshape(kh, o, n, seen, columns)
        y = parallel.scratch(xp, "y", (o, n, rows, columns), x.dtype)
        y[...] = p[0, :, :, :rows]
        for a in range(1, kh):
            y += p[a, :, :, a : a + rows]
        out[image, row] = y.transpose(1, 2, 3, 0)
        finish(out[image, row])

    row_bytes = columns * (kw * c + kh * o) * x.itemsize
    parallel.run(job, parallel.blocks(xp, out.shape[0], out.shape[1], row_bytes, max(parallel.BLOCK_BYTES, 3 * kh * row_bytes)))


def kernel_gradient(x, dy, kernel, stride, top, left):
    """dw (KH, KW, C, O) of `correlate`: each core sums patches.T @ dy over its blocks; the sums are added in order."""
    xp = arguments.floating(x=x, dy=dy)
    n, rows, columns, o = dy.shape
    kh, kw = kernel
    c = x.shape[3]
    if winograd.suits((kh, kw, c, o), stride):
        return winograd.kernel_gradient(x, dy, top, left)
    if stride == 1 and o * kh < c * kw // 4 and o < 16:
        return _few_outputs_kernel_gradient(x, dy, kernel, top, left)

    def job(group):
        total = xp.zeros((kh * kw * c, o), x.dtype)
        for image, row in group:
            n, rows = image.stop - image.start, row.stop - row.start
            h, v = row.start * stride - top, -left
            window = extended(xp, x[image], h, h + (rows - 1) * stride + kh, v, v + (columns - 1) * stride + kw, "window")
            patch = parallel.scratch(xp, "patch", (n, rows, columns, kh, kw * c), x.dtype)
            patch[...] = patches(xp, window, kh, kw, rows, columns, stride)
            total += patch.reshape(-1, kh * kw * c).T @ dy[image, row].reshape(-1, o)
        return total

    work = parallel.blocks(xp, n, rows, columns * (kh * kw * c + o) * x.itemsize)
    return sum(parallel.run(job, parallel.groups(xp, work))).reshape(kh, kw, c, o)


def _few_outputs_kernel_gradient(x, dy, kernel, top, left):
    """`_few_outputs` transposed: dw[a] = sum over h of  patch of row h, transposed, @ dy[h - a + top]."""
    xp = arguments.floating(x=x, dy=dy)
    n, rows, columns, o = dy.shape
    kh, kw = kernel
    c = x.shape[3]
    first, seen = -top, rows + kh - 1  # the image rows (from `first`) that some output sees

    def job(group):
        total = xp.zeros((kw * c, kh * o), x.dtype)
        for image, row in group:
            n, rows = image.stop - image.start, row.stop - row.start
            h = first + row.start
            window = extended(xp, x[image], h, h + rows, -left, columns + kw - 1 - left, "window")
            patch = parallel.scratch(xp, "patch", (n, rows, columns, 1, kw * c), x.dtype)
            patch[...] = patches(xp, window, 1, kw, rows, columns, 1)
            shifted = parallel.scratch(xp, "shifted", (n, rows, columns, kh, o), x.dtype)
            for a in range(kh):
                i = row.start - a
                shifted[:, :, :, a] = extended(xp, dy[image], i, i + rows, 0, columns, "dy")
            total += patch.reshape(-1, kw * c).T @ shifted.reshape(-1, kh * o)
        return total

    work = parallel.blocks(xp, n, seen, columns * (kw * c + 2 * kh * o) * x.itemsize)
    dw = sum(parallel.run(job, parallel.groups(xp, work)))
    return xp.ascontiguousarray(dw.reshape(kw, c, kh, o).transpose(2, 0, 1, 3))


def bias_gradient(dy):
    """db (O,): the sum of dy over all pixels; float32 sums a block at a time, for one long float32 sum drifts."""
    xp = arguments.floating(dy=dy)
    work = parallel.blocks(xp, dy.shape[0], dy.shape[1], dy.shape[2] * dy.shape[3] * dy.itemsize)
    sums = parallel.run(lambda block: dy[block].sum(axis=(0, 1, 2)), work)
    return sum(s.astype(np.float64) for s in sums).astype(dy.dtype)


def conv2d_naive(x, w, b=None, stride=1, pad=0):
    """The definition in plain loops, for tests and lessons: y as conv2d's."""
    (n, h, wd, _), (kh, kw, _, o) = x.shape, w.shape
    oh, ow = (h + 2 * pad - kh) // stride + 1, (wd + 2 * pad - kw) // stride + 1
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    y = np.zeros((n, oh, ow, o), x.dtype)
    for k in range(n):
        for i in range(oh):
            for j in range(ow):
                patch = padded[k, i * stride : i * stride + kh, j * stride : j * stride + kw]
                for f in range(o):
                    y[k, i, j, f] = (patch * w[:, :, :, f]).sum() + (0 if b is None else b[f])
    return y
