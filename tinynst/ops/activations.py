"""ReLU and the scaled tanh that ends a style net."""

import math

import numpy as np

from . import arguments


def relu(x):
    """max(x, 0). Returns (y, cache); any shape. Raises TypeError for a wrong dtype."""
    xp = arguments.floating(x=x)
    y = rectify(xp, x)
    return y, y


def rectify(xp, x, out=None):
    """max(x, 0), a new array or in `out`: three times as fast on the CPU as xp.maximum with a number, which NumPy does one
    by one."""
    return xp.clip(x, 0, np.inf, out=out)


def relu_backward(dy, cache):
    """Return (dx,): dy where x > 0, else 0 (also at x = 0, where there is no derivative)."""
    y = cache
    arguments.floating(y=y, dy=dy)
    arguments.shape("dy", dy, *y.shape)
    return (dy * (y > 0),)


def relu_naive(x):
    """The definition in plain loops, for tests and lessons."""
    return np.array([v if v > 0 else 0 for v in x.ravel()], x.dtype).reshape(x.shape)


def scaled_tanh(x, scale=150.0):
    """scale * tanh(x): keeps the net's output between -scale and scale, so that colours cannot run away. Returns (y, cache).

    150 and not 128: added to the mean colour it must be able to reach 0 and 255 without tanh being at its flat end.
    """
    xp = arguments.floating(x=x)
    y = xp.tanh(x)
    y *= scale
    return y, (y, scale)


def scaled_tanh_backward(dy, cache):
    """Return (dx,): dy * scale * (1 - tanh(x)^2), from y = scale * tanh(x)."""
    y, scale = cache
    arguments.floating(y=y, dy=dy)
    arguments.shape("dy", dy, *y.shape)
    return (dy * (scale - y * y / scale),)


def scaled_tanh_naive(x, scale=150.0):
    """The definition in plain loops, for tests and lessons."""
    return np.array([scale * math.tanh(v) for v in x.ravel()], x.dtype).reshape(x.shape)
