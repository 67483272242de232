"""Exercise: the residual block.

A layer has `forward(x, training)`, `backward(dy)`, and three dicts of arrays: `parameters()`,
learnt; `gradients()`, the same keys, after a backward pass; `buffers()`, kept but not learnt (batch
norm's running statistics). In training, forward keeps what backward needs and backward uses it up;
otherwise nothing is kept, and memory stays small.

Write Residual's __init__, forward and backward with NumPy alone, in place of `raise`. Then grade
it, as often as you like:

    python -m tinynst.gradcheck lessons/exercises/residual.py

Shapes:

    forward    x (N, H, W, C)  ->  y (N, H - 2*crop, W - 2*crop, C)
    backward   dy as y  ->  dx as x

Hints:

    - `layers` is {name: layer}, in order: call their forward one after another, and their backward
      the other way round. They keep their own gradients.
    - x goes two ways, through the layers and past them: dx is the sum of what comes back on both.
      Where the identity was cropped it brings nothing back.
"""

import numpy as np  # noqa: F401


class Residual:
    """y = layers(x) + x, with x cropped by `crop` on each side to the size that unpadded convolutions leave.

    He et al., arXiv:1512.03385, without a ReLU after the addition (Gross and Wilber).
    """

    def __init__(self, layers, crop=0):
        raise NotImplementedError("not yet written")

    def forward(self, x, training=False):
        raise NotImplementedError("not yet written")

    def backward(self, dy):
        raise NotImplementedError("not yet written")
