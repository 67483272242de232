"""Exercise: batch norm.

Batch norm: each channel is brought to mean 0 and variance 1 over the whole batch, then scaled and
shifted.

    x^ = (x - mean) / std,   y = gamma * x^ + beta,   mean and std = sqrt(var + eps) over N, H and W

In training the mean and the variance are the batch's; running averages of them are kept for later,
when an image comes alone. Ioffe and Szegedy, arXiv:1502.03167.

Write batch_norm and batch_norm_backward with NumPy alone, in place of `raise`. What `cache` holds
is up to you: only your backward reads it. Then grade it, as often as you like:

    python -m tinynst.gradcheck lessons/exercises/batch_norm.py

Shapes, for example:

    batch_norm            x (3, 5, 7, 2), gamma (2,), beta (2,), running statistics (2,)  ->  y (3, 5, 7, 2)
    batch_norm_backward   dy (3, 5, 7, 2)  ->  dx (3, 5, 7, 2), dgamma (2,), dbeta (2,)

Hints:

    - In training, the mean is that over axes 0, 1, 2, and the running statistics are updated in
      place (running_mean *= ... then += ...) and not used. Otherwise they are used, not updated,
      and no gradient goes through them.
    - Two variances: y is made with the one divided by N*H*W, running_var learns the one divided by
      N*H*W - 1.
"""

import numpy as np  # noqa: F401


def batch_norm(x, gamma, beta, running_mean, running_var, training=True, momentum=0.1, eps=1e-5):
    """Normalise x (N, H, W, C) with gamma, beta, running_mean, running_var (C,): y (N, H, W, C).

    In training the running statistics are updated *in place*: new = (1 - momentum) * old + momentum * batch,
    with the sample variance (divided by N*H*W - 1), as in PyTorch.
    Returns (y, cache).
    """
    raise NotImplementedError("not yet written")


def batch_norm_backward(dy, cache):
    """Return dx, dgamma, dbeta. In training, with means and sums over N, H, W:

        dx = gamma / std * (dy - mean(dy) - x^ * mean(dy * x^)),
        dgamma = sum of dy * x^,    dbeta = sum of dy

    With the running statistics mean and std are constants: dx = gamma / std * dy.
    """
    raise NotImplementedError("not yet written")
