"""What batch and instance norm share: sums over an image's pixels, and one pass that applies the result.

Instance norm takes its mean and variance from one image, batch norm from all; beyond that they are the same formula. All
sums go a block at a time in the array's dtype, and the blocks are added in float64, for one long float32 sum drifts.
"""

import numpy as np

from ...device import array_module
from ..activations import rectify
from . import parallel


def _work(x, arrays):
    xp = array_module(x)
    return parallel.blocks(xp, x.shape[0], x.shape[1], arrays * x.shape[2] * x.shape[3] * x.itemsize)


def _per_image(xp, work, parts, images):
    """Add the blocks' results, each (images in the block, C), to (N, C) in float64."""
    if len(parts) == 1:
        return parts[0].astype(np.float64)
    total = xp.zeros((images, parts[0].shape[1]), np.float64)
    for (image, _), part in zip(work, parts, strict=True):
        total[image] += part
    return total


def pixel_sum(xp, x):
    """The sum (N, C) of x (N, H, W, C) over its pixels. On the CPU each row as a product with ones (BLAS adds several times as
    fast as NumPy), then the rows, so that no sum is long; on a GPU in float64."""
    if xp is not np:
        return x.sum(axis=(1, 2), dtype=np.float64).astype(x.dtype)
    return (xp.ones((1, x.shape[2]), x.dtype) @ x)[:, :, 0].sum(axis=1)


def moments(x):
    """Mean and variance (N, C), in float64, of the pixels of each image of x (N, H, W, C).

    One pass over memory: each block gives its mean and its squared distances from it, and Chan's formula joins them
    (Chan, Golub, LeVeque 1979): no cancellation of large sums, however far the mean is from zero.
    """
    xp = array_module(x)
    work = _work(x, 2)

    def job(block):
        part = x[block]
        count = part.shape[1] * part.shape[2]
        mean = pixel_sum(xp, part) / count
        distance = xp.subtract(
            part, mean[:, None, None], out=parallel.scratch(xp, "distance", part.shape, x.dtype)
        )
        offset = (
            pixel_sum(xp, distance).astype(np.float64) / count
        )  # what rounding left: tiny, but not beside a tiny std
        distance *= distance
        return mean + offset, pixel_sum(xp, distance) - count * offset**2

    parts, pixels = parallel.run(job, work), x.shape[1] * x.shape[2]
    if len(parts) == 1:
        ((mean, squares),) = parts
        return mean, squares / pixels
    counts = [(row.stop - row.start) * x.shape[2] for _, row in work]
    mean = _per_image(xp, work, [k * m for k, (m, _) in zip(counts, parts, strict=True)], x.shape[0]) / pixels
    squares = [
        within + k * (m - mean[i]) ** 2 for k, (m, within), (i, _) in zip(counts, parts, work, strict=True)
    ]
    return mean, _per_image(xp, work, squares, x.shape[0]) / pixels


def apply(x, mean, scale, shift, relu):
    """y = (x - mean) * scale + shift, then max(y, 0) if `relu`; mean, scale, shift are (N, C) or (1, C).

    Computed as x * scale + (shift - mean * scale), a pass over memory less, as PyTorch does on the CPU.
    """
    xp = array_module(x)
    scale, shift = _spread(scale, x), _spread(shift - mean * scale, x)
    y = xp.empty(x.shape, x.dtype)

    def job(block):
        out, image = y[block], block[0]
        xp.multiply(x[block], scale[image], out=out)
        out += shift[image]
        if relu:
            rectify(xp, out, out=out)

    parallel.run(job, _work(x, 2))
    return y


def backward_sums(x, dy, mean, mask):
    """Sums over the pixels of each image of dy and of dy * (x - mean), both (N, C) in float64. `mask`: dy counts where
    mask > 0 (ReLU's backward)."""
    xp = array_module(x)
    mean = _spread(mean, x)
    work = _work(x, 4)

    def job(block):
        g = _masked(xp, dy, mask, block)
        product = xp.subtract(
            x[block], mean[block[0]], out=parallel.scratch(xp, "distance", g.shape, x.dtype)
        )
        product *= g
        return pixel_sum(xp, g), pixel_sum(xp, product)

    parts = parallel.run(job, work)
    return tuple(_per_image(xp, work, [part[k] for part in parts], x.shape[0]) for k in (0, 1))


def backward_apply(x, dy, mean, a, b, c, mask):
    """dx = a * dy + b * (x - mean) + c with a, b, c (N, C) or (1, C); `mask` as above."""
    xp = array_module(x)
    a, b, c = _spread(a, x), _spread(b, x), _spread(c - b * mean, x)
    dx = xp.empty(x.shape, x.dtype)

    def job(block):
        out, image = dx[block], block[0]
        xp.multiply(x[block], b[image], out=out)
        out += c[image]
        out += xp.multiply(
            _masked(xp, dy, mask, block), a[image], out=parallel.scratch(xp, "distance", out.shape, x.dtype)
        )

    parallel.run(job, _work(x, 4))
    return dx


def _spread(v, x):
    """(N or 1, C) in float64 -> (N, 1, W, C) in x's dtype: a whole image row of it, for NumPy's loop runs over what is
    contiguous on both sides, and a loop of C numbers takes twice as long a number as one of W*C. On a GPU (N or 1, 1, 1, C)."""
    xp = array_module(x)
    if xp is not np:
        return v.astype(x.dtype)[:, None, None]
    n, _, w, c = x.shape
    wide = xp.empty((v.shape[0], 1, w, c), x.dtype)
    wide[...] = v.astype(x.dtype)[:, None, None]
    return xp.broadcast_to(wide, (n, 1, w, c))


def _masked(xp, dy, mask, block):
    if mask is None:
        return dy[block]
    part = dy[block]
    return xp.multiply(part, mask[block] > 0, out=parallel.scratch(xp, "masked", part.shape, dy.dtype))
