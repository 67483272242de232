"""Max pooling: of each size x size square only the largest value goes on; backward, only its place gets the gradient."""

import numpy as np

from .. import parallel
from . import arguments


def max_pool2d(x, size=2):
    """The largest of each `size` x `size` square of x (N, H, W, C): y (N, H//size, W//size, C); what is left over at the
    bottom and right is dropped. Returns (y, cache). Raises ValueError for a wrong shape or size, TypeError for a dtype."""
    xp = arguments.floating(x=x)
    arguments.shape("x", x, "N", "H", "W", "C")
    size = arguments.whole("size", size, 1)
    if min(x.shape[1:3]) < size:
        raise ValueError(f"x of {x.shape[1]}x{x.shape[2]} is smaller than the pool of {size}x{size}")
    n, h, w, c = x.shape
    y = xp.empty((n, h // size, w // size, c), x.dtype)

    def job(block):
        out = y[block]
        for k, part in enumerate(_corners(x, size, block)):
            if k == 0:
                out[...] = part
            else:
                xp.maximum(out, part, out=out)

    parallel.run(job, parallel.blocks(xp, n, h // size, size * size * w * c * x.itemsize))
    return y, (x, y, size)


def max_pool2d_backward(dy, cache):
    """Return (dx,): dy at the place of the largest value, the first in reading order where several are equal; 0 elsewhere."""
    x, y, size = cache
    xp = arguments.floating(x=x, dy=dy)
    arguments.shape("dy", dy, *y.shape)
    dx = xp.empty(x.shape, x.dtype)
    h, w = size * y.shape[1], size * y.shape[2]
    dx[:, h:] = 0  # dropped by the forward pass
    dx[:, :h, w:] = 0

    def job(block):
        free = xp.ones(y[block].shape, bool)  # squares whose largest value is still to be found
        for part, gradient in zip(_corners(x, size, block), _corners(dx, size, block), strict=True):
            largest = (part == y[block]) & free
            xp.multiply(dy[block], largest, out=gradient)
            free &= ~largest

    parallel.run(job, parallel.blocks(xp, y.shape[0], y.shape[1], 2 * size * size * y.shape[2] * y.shape[3] * x.itemsize))
    return (dx,)


def _corners(x, size, block):
    """size*size views of the block's part of x, each with one pixel of every square."""
    image, row = block
    h, w = row.stop * size, x.shape[2] // size * size
    return [x[image, row.start * size + i : h : size, j:w:size] for i in range(size) for j in range(size)]


def max_pool2d_naive(x, size=2):
    """The definition in plain loops, for tests and lessons."""
    n, h, w, c = x.shape
    y = np.zeros((n, h // size, w // size, c), x.dtype)
    for i in range(h // size):
        for j in range(w // size):
            for k in range(n):
                for f in range(c):
                    y[k, i, j, f] = max(x[k, i * size + a, j * size + b, f] for a in range(size) for b in range(size))
    return y
