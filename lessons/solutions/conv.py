"""Convolution as a matrix product for each place in the kernel; backward walks the same slices."""

import numpy as np


def conv2d(x, w, b=None, stride=1, pad=0):
    (n, h, v, c), (kh, kw, _, o) = x.shape, w.shape
    xp = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    oh, ow = (h + 2 * pad - kh) // stride + 1, (v + 2 * pad - kw) // stride + 1
    y = np.zeros((n, oh, ow, o), x.dtype) + (0 if b is None else b)
    for i in range(kh):
        for j in range(kw):
            y += xp[:, i : i + stride * oh : stride, j : j + stride * ow : stride][:, :oh, :ow] @ w[i, j]
    return y, (x, xp, w, b, stride, pad)


def conv2d_backward(dy, cache):
    x, xp, w, b, stride, pad = cache
    (n, oh, ow, o), (kh, kw) = dy.shape, w.shape[:2]
    dxp, dw = np.zeros_like(xp), np.zeros_like(w)
    for i in range(kh):
        for j in range(kw):
            at = np.s_[:, i : i + stride * oh : stride, j : j + stride * ow : stride]
            dxp[at] += dy @ w[i, j].T
            dw[i, j] = np.tensordot(xp[at], dy, ((0, 1, 2), (0, 1, 2)))
    dx = dxp[:, pad : pad + x.shape[1], pad : pad + x.shape[2]]
    db = None if b is None else dy.sum(axis=(0, 1, 2))
    return dx, dw, db
