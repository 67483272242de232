"""Matrix products in small parts: OpenBLAS copies the factors of large ones into its own order first, which
can take half as long as the product itself if they are used only a few times. On a GPU there is one part."""

import functools

import numpy as np

PANEL = 64  # columns of a part; with 32 or 128 products take a tenth longer, or more
SMALL = 10**6  # multiply-adds of a part: up to here OpenBLAS does not copy


def panel(xp, columns):
    """How many columns to multiply by at a time: the largest divisor from 16 to PANEL, else all."""
    widths = range(min(columns, PANEL), 15, -1) if xp is np else ()
    return next((k for k in widths if columns % k == 0), columns)


def panels(xp, m):
    """m (..., K, O) with its columns in panels, each contiguous: (..., P, K, O/P), as `product` takes it."""
    *outer, k, o = m.shape
    width = panel(xp, o)
    return xp.ascontiguousarray(m.reshape(*outer, k, o // width, width).swapaxes(-2, -3))


def product(xp, a, m, out):
    """out = a @ m for a (..., M, K), out (..., M, O) and m in `panels`."""
    *outer, p, _, width = m.shape
    parts, rows = split(xp, a.shape[-2], m.shape[-2] * width)
    blocks = out.reshape(*outer, parts, rows, p, width).swapaxes(-2, -3)
    xp.matmul(a.reshape(*outer, parts, 1, rows, -1), m[..., None, :, :, :], out=blocks)


def summed_product(xp, a, m):
    """a.T @ m for a (M, K) and m (M, O), where M is large and K and O are small."""
    parts = split(xp, a.shape[0], a.shape[1] * m.shape[1])
    return (m.reshape(*parts, -1).transpose(0, 2, 1) @ a.reshape(*parts, -1)).sum(axis=0).T


def split(xp, rows, products):
    """(parts, rows of a part): the fewest equal parts of at most SMALL products and at least 16 rows, or
    one."""
    parts = _parts(rows, SMALL // products) if xp is np else 1
    return parts, rows // parts


@functools.cache  # called for every product, while the other cores wait for Python's lock
def _parts(rows, most):
    return next((k for k in range(-(-rows // max(1, most)), rows // 16 + 1) if rows % k == 0), 1)


def pixel_sum(xp, x):
    """The sum (N, C) of x (N, H, W, C) over its pixels. On the CPU it is the product of each row with ones,
    several times as fast as NumPy's sum, and then the sum of the rows; on a GPU the sum is in float64."""
    if xp is not np:
        return x.sum(axis=(1, 2), dtype=np.float64).astype(x.dtype)
    return (xp.ones((1, x.shape[2]), x.dtype) @ x)[:, :, 0].sum(axis=1)
