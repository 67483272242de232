"""Exercise: a step of Adam.

Write Adam's __init__ and step with NumPy alone, in place of `raise`. Then grade it, as often as you
like:

    python -m tinynst.gradcheck lessons/exercises/adam.py

Shapes:

    p, g, m and v of one name have the same shape; every operation is elementwise, there are no sums

Hints:

    - m, v and the step count t are kept from step to step: make them in __init__, m and v zeros
      like each parameter.
    - `p -= ...` changes the array that the net holds; `p = p - ...` only makes another one.
"""

import numpy as np  # noqa: F401


class Adam:
    """Adam, algorithm 1 of Kingma and Ba, arXiv:1412.6980.

    `parameters`: {name: array}, updated in place by `step`.

        m = b1*m + (1 - b1)*g           a running mean of the gradient
        v = b2*v + (1 - b2)*g^2         and of its square
        m^ = m / (1 - b1^t),  v^ = v / (1 - b2^t)       because both start at zero
        p -= lr * m^ / (sqrt(v^) + eps)

    Each number moves by about lr, however large its gradient is.
    """

    def __init__(self, parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
        raise NotImplementedError("not yet written")

    def step(self, gradients):
        """Move every parameter by its gradient, {name: array} with the parameters' names."""
        raise NotImplementedError("not yet written")
