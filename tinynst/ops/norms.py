"""Batch norm and instance norm: bring each channel to mean 0 and variance 1, then scale and shift it.

    xhat = (x - mean) / std,   std = sqrt(var + eps),   y = gamma * xhat + beta

Batch norm takes mean and variance over N, H and W (Ioffe and Szegedy, arXiv:1502.03167), instance norm over H
and W of each image: a painting should not depend on the photo's contrast (Ulyanov et al., arXiv:1607.08022).

Backward: g = gamma * dy is the gradient with respect to xhat, means are over M pixels. x reaches the loss

    directly:          d xhat / dx = 1/std                                       g / std
    through the mean:  d xhat / d mean = -1/std,    d mean / dx = 1/M            -mean(g) / std
    through the std:   d xhat / d std = -xhat/std,  d std / dx = xhat/M          -xhat * mean(g * xhat) / std

so dx = (g - mean(g) - xhat * mean(g * xhat)) / std. (The std depends on the mean as well, but its derivative
is -mean(x - mean) / std, which is zero.)
"""

from ..device import array_module
from . import arguments


def batch_norm(x, gamma, beta, running_mean, running_var, training=True, momentum=0.1, eps=1e-5, relu=False):
    """Batch norm of x (N, H, W, C) with gamma, beta, running_mean, running_var (C,). Returns (y, cache).

    training: use the batch's statistics, and update the running ones *in place*: new = (1 - momentum) * old
              + momentum * batch's. As in PyTorch, running_var follows the sample variance (divided by
              N*H*W - 1). Otherwise use the running statistics.
    relu: return max(y, 0)
    Raises ValueError for a wrong shape, TypeError for a wrong dtype or mixed devices.
    """
    check(x, eps, gamma=gamma, beta=beta, running_mean=running_mean, running_var=running_var)
    mean, var = running_mean, running_var
    if training:
        mean, var = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
        update_running(x, mean, var, running_mean, running_var, momentum)
    y, cache = _normalise(x, mean, var, gamma, beta, eps, relu)
    return y, (cache, training)


def batch_norm_backward(dy, cache):
    """Return dx, dgamma, dbeta. In training, with g = gamma * dy, means and sums over N, H and W:

        dx = (g - mean(g) - xhat * mean(g * xhat)) / std,    dgamma = sum of dy * xhat,    dbeta = sum of dy

    With the running statistics mean and std are constants: dx = g / std.
    """
    cache, training = cache
    dx, dgamma, dbeta = _normalise_backward(dy, cache, (0, 1, 2) if training else None)
    return dx, dgamma.sum(axis=0), dbeta.sum(axis=0)


def instance_norm(x, gamma, beta, eps=1e-5, relu=False):
    """Instance norm of x (N, H, W, C) with gamma, beta (C,). Result, relu and errors as batch_norm."""
    check(x, eps, gamma=gamma, beta=beta)
    mean, var = x.mean(axis=(1, 2), keepdims=True), x.var(axis=(1, 2), keepdims=True)
    return _normalise(x, mean, var, gamma, beta, eps, relu)


def instance_norm_backward(dy, cache):
    """Return dx, dgamma, dbeta: as batch norm's in training, with means over H and W of each image."""
    dx, dgamma, dbeta = _normalise_backward(dy, cache, (1, 2))
    return dx, dgamma.sum(axis=0), dbeta.sum(axis=0)


def conditional_instance_norm(x, gamma, beta, mix, eps=1e-5, relu=False):
    """Instance norm of x (N, H, W, C) with a row of gamma, beta (S, C) for each style. Returns (y, cache).

        gamma_n = sum over s of mix[n, s] * gamma[s],   beta_n likewise,   y_n = gamma_n * xhat_n + beta_n

    mix (N, S) is the share of each style in each image: a one and zeros for a single style. The rest of the
    net is the same for all styles, so a style is 2*C numbers per layer. relu: return max(y, 0). Dumoulin et
    al., "A Learned Representation for Artistic Style", arXiv:1610.07629, equation 5. Errors as batch_norm.
    """
    check_conditional(x, gamma, beta, mix, eps)
    mean, var = x.mean(axis=(1, 2), keepdims=True), x.var(axis=(1, 2), keepdims=True)
    gamma_n, beta_n = (mix @ gamma)[:, None, None], (mix @ beta)[:, None, None]
    y, cache = _normalise(x, mean, var, gamma_n, beta_n, eps, relu)
    return y, (cache, gamma, beta, mix)


def conditional_instance_norm_backward(dy, cache):
    """Return dx, dgamma, dbeta, dmix, from the gradients of each image's own gamma_n and beta_n:

    dgamma = mix.T @ dgamma_n,   dbeta = mix.T @ dbeta_n,   dmix = dgamma_n @ gamma.T + dbeta_n @ beta.T
    """
    cache, gamma, beta, mix = cache
    dx, dgamma_n, dbeta_n = _normalise_backward(dy, cache, (1, 2))
    return dx, mix.T @ dgamma_n, mix.T @ dbeta_n, dgamma_n @ gamma.T + dbeta_n @ beta.T


def _normalise(x, mean, var, gamma, beta, eps, relu):
    xp = array_module(x)
    std = xp.sqrt(var + eps)
    xhat = (x - mean) / std
    y = gamma * xhat + beta
    if relu:
        y = xp.maximum(y, 0)
    return y, (xhat, gamma, std, y if relu else None)


def _normalise_backward(dy, cache, axes):
    """dx, and dgamma, dbeta (N, C) of each image. Mean and std were taken over `axes` (None: constants)."""
    xhat, gamma, std, rectified = cache
    arguments.floating(x=xhat, dy=dy)
    arguments.shape("dy", dy, *xhat.shape)
    if rectified is not None:
        dy = dy * (rectified > 0)
    dx = g = gamma * dy
    if axes is not None:
        dx = g - g.mean(axis=axes, keepdims=True) - xhat * (g * xhat).mean(axis=axes, keepdims=True)
    return dx / std, (dy * xhat).sum(axis=(1, 2)), dy.sum(axis=(1, 2))


def update_running(x, mean, var, running_mean, running_var, momentum):
    """Move the running statistics towards the batch's mean and variance (C,), in place."""
    count = x.size // x.shape[3]
    running_mean += momentum * (mean - running_mean).astype(x.dtype)
    running_var += momentum * (var * count / max(count - 1, 1) - running_var).astype(x.dtype)


def check(x, eps, **channels):
    arguments.floating(x=x, **channels)
    arguments.shape("x", x, "N", "H", "W", "C")
    for name, array in channels.items():
        arguments.shape(name, array, x.shape[3])
    if not eps >= 0:
        raise ValueError(f"eps is {eps}; it should be at least 0, and more where a channel may be constant")


def check_conditional(x, gamma, beta, mix, eps):
    check(x, eps)
    arguments.floating(x=x, gamma=gamma, beta=beta, mix=mix)
    arguments.shape("gamma", gamma, "S", x.shape[3])
    arguments.shape("beta", beta, *gamma.shape)
    arguments.shape("mix", mix, x.shape[0], gamma.shape[0])
