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

from . import arguments
from .activations import rectify
from .fast import parallel, winograd
from .fast.statistics import pixel_sum
from .fast.windows import extended, patches, planar_patches


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
    if out is None:
        out = xp.empty((x.shape[0], *size, w.shape[3]), x.dtype)
    finish = _finish(xp, b, relu)
    if winograd.suits(w.shape, stride):
        winograd.correlate(x, winograd.transformed(w, memo), size, top, left, b, relu, mask, out)
    elif _suits_few_outputs(w.shape, stride):
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
            rectify(xp, y, out=y)

    return finish


def _plain(x, w, stride, top, left, finish, mask, out):
    """y = patches @ w, a block of output rows at a time."""
    xp = arguments.floating(x=x)
    kh, kw, c, o = w.shape
    columns = out.shape[2]
    few_inputs = _few_inputs(w.shape)
    cut = planar_patches if few_inputs else patches
    weights = parallel.panels(xp, (w.transpose(2, 0, 1, 3) if few_inputs else w).reshape(-1, o))

    def job(block):
        image, row = block
        rows = row.stop - row.start
        window = _window(
            xp, x[image], w.shape, row, columns, stride, top, left, None if mask is None else mask[image]
        )
        place = out[image, row]
        y = place if place.flags.c_contiguous else parallel.scratch(xp, "y", place.shape, x.dtype)
        parallel.product(xp, cut(xp, window, (kh, kw), rows, columns, stride), weights, y.reshape(-1, o))
        finish(y)
        if y is not place:
            place[...] = y

    parallel.run(
        job, parallel.blocks(xp, out.shape[0], out.shape[1], columns * (kh * kw * c + o) * x.itemsize)
    )


def _window(xp, x, kernel, row, columns, stride, top, left, mask=None):
    """What the output rows `row` see of x."""
    h, v = row.start * stride - top, -left
    bottom, right = (row.stop - 1) * stride - top + kernel[0], v + (columns - 1) * stride + kernel[1]
    return extended(xp, x, h, bottom, v, right, "window", mask)


def _few_inputs(kernel):
    """Does an image row make a longer run to copy than a row of the kernel? (see `planar_patches`)"""
    return kernel[1] * kernel[2] < 64


def _suits_few_outputs(kernel, stride):
    kh, kw, c, o = kernel
    return stride == 1 and o < 16 and kh * o < kw * c // 4


def _few_outputs(x, w, top, left, finish, mask, out):
    """Product first, shift after, at stride 1. A product with 3 columns wastes the machine, so each image row makes
    its contribution to all KH output rows that see it in one product with KH*O columns:

        p[h, j, a, o] = sum over b, c of  x[h, j + b - left, c] * w[a, b, c, o];     y[i] = sum over a of  p[i + a - top, :, a]

    With many channels and few taps each *pixel* makes its contribution to all KH*KW output pixels that see it: no patches.
    """
    xp = arguments.floating(x=x)
    kh, kw, c, o = w.shape
    across = (
        1 if 2 * kh * kw * o < 3 * c else kw
    )  # a patch is 1 x across; KH*KW*O numbers to add, or KW*C to copy
    shifts = kw // across
    rows_out, columns = out.shape[1:3]
    wide = columns + kw - across
    weights = (
        w.reshape(kh, shifts, across, c, o).transpose(2, 3, 0, 1, 4).reshape(across * c, kh * shifts * o)
    )
    weights = parallel.panels(xp, weights)

    row_bytes = wide * (across * c + kh * shifts * o) * x.itemsize

    def job(block):
        image, row = block
        n, count = image.stop - image.start, row.stop - row.start
        # a plane for each a, b and o: long rows to add
        p = parallel.scratch(xp, "product", (kh, shifts, o, n, count + kh - 1, wide), x.dtype)
        for _, part in parallel.blocks(xp, 1, count + kh - 1, n * row_bytes):
            rows = slice(row.start + part.start, row.start + part.stop)
            window = _window(
                xp, x[image], (1, across), rows, wide, 1, top, left, None if mask is None else mask[image]
            )
            patch = patches(xp, window, (1, across), part.stop - part.start, wide)
            q = parallel.scratch(xp, "part", (kh * shifts * o, patch.shape[0]), x.dtype)
            parallel.product(xp, patch, weights, q.T)
            p[..., part, :] = q.reshape(kh, shifts, o, n, -1, wide)
        y = parallel.scratch(xp, "y", (o, n, count, columns), x.dtype)
        y[...] = p[0, 0, :, :, :count, :columns]
        for a, b in list(np.ndindex(kh, shifts))[1:]:
            y += p[a, b, :, :, a : a + count, b : b + columns]
        finish(y.transpose(1, 2, 3, 0))
        out[image, row] = y.transpose(1, 2, 3, 0)

    # The KH - 1 rows around a block are computed for its neighbours again: large blocks, cut once more inside
    work = parallel.blocks(
        xp, out.shape[0], rows_out, row_bytes, max(parallel.BLOCK_BYTES, 4 * kh * row_bytes)
    )
    parallel.run(job, work)


def kernel_gradient(x, dy, kernel, stride, top, left):
    """dw (KH, KW, C, O) of `correlate`: each core sums patches.T @ dy over its blocks; the sums are added in order."""
    xp = arguments.floating(x=x, dy=dy)
    (kh, kw), c, o = kernel, x.shape[3], dy.shape[3]
    if winograd.suits((kh, kw, c, o), stride):
        return winograd.kernel_gradient(x, dy, top, left)
    if _suits_few_outputs((kh, kw, c, o), stride):
        return _few_outputs_kernel_gradient(x, dy, kernel, top, left)
    n, rows, columns, _ = dy.shape
    few_inputs = _few_inputs((kh, kw, c, o))
    cut = planar_patches if few_inputs else patches

    def job(group):
        total = xp.zeros((kh * kw * c, o), x.dtype)
        for image, row in group:
            window = _window(xp, x[image], kernel, row, columns, stride, top, left)
            patch = cut(xp, window, kernel, row.stop - row.start, columns, stride)
            total += parallel.summed_product(xp, patch, dy[image, row].reshape(-1, o))
        return total

    work = parallel.blocks(xp, n, rows, columns * (kh * kw * c + o) * x.itemsize)
    dw = sum(parallel.run(job, parallel.groups(xp, work)))
    return (
        xp.ascontiguousarray(dw.reshape(c, kh, kw, o).transpose(1, 2, 0, 3))
        if few_inputs
        else dw.reshape(kh, kw, c, o)
    )


def _few_outputs_kernel_gradient(x, dy, kernel, top, left):
    """`_few_outputs` transposed: a row h of x meets the rows h + top - a of dy, a = KH - 1 .. 0, a patch of KH x 1 in dy."""
    xp = arguments.floating(x=x, dy=dy)
    (kh, kw), c, (n, rows, columns, o) = kernel, x.shape[3], dy.shape

    def job(group):
        total = xp.zeros((kw * c, kh * o), x.dtype)
        for image, row in group:  # rows of x, counted from the first that some output sees
            window = _window(xp, x[image], (1, kw), row, columns, 1, top, left)
            seen_by = extended(xp, dy[image], row.start - kh + 1, row.stop, 0, columns, "dy")
            patch = patches(xp, window, (1, kw), row.stop - row.start, columns)
            total += parallel.summed_product(
                xp, patch, patches(xp, seen_by, (kh, 1), row.stop - row.start, columns, name="dy patch")
            )
        return total

    work = parallel.blocks(xp, n, rows + kh - 1, columns * (kw * c + 2 * kh * o) * x.itemsize)
    dw = sum(parallel.run(job, parallel.groups(xp, work)))
    return xp.ascontiguousarray(dw.reshape(kw, c, kh, o)[:, :, ::-1].transpose(2, 0, 1, 3))


def bias_gradient(dy):
    """db (O,): the sum of dy over all pixels; float32 sums a block at a time, for one long float32 sum drifts."""
    xp = arguments.floating(dy=dy)
    work = parallel.blocks(xp, dy.shape[0], dy.shape[1], dy.shape[2] * dy.shape[3] * dy.itemsize)
    sums = parallel.run(lambda block: pixel_sum(xp, dy[block]).sum(axis=0), work)
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
