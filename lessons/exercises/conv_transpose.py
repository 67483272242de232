"""Exercise: transposed convolution.

Transposed convolution (the paper's "stride 1/2"): each input pixel paints the kernel, times its value, on the output.

    y[n, i*stride + a - pad, j*stride + b - pad, c] += x[n, i, j, o] * w[a, b, c, o]

Write conv_transpose2d and conv_transpose2d_backward with NumPy alone, in place of `raise`. What `cache` holds is up to
you: only your backward reads it. Then, from the project's folder, as often as you like:

    python -m tinynst.gradcheck lessons/exercises/conv_transpose.py

Shapes, for example:

    conv_transpose2d            x (2, 5, 7, 3), w (3, 3, 4, 3), b (4,)  ->  y (2, 10, 14, 4)
    conv_transpose2d_backward   dy (2, 10, 14, 4)  ->  dx (2, 5, 7, 3), dw (3, 3, 4, 3), db (4,)

Hints:

    - Two loops over the kernel's rows a and columns b: x @ w[a, b].T is added (+=) to every stride-th pixel, from (a,
      b) on, of an image with room for all of it. Then take `pad` pixels off each side, `output_pad` fewer below and
      right.
    - Backward reads dy where forward wrote y: put dy back in the large image, and go through the same loops.
"""

import numpy as np  # noqa: F401


def conv_transpose2d(x, w, b=None, stride=2, pad=1, output_pad=1):
    """Transposed convolution of x (N, H, W, IN) with w (KH, KW, OUT, IN), plus b (OUT,): y (N, OH, OW, OUT),
    OH = (H - 1)*stride - 2*pad + KH + output_pad (3x3, stride 2, pad 1, output_pad 1: twice the size).

    `output_pad` (less than stride) rows and columns more at the bottom and right: of the input sizes that conv2d maps to H,
    it picks one. Returns (y, cache).
    """
    raise NotImplementedError("not yet written")


def conv_transpose2d_backward(dy, cache):
    """Return dx, dw, db for dy (N, OH, OW, OUT): dx is conv2d of dy with w, dw is conv2d's with x and dy in each other's
    place, db the sum of dy. db is None where there is no b.
    """
    raise NotImplementedError("not yet written")
