"""Exercise: the total variation loss.

The paper's losses: each returns (value, gradient by its first argument). The value is a float, the mean over the batch.

Write tv_loss with NumPy alone, in place of `raise`. Then, from the project's folder, as often as you like:

    python -m tinynst.gradcheck lessons/exercises/tv_loss.py

Shapes, for example:

    tv_loss   y (2, 5, 7, 3)  ->  value a number, dy (2, 5, 7, 3)

Hints:

    - Two slices, y[:, 1:] and y[:, :-1], make all the differences down; two more those across.
    - Each difference is of two pixels: its gradient adds to the one (+=) and is taken from the other (-=).
"""

import numpy as np  # noqa: F401


def tv_loss(y):
    """Total variation of images (N, H, W, C): half the sum of squared differences of neighbours, down and across."""
    raise NotImplementedError("not yet written")
