"""Max pooling: forward keeps the largest value of each square, backward returns the gradient to its place."""

from . import arguments


def max_pool2d(x, size=2):
    """The largest value of each `size` x `size` square of x (N, H, W, C): y (N, H//size, W//size, C).

    Rows and columns left over at the bottom and right are dropped. Returns (y, cache). Raises ValueError for
    a wrong shape or size, TypeError for a wrong dtype.
    """
    xp, size = check(x, size)
    y = x[tap(x, size, 0, 0)].copy()
    for p in range(size):
        for q in range(size):
            y = xp.maximum(y, x[tap(x, size, p, q)])
    return y, (x, y, size)


def max_pool2d_backward(dy, cache):
    """Return (dx,): dy at the place of the largest value (the first of several in reading order), else 0."""
    x, y, size = cache
    xp = arguments.floating(x=x, dy=dy)
    arguments.shape("dy", dy, *y.shape)
    dx, found = xp.zeros(x.shape, x.dtype), xp.zeros(y.shape, bool)
    for p in range(size):
        for q in range(size):
            pixels = tap(x, size, p, q)
            largest = (x[pixels] == y) & ~found
            dx[pixels] = dy * largest
            found |= largest
    return (dx,)


def tap(x, size, p, q):
    """The index of x's pixels in row p and column q of their squares."""
    h, w = x.shape[1] // size * size, x.shape[2] // size * size
    return slice(None), slice(p, h, size), slice(q, w, size)


def check(x, size):
    xp = arguments.floating(x=x)
    arguments.shape("x", x, "N", "H", "W", "C")
    size = arguments.whole("size", size, 1)
    if min(x.shape[1:3]) < size:
        raise ValueError(f"x of {x.shape[1]}x{x.shape[2]} is smaller than the pool of {size}x{size}")
    return xp, size
