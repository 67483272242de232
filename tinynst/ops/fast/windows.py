"""What a block of output pixels sees of the image: a window, possibly over the edges, cut into patches."""

import numpy as np

from .parallel import scratch


def window(xp, x, top, bottom, left, right, name, mask=None):
    """Rows `top:bottom` and columns `left:right` of x (N, H, W, C), zero outside its edges.

    A view where possible, else scratch memory called `name`. mask: the window is that of x * (mask > 0).
    """
    n, h, w, c = x.shape
    if mask is None and top >= 0 and bottom <= h and left >= 0 and right <= w:
        return x[:, top:bottom, left:right]
    t, l = min(max(top, 0), h), min(max(left, 0), w)  # what x has of it: rows t:u, columns l:r
    u, r = max(t, min(bottom, h)), max(l, min(right, w))
    rows, columns = slice(t - top, u - top), slice(l - left, r - left)
    shape = n, bottom - top, right - left, c
    out = scratch(xp, name, shape, x.dtype) if xp is np else xp.zeros(shape, x.dtype)
    if u == t or r == l:
        out[...] = 0
        return out
    if xp is np:
        out[:, : rows.start] = 0
        out[:, rows.stop :] = 0
        out[:, rows, : columns.start] = 0
        out[:, rows, columns.stop :] = 0
    if mask is None:
        out[:, rows, columns] = x[:, t:u, l:r]
    else:
        xp.multiply(x[:, t:u, l:r], mask[:, t:u, l:r] > 0, out=out[:, rows, columns])
    return out


def patches(xp, x, kernel, row, columns, stride, corner, mask=None, planar=False):
    """The patches of x (N, H, W, C) under the output pixels of the slice `row` and of `columns` columns, in
    scratch memory: (N*rows*columns, KH*KW*C). The patch of the first output pixel begins at pixel -corner.

    planar: the numbers of a patch in the order (C, KH, KW), for few channels. KW*C numbers, the longest run
    in x that a patch takes, are then too few to copy fast; with x plane by plane, an image row is the run.
    """
    (kh, kw), (n, _, _, c), rows = kernel, x.shape, row.stop - row.start
    top, left = row.start * stride - corner[0], -corner[1]
    bottom, right = top + (rows - 1) * stride + kh, left + (columns - 1) * stride + kw
    seen = window(xp, x, top, bottom, left, right, "window", mask)
    if planar:
        planes = scratch(xp, "planes", (c, *seen.shape[:3]), x.dtype)
        planes[...] = seen.transpose(3, 0, 1, 2)
        sc, sn, sh, sw = planes.strides
        shape, strides = (c, kh, kw, n, rows, columns), (sc, sh, sw, sn, sh * stride, sw * stride)
        view = as_strided(xp, planes, shape, strides)
    else:
        seen = dense(xp, seen)
        if kh == kw == stride == 1:
            return seen.reshape(-1, c)
        sn, sh, _, sc = seen.strides
        shape, strides = (n, rows, columns, kh, kw * c), (sn, sh * stride, c * sc * stride, sh, sc)
        view = as_strided(xp, seen, shape, strides)
    patch = scratch(xp, "patch", shape, x.dtype)
    patch[...] = view
    return patch.reshape(c * kh * kw, -1).T if planar else patch.reshape(-1, kh * kw * c)


def as_strided(xp, x, shape, strides):
    return xp.lib.stride_tricks.as_strided(x, shape, strides)


def dense(xp, x):
    """x (N, H, W, C) if its last two axes are contiguous, else a copy in which they are."""
    run = x.strides[3] == x.itemsize and (x.shape[2] == 1 or x.strides[2] == x.shape[3] * x.itemsize)
    return x if run else xp.ascontiguousarray(x)
