"""Convolutions as matrix products, a block of output rows at a time: only a block's patches exist at once.

There are three ways to the same numbers, chosen by `correlate`:

    3x3 kernel, stride 1, many channels      Winograd's algorithm, a quarter of the products (winograd.py)
    few output channels, stride 1            product first, shift after (`_shifted_products`)
    all others                               patches @ weights (`_patch_products`)

The input's gradient is a transposed convolution, and a transposed convolution is stride*stride convolutions.
"""

import functools

import numpy as np

from ...device import array_module
from .. import arguments, conv_transpose
from .. import conv as plain
from . import parallel, winograd
from .matmul import panels, pixel_sum, product, summed_product
from .parallel import scratch
from .windows import patches


@functools.wraps(plain.conv2d)
def conv2d(x, w, b=None, stride=1, pad=0, relu=False, memo=None):
    xp, stride, pad, size = plain.check(x, w, b, stride, pad)
    y = xp.empty((x.shape[0], *size, w.shape[3]), x.dtype)
    correlate(x, w, y, stride, (pad, pad), b, relu, memo=memo)
    return y, (x, w, b is not None, stride, pad, size, y if relu else None, memo)


@functools.wraps(plain.conv2d_backward)
def conv2d_backward(dy, cache, need=("x", "w")):
    x, w, has_b, stride, pad, size, rectified, memo = cache
    arguments.floating(x=x, dy=dy)
    arguments.shape("dy", dy, x.shape[0], *size, w.shape[3])
    dx = dw = db = None
    if "x" in need:
        dx = transposed(dy, w, x.shape[1:3], stride, pad, mask=rectified, memo=memo)
    if "w" in need:
        if rectified is not None:
            dy = dy * (rectified > 0)
        dw = kernel_gradient(x, dy, w.shape[:2], stride, (pad, pad))
        db = bias_gradient(dy) if has_b else None
    return dx, dw, db


@functools.wraps(conv_transpose.conv_transpose2d)
def conv_transpose2d(x, w, b=None, stride=2, pad=1, output_pad=1):
    _, stride, pad, size = conv_transpose.check(x, w, b, stride, pad, output_pad)
    return transposed(x, w, size, stride, pad, b), (x, w, b is not None, stride, pad, size)


@functools.wraps(conv_transpose.conv_transpose2d_backward)
def conv_transpose2d_backward(dy, cache, need=("x", "w")):
    x, w, has_b, stride, pad, size = cache
    xp = arguments.floating(x=x, dy=dy)
    arguments.shape("dy", dy, x.shape[0], *size, w.shape[2])
    dx = dw = db = None
    if "x" in need:
        dx = xp.empty(x.shape, x.dtype)
        correlate(dy, w, dx, stride, (pad, pad))
    if "w" in need:
        dw = kernel_gradient(dy, x, w.shape[:2], stride, (pad, pad))
        db = bias_gradient(dy) if has_b else None
    return dx, dw, db


def correlate(x, w, out, stride, corner, b=None, relu=False, mask=None, memo=None):
    """Write the convolution of x (N, H, W, C), zero outside, with w (KH, KW, C, O) to `out` (N, OH, OW, O).

    corner: (rows, columns) of padding before the first pixel, any whole numbers
    mask: an array like x, which counts only where mask > 0 (ReLU's backward)
    """
    if winograd.suits(w.shape, stride):
        winograd.correlate(x, winograd.transformed(w, memo), out, corner, b, relu, mask)
    else:
        way = _shifted_products if _few_outputs(w.shape, stride) else _patch_products
        way(x, w, out, stride, corner, b, relu, mask)


def _few_inputs(kernel):
    """Is an image row a longer run to copy than a row of the kernel? (see `patches`)"""
    return kernel[1] * kernel[2] < 64


def _few_outputs(kernel, stride):
    kh, kw, c, o = kernel
    return stride == 1 and o < 16 and kh * o < kw * c // 4


def _finish(xp, y, b, relu):
    """Add the bias and apply ReLU, in place, while y is in cache."""
    if b is not None:
        y += b
    if relu:
        xp.clip(y, 0, np.inf, out=y)


def _patch_products(x, w, out, stride, corner, b, relu, mask):
    """out = patches @ w."""
    xp, (kh, kw, c, o), columns = array_module(x), w.shape, out.shape[2]
    planar = _few_inputs(w.shape)
    weights = panels(xp, (w.transpose(2, 0, 1, 3) if planar else w).reshape(-1, o))

    def job(block):
        image, row = block
        masked = None if mask is None else mask[image]
        patch = patches(xp, x[image], (kh, kw), row, columns, stride, corner, masked, planar)
        place = out[block]
        y = place if place.flags.c_contiguous else scratch(xp, "y", place.shape, x.dtype)
        product(xp, patch, weights, y.reshape(-1, o))
        _finish(xp, y, b, relu)
        if y is not place:
            place[...] = y

    parallel.run(job, parallel.blocks(xp, *out.shape[:2], columns * (kh * kw * c + o) * x.itemsize))


def _shifted_products(x, w, out, stride, corner, b, relu, mask):
    """A product with 3 columns would waste the machine. At stride 1 one product with KH*O columns gives an
    image row's contributions to all KH output rows that see it, and these are added afterwards:

        t[h, j, p, o] = sum over q, c of x[h, j + q - left, c] * w[p, q, c, o]
        y[i, j] = sum over p of t[i + p - top, j, p]

    With many channels and few taps it gives a *pixel's* contributions to KH*KW output pixels: no patches.
    """
    xp, (kh, kw, c, o), (_, height, columns, _) = array_module(x), w.shape, out.shape
    # A patch is 1 x across: KH*KW*O numbers to add, or KW*C to copy
    across = 1 if 2 * kh * kw * o < 3 * c else kw
    shifts = kw // across
    wide = columns + kw - across
    weights = w.reshape(kh, shifts, across * c, o).transpose(2, 0, 1, 3)
    weights = panels(xp, weights.reshape(across * c, -1))
    row_bytes = wide * (across * c + kh * shifts * o) * x.itemsize

    def job(block):
        image, row = block
        masked = None if mask is None else mask[image]
        n, rows = image.stop - image.start, row.stop - row.start
        terms = scratch(xp, "terms", (kh, shifts, o, n, rows + kh - 1, wide), x.dtype)  # long rows to add
        for _, part in parallel.blocks(xp, 1, rows + kh - 1, n * row_bytes):
            seen = slice(row.start + part.start, row.start + part.stop)
            patch = patches(xp, x[image], (1, across), seen, wide, 1, corner, masked)
            some = scratch(xp, "some", (kh * shifts * o, patch.shape[0]), x.dtype)
            product(xp, patch, weights, some.T)
            terms[..., part, :] = some.reshape(kh, shifts, o, n, -1, wide)
        y = scratch(xp, "y", (o, n, rows, columns), x.dtype)
        y[...] = terms[0, 0, :, :, :rows, :columns]
        for p, q in list(np.ndindex(kh, shifts))[1:]:
            y += terms[p, q, :, :, p : p + rows, q : q + columns]
        y = y.transpose(1, 2, 3, 0)
        _finish(xp, y, b, relu)
        out[block] = y

    # Large blocks, cut once more inside: the KH - 1 rows around a block are computed again for its neighbours
    large = max(parallel.BLOCK_BYTES, 4 * kh * row_bytes)
    parallel.run(job, parallel.blocks(xp, out.shape[0], height, row_bytes, large))


def transposed(x, w, size, stride, pad, b=None, mask=None, memo=None):
    """Transposed convolution y (N, *size, OUT) of x (N, H, W, IN) with w (KH, KW, OUT, IN).

    The pixels of y in rows stride*i + r all see the kernel's rows p0, p0 + stride, ... where p0 = (r + pad)
    mod stride, and columns likewise: an ordinary convolution of x with this part of the kernel, flipped.
    mask: as in `correlate`
    """
    y = array_module(x).empty((x.shape[0], *size, w.shape[2]), x.dtype)
    for r in range(min(stride, size[0])):
        for s in range(min(stride, size[1])):
            taps = w[(r + pad) % stride :: stride, (s + pad) % stride :: stride][::-1, ::-1].swapaxes(2, 3)
            out = y[:, r::stride, s::stride]
            if 0 in taps.shape:  # a kernel smaller than the stride leaves gaps
                out[...] = 0 if b is None else b
                continue
            corner = tuple(n - 1 - (k + pad) // stride for n, k in zip(taps.shape, (r, s), strict=False))
            part = None if memo is None else memo.setdefault((r, s), {})
            correlate(x, taps, out, 1, corner, b, mask=mask, memo=part)
    return y


def kernel_gradient(x, dy, kernel, stride, corner):
    """dw (KH, KW, C, O) of `correlate`."""
    (kh, kw), shape = kernel, (*kernel, x.shape[3], dy.shape[3])
    if winograd.suits(shape, stride):
        return winograd.kernel_gradient(x, dy, corner)
    if not _few_outputs(shape, stride):
        return _patch_gradient(x, dy, kernel, stride, corner)
    # x and dy in each other's place: narrow patches, of dy, give the flipped kernel's gradient
    dw = _patch_gradient(dy, x, kernel, 1, (kh - 1 - corner[0], kw - 1 - corner[1]))
    return array_module(x).ascontiguousarray(dw[::-1, ::-1].swapaxes(2, 3))


def _patch_gradient(x, dy, kernel, stride, corner):
    """dw = patches.T @ dy: each core adds up its blocks, then the cores' sums are added in order."""
    xp, (kh, kw), c, (n, rows, columns, o) = array_module(x), kernel, x.shape[3], dy.shape
    planar = _few_inputs((kh, kw, c, o))

    def job(group):
        total = xp.zeros((kh * kw * c, o), x.dtype)
        for image, row in group:
            patch = patches(xp, x[image], kernel, row, columns, stride, corner, planar=planar)
            total += summed_product(xp, patch, dy[image, row].reshape(-1, o))
        return total

    work = parallel.blocks(xp, n, rows, columns * (kh * kw * c + o) * x.itemsize)
    dw = sum(parallel.run(job, parallel.groups(xp, work)))
    if planar:
        return xp.ascontiguousarray(dw.reshape(c, kh, kw, o).transpose(1, 2, 0, 3))
    return dw.reshape(kh, kw, c, o)


def bias_gradient(dy):
    """db (O,), the sum of dy over all pixels; the blocks' sums are added in float64."""
    xp = array_module(dy)
    work = parallel.blocks(xp, *dy.shape[:2], dy.shape[2] * dy.shape[3] * dy.itemsize)
    sums = parallel.run(lambda block: pixel_sum(xp, dy[block]).sum(axis=0), work)
    return sum(s.astype(np.float64) for s in sums).astype(dy.dtype)
