"""Exercise: the Gram matrix.

The Gram matrix: which features occur together, wherever in the picture. It is what the paper calls
style (eq. 3).

Write gram_matrix and gram_matrix_backward with NumPy alone, in place of `raise`. What `cache` holds
is up to you: only your backward reads it. Then grade it, as often as you like:

    python -m tinynst.gradcheck lessons/exercises/gram.py

Shapes, for example:

    gram_matrix            f (3, 5, 7, 2)  ->  gram (3, 2, 2)
    gram_matrix_backward   dgram (3, 2, 2)  ->  df (3, 5, 7, 2)

Hints:

    - With f as (N, H*W, C) it is one matrix product: f.transpose(0, 2, 1) @ f.
    - f stands on both sides of the product, and each side gives the gradient a term. dgram need not
      be symmetric.
"""

import numpy as np  # noqa: F401


def gram_matrix(f):
    """G[n] = f[n].T @ f[n] / (C*H*W) with f[n] as (H*W, C): (N, H, W, C) -> (N, C, C).

    G is symmetric. Returns (G, cache).

    Eq. 3 of Johnson et al.
    """
    raise NotImplementedError("not yet written")


def gram_matrix_backward(dgram, cache):
    """Return (df,): df[n] = f[n] @ (dG[n] + dG[n].T) / (C*H*W)."""
    raise NotImplementedError("not yet written")
