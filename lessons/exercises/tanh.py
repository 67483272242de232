"""Exercise: the scaled tanh that ends a style net.

Write scaled_tanh and scaled_tanh_backward with NumPy alone, in place of `raise`. What `cache` holds
is up to you: only your backward reads it. Then grade it, as often as you like:

    python -m tinynst.gradcheck lessons/exercises/tanh.py

Shapes, for example:

    scaled_tanh            x (3, 5, 7, 2)  ->  y (3, 5, 7, 2)
    scaled_tanh_backward   dy (3, 5, 7, 2)  ->  dx (3, 5, 7, 2)

Hints:

    - tanh' = 1 - tanh^2, so backward needs y and no second tanh.
    - y is not tanh(x) but scale times it: where does `scale` go in the derivative?
"""

import numpy as np  # noqa: F401


def scaled_tanh(x, scale=150.0):
    """scale * tanh(x): keeps the net's output between -scale and scale. Returns (y, cache).

    150 and not 128: added to the mean colour it must be able to reach 0 and 255 without saturating.
    """
    raise NotImplementedError("not yet written")


def scaled_tanh_backward(dy, cache):
    """Return (dx,): dy * scale * (1 - tanh(x)^2), from y = scale * tanh(x)."""
    raise NotImplementedError("not yet written")
