"""Exercise: max pooling.

Max pooling: of each size x size square only the largest value goes on; backward, only its place
gets the gradient.

Write max_pool2d and max_pool2d_backward with NumPy alone, in place of `raise`. What `cache` holds
is up to you: only your backward reads it. Then grade it, as often as you like:

    python -m tinynst.gradcheck lessons/exercises/max_pool.py

Shapes, for example:

    max_pool2d            x (3, 5, 7, 2)  ->  y (3, 2, 3, 2)
    max_pool2d_backward   dy (3, 2, 3, 2)  ->  dx (3, 5, 7, 2)

Hints:

    - Cut x to whole squares, then reshape it to (N, H//size, size, W//size, size, C): the squares
      are axes 2 and 4.
    - If two pixels of a square are equal, only one of them gets the gradient. What was dropped gets
      0.
"""

import numpy as np  # noqa: F401


def max_pool2d(x, size=2):
    """The largest of each `size` x `size` square of x (N, H, W, C): y (N, H//size, W//size, C).

    What is left over at the bottom and right is dropped. Returns (y, cache).
    """
    raise NotImplementedError("not yet written")


def max_pool2d_backward(dy, cache):
    """Return (dx,): dy at the place of the largest value, 0 elsewhere.

    Where several are equal, the first in reading order gets it.
    """
    raise NotImplementedError("not yet written")
