"""Enlargement by fixed weights: nearest neighbour and smooth, which can replace a transposed convolution in a
net, and bicubic, which a super-resolution net has to beat."""

import functools

import numpy as np

from ..device import array_module
from . import arguments


def upsample_nearest(x, scale=2):
    """Repeat each pixel of x (N, H, W, C) in a square of `scale` x `scale`: y (N, scale*H, scale*W, C).

    Returns (y, cache). Raises ValueError for a wrong shape or scale, TypeError for a wrong dtype. Odena et
    al., "Deconvolution and Checkerboard Artifacts" (distill.pub, 2016).
    """
    xp, scale = check(x, scale)
    n, h, w, c = x.shape
    y = xp.empty((n, h * scale, w * scale, c), x.dtype)
    y.reshape(n, h, scale, w, scale, c)[...] = x[:, :, None, :, None]
    return y, (x.shape, scale)


def upsample_nearest_backward(dy, cache):
    """Return (dx,): the sum of dy over each pixel's square."""
    (n, h, w, c), scale = check_backward(dy, cache)
    return (dy.reshape(n, h, scale, w, scale, c).sum(axis=(2, 4)),)


def upsample_smooth(x):
    """Enlarge x (N, H, W, C) to y (N, 2*H, 2*W, C) without a trace of the grid of x; edges repeat.

        y[2i]   = (5 x[i-2] + 20 x[i-1] + 26 x[i] + 12 x[i+1] +   x[i+2]) / 64      down the columns, then
        y[2i+1] = (  x[i-2] + 12 x[i-1] + 26 x[i] + 20 x[i+1] + 5 x[i+2]) / 64      along the rows

    This is a blur by 1/4, 1/2, 1/4 and enlargement by the binomial weights 1, 5, 10, 10, 5, 1. The blur
    removes what changes its sign from one pixel of x to the next. Nearest and bilinear enlargement let such a
    texture through, and the ReLU after them turns it into threads 2 and 4 pixels apart all over the picture.
    Returns (y, cache). Raises ValueError for a wrong shape, TypeError for a wrong dtype.
    """
    check(x)
    return two_products(x, *map(smooth_matrix, x.shape[1:3])), (x.shape, 2)


def upsample_smooth_backward(dy, cache):
    """Return (dx,), with the weights of the forward pass."""
    (_, h, w, _), _ = check_backward(dy, cache)
    return (two_products(dy, smooth_matrix(h).T, smooth_matrix(w).T),)


def upsample_bicubic(x, scale=2):
    """Enlarge x (N, H, W, C) to y (N, scale*H, scale*W, C) as Pillow's BICUBIC does.

    A pixel of y is a weighted mean of the 4x4 pixels of x around it; near sharp edges it overshoots their
    range a little. Returns (y, cache). Raises ValueError for a wrong shape or scale, TypeError for a wrong
    dtype. Keys, "Cubic Convolution Interpolation for Digital Image Processing" (1981).
    """
    _, scale = check(x, scale)
    return two_products(x, *(cubic_matrix(size, scale) for size in x.shape[1:3])), (x.shape, scale)


def upsample_bicubic_backward(dy, cache):
    """Return (dx,), with the weights of the forward pass."""
    (_, h, w, _), scale = check_backward(dy, cache)
    return (two_products(dy, cubic_matrix(h, scale).T, cubic_matrix(w, scale).T),)


def two_products(x, down, across):
    """y = down @ x @ across.T for each image and channel; so dx = down.T @ dy @ across."""
    xp, (n, h, w, c) = array_module(x), x.shape
    down, across = (xp.asarray(matrix.astype(x.dtype)) for matrix in (down, across))
    tall = xp.matmul(down, x.reshape(n, h, w * c)).reshape(n, -1, w, c)
    return xp.matmul(across, tall)


@functools.lru_cache(maxsize=32)
def smooth_matrix(size):
    """(2*size, size), float64: the weight of each pixel of a row in each pixel of the enlarged row."""
    matrix, weights = np.zeros((2 * size, size)), np.array([5, 20, 26, 12, 1]) / 64
    for i in range(size):
        near = np.clip(np.arange(i - 2, i + 3), 0, size - 1)  # edges repeat
        np.add.at(matrix[2 * i], near, weights)
        np.add.at(matrix[2 * i + 1], near, weights[::-1])
    return matrix


@functools.lru_cache(maxsize=32)
def cubic_matrix(size, scale):
    """(scale*size, size), float64, as smooth_matrix.

    Pixel j of the enlarged row has its centre at (j + 0.5) / scale - 0.5 of the small one. Beyond the edges
    there are no pixels, and the other weights are scaled to the sum 1, as in Pillow (MATLAB mirrors the row).
    """
    centres = (np.arange(scale * size) + 0.5) / scale - 0.5
    t = np.abs(centres[:, None] - np.arange(size))  # Keys's kernel with a = -0.5 at these distances:
    weights = np.where(t < 1, (1.5 * t - 2.5) * t * t + 1, ((-0.5 * t + 2.5) * t - 4) * t + 2) * (t < 2)
    return weights / weights.sum(axis=1, keepdims=True)


def check(x, scale=2):
    xp = arguments.floating(x=x)
    arguments.shape("x", x, "N", "H", "W", "C")
    return xp, arguments.whole("scale", scale, 1)


def check_backward(dy, cache):
    (n, h, w, c), scale = cache
    arguments.floating(dy=dy)
    arguments.shape("dy", dy, n, h * scale, w * scale, c)
    return cache
