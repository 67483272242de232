"""Exercise: the style loss.

The paper's losses: each returns (value, gradient by its first argument). The value is a float, the mean over the batch.

Write style_loss with NumPy alone, in place of `raise`. Then, from the project's folder, as often as you like:

    python -m tinynst.gradcheck lessons/exercises/style_loss.py

Shapes, for example:

    style_loss   f (2, 5, 7, 3), target_gram (3, 3)  ->  value a number, df (2, 5, 7, 3)

Hints:

    - You need a Gram matrix, (N, C, C): write it here, or `from gram import gram_matrix` if that exercise is done.
    - Chain rule: the loss by the Gram matrix first (a difference and a factor), then the Gram matrix by f.
"""

import numpy as np  # noqa: F401


def style_loss(f, target_gram):
    """Eq. 4: ||G(f) - target_gram||^2, squared Frobenius norm, of features f (N, H, W, C); target_gram is (C, C), or (1 or N,
    C, C). Zero for any picture whose features fire together as the painting's do, wherever they are.
    """
    raise NotImplementedError("not yet written")
