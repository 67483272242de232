"""Transposed convolution: each input pixel lays down a kernel. Its backward is a convolution."""

import numpy as np


def conv_transpose2d(x, w, b=None, stride=2, pad=1, output_pad=1):
    (n, h, v, _), (kh, kw, c, _) = x.shape, w.shape
    large = np.zeros((n, (h - 1) * stride + kh + output_pad, (v - 1) * stride + kw + output_pad, c), x.dtype)
    for i in range(kh):
        for j in range(kw):
            large[:, i : i + h * stride : stride, j : j + v * stride : stride][:, :h, :v] += x @ w[i, j].T
    y = large[:, pad : large.shape[1] - pad, pad : large.shape[2] - pad]
    return y + (0 if b is None else b), (x, w, b, stride, pad, large.shape)


def conv_transpose2d_backward(dy, cache):
    x, w, b, stride, pad, shape = cache
    (n, h, v, _), (kh, kw) = x.shape, w.shape[:2]
    large = np.zeros(shape, dy.dtype)
    large[:, pad : shape[1] - pad, pad : shape[2] - pad] = dy
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for i in range(kh):
        for j in range(kw):
            seen = large[:, i : i + h * stride : stride, j : j + v * stride : stride][:, :h, :v]
            dx += seen @ w[i, j]
            dw[i, j] = np.tensordot(seen, x, ((0, 1, 2), (0, 1, 2)))
    db = None if b is None else dy.sum(axis=(0, 1, 2))
    return dx, dw, db
