"""Exercise: the total variation loss.

The paper's losses: each returns (value, gradient by its first argument). The value is a float, the
mean over the batch.

Write tv_loss with NumPy alone, in place of `raise`. Then grade it, as often as you like:

    python -m tinynst.gradcheck lessons/exercises/tv_loss.py

Shapes, for example:

    tv_loss   y (3, 5, 7, 2)  ->  value a number, dy (3, 5, 7, 2)

Hints:

    - Two slices, y[:, 1:] and y[:, :-1], make all the differences down; two more those across.
    - Each difference is of two pixels: its gradient adds to the one (+=) and is taken from the
      other (-=).
"""

import numpy as np  # noqa: F401


def tv_loss(y):
    """Total variation of images (N, H, W, C): half the sum of squared differences of neighbours.

    Neighbours are those below and to the right. Divided by N, as every loss here is the mean over the batch.
    """
    raise NotImplementedError("not yet written")
