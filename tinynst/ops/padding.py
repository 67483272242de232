"""Reflection padding of a style net's input, and the centre crop of a residual block's identity."""

import numpy as np

from . import arguments


def reflect_pad2d(x, pad):
    """Mirror x (N, H, W, C) at its borders, as np.pad(mode="reflect"): y (N, H + 2*pad, W + 2*pad, C).

    The border pixel itself is not repeated. A pad larger than the image mirrors the mirror image again.
    Returns (y, cache). Raises ValueError for a wrong shape or pad, TypeError for a wrong dtype.
    """
    xp = arguments.floating(x=x)
    arguments.shape("x", x, "N", "H", "W", "C")
    pad = arguments.whole("pad", pad, 0)
    rows, columns = (np.pad(np.arange(size), pad, mode="reflect") for size in x.shape[1:3])
    return x[:, xp.asarray(rows)][:, :, xp.asarray(columns)], (x.shape, rows, columns)


def reflect_pad2d_backward(dy, cache):
    """Return (dx,): each pixel's gradient is the sum over all its copies."""
    (n, h, w, c), rows, columns = cache
    xp = arguments.floating(dy=dy)
    arguments.shape("dy", dy, n, len(rows), len(columns), c)
    tall, dx = xp.zeros((n, h, len(columns), c), dy.dtype), xp.zeros((n, h, w, c), dy.dtype)
    for i, row in enumerate(rows.tolist()):
        tall[:, row] += dy[:, i]
    for j, column in enumerate(columns.tolist()):
        dx[:, :, column] += tall[:, :, j]
    return (dx,)


def center_crop(x, crop):
    """Take `crop` pixels off each side of x (N, H, W, C). Returns (y, cache); y is a copy.

    Raises ValueError for a wrong shape or crop, TypeError for a wrong dtype.
    """
    arguments.floating(x=x)
    arguments.shape("x", x, "N", "H", "W", "C")
    _, h, w, _ = x.shape
    crop = arguments.whole("crop", crop, 0)
    if min(h, w) <= 2 * crop:
        raise ValueError(f"crop {crop} leaves nothing of x of {h}x{w}; use less than half its smaller side")
    return x[:, crop : h - crop, crop : w - crop].copy(), (x.shape, crop)


def center_crop_backward(dy, cache):
    """Return (dx,): zero for the pixels that were cut off, because y does not depend on them."""
    (n, h, w, c), crop = cache
    xp = arguments.floating(dy=dy)
    arguments.shape("dy", dy, n, h - 2 * crop, w - 2 * crop, c)
    dx = xp.zeros((n, h, w, c), dy.dtype)
    dx[:, crop : h - crop, crop : w - crop] = dy
    return (dx,)
