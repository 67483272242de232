"""Max pooling: of each size x size square only the largest value goes on; backward, only its place gets the gradient."""

import numpy as np

from . import arguments
from .fast import parallel


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
        out, squares = y[block], _squares(x, size, block)
        out[...] = squares[:, :, 0, :, 0]
        for k in range(1, size * size):
            xp.maximum(out, squares[:, :, k // size, :, k % size], out=out)

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
        squares = _squares(x, size, block)
        largest = parallel.scratch(xp, "largest", squares.shape, bool)
        xp.equal(squares, y[block][:, :, None, :, None], out=largest)
        found = xp.zeros(y[block].shape, bool)
        for i in range(size):
            for j in range(
                size
            ):  # in reading order: once found, no other pixel of the square gets the gradient
                here = largest[:, :, i, :, j]
                xp.greater(here, found, out=here)
                found |= here
        xp.multiply(dy[block][:, :, None, :, None], largest, out=_squares(dx, size, block))

    parallel.run(
        job,
        parallel.blocks(xp, y.shape[0], y.shape[1], 2 * size * size * y.shape[2] * y.shape[3] * x.itemsize),
    )
    return (dx,)


def _squares(x, size, block):
    """The block's part of x as squares: a view (images, rows, size, columns, size, C)."""
    image, row = block
    columns = x.shape[2] // size
    part = x[image, row.start * size : row.stop * size, : columns * size]
    return part.reshape(part.shape[0], -1, size, columns, size, x.shape[3])


def max_pool2d_naive(x, size=2):
    """The definition in plain loops, for tests and lessons."""
    n, h, w, c = x.shape
    y = np.zeros((n, h // size, w // size, c), x.dtype)
    for i in range(h // size):
        for j in range(w // size):
            for k in range(n):
                for f in range(c):
                    y[k, i, j, f] = max(
                        x[k, i * size + a, j * size + b, f] for a in range(size) for b in range(size)
                    )
    return y
