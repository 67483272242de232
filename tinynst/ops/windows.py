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


def patches(xp, x, kh, kw, rows, columns, stride):
    """A view of x (N, H, W, C) as (N, rows, columns, KH, KW*C): the patch under each output pixel, nothing copied.

    x's last two axes must be dense, so that a patch's row is KW*C numbers in a run.
    """
    n, _, w, c = x.shape
    if x.strides[3] != x.itemsize or (w > 1 and x.strides[2] != c * x.itemsize):
        x = xp.ascontiguousarray(x)
    sn, sh, _, sc = x.strides
    shape = (n, rows, columns, kh, kw * c)
    as_strided = np.lib.stride_tricks.as_strided if xp is np else xp.lib.stride_tricks.as_strided
    return as_strided(x, shape, (sn, sh * stride, c * x.itemsize * stride, sh, sc))
