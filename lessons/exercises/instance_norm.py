"""Exercise: instance norm.

Instance norm: each channel of each image is brought to mean 0 and variance 1, then scaled and
shifted.

    x^ = (x - mean) / std,   y = gamma * x^ + beta,   mean and std = sqrt(var + eps) over H and W of one image

A picture's contrast is a property of its content, which the stylised picture should not depend on:
that is why the style nets train better with it than with batch norm. Ulyanov, Vedaldi, Lempitsky,
arXiv:1607.08022.

Write instance_norm and instance_norm_backward with NumPy alone, in place of `raise`. What `cache`
holds is up to you: only your backward reads it. Then grade it, as often as you like:

    python -m tinynst.gradcheck lessons/exercises/instance_norm.py

Shapes, for example:

    instance_norm            x (3, 5, 7, 2), gamma (2,), beta (2,)  ->  y (3, 5, 7, 2)
    instance_norm_backward   dy (3, 5, 7, 2)  ->  dx (3, 5, 7, 2), dgamma (2,), dbeta (2,)

Hints:

    - mean(axis=(1, 2), keepdims=True) keeps shapes that broadcast. x^ and std are all that backward
      needs.
    - dx has three terms because mean and std depend on every pixel. gamma and beta are shared by
      all images: their gradients sum over N too.
"""

import numpy as np  # noqa: F401


def instance_norm(x, gamma, beta, eps=1e-5):
    """Normalise x (N, H, W, C) with gamma, beta (C,): y (N, H, W, C).

    Returns (y, cache).
    """
    raise NotImplementedError("not yet written")


def instance_norm_backward(dy, cache):
    """Return dx, dgamma, dbeta. Mean and std depend on every pixel, so dy also goes back through them:

    dx = gamma / std * (dy - mean(dy) - x^ * mean(dy * x^))        means over H and W
    dgamma = sum of dy * x^,    dbeta = sum of dy                  sums over N, H, W
    """
    raise NotImplementedError("not yet written")
