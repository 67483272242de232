"""Nearest-neighbour enlargement: the other way (beside transposed convolution) to a larger picture, without its grid."""

import numpy as np

from . import arguments


def upsample_nearest(x, scale=2):
    """Each pixel of x (N, H, W, C) becomes a square of `scale` x `scale`: y (N, scale*H, scale*W, C). Returns (y, cache).

    Raises ValueError for a wrong shape or scale, TypeError for a wrong dtype. Odena et al., "Deconvolution and Checkerboard
    Artifacts" (distill.pub, 2016).
    """
    xp = arguments.floating(x=x)
    arguments.shape("x", x, "N", "H", "W", "C")
    scale = arguments.whole("scale", scale, 1)
    n, h, w, c = x.shape
    y = xp.empty((n, h * scale, w * scale, c), x.dtype)
    y.reshape(n, h, scale, w, scale, c)[...] = x[:, :, None, :, None]
    return y, (x.shape, scale)


def upsample_nearest_backward(dy, cache):
    """Return (dx,): the sum of dy over each pixel's square."""
    (n, h, w, c), scale = cache
    arguments.floating(dy=dy)
    arguments.shape("dy", dy, n, h * scale, w * scale, c)
    return (dy.reshape(n, h, scale, w, scale, c).sum(axis=(2, 4)),)


def upsample_nearest_naive(x, scale=2):
    """The definition in plain loops, for tests and lessons."""
    n, h, w, c = x.shape
    y = np.zeros((n, h * scale, w * scale, c), x.dtype)
    for i in range(h * scale):
        for j in range(w * scale):
            y[:, i, j] = x[:, i // scale, j // scale]
    return y
