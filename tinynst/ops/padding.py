"""Reflection padding and the centre crop: how the style net gets room at its borders, and how a residual block's identity
is brought to the size of what two unpadded convolutions leave."""

from itertools import pairwise

import numpy as np

from . import arguments


def reflect_pad2d(x, pad):
    """Mirror x (N, H, W, C) at its borders, `pad` pixels on each side, as np.pad(mode="reflect"): (N, H+2pad, W+2pad, C).

    The border pixel itself is not repeated. A pad larger than the image mirrors the mirror image again.
    Returns (y, cache). Raises ValueError for a wrong shape or pad, TypeError for a wrong dtype.
    """
    xp = arguments.floating(x=x)
    arguments.shape("x", x, "N", "H", "W", "C")
    pad = arguments.whole("pad", pad, 0)
    rows, columns = (xp.asarray(_mirrored(size, pad)) for size in x.shape[1:3])
    return x[:, rows][:, :, columns], (x.shape, pad)


def reflect_pad2d_backward(dy, cache):
    """Return (dx,): every pixel gathers the gradients of all its mirror images, the border folded back on the image."""
    (n, h, w, c), pad = cache
    arguments.floating(dy=dy)
    arguments.shape("dy", dy, n, h + 2 * pad, w + 2 * pad, c)
    return (_fold(_fold(dy, h, pad).swapaxes(1, 2), w, pad).swapaxes(1, 2),)


def _mirrored(size, pad):
    """Which pixel stands at each place of the padded axis: 0..size-1 there and back again, with period 2*(size - 1)."""
    place = np.abs(np.arange(-pad, size + pad))
    period = max(2 * (size - 1), 1)
    return np.minimum(place % period, period - place % period) if size > 1 else np.zeros_like(place)


def _fold(dy, size, pad):
    """Add rows of dy (N, size + 2*pad, ...) on the pixels they mirror, a run of neighbours at a time."""
    xp = arguments.floating(dy=dy)
    dx = xp.zeros((dy.shape[0], size, *dy.shape[2:]), dy.dtype)
    source = _mirrored(size, pad)
    step = max(size - 1, 1)
    first = pad % step  # the runs turn at pad, pad + step, ... and before: where a border pixel stands
    edges = [0, *range(first, len(source), step), len(source)]
    for begin, end in pairwise(edges):
        if begin == end:
            continue
        low, high = int(source[begin]), int(source[end - 1])
        if low <= high:
            dx[:, low : high + 1] += dy[:, begin:end]
        else:
            dx[:, high : low + 1] += dy[:, begin:end][:, ::-1]
    return dx


def reflect_pad2d_naive(x, pad):
    """The definition in plain loops, for tests and lessons."""

    def mirror(i, size):
        while size > 1 and not 0 <= i < size:
            i = -i if i < 0 else 2 * (size - 1) - i
        return i if size > 1 else 0

    n, h, w, c = x.shape
    y = np.zeros((n, h + 2 * pad, w + 2 * pad, c), x.dtype)
    for i in range(h + 2 * pad):
        for j in range(w + 2 * pad):
            y[:, i, j] = x[:, mirror(i - pad, h), mirror(j - pad, w)]
    return y


def center_crop(x, crop):
    """Take `crop` pixels off each side of x (N, H, W, C). Returns (y, cache), y a copy."""
    arguments.floating(x=x)
    arguments.shape("x", x, "N", "H", "W", "C")
    crop = arguments.whole("crop", crop, 0)
    if min(x.shape[1:3]) <= 2 * crop:
        raise ValueError(
            f"crop {crop} leaves nothing of x of {x.shape[1]}x{x.shape[2]}; use less than half its smaller side"
        )
    return x[:, crop : x.shape[1] - crop, crop : x.shape[2] - crop].copy(), (x.shape, crop)


def center_crop_backward(dy, cache):
    """Return (dx,): what was cut off had no part in the output, so its gradient is zero."""
    shape, crop = cache
    xp = arguments.floating(dy=dy)
    n, h, w, c = shape
    arguments.shape("dy", dy, n, h - 2 * crop, w - 2 * crop, c)
    dx = xp.zeros(shape, dy.dtype)
    dx[:, crop : h - crop, crop : w - crop] = dy
    return (dx,)


def center_crop_naive(x, crop):
    """The definition in plain loops, for tests and lessons."""
    n, h, w, c = x.shape
    y = np.zeros((n, h - 2 * crop, w - 2 * crop, c), x.dtype)
    for i in range(y.shape[1]):
        for j in range(y.shape[2]):
            y[:, i, j] = x[:, i + crop, j + crop]
    return y
