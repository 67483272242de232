"""Batch norm: each channel is brought to mean 0 and variance 1 over the whole batch, then scaled and shifted.

    x^ = (x - mean) / std,   y = gamma * x^ + beta,   mean and std = sqrt(var + eps) over N, H and W

In training the mean and the variance are the batch's; running averages of them are kept for later, when an image comes
alone. Ioffe and Szegedy, arXiv:1502.03167.
"""

import numpy as np

from . import arguments
from .fast import statistics


def batch_norm(x, gamma, beta, running_mean, running_var, training=True, momentum=0.1, eps=1e-5, relu=False):
    """Normalise x (N, H, W, C) with gamma, beta, running_mean, running_var (C,): y (N, H, W, C).

    In training the running statistics are updated *in place*: new = (1 - momentum) * old + momentum * batch's, where the
    variance counts as the sample's (divided by N*H*W - 1), as PyTorch keeps it. `relu=True`: max(y, 0), in the same pass.
    Returns (y, cache). Raises ValueError for a wrong shape, TypeError for a wrong dtype or mixed devices.
    """
    xp = arguments.floating(x=x, gamma=gamma, beta=beta, running_mean=running_mean, running_var=running_var)
    arguments.shape("x", x, "N", "H", "W", "C")
    if not eps >= 0:
        raise ValueError(
            f"eps is {eps}; it should be at least 0, and above it where a channel may be constant"
        )
    for name, array in {
        "gamma": gamma,
        "beta": beta,
        "running_mean": running_mean,
        "running_var": running_var,
    }.items():
        arguments.shape(name, array, x.shape[3])
    if training:
        image_mean, image_var = statistics.moments(x)
        mean = image_mean.mean(axis=0, keepdims=True)
        var = (image_var + (image_mean - mean) ** 2).mean(axis=0, keepdims=True)
        count = x.size // x.shape[3]
        running_mean += momentum * (mean[0] - running_mean).astype(x.dtype)
        running_var += momentum * (var[0] * count / max(count - 1, 1) - running_var).astype(x.dtype)
    else:
        mean, var = running_mean[None].astype(np.float64), running_var[None].astype(np.float64)
    std = xp.sqrt(var + eps)
    y = statistics.apply(x, mean, gamma / std, beta[None], relu)
    return y, (x, gamma, mean, std, training, y if relu else None)


def batch_norm_backward(dy, cache):
    """Return dx, dgamma, dbeta. In training, with means and sums over N, H, W:

        dx = gamma / std * (dy - mean(dy) - x^ * mean(dy * x^)),    dgamma = sum of dy * x^,    dbeta = sum of dy

    With the running statistics mean and std are constants: dx = gamma / std * dy.
    """
    x, gamma, mean, std, training, mask = cache
    xp = arguments.floating(x=x, dy=dy)
    arguments.shape("dy", dy, *x.shape)
    pixels = x.size // x.shape[3]
    sums = statistics.backward_sums(x, dy, mean, mask)
    dy_sum, dyx_sum = (s.sum(axis=0, keepdims=True) for s in sums)
    dyx_sum /= std  # the sum of dy * x^
    scale = gamma / std
    b, c = -scale * dyx_sum / (std * pixels), -scale * dy_sum / pixels
    if not training:
        b, c = xp.zeros_like(b), xp.zeros_like(c)
    dx = statistics.backward_apply(x, dy, mean, scale, b, c, mask)
    return dx, dyx_sum[0].astype(x.dtype), dy_sum[0].astype(x.dtype)


def batch_norm_naive(x, gamma, beta, running_mean, running_var, training=True, momentum=0.1, eps=1e-5):
    """The definition in plain loops, for tests and lessons; the running statistics are only read."""
    y = np.zeros_like(x)
    for c in range(x.shape[3]):
        plane = x[:, :, :, c]
        mean, var = float(running_mean[c]), float(running_var[c])
        if training:
            mean = sum(float(v) for v in plane.ravel()) / plane.size
            var = sum((float(v) - mean) ** 2 for v in plane.ravel()) / plane.size
        y[:, :, :, c] = gamma[c] * (plane - mean) / np.sqrt(var + eps) + beta[c]
    return y
