"""Exercise: a step of Adam.

Write Adam's __init__ and step with NumPy alone, in place of `raise`. Then, from the project's folder, as often as you
like:

    python -m tinynst.gradcheck lessons/exercises/adam.py

Shapes:

    p, g, m and v of one name have one shape, and each number goes its own way: no sums here

Hints:

    - m, v and the count of steps t live from step to step: make them in __init__, m and v zeros like each parameter.
    - `p -= ...` changes the array that the net holds; `p = p - ...` only makes another one.
"""

import numpy as np  # noqa: F401


class Adam:
    """Adam, Kingma and Ba, arXiv:1412.6980, algorithm 1. `parameters`: {name: array}, updated in place by `step`.

        m = b1*m + (1 - b1)*g           a running mean of the gradient
        v = b2*v + (1 - b2)*g^2         and of its square
        p -= lr * m^ / (sqrt(v^) + eps)         m^ = m / (1 - b1^t), v^ = v / (1 - b2^t): they started at zero

    Each number moves by about lr, however large its gradient is.
    """

    def __init__(self, parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
        raise NotImplementedError("not yet written")

    def step(self, gradients):
        """Move every parameter by its gradient, {name: array} with the parameters' names."""
        raise NotImplementedError("not yet written")
