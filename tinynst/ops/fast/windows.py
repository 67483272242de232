"""What every convolution does first: take a window of an image that may reach over its edge, and cut it into patches."""

import numpy as np

from .parallel import scratch


def extended(xp, x, top, bottom, left, right, name, mask=None):
    """Rows `top:bottom` and columns `left:right` of x (N, H, W, C), zero where they lie outside of it.

    A view where that will do, else scratch memory called `name`. With `mask` (x's shape) the window is that of
    x * (mask > 0), ReLU's backward.
    """
    n, h, w, c = x.shape
    if mask is None and top >= 0 and bottom <= h and left >= 0 and right <= w:
        return x[:, top:bottom, left:right]
    t, b = min(max(top, 0), h), min(max(bottom, 0), h)
    l, r = min(max(left, 0), w), min(max(right, 0), w)
    b, r = max(t, b), max(l, r)
    rows, columns = slice(t - top, b - top), slice(l - left, r - left)
    shape = n, bottom - top, right - left, c
    out = scratch(xp, name, shape, x.dtype) if xp is np else xp.zeros(shape, x.dtype)
    if b == t or r == l:
        out[...] = 0
        return out
    if xp is np:
        out[:, : rows.start] = 0
        out[:, rows.stop :] = 0
        out[:, rows, : columns.start] = 0
        out[:, rows, columns.stop :] = 0
    if mask is None:
        out[:, rows, columns] = x[:, t:b, l:r]
    else:
        xp.multiply(x[:, t:b, l:r], mask[:, t:b, l:r] > 0, out=out[:, rows, columns])
    return out


def patches(xp, x, kernel, rows, columns, stride=1, name="patch"):
    """The patch under each output pixel of x (N, H, W, C), a copy in scratch memory called `name`: (N*rows*columns, KH*KW*C).
    A 1x1 kernel at stride 1 needs none."""
    (kh, kw), (n, _, _, c) = kernel, x.shape
    x = dense(xp, x)
    if kh == kw == stride == 1:
        return x.reshape(-1, c)
    sn, sh, sw = *x.strides[:2], c * x.itemsize
    view = as_strided(xp)(x, (n, rows, columns, kh, kw * c), (sn, sh * stride, sw * stride, sh, x.itemsize))
    patch = scratch(xp, name, view.shape, x.dtype)
    patch[...] = view
    return patch.reshape(-1, kh * kw * c)


def planar_patches(xp, x, kernel, rows, columns, stride=1):
    """The same with the numbers of a patch in the order (C, KH, KW), for images of few channels. There KW*C numbers, the
    longest run that a patch takes from x, are too few to copy fast; plane by plane a row of the *image* is the run.
    """
    (kh, kw), c = kernel, x.shape[3]
    planes = scratch(xp, "planes", (c, *x.shape[:3]), x.dtype)
    planes[...] = x.transpose(3, 0, 1, 2)
    sc, sn, sh, sw = planes.strides
    view = as_strided(xp)(
        planes, (c, kh, kw, x.shape[0], rows, columns), (sc, sh, sw, sn, sh * stride, sw * stride)
    )
    patch = scratch(xp, "patch", view.shape, x.dtype)
    patch[...] = view
    return patch.reshape(c * kh * kw, -1).T


def as_strided(xp):
    return np.lib.stride_tricks.as_strided if xp is np else xp.lib.stride_tricks.as_strided


def dense(xp, x):
    """x (N, H, W, C) if its last two axes are one run of numbers, else a copy in which they are."""
    run = x.strides[3] == x.itemsize and (x.shape[2] == 1 or x.strides[2] == x.shape[3] * x.itemsize)
    return x if run else xp.ascontiguousarray(x)
