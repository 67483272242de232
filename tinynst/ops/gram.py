"""The Gram matrix: which features fire together, wherever in the picture. It is what the paper calls style (eq. 3)."""

import numpy as np

from ..device import array_module
from . import arguments
from .fast import parallel


def gram_matrix(f):
    """G[n] = f[n].T @ f[n] / (C*H*W) with f[n] as (H*W, C): (N, H, W, C) -> (N, C, C), symmetric. Returns (G, cache).

    Eq. 3 of Johnson et al. Raises ValueError for a wrong shape, TypeError for a wrong dtype.
    """
    xp = arguments.floating(f=f)
    arguments.shape("f", f, "N", "H", "W", "C")
    n, h, w, c = f.shape
    work = _work(f)

    def job(block):
        pixels = _pixels(f, block)
        return pixels.transpose(0, 2, 1) @ pixels

    gram = xp.zeros((n, c, c), f.dtype)
    for (image, _), part in zip(work, parallel.run(job, work), strict=True):
        gram[image] += part
    gram /= c * h * w
    return gram, f


def gram_matrix_backward(dgram, cache):
    """Return (df,): df[n] = f[n] @ (dG[n] + dG[n].T) / (C*H*W), for f stands on both sides of the product."""
    f = cache
    xp = arguments.floating(f=f, dgram=dgram)
    n, h, w, c = f.shape
    arguments.shape("dgram", dgram, n, c, c)
    both = parallel.panels(xp, (dgram + dgram.transpose(0, 2, 1)) / (c * h * w))
    df = xp.empty(f.shape, f.dtype)

    def job(block):
        parallel.product(xp, _pixels(f, block), both[block[0]], _pixels(df, block))

    parallel.run(job, _work(f))
    return (df,)


def _work(f):
    return parallel.blocks(array_module(f), f.shape[0], f.shape[1], f.shape[2] * f.shape[3] * f.itemsize)


def _pixels(f, block):
    part = f[block]
    return part.reshape(part.shape[0], -1, part.shape[3])


def gram_matrix_naive(f):
    """The definition in plain loops, for tests and lessons."""
    n, h, w, c = f.shape
    gram = np.zeros((n, c, c), f.dtype)
    for k in range(n):
        for a in range(c):
            for b in range(c):
                gram[k, a, b] = sum(f[k, i, j, a] * f[k, i, j, b] for i in range(h) for j in range(w)) / (
                    c * h * w
                )
    return gram
