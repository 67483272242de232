"""Exercise: convolution.

Convolution: every output pixel is the dot product of a patch of the image with the kernel.

    y[n, i, j, o] = b[o] + sum over p, q, c of x[n, i*stride + p - pad, j*stride + q - pad, c] * w[p, q, c, o]

Write conv2d and conv2d_backward with NumPy alone, in place of `raise`. What `cache` holds is up to
you: only your backward reads it. Then grade it, as often as you like:

    python -m tinynst.gradcheck lessons/exercises/conv.py

Shapes, for example:

    conv2d            x (3, 5, 7, 2), w (3, 3, 2, 4), b (4,)  ->  y (3, 3, 5, 4)
    conv2d_backward   dy (3, 3, 5, 4)  ->  dx (3, 5, 7, 2), dw (3, 3, 2, 4), db (4,)

Hints:

    - Two loops are enough, over the kernel's rows p and columns q: the pixels of the padded x that
      meet w[p, q] are a slice with step `stride`, of shape (N, OH, OW, C); times w[p, q], (C, O),
      it is added to y.
    - Backward goes through the same loops. What forward read from x, backward adds to dx (+=,
      because patches overlap), and dw[p, q] is a sum over all images and pixels. At the end crop
      the padding from dx.
"""

import numpy as np  # noqa: F401


def conv2d(x, w, b=None, stride=1, pad=0):
    """Convolve x (N, H, W, C) with w (KH, KW, C, O), add b (O,): y (N, OH, OW, O).

    OH = (H + 2*pad - KH)//stride + 1, and OW likewise.

    Returns (y, cache); float32 or float64 as x.
    """
    raise NotImplementedError("not yet written")


def conv2d_backward(dy, cache):
    """Return dx, dw, db for dy (N, OH, OW, O); db is None where there is no b.

    dx[n, h, w] = sum over the patches that (h, w) is in      db = sum of dy over N, OH, OW
    dw[p, q] = sum over n, i, j of  x[n, i*stride + p - pad, j*stride + q - pad] outer dy[n, i, j]
    """
    raise NotImplementedError("not yet written")
