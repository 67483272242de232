"""Exercise: ReLU.

Write relu and relu_backward with NumPy alone, in place of `raise`. What `cache` holds is up to you:
only your backward reads it. Then grade it, as often as you like:

    python -m tinynst.gradcheck lessons/exercises/relu.py

Shapes, for example:

    relu            x (3, 5, 7, 2)  ->  y (3, 5, 7, 2)
    relu_backward   dy (3, 5, 7, 2)  ->  dx (3, 5, 7, 2)

Hints:

    - Keep in `cache` whatever tells backward where x was positive.
    - dy and x have the same shape, and pixels do not meet: no sums here.
"""

import numpy as np  # noqa: F401


def relu(x):
    """max(x, 0). Returns (y, cache); any shape."""
    raise NotImplementedError("not yet written")


def relu_backward(dy, cache):
    """Return (dx,): dy where x > 0, else 0 (also at x = 0, where there is no derivative)."""
    raise NotImplementedError("not yet written")
