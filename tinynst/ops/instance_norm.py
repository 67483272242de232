"""Instance norm: each channel of each image is brought to mean 0 and variance 1, then scaled and shifted.

    x^ = (x - mean) / std,   y = gamma * x^ + beta,   mean and std = sqrt(var + eps) over H and W of one image

A picture's contrast is a property of its content, which the stylised picture should not depend on: that is why the style
nets train better with it than with batch norm. Ulyanov, Vedaldi, Lempitsky, arXiv:1607.08022.
"""

import numpy as np

from ..device import array_module
from . import arguments
from .fast import statistics


def instance_norm(x, gamma, beta, eps=1e-5, relu=False):
    """Normalise x (N, H, W, C) with gamma, beta (C,): y (N, H, W, C). `relu=True`: max(y, 0), in the same pass.

    Returns (y, cache). Raises ValueError for a wrong shape, TypeError for a wrong dtype or mixed devices.
    """
    arguments.floating(x=x, gamma=gamma, beta=beta)
    arguments.shape("x", x, "N", "H", "W", "C")
    arguments.shape("gamma", gamma, x.shape[3])
    arguments.shape("beta", beta, x.shape[3])
    return _normalise(x, gamma[None], beta[None], eps, relu)


def instance_norm_backward(dy, cache):
    """Return dx, dgamma, dbeta. The mean and the std depend on every pixel, so a part of dy goes back through each:

    dx = gamma / std * (dy - mean(dy) - x^ * mean(dy * x^))        means over H and W
    dgamma = sum of dy * x^,    dbeta = sum of dy                  sums over N, H, W
    """
    dx, dgamma, dbeta = _normalise_backward(dy, cache)
    return dx, dgamma.sum(axis=0).astype(dx.dtype), dbeta.sum(axis=0).astype(dx.dtype)


def conditional_instance_norm(x, gamma, beta, mix, eps=1e-5, relu=False):
    """Instance norm with a row of gamma and beta for each of S styles: gamma, beta (S, C), x and y (N, H, W, C).

        gamma_n = sum over s of mix[n, s] * gamma[s],   beta_n likewise,   y_n = gamma_n * x^_n + beta_n

    mix (N, S) says how much of each style image n gets: a one and zeros for one style, shares for a mixture. Everything
    else in a net is the same for all styles, so that a style is 2*C numbers a layer. Dumoulin, Shlens, Kudlur, "A Learned
    Representation for Artistic Style", arXiv:1610.07629, equation 5.

    Returns (y, cache). Raises ValueError for a wrong shape, TypeError for a wrong dtype or mixed devices.
    """
    arguments.floating(x=x, gamma=gamma, beta=beta, mix=mix)
    arguments.shape("x", x, "N", "H", "W", "C")
    arguments.shape("gamma", gamma, "S", x.shape[3])
    arguments.shape("beta", beta, *gamma.shape)
    arguments.shape("mix", mix, x.shape[0], gamma.shape[0])
    y, cache = _normalise(x, mix @ gamma, mix @ beta, eps, relu)
    return y, (cache, gamma, beta, mix)


def conditional_instance_norm_backward(dy, cache):
    """Return dx, dgamma, dbeta, dmix: those of instance norm for each image, shared out by the mixture.

    dgamma = mix^T dgamma_n,    dbeta = mix^T dbeta_n,    dmix = dgamma_n gamma^T + dbeta_n beta^T
    """
    normalised, gamma, beta, mix = cache
    dx, dgamma, dbeta = _normalise_backward(dy, normalised)
    dgamma, dbeta = dgamma.astype(dx.dtype), dbeta.astype(dx.dtype)
    return dx, mix.T @ dgamma, mix.T @ dbeta, dgamma @ gamma.T + dbeta @ beta.T


def _normalise(x, gamma, beta, eps, relu):
    """y and the cache, with gamma and beta (N or 1, C) for each image or for all."""
    if not eps >= 0:
        raise ValueError(
            f"eps is {eps}; it should be at least 0, and above it where a channel may be constant"
        )
    mean, var = statistics.moments(x)
    std = array_module(x).sqrt(var + eps)
    y = statistics.apply(x, mean, gamma / std, beta, relu)
    return y, (x, gamma, mean, std, y if relu else None)


def _normalise_backward(dy, cache):
    """dx (N, H, W, C), and dgamma, dbeta (N, C) of each image by itself, in float64."""
    x, gamma, mean, std, mask = cache
    arguments.floating(x=x, dy=dy)
    arguments.shape("dy", dy, *x.shape)
    pixels = x.shape[1] * x.shape[2]
    dy_sum, dyx_sum = statistics.backward_sums(x, dy, mean, mask)
    dyx_sum /= std  # the sum of dy * x^
    scale = gamma / std
    dx = statistics.backward_apply(
        x, dy, mean, scale, -scale * dyx_sum / (std * pixels), -scale * dy_sum / pixels, mask
    )
    return dx, dyx_sum, dy_sum


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


def conditional_instance_norm_naive(x, gamma, beta, mix, eps=1e-5):
    """The definition in plain loops, for tests and lessons."""
    y = np.zeros_like(x)
    for n in range(x.shape[0]):
        row = [sum(mix[n, s] * rows[s] for s in range(mix.shape[1])) for rows in (gamma, beta)]
        y[n : n + 1] = instance_norm_naive(x[n : n + 1], *row, eps)
    return y
