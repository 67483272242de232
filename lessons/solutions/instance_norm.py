"""Instance norm: mean and variance of each channel of each image, and the three terms of dx."""

import numpy as np

AXES = (1, 2)


def instance_norm(x, gamma, beta, eps=1e-5):
    mean, var = x.mean(axis=AXES, keepdims=True), x.var(axis=AXES, keepdims=True)
    std = np.sqrt(var + eps)
    xhat = (x - mean) / std
    return gamma * xhat + beta, (x, xhat, std, gamma)


def instance_norm_backward(dy, cache):
    x, xhat, std, gamma = cache
    mean_term = dy.mean(axis=AXES, keepdims=True)
    std_term = xhat * (dy * xhat).mean(axis=AXES, keepdims=True)
    dx = gamma / std * (dy - mean_term - std_term)
    dgamma, dbeta = (dy * xhat).sum(axis=(0, 1, 2)), dy.sum(axis=(0, 1, 2))
    return dx, dgamma, dbeta
