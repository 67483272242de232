"""The scaled tanh at the net's end. Its derivative is scale * (1 - tanh^2)."""

import numpy as np


def scaled_tanh(x, scale=150.0):
    t = np.tanh(x)
    return scale * t, (x, t, scale)


def scaled_tanh_backward(dy, cache):
    x, t, scale = cache
    return dy * scale * (1 - t**2)
