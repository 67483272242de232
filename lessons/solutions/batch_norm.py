"""Batch norm: mean and variance over the batch in training, running ones afterwards."""

import numpy as np

AXES = (0, 1, 2)


def batch_norm(x, gamma, beta, running_mean, running_var, training=True, momentum=0.1, eps=1e-5):
    mean, var = running_mean.copy(), running_var.copy()
    if training:
        mean, var = x.mean(axis=AXES), x.var(axis=AXES)
        running_mean += momentum * (mean - running_mean)
        running_var += momentum * (x.var(axis=AXES, ddof=1) - running_var)
    std = np.sqrt(var + eps)
    xhat = (x - mean) / std
    return gamma * xhat + beta, (xhat, std, gamma, training, running_mean, running_var)


def batch_norm_backward(dy, cache):
    xhat, std, gamma, training, running_mean, running_var = cache
    dx = gamma / std * dy
    if training:
        dx = gamma / std * (dy - dy.mean(axis=AXES) - xhat * (dy * xhat).mean(axis=AXES))
    dgamma, dbeta = (dy * xhat).sum(axis=AXES), dy.sum(axis=AXES)
    return dx, dgamma, dbeta
