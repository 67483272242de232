"""Reflection padding and enlargement on a GPU, one launch each: separable.cu; and max pooling: pool.cu.

The matrices are those of ops/resampling.py, without their zeros.
"""

import functools

import numpy as np

from ....device import array_module
from ... import arguments, pooling
from ... import resampling as plain
from .launch import launch


def reflect_pad2d(x, pad):
    arguments.floating(x=x)
    arguments.shape("x", x, "N", "H", "W", "C")
    pad = arguments.whole("pad", pad, 0)
    y = _mix(x, x.shape[1:3], _reflection, pad)
    return y, (x.shape, range(y.shape[1]), range(y.shape[2]))


def reflect_pad2d_backward(dy, cache):
    (n, h, w, c), rows, columns = cache
    arguments.floating(dy=dy)
    arguments.shape("dy", dy, n, len(rows), len(columns), c)
    return (_mix(dy, (h, w), _reflection, (len(rows) - h) // 2, transposed=True),)


def upsample_nearest(x, scale=2):
    _, scale = plain.check(x, scale)
    return _mix(x, x.shape[1:3], _repetition, scale), (x.shape, scale)


def upsample_nearest_backward(dy, cache):
    (_, h, w, _), scale = plain.check_backward(dy, cache)
    return (_mix(dy, (h, w), _repetition, scale, transposed=True),)


def upsample_smooth(x):
    plain.check(x)
    return _mix(x, x.shape[1:3], plain.smooth_matrix), (x.shape, 2)


def upsample_smooth_backward(dy, cache):
    (_, h, w, _), _ = plain.check_backward(dy, cache)
    return (_mix(dy, (h, w), plain.smooth_matrix, transposed=True),)


def upsample_bicubic(x, scale=2):
    _, scale = plain.check(x, scale)
    return _mix(x, x.shape[1:3], plain.cubic_matrix, scale), (x.shape, scale)


def upsample_bicubic_backward(dy, cache):
    (_, h, w, _), scale = plain.check_backward(dy, cache)
    return (_mix(dy, (h, w), plain.cubic_matrix, scale, transposed=True),)


def max_pool2d(x, size=2):
    xp, size = pooling.check(x, size)
    n, h, w, c = x.shape
    x, y = xp.ascontiguousarray(x), xp.empty((n, h // size, w // size, c), x.dtype)
    launch("pool.cu", "pool_forward", _grid(y.shape), (x, y, h, w, c, w // size, size))
    return y, (x, y, size)


def max_pool2d_backward(dy, cache):
    x, y, size = cache
    xp = arguments.floating(x=x, dy=dy)
    arguments.shape("dy", dy, *y.shape)
    (n, h, w, c), dx = x.shape, xp.empty(x.shape, x.dtype)
    grid = _grid((n, -(-h // size), -(-w // size), c))
    launch("pool.cu", "pool_backward", grid, (x, xp.ascontiguousarray(dy), dx, h, w, c, *y.shape[1:3], size))
    return (dx,)


def _grid(shape):
    """Blocks of 256 threads for images (N, H, W, C): along a row, over the rows, over the images."""
    n, h, w, c = shape
    return -(-w * c // 256), h, n


def _mix(x, sizes, matrix, *options, transposed=False):
    """R x C' with R and C = matrix(size, *options) for the two `sizes`, or their transposes."""
    xp, (n, h, w, c) = array_module(x), x.shape
    lists = [_nonzero(xp, matrix, (size, *options), transposed, x.dtype.name) for size in sizes]
    (rows, row_weights), (columns, column_weights) = lists
    y = xp.empty((n, len(rows), len(columns), c), x.dtype)
    numbers = h, w, c, len(columns), rows.shape[1], columns.shape[1]
    arrays = xp.ascontiguousarray(x), y, rows, row_weights, columns, column_weights
    launch("separable.cu", "separable", _grid(y.shape), (*arrays, *numbers))
    return y


@functools.lru_cache(maxsize=64)
def _nonzero(xp, matrix, options, transposed, dtype):
    """Where each row of a matrix is not zero, (rows, most places of a row), -1 at the end; and its numbers
    there."""
    m = matrix(*options).T if transposed else matrix(*options)
    i, j = m.nonzero()
    counts = np.bincount(i, minlength=len(m))
    k = np.arange(len(i)) - np.repeat(np.cumsum(counts) - counts, counts)  # 0, 1, ... in each row
    places, weights = (
        np.full((len(m), max(1, counts.max())), -1, np.int32),
        np.zeros((len(m), max(1, counts.max()))),
    )
    places[i, k], weights[i, k] = j, m[i, j]
    return xp.asarray(places), xp.asarray(weights.astype(dtype))


def _reflection(size, pad):
    return np.eye(size)[np.pad(np.arange(size), pad, mode="reflect")]


def _repetition(size, scale):
    return np.eye(size).repeat(scale, axis=0)
