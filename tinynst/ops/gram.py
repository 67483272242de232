"""The Gram matrix: which features occur together, wherever in the picture. The paper's measure of style."""

from . import arguments


def gram_matrix(f):
    """G[n] = f[n].T @ f[n] / (C*H*W) with f[n] as (H*W, C), eq. 3: f (N, H, W, C) -> symmetric G (N, C, C).

    Returns (G, cache). Raises ValueError for a wrong shape, TypeError for a wrong dtype.
    """
    arguments.floating(f=f)
    arguments.shape("f", f, "N", "H", "W", "C")
    n, h, w, c = f.shape
    pixels = f.reshape(n, h * w, c)
    return pixels.transpose(0, 2, 1) @ pixels / (c * h * w), f


def gram_matrix_backward(dgram, cache):
    """Return (df,): df[n] = f[n] @ (dG[n] + dG[n].T) / (C*H*W), because f is on both sides of the product."""
    f = cache
    arguments.floating(f=f, dgram=dgram)
    n, h, w, c = f.shape
    arguments.shape("dgram", dgram, n, c, c)
    df = f.reshape(n, h * w, c) @ (dgram + dgram.transpose(0, 2, 1)) / (c * h * w)
    return (df.reshape(f.shape),)
