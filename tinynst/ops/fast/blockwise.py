"""Max pooling, the Gram matrix and smooth enlargement: the plain version on one block of rows at a time."""

import functools

import numpy as np

from ...device import array_module
from .. import arguments, gram, pooling, resampling
from . import parallel
from .matmul import panels, product
from .parallel import scratch


@functools.wraps(pooling.max_pool2d)
def max_pool2d(x, size=2):
    xp, size = pooling.check(x, size)
    y = xp.empty((x.shape[0], x.shape[1] // size, x.shape[2] // size, x.shape[3]), x.dtype)

    def job(block):
        out, part = y[block], x[_squares(block, size)]
        out[...] = part[pooling.tap(x, size, 0, 0)]
        for p, q in list(np.ndindex(size, size))[1:]:
            xp.maximum(out, part[pooling.tap(x, size, p, q)], out=out)

    parallel.run(job, parallel.blocks(xp, *y.shape[:2], size * size * x[0, 0].nbytes))
    return y, (x, y, size)


@functools.wraps(pooling.max_pool2d_backward)
def max_pool2d_backward(dy, cache):
    x, y, size = cache
    xp = arguments.floating(x=x, dy=dy)
    arguments.shape("dy", dy, *y.shape)
    dx = xp.empty(x.shape, x.dtype)
    dx[:, size * y.shape[1] :] = 0  # what forward dropped
    dx[:, :, size * y.shape[2] :] = 0

    def job(block):
        out, part = dx[_squares(block, size)], x[_squares(block, size)]
        found = xp.zeros(y[block].shape, bool)
        for p, q in np.ndindex(size, size):
            pixels = pooling.tap(x, size, p, q)
            largest = xp.equal(part[pixels], y[block], out=scratch(xp, "largest", found.shape, bool))
            xp.greater(largest, found, out=largest)
            xp.multiply(dy[block], largest, out=out[pixels])
            found |= largest

    parallel.run(job, parallel.blocks(xp, *y.shape[:2], 2 * size * x[0, 0].nbytes))
    return (dx,)


def _squares(block, size):
    """The rows of x that a block of y was made from."""
    image, rows = block
    return image, slice(size * rows.start, size * rows.stop)


@functools.wraps(gram.gram_matrix)
def gram_matrix(f):
    xp = arguments.floating(f=f)
    arguments.shape("f", f, "N", "H", "W", "C")
    work = parallel.blocks(xp, *f.shape[:2], f[0, 0].nbytes)
    parts = parallel.run(lambda block: gram.gram_matrix(f[block])[0], work)
    if len(parts) == 1:
        return parts[0], f
    y = xp.zeros((f.shape[0], f.shape[3], f.shape[3]), f.dtype)
    for (image, rows), part in zip(work, parts, strict=True):
        y[image] += part * ((rows.stop - rows.start) / f.shape[1])
    return y, f


@functools.wraps(gram.gram_matrix_backward)
def gram_matrix_backward(dgram, cache):
    f = cache
    xp = arguments.floating(f=f, dgram=dgram)
    arguments.shape("dgram", dgram, f.shape[0], f.shape[3], f.shape[3])
    both = panels(xp, (dgram + dgram.transpose(0, 2, 1)) / f[0].size)
    df = xp.empty(f.shape, f.dtype)

    def job(block):
        pixels, dpixels = (array[block].reshape(len(f[block]), -1, f.shape[3]) for array in (f, df))
        product(xp, pixels, both[block[0]], dpixels)

    parallel.run(job, parallel.blocks(xp, *f.shape[:2], f[0, 0].nbytes))
    return (df,)


@functools.wraps(resampling.upsample_smooth)
def upsample_smooth(x):
    resampling.check(x)
    return _two_products(x, *(resampling.smooth_matrix(size) for size in x.shape[1:3])), (x.shape, 2)


@functools.wraps(resampling.upsample_smooth_backward)
def upsample_smooth_backward(dy, cache):
    (_, h, w, _), _ = resampling.check_backward(dy, cache)
    return (_two_products(dy, resampling.smooth_matrix(h).T, resampling.smooth_matrix(w).T),)


def _two_products(x, down, across):
    """down @ x @ across.T for each image and channel, without the zeros far from the matrices' diagonals."""
    xp, (n, _, w, c) = array_module(x), x.shape
    a, m = (xp.asarray(matrix.astype(x.dtype)) for matrix in (down, across))
    y = xp.empty((n, len(down), len(across), c), x.dtype)
    step = 16 if xp is np else len(across)
    parts = [slice(k, k + step) for k in range(0, len(across), step)]
    columns = [(part, _nonzero(across[part])) for part in parts]

    def job(block):
        image, rows = block
        near = _nonzero(down[rows])
        tall = xp.matmul(a[rows, near], x[image, near].reshape(image.stop - image.start, -1, w * c))
        tall = tall.reshape(*y[block].shape[:2], w, c)
        for part, near in columns:
            xp.matmul(m[part, near], tall[:, :, near], out=y[block][:, :, part])

    parallel.run(job, parallel.blocks(xp, *y.shape[:2], 2 * y[0, 0].nbytes))
    return y


def _nonzero(rows):
    """The columns in which some of the matrix's rows are not zero."""
    found = np.flatnonzero(rows.any(axis=0))
    return slice(found[0], found[-1] + 1)
