"""Instance norm: each channel of each image is brought to mean 0 and variance 1, then scaled and shifted.

    x^ = (x - mean) / std,   y = gamma * x^ + beta,   mean and std = sqrt(var + eps) over H and W of one image

A picture's contrast is a property of its content, which the stylised picture should not depend on: that is why the style
nets train better with it than with batch norm. Ulyanov, Vedaldi, Lempitsky, arXiv:1607.08022.
"""

import numpy as np

from . import arguments, statistics


def instance_norm(x, gamma, beta, eps=1e-5, relu=False):
    """Normalise x (N, H, W, C) with gamma, beta (C,): y (N, H, W, C). `relu=True`: max(y, 0), in the same pass.

    Returns (y, cache). Raises ValueError for a wrong shape, TypeError for a wrong dtype or mixed devices.
    """
    xp = arguments.floating(x=x, gamma=gamma, beta=beta)
    arguments.shape("x", x, "N", "H", "W", "C")
    if not eps >= 0:
        raise ValueError(f"eps is {eps}; it should be at least 0, and above it where a channel may be constant")
    arguments.shape("gamma", gamma, x.shape[3])
    arguments.shape("beta", beta, x.shape[3])
    mean, var = statistics.moments(x)
    std = xp.sqrt(var + eps)
    y = statistics.apply(x, mean, gamma / std, beta[None], relu)
    return y, (x, gamma, mean, std, y if relu else None)


def instance_norm_backward(dy, cache):
    """Return dx, dgamma, dbeta. The mean and the std depend on every pixel, so a part of dy goes back through each:

    dx = gamma / std * (dy - mean(dy) - x^ * mean(dy * x^))        means over H and W
    dgamma = sum of dy * x^,    dbeta = sum of dy                  sums over N, H, W
    """
    x, gamma, mean, std, mask = cache
    arguments.floating(x=x, dy=dy)
    arguments.shape("dy", dy, *x.shape)
    pixels = x.shape[1] * x.shape[2]
    dy_sum, dyx_sum = statistics.backward_sums(x, dy, mean, mask)
    dyx_sum /= std  # the sum of dy * x^
    scale = gamma / std
    dx = statistics.backward_apply(x, dy, mean, scale, -scale * dyx_sum / (std * pixels), -scale * dy_sum / pixels, mask)
    return dx, dyx_sum.sum(axis=0).astype(x.dtype), dy_sum.sum(axis=0).astype(x.dtype)


def instance_norm_naive(x, gamma, beta, eps=1e-5):
    """The definition in plain loops, for tests and lessons."""
    y = np.zeros_like(x)
    for n in range(x.shape[0]):
        for c in range(x.shape[3]):
            plane = x[n, :, :, c]
            mean = sum(float(v) for v in plane.ravel()) / plane.size
            var = sum((float(v) - mean) ** 2 for v in plane.ravel()) / plane.size
            y[n, :, :, c] = gamma[c] * (plane - mean) / np.sqrt(var + eps) + beta[c]
    return y
