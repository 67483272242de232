"""Reflection padding as a choice of rows and columns; backward adds each back to where it came from."""

import numpy as np


def reflect_pad2d(x, pad):
    rows, columns = (np.pad(np.arange(size), pad, "reflect") for size in x.shape[1:3])
    return x[:, rows][:, :, columns], (x.shape, rows, columns)


def reflect_pad2d_backward(dy, cache):
    (n, h, w, c), rows, columns = cache
    tall, dx = np.zeros_like(dy[:, :h]), np.zeros_like(dy[:, :h, :w])
    for i, row in enumerate(rows):
        tall[:, row] += dy[:, i]
    for j, column in enumerate(columns):
        dx[:, :, column] += tall[:, :, j]
    return dx
