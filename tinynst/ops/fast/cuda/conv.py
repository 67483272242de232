"""The convolutions by kernels: conv.cu computes outputs and gradients with respect to inputs, conv_weights.cu
gradients with respect to kernels and biases. Each takes one launch or two, and no patches are stored."""

import math

import numpy as np

from ....device import array_module
from ... import arguments, conv_transpose
from ... import conv as plain
from .launch import launch

# A large GPU has about this many multiprocessors. With fewer blocks some of them would wait, so tiles are
# smaller then, or blocks share a sum. The number is fixed, so that every GPU adds in the same order.
ENOUGH_BLOCKS = 128
NARROW = (4, 1, 4), (16, 4, 4), (32, 4, 4)  # tiles for few output channels


def conv2d(x, w, b=None, stride=1, pad=0, relu=False, memo=None):
    xp, stride, pad, size = plain.check(x, w, b, stride, pad)
    y = xp.empty((x.shape[0], *size, w.shape[3]), x.dtype)
    _convolve(x, None, w, b, y, stride, pad, relu)
    return y, (x, w, b is not None, stride, pad, size, y if relu else None, memo)


def conv2d_backward(dy, cache, need=("x", "w")):
    x, w, has_b, stride, pad, size, rectified, _ = cache
    xp = arguments.floating(x=x, dy=dy)
    arguments.shape("dy", dy, x.shape[0], *size, w.shape[3])
    dx = dw = db = None
    if "x" in need:
        dx = xp.empty(x.shape, x.dtype)
        _convolve(dy, rectified, w, None, dx, stride, pad, transposed=True)
    if "w" in need:
        dw, db = _kernel_gradient(x, dy, rectified, w.shape, stride, pad, has_b)
    return dx, dw, db


def conv_transpose2d(x, w, b=None, stride=2, pad=1, output_pad=1):
    xp, stride, pad, size = conv_transpose.check(x, w, b, stride, pad, output_pad)
    y = xp.empty((x.shape[0], *size, w.shape[2]), x.dtype)
    _convolve(x, None, w, b, y, stride, pad, transposed=True)
    return y, (x, w, b is not None, stride, pad, size)


def conv_transpose2d_backward(dy, cache, need=("x", "w")):
    x, w, has_b, stride, pad, size = cache
    xp = arguments.floating(x=x, dy=dy)
    arguments.shape("dy", dy, x.shape[0], *size, w.shape[2])
    dx = dw = db = None
    if "x" in need:
        dx = xp.empty(x.shape, x.dtype)
        _convolve(dy, None, w, None, dx, stride, pad)
    if "w" in need:
        dw, _ = _kernel_gradient(dy, x, None, w.shape, stride, pad, False)
        if has_b:  # the bias's part of a convolution without taps
            _, db = _kernel_gradient(dy, dy, None, (0, 0, 0, w.shape[2]), 1, 0, True)
    return dx, dw, db


def _convolve(x, mask, w, b, y, stride, pad, relu=False, transposed=False):
    """Write conv2d of x, or with `transposed` conv_transpose2d, to y."""
    n, height, width, channels = y.shape
    every = stride if transposed else 1
    pixels = n * -(-height // every) * -(-width // every)
    tile = _tile(pixels, channels, x.dtype, times=every * every)
    grid = -(-pixels // _rows(tile)), -(-channels // tile["COLS"]), every * every
    arrays = (_dense(array) for array in (x, mask, w, b))
    sizes = *x.shape, *y.shape[1:], *w.shape[:2]
    args = *arrays, y, *sizes, stride, pad, relu
    launch("conv.cu", "convolve", grid, args, TRANSPOSED=int(transposed), **tile)


def _kernel_gradient(x, dy, mask, shape, stride, pad, has_b):
    """dw of `shape` and db (None without `has_b`) of conv2d with the input x."""
    xp, (n, height, width, outputs) = array_module(x), dy.shape
    k, pixels = math.prod(shape[:3]), n * height * width
    most = -(-pixels // 256)  # parts of at least 256 pixels
    tile = _tile(k, outputs, x.dtype, times=most)
    grid = -(-(k + has_b) // _rows(tile)), -(-outputs // tile["COLS"])
    count = min(-(-4 * ENOUGH_BLOCKS // math.prod(grid)), most)
    each = -(-pixels // (8 * count)) * 8  # a multiple of DEPTH
    count = -(-pixels // each)
    parts = xp.empty((count, k + has_b, outputs), x.dtype)
    sizes = *x.shape, *dy.shape[1:], *shape[:2]
    args = *(_dense(array) for array in (dy, x, mask)), parts, *sizes, stride, pad, has_b, each
    launch("conv_weights.cu", "kernel_gradient", (*grid, count), args, **tile)
    total = parts[0]
    if count > 1:
        total = xp.empty(total.shape, x.dtype)
        launch(
            "conv_weights.cu",
            "add_parts",
            (-(-total.size // 256),),
            (parts, total, count, total.size),
            **tile,
        )
    return total[:k].reshape(shape), total[k] if has_b else None


def _tile(rows, cols, dtype, times):
    """The macros of product.cuh for a matrix of `rows` x `cols`: a block's columns, a thread's rows, columns.
    times: how many such matrices there are, or how many parts of their sums"""
    if cols <= 32:
        return _macros(*next(tile for tile in NARROW if cols <= tile[0]))
    large = _macros(64 if cols <= 64 else 128, 8, 8)
    blocks = times * -(-rows // _rows(large)) * -(-cols // large["COLS"])
    fits = dtype == np.float32 and rows >= _rows(large)  # 64 sums in float64 take too many registers
    return large if fits and blocks >= ENOUGH_BLOCKS else _macros(64, 4, 4)


def _macros(*tile):
    return dict(zip(("COLS", "PER_ROWS", "PER_COLS"), tile, strict=True))


def _rows(tile):
    """ROWS of product.cuh: a block has 256 threads."""
    return 256 * tile["PER_COLS"] // tile["COLS"] * tile["PER_ROWS"]


def _dense(array):
    return array if array is None else array_module(array).ascontiguousarray(array)
