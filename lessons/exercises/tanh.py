"""Exercise: the scaled tanh that ends a style net.

Write scaled_tanh and scaled_tanh_backward with NumPy alone, in place of `raise`. What `cache` holds is up to you: only
your backward reads it. Then, from the project's folder, as often as you like:

    python -m tinynst.gradcheck lessons/exercises/tanh.py

Shapes, for example:

    scaled_tanh            x (2, 5, 7, 3)  ->  y (2, 5, 7, 3)
    scaled_tanh_backward   dy (2, 5, 7, 3)  ->  dx (2, 5, 7, 3)

Hints:

    - tanh' = 1 - tanh^2, so backward needs y and no second tanh.
    - y is not tanh(x) but scale times it: where does `scale` go in the derivative?
"""

import numpy as np  # noqa: F401


def scaled_tanh(x, scale=150.0):
    """scale * tanh(x): keeps the net's output between -scale and scale, so that colours cannot run away. Returns (y, cache).

    150 and not 128: added to the mean colour it must be able to reach 0 and 255 without tanh being at its flat end.
    """
    raise NotImplementedError("not yet written")


def scaled_tanh_backward(dy, cache):
    """Return (dx,): dy * scale * (1 - tanh(x)^2), from y = scale * tanh(x)."""
    raise NotImplementedError("not yet written")
