"""Exercise: the style loss.

The paper's losses: each returns (value, gradient by its first argument). The value is a float, the
mean over the batch.

Write style_loss with NumPy alone, in place of `raise`. Then grade it, as often as you like:

    python -m tinynst.gradcheck lessons/exercises/style_loss.py

Shapes, for example:

    style_loss   f (3, 5, 7, 2), target_gram (2, 2)  ->  value a number, df (3, 5, 7, 2)

Hints:

    - You need a Gram matrix, (N, C, C): write it here, or `from gram import gram_matrix` if that
      exercise is done.
    - Chain rule: the loss by the Gram matrix first (a difference and a factor), then the Gram
      matrix by f.
"""

import numpy as np  # noqa: F401


def style_loss(f, target_gram):
    """Eq. 4: ||G(f) - target_gram||^2, the squared Frobenius norm, of features f (N, H, W, C).

    `target_gram` is (C, C), (1, C, C) or (N, C, C), and symmetric, as every Gram matrix is.
    """
    raise NotImplementedError("not yet written")
