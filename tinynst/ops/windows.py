"""What every convolution does first: take a window of an image that may reach over its edge, and cut it into patches."""

import numpy as np

from ..parallel import scratch


def extended(xp, x, top, bottom, left, right, name, mask=None):
    """Rows `top:bottom` and columns `left:right` of x (N, H, W, C), zero where they lie outside of it.

    A view where that will do, else scratch memory called `name`. With `mask` (x's shape) the window is that of
    x * (mask > 0), ReLU's backward.
    """
    n, h, w, c = x.shape
    if mask is None and top >= 0 and bottom <= h and left >= 0 and right <= w:
        return x[:, top:bottom, left:right]
    out = scratch(xp, name, (n, bottom - top, right - left, c), x.dtype)
    t, b = min(max(top, 0), h), min(max(bottom, 0), h)
    l, r = min(max(left, 0), w), min(max(right, 0), w)
    b, r = max(t, b), max(l, r)
    rows, columns = slice(t - top, b - top), slice(l - left, r - left)
    if b == t or r == l:
        out[...] = 0
        return out
    out[:, : rows.start] = 0
    out[:, rows.stop :] = 0
    out[:, rows, : columns.start] = 0
    out[:, rows, columns.stop :] = 0
    if mask is None:
        out[:, rows, columns] = x[:, t:b, l:r]
    else:
        xp.multiply(x[:, t:b, l:r], mask[:, t:b, l:r] > 0, out=out[:, rows, columns])
    return out


def patches(xp, x, kernel, rows, columns, stride):
    """The patch under each output pixel: x (N, H, W, C) -> (N*rows*columns, K), a copy in scratch memory, and the order of
    the K = KH*KW*C numbers in it as the axes of a kernel (KH, KW, C, O).

    A patch's row is KW*C numbers that lie together in x. Where they are few (a picture has three channels), single runs
    would be too short to copy fast: then a row of the *image* is the run, and the patches lie in columns.
    """
    as_strided = np.lib.stride_tricks.as_strided if xp is np else xp.lib.stride_tricks.as_strided
    (kh, kw), (n, _, _, c) = kernel, x.shape
    if kw * c >= 64 or stride > 1:
        x = xp.ascontiguousarray(x) if not _dense(x) else x
        sn, sh, sw, sc = *x.strides[:2], c * x.itemsize, x.itemsize
        view = as_strided(x, (n, rows, columns, kh, kw * c), (sn, sh * stride, sw * stride, sh, sc))
        patch = scratch(xp, "patch", view.shape, x.dtype)
        patch[...] = view
        return patch.reshape(-1, kh * kw * c), (0, 1, 2)
    plane = scratch(xp, "plane", (c, *x.shape[:3]), x.dtype)
    plane[...] = x.transpose(3, 0, 1, 2)
    sc, sn, sh, sw = plane.strides
    view = as_strided(plane, (c, kh, kw, n, rows, columns), (sc, sh, sw, sn, sh, sw))
    patch = scratch(xp, "patch", view.shape, x.dtype)
    patch[...] = view
    return patch.reshape(c * kh * kw, -1).T, (2, 0, 1)


def _dense(x):
    """Are the last two axes of x one run of numbers?"""
    return x.strides[3] == x.itemsize and (x.shape[2] == 1 or x.strides[2] == x.shape[3] * x.itemsize)
