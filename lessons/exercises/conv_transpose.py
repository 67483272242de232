"""Exercise: transposed convolution.

Transposed convolution (the paper's "stride 1/2"): each input pixel paints the kernel, times its
value, on the output.

    y[n, i*stride + p - pad, j*stride + q - pad, c] += x[n, i, j, o] * w[p, q, c, o]

Write conv_transpose2d and conv_transpose2d_backward with NumPy alone, in place of `raise`. What
`cache` holds is up to you: only your backward reads it. Then grade it, as often as you like:

    python -m tinynst.gradcheck lessons/exercises/conv_transpose.py

Shapes, for example:

    conv_transpose2d            x (3, 5, 7, 2), w (3, 3, 4, 2), b (4,)  ->  y (3, 10, 14, 4)
    conv_transpose2d_backward   dy (3, 10, 14, 4)  ->  dx (3, 5, 7, 2), dw (3, 3, 4, 2), db (4,)

Hints:

    - Two loops over the kernel's rows p and columns q: x @ w[p, q].T is added (+=) to every
      stride-th pixel, from (p, q) on, of an image with room for all of it. Then crop `pad` pixels
      from each side, `output_pad` fewer at the bottom and right.
    - Backward reads dy where forward wrote y: put dy back in the large image, and go through the
      same loops.
"""

import numpy as np  # noqa: F401


def conv_transpose2d(x, w, b=None, stride=2, pad=1, output_pad=1):
    """Transposed convolution of x (N, H, W, IN) with w (KH, KW, OUT, IN), plus b (OUT,): y (N, OH, OW, OUT).

    OH = (H - 1)*stride - 2*pad + KH + output_pad (3x3, stride 2, pad 1, output_pad 1: twice the size).
    `output_pad` (less than stride) adds rows and columns at the bottom and right: several input sizes of
    conv2d have the same output size, and it picks one of them. Returns (y, cache).
    """
    raise NotImplementedError("not yet written")


def conv_transpose2d_backward(dy, cache):
    """Return dx, dw, db for dy (N, OH, OW, OUT): dx is conv2d of dy with w, dw is conv2d's dw with x and dy
    exchanged, db is the sum of dy (None where there is no b).
    """
    raise NotImplementedError("not yet written")
