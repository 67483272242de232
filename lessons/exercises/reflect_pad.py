"""Exercise: reflection padding.

Write reflect_pad2d and reflect_pad2d_backward with NumPy alone, in place of `raise`. What `cache`
holds is up to you: only your backward reads it. Then grade it, as often as you like:

    python -m tinynst.gradcheck lessons/exercises/reflect_pad.py

Shapes, for example with pad=2:

    reflect_pad2d            x (3, 5, 7, 2)  ->  y (3, 9, 11, 2)
    reflect_pad2d_backward   dy (3, 9, 11, 2)  ->  dx (3, 5, 7, 2)

Hints:

    - Forward: np.pad, or x[:, rows][:, :, columns] with `rows` the pixel that stands at each place:
      2, 1, 0, 1, 2 ...
    - Backward: a pixel near the border stands at several places, and the gradients of all of them
      add up. Beware: dx[:, rows] += ... adds only once where an index is there twice; np.add.at, or
      a loop over rows, adds each time.
"""

import numpy as np  # noqa: F401


def reflect_pad2d(x, pad):
    """Mirror x (N, H, W, C) at its borders, `pad` pixels on each side: y (N, H + 2*pad, W + 2*pad, C).

    As np.pad(mode="reflect"): the border pixel itself is not repeated. A pad
    larger than the image mirrors the mirror image again.
    Returns (y, cache).
    """
    raise NotImplementedError("not yet written")


def reflect_pad2d_backward(dy, cache):
    """Return (dx,): every pixel adds up the gradients of all its mirror images."""
    raise NotImplementedError("not yet written")
