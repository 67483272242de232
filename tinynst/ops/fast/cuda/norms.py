"""Batch and instance norm on a GPU, two launches each way: norm.cu, norm_backward.cu."""

from ....device import array_module
from ... import arguments
from ... import norms as plain
from .launch import launch

BLOCKS = 512  # enough for every multiprocessor of a large GPU
MOST_PARTS = 256  # each block of the second launch reads them all
LEAST_PIXELS = 64  # of a part


def batch_norm(x, gamma, beta, running_mean, running_var, training=True, momentum=0.1, eps=1e-5, relu=False):
    plain.check(x, eps, gamma=gamma, beta=beta, running_mean=running_mean, running_var=running_var)
    running = running_mean, running_var
    y, cache = _normalise(x, gamma, beta, eps, relu, 1, running, training, momentum)
    return y, (cache, training)


def batch_norm_backward(dy, cache):
    cache, training = cache
    return _normalise_backward(dy, cache, constant=not training)


def instance_norm(x, gamma, beta, eps=1e-5, relu=False):
    plain.check(x, eps, gamma=gamma, beta=beta)
    return _normalise(x, gamma, beta, eps, relu, x.shape[0])


def instance_norm_backward(dy, cache):
    return _normalise_backward(dy, cache)


def conditional_instance_norm(x, gamma, beta, mix, eps=1e-5, relu=False):
    plain.check_conditional(x, gamma, beta, mix, eps)
    y, cache = _normalise(x, mix @ gamma, mix @ beta, eps, relu, x.shape[0])
    return y, (cache, gamma, beta, mix)


def conditional_instance_norm_backward(dy, cache):
    cache, gamma, beta, mix = cache
    dx, dgamma_n, dbeta_n = _normalise_backward(dy, cache)
    return dx, mix.T @ dgamma_n, mix.T @ dbeta_n, dgamma_n @ gamma.T + dbeta_n @ beta.T


def _grid(shape, groups):
    """(blocks of 32 channels, parts, groups), pixels of a group, and pixels of a part."""
    channels, pixels = -(-shape[3] // 32), shape[0] * shape[1] * shape[2] // groups
    parts = max(1, min(BLOCKS // (groups * channels), MOST_PARTS, -(-pixels // LEAST_PIXELS)))
    per_block = -(-pixels // parts)
    return (channels, -(-pixels // per_block), groups), pixels, per_block


def _normalise(x, gamma, beta, eps, relu, groups, running=(None, None), training=True, momentum=0.0):
    """y and a cache as on the CPU, but with statistics (2, groups, C): mean and 1 / std."""
    xp, c = array_module(x), x.shape[3]
    x, gamma, beta = map(xp.ascontiguousarray, (x, gamma, beta))
    grid, pixels, per_block = _grid(x.shape, groups)
    y, stats, parts = xp.empty(x.shape, x.dtype), xp.empty((2, groups, c), x.dtype), None
    if training:
        parts = xp.empty((groups, grid[1], c, 3), x.dtype)
        launch("norm.cu", "norm_moments", grid, (x, parts, pixels, c, per_block), block=(32, 8))
    own = [None if array is None else xp.ascontiguousarray(array) for array in running]
    numbers = pixels, c, per_block, gamma.ndim == 2, relu, float(eps), float(momentum)
    arrays = x, parts, gamma, beta, y, stats, *own
    launch("norm.cu", "norm_apply", grid, (*arrays, *numbers), block=(32, 8))
    for array, copy in zip(running, own, strict=True):
        if training and array is not copy:
            array[...] = copy
    return y, (x, gamma, stats, groups, y if relu else None)


def _normalise_backward(dy, cache, constant=False):
    """dx, dgamma, dbeta; constant: mean and std do not depend on x."""
    x, gamma, stats, groups, y = cache
    xp, c = arguments.floating(x=x, dy=dy), x.shape[3]
    arguments.shape("dy", dy, *x.shape)
    dy, (grid, pixels, per_block) = xp.ascontiguousarray(dy), _grid(x.shape, groups)
    parts, dx = xp.empty((groups, grid[1], c, 2), x.dtype), xp.empty(x.shape, x.dtype)
    dgamma, dbeta = xp.empty(gamma.shape, x.dtype), xp.empty(gamma.shape, x.dtype)
    launch(
        "norm_backward.cu", "norm_sums", grid, (x, dy, y, stats, parts, pixels, c, per_block), block=(32, 8)
    )
    numbers = pixels, c, per_block, gamma.ndim == 2, constant
    arrays = x, dy, y, stats, parts, gamma, dx, dgamma, dbeta
    launch("norm_backward.cu", "norm_backward", grid, (*arrays, *numbers), block=(32, 8))
    return dx, dgamma, dbeta
