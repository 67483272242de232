"""The sums and gradients of the losses on a GPU: losses.cu. The value of a loss stays there, a 0-d array."""

from ....device import array_module
from .launch import launch

MOST_PARTS = 1024


def squared_difference(f, target, value_factor, gradient_factor):
    """value_factor * ||f - target||^2 and gradient_factor * (f - target). A target with a shorter first axis
    than f's is repeated."""
    xp = array_module(f, target)
    f, target, df = xp.ascontiguousarray(f), xp.ascontiguousarray(target), xp.empty(f.shape, f.dtype)
    parts = xp.empty(min(MOST_PARTS, -(-f.size // 256)), f.dtype)
    args = f, target, df, parts, f.size, target.size, float(gradient_factor)
    launch("losses.cu", "squared_difference", parts.shape, args)
    return _total(xp, parts, value_factor), df


def total_variation(y, value_factor, gradient_factor):
    """value_factor * the sum of squared differences of neighbours, gradient_factor * half its gradient."""
    xp, (n, h, w, c) = array_module(y), y.shape
    y, dy, grid = xp.ascontiguousarray(y), xp.empty(y.shape, y.dtype), (-(-w * c // 256), h, n)
    parts = xp.empty(grid[::-1], y.dtype)
    launch("losses.cu", "total_variation", grid, (y, dy, parts, w, c, float(gradient_factor)))
    return _total(xp, parts, value_factor), dy


def _total(xp, parts, factor):
    value = xp.empty((), parts.dtype)
    launch("losses.cu", "loss_sum", (1,), (parts, value, parts.size, float(factor)))
    return value
