"""Batch and instance norm in two passes over blocks: sums over pixels, then one step that applies the result.

Blocks compute in the array's dtype. What they are combined to, (N, C), is float64: a long float32 sum drifts.
"""

import functools

import numpy as np

from ...device import array_module
from .. import arguments
from .. import norms as plain
from . import parallel
from .matmul import pixel_sum
from .parallel import scratch


@functools.wraps(plain.batch_norm)
def batch_norm(x, gamma, beta, running_mean, running_var, training=True, momentum=0.1, eps=1e-5, relu=False):
    plain.check(x, eps, gamma=gamma, beta=beta, running_mean=running_mean, running_var=running_var)
    if training:
        means, variances = _moments(x)
        mean = means.mean(axis=0, keepdims=True)
        var = (variances + (means - mean) ** 2).mean(axis=0, keepdims=True)
        plain.update_running(x, mean[0], var[0], running_mean, running_var, momentum)
    else:
        mean, var = running_mean[None].astype(np.float64), running_var[None].astype(np.float64)
    y, cache = _normalise(x, mean, var, gamma[None], beta[None], eps, relu)
    return y, (cache, training)


@functools.wraps(plain.batch_norm_backward)
def batch_norm_backward(dy, cache):
    cache, training = cache
    dx, dgamma, dbeta = _normalise_backward(dy, cache, "batch" if training else None)
    return dx, dgamma[0].astype(dx.dtype), dbeta[0].astype(dx.dtype)


@functools.wraps(plain.instance_norm)
def instance_norm(x, gamma, beta, eps=1e-5, relu=False):
    plain.check(x, eps, gamma=gamma, beta=beta)
    return _normalise(x, *_moments(x), gamma[None], beta[None], eps, relu)


@functools.wraps(plain.instance_norm_backward)
def instance_norm_backward(dy, cache):
    dx, dgamma, dbeta = _normalise_backward(dy, cache, "image")
    return dx, dgamma.sum(axis=0).astype(dx.dtype), dbeta.sum(axis=0).astype(dx.dtype)


@functools.wraps(plain.conditional_instance_norm)
def conditional_instance_norm(x, gamma, beta, mix, eps=1e-5, relu=False):
    plain.check_conditional(x, gamma, beta, mix, eps)
    y, cache = _normalise(x, *_moments(x), mix @ gamma, mix @ beta, eps, relu)
    return y, (cache, gamma, beta, mix)


@functools.wraps(plain.conditional_instance_norm_backward)
def conditional_instance_norm_backward(dy, cache):
    cache, gamma, beta, mix = cache
    dx, dgamma_n, dbeta_n = _normalise_backward(dy, cache, "image")
    dgamma_n, dbeta_n = dgamma_n.astype(dx.dtype), dbeta_n.astype(dx.dtype)
    return dx, mix.T @ dgamma_n, mix.T @ dbeta_n, dgamma_n @ gamma.T + dbeta_n @ beta.T


def _normalise(x, mean, var, gamma, beta, eps, relu):
    """y = gamma * (x - mean) / std + beta as x * scale + shift, one pass less; all but x are (N or 1, C)."""
    xp = array_module(x)
    std = xp.sqrt(var + eps)
    scale = gamma / std
    scale, shift = _per_row(scale, x), _per_row(beta - mean * scale, x)
    y = xp.empty(x.shape, x.dtype)

    def job(block):
        out, image = y[block], block[0]
        xp.multiply(x[block], scale[image], out=out)
        out += shift[image]
        if relu:
            xp.clip(out, 0, np.inf, out=out)

    parallel.run(job, _blocks(x, 2))
    return y, (x, gamma, mean, std, y if relu else None)


def _normalise_backward(dy, cache, over):
    """dx, dgamma, dbeta; mean and std were taken over the "batch" (dgamma and dbeta are (1, C)), over each
    "image" ((N, C)), or are constants (None)."""
    x, gamma, mean, std, rectified = cache
    xp = arguments.floating(x=x, dy=dy)
    arguments.shape("dy", dy, *x.shape)
    dgamma, dbeta = _backward_sums(x, dy, mean, rectified)
    if over != "image":
        dgamma, dbeta = dgamma.sum(axis=0, keepdims=True), dbeta.sum(axis=0, keepdims=True)
    dgamma /= std
    pixels = {"batch": x.size // x.shape[3], "image": x.shape[1] * x.shape[2], None: np.inf}[over]
    # dx = scale * (dy - dbeta / pixels - xhat * dgamma / pixels) as scale * dy + slope * x + shift
    scale = gamma / std
    slope = -scale * dgamma / (std * pixels)
    shift = -scale * dbeta / pixels - slope * mean
    scale, slope, shift = (_per_row(v, x) for v in (scale, slope, shift))
    dx = xp.empty(x.shape, x.dtype)

    def job(block):
        out, image = dx[block], block[0]
        xp.multiply(x[block], slope[image], out=out)
        out += shift[image]
        g, memory = _masked(xp, dy, rectified, block), scratch(xp, "scaled", out.shape, x.dtype)
        out += xp.multiply(g, scale[image], out=memory)

    parallel.run(job, _blocks(x, 4))
    return dx, dgamma, dbeta


def _moments(x):
    """Mean and variance (N, C) of the pixels of each image of x (N, H, W, C).

    In one pass over memory: each block gives its mean and its squared distances from it, which Chan's formula
    combines (Chan, Golub and LeVeque, 1979). No large sums cancel, however far the mean is from zero.
    """
    xp, work, pixels = array_module(x), _blocks(x, 2), x.shape[1] * x.shape[2]

    def job(block):
        part = x[block]
        count = part.shape[1] * part.shape[2]
        mean = pixel_sum(xp, part) / count
        distance = xp.subtract(part, mean[:, None, None], out=scratch(xp, "distance", part.shape, x.dtype))
        offset = (
            pixel_sum(xp, distance).astype(np.float64) / count
        )  # the mean's rounding error matters for a tiny std
        distance *= distance
        return count, mean + offset, pixel_sum(xp, distance) - count * offset**2

    parts = parallel.run(job, work)
    if len(parts) == 1:
        return parts[0][1], parts[0][2] / pixels
    mean = _per_image(x, work, [count * m for count, m, _ in parts]) / pixels
    zipped = zip(work, parts, strict=True)
    squares = [within + count * (m - mean[image]) ** 2 for (image, _), (count, m, within) in zipped]
    return mean, _per_image(x, work, squares) / pixels


def _backward_sums(x, dy, mean, rectified):
    """The sums (N, C) of dy * (x - mean) and of dy over the pixels of each image."""
    xp, work, mean = array_module(x), _blocks(x, 4), _per_row(mean, x)

    def job(block):
        g = _masked(xp, dy, rectified, block)
        distance = xp.subtract(x[block], mean[block[0]], out=scratch(xp, "distance", g.shape, x.dtype))
        distance *= g
        return pixel_sum(xp, distance), pixel_sum(xp, g)

    parts = parallel.run(job, work)
    return tuple(_per_image(x, work, [part[k] for part in parts]) for k in (0, 1))


def _blocks(x, arrays):
    return parallel.blocks(array_module(x), *x.shape[:2], arrays * x.shape[2] * x.shape[3] * x.itemsize)


def _per_image(x, work, parts):
    """Add the blocks' results, each (images of the block, C): (N, C)."""
    if len(parts) == 1:
        return parts[0].astype(np.float64)
    total = array_module(x).zeros((x.shape[0], x.shape[3]), np.float64)
    for (image, _), part in zip(work, parts, strict=True):
        total[image] += part
    return total


def _per_row(v, x):
    """v (N or 1, C) in x's dtype, repeated for a whole image row: (N, 1, W, C). NumPy's inner loop runs over
    what is contiguous in both operands, and over W*C numbers it is twice as fast as over C. On a GPU it is
    (N or 1, 1, 1, C)."""
    v = v.astype(x.dtype)[:, None, None]
    if not isinstance(x, np.ndarray):
        return v
    wide = np.ascontiguousarray(np.broadcast_to(v, (len(v), 1, *x.shape[2:])))
    return np.broadcast_to(wide, (len(x), *wide.shape[1:]))


def _masked(xp, dy, rectified, block):
    """dy * (rectified > 0), ReLU's backward, for a block."""
    if rectified is None:
        return dy[block]
    mask = rectified[block] > 0
    return xp.multiply(dy[block], mask, out=scratch(xp, "masked", mask.shape, dy.dtype))
