"""Exercise: the feature loss.

The paper's losses: each returns (value, gradient by its first argument). The value is a float, the
mean over the batch.

Write feature_loss with NumPy alone, in place of `raise`. Then grade it, as often as you like:

    python -m tinynst.gradcheck lessons/exercises/feature_loss.py

Shapes, for example:

    feature_loss   f (3, 5, 7, 2), target (3, 5, 7, 2)  ->  value a number, df (3, 5, 7, 2)

Hints:

    - f.size is N*C*H*W: with it the mean over the batch and the division by C*H*W are one.
    - `target` is a constant. What is the derivative of (f - target)^2 by f?
"""

import numpy as np  # noqa: F401


def feature_loss(f, target):
    """Eq. 2: ||f - target||^2 / (C*H*W) of features (N, H, W, C) and a target of the same shape."""
    raise NotImplementedError("not yet written")
