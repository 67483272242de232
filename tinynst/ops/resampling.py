"""Enlargement by fixed rules: nearest neighbour and smooth, the other ways (beside transposed convolution) to a larger
picture inside a net; and bicubic, what a super-resolution net has to beat."""

import functools

import numpy as np

from ..device import array_module
from . import arguments
from .fast import parallel


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


SMOOTH = (
    5 / 64,
    20 / 64,
    26 / 64,
    12 / 64,
    1 / 64,
)  # of five neighbours, for the first of each two new pixels


def upsample_smooth(x):
    """Enlarge x (N, H, W, C) to y (N, 2*H, 2*W, C) so that little is left of the grid that x lies on; edges repeat.

        y[2i]   = (5 x[i-2] + 20 x[i-1] + 26 x[i] + 12 x[i+1] +   x[i+2]) / 64
        y[2i+1] = (  x[i-2] + 12 x[i-1] + 26 x[i] + 20 x[i+1] + 5 x[i+2]) / 64         down the rows, then along them

    That is a blur by 1/4, 1/2, 1/4 and enlargement by the binomial weights 1, 5, 10, 10, 5, 1. The blur takes out what changes
    its sign from one pixel of x to the next: drawn on the grid, such a texture comes through nearest or bilinear enlargement,
    and the ReLU behind them makes its harmonics, threads that lie 2 and 4 pixels apart all over the picture.

    Returns (y, cache). Raises ValueError for a wrong shape, TypeError for a wrong dtype.
    """
    xp = arguments.floating(x=x)
    arguments.shape("x", x, "N", "H", "W", "C")
    n, h, w, c = x.shape
    y = xp.empty((n, 2 * h, 2 * w, c), x.dtype)

    def job(block):
        image, rows = block
        near, cut = _with_neighbours(rows, h)
        tall = _double(x[image, near], 1)
        y[image, 2 * rows.start : 2 * rows.stop] = _double(tall[:, 2 * cut.start : 2 * cut.stop], 2)

    parallel.run(job, parallel.blocks(xp, n, h, 12 * w * c * x.itemsize))
    return y, x.shape


def upsample_smooth_backward(dy, cache):
    """Return (dx,): each pixel of dy goes back to the pixels that it was mixed from, with the same weights."""
    n, h, w, c = cache
    xp = arguments.floating(dy=dy)
    arguments.shape("dy", dy, n, 2 * h, 2 * w, c)
    dx = xp.empty(cache, dy.dtype)

    def job(block):
        image, rows = block
        near, cut = _with_neighbours(rows, h)
        narrow = _double_backward(dy[image, 2 * near.start : 2 * near.stop], 2)
        dx[image, rows] = _double_backward(narrow, 1)[:, cut]

    parallel.run(job, parallel.blocks(xp, n, h, 12 * w * c * dy.itemsize))
    return (dx,)


def _with_neighbours(rows, height):
    """The slice `rows` with two rows more on each side, where there are; and where in it `rows` lie."""
    near = slice(max(0, rows.start - 2), min(height, rows.stop + 2))
    return near, slice(rows.start - near.start, rows.stop - near.start)


def _double(x, axis):
    """x with every element along `axis` made two."""
    xp, size, before = array_module(x), x.shape[axis], (slice(None),) * axis
    padded = xp.empty((*x.shape[:axis], size + 4, *x.shape[axis + 1 :]), x.dtype)
    padded[*before, 2 : size + 2] = x
    padded[*before, :2] = x[*before, :1]
    padded[*before, size + 2 :] = x[*before, -1:]
    y = xp.empty((*x.shape[:axis], 2 * size, *x.shape[axis + 1 :]), x.dtype)
    for phase, weights in enumerate((SMOOTH, SMOOTH[::-1])):
        part = weights[0] * padded[*before, :size]
        for k in range(1, 5):
            part += weights[k] * padded[*before, k : k + size]
        y[*before, phase::2] = part
    return y


def _double_backward(dy, axis):
    """The adjoint of `_double`."""
    xp, size, before = array_module(dy), dy.shape[axis] // 2, (slice(None),) * axis
    padded = xp.zeros((*dy.shape[:axis], size + 4, *dy.shape[axis + 1 :]), dy.dtype)
    for phase, weights in enumerate((SMOOTH, SMOOTH[::-1])):
        part = dy[*before, phase::2]
        for k in range(5):
            padded[*before, k : k + size] += weights[k] * part
    dx = padded[*before, 2 : size + 2]
    dx[*before, :1] += padded[*before, :2].sum(
        axis=axis, keepdims=True
    )  # the edge was repeated: what came from each copy adds
    dx[*before, -1:] += padded[*before, size + 2 :].sum(axis=axis, keepdims=True)
    return dx


def upsample_smooth_naive(x):
    """The definition in plain loops, for tests and lessons."""
    n, h, w, c = x.shape
    y = np.zeros((n, 2 * h, 2 * w, c), x.dtype)
    weights = ((5, 20, 26, 12, 1), (1, 12, 26, 20, 5))
    for i in range(2 * h):
        for j in range(2 * w):
            for a in range(-2, 3):
                for b in range(-2, 3):
                    row, column = min(max(i // 2 + a, 0), h - 1), min(max(j // 2 + b, 0), w - 1)
                    y[:, i, j] += weights[i % 2][a + 2] * weights[j % 2][b + 2] / 64**2 * x[:, row, column]
    return y


def upsample_bicubic(x, scale=2):
    """Enlarge x (N, H, W, C) to y (N, scale*H, scale*W, C) as Pillow's BICUBIC does. Returns (y, cache).

        y = A x B^T     for each image and channel, A (scale*H, H), B (scale*W, W) from `_cubic_matrix`

    A pixel of y is a weighted mean of the 4x4 pixels of x about it, and swings a little beyond their range beside sharp
    edges. Raises ValueError for a wrong shape or scale, TypeError for a wrong dtype. Keys, "Cubic Convolution Interpolation
    for Digital Image Processing" (1981).
    """
    xp = arguments.floating(x=x)
    arguments.shape("x", x, "N", "H", "W", "C")
    scale = arguments.whole("scale", scale, 1)
    down, across = (xp.asarray(_cubic_matrix(size, scale).astype(x.dtype)) for size in x.shape[1:3])
    return _along_rows_and_columns(xp, x, down, across), (x.shape, scale)


def upsample_bicubic_backward(dy, cache):
    """Return (dx,): A^T dy B, the weights with which each pixel was spread."""
    (n, h, w, c), scale = cache
    xp = arguments.floating(dy=dy)
    arguments.shape("dy", dy, n, h * scale, w * scale, c)
    down, across = (xp.asarray(_cubic_matrix(size, scale).T.astype(dy.dtype)) for size in (h, w))
    return (_along_rows_and_columns(xp, dy, down, across),)


def _along_rows_and_columns(xp, x, down, across):
    """down @ x @ across^T for each image and channel."""
    n, h, w, c = x.shape
    rows = xp.matmul(down, x.reshape(n, h, w * c)).reshape(n, -1, w, c)
    return xp.matmul(across, rows)


@functools.lru_cache(maxsize=32)
def _cubic_matrix(size, scale):
    """(scale*size, size) in float64: with what weight each pixel of a row of `size` counts for each of the enlarged row.

    Pixel j of the large row has its centre at (j + 0.5) / scale - 0.5 of the small one. Beyond the edges there is nothing:
    the weights of what is there are brought to the sum of one, as Pillow does (MATLAB mirrors the row).
    """
    centres = (np.arange(scale * size) + 0.5) / scale - 0.5
    weights = _cubic(np.abs(centres[:, None] - np.arange(size)))
    return weights / weights.sum(axis=1, keepdims=True)


def _cubic(t):
    """Keys's kernel with a = -0.5 at the distances t >= 0."""
    return np.where(
        t < 1, (1.5 * t - 2.5) * t * t + 1, np.where(t < 2, ((-0.5 * t + 2.5) * t - 4) * t + 2, 0)
    )


def upsample_bicubic_naive(x, scale=2):
    """The definition in plain loops, for tests and lessons."""

    def weight(t):
        t = abs(t)
        return 1.5 * t**3 - 2.5 * t**2 + 1 if t < 1 else -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0

    n, h, w, c = x.shape
    y = np.zeros((n, h * scale, w * scale, c), x.dtype)
    for i in range(h * scale):
        for j in range(w * scale):
            total = 0
            for a in range(h):
                for b in range(w):
                    k = weight((i + 0.5) / scale - 0.5 - a) * weight((j + 0.5) / scale - 0.5 - b)
                    y[:, i, j] += k * x[:, a, b]
                    total += k
            y[:, i, j] /= total
    return y
