"""3x3 convolution at stride 1 with a quarter of the products: Winograd's F(4x4, 3x3), written as matrix products.

A 4x4 tile of the output needs a 6x6 tile of the input. The plain way takes 16 * 9 = 144 products for it, per pair of
channels. Polynomial multiplication through values at six points (0, 1, -1, 2, -2, infinity), along each axis, takes 36:

    V = B'  tile  B     values of the image tile at the points
    U = G  kernel G'    values of the kernel
    M = V * U           product of the values, summed over the channels: 36 matrix products (tiles, C) @ (C, O)
    Y = A'  M  A        back to pixels

Neighbouring image tiles overlap by two pixels. The transforms go one axis at a time, each a product of a small matrix with long
rows, all tiles and channels side by side (`_transform`).

S. Winograd, "Arithmetic Complexity of Computations" (1980); A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural
Networks", arXiv:1509.09308, section 4, for the matrices.

Backward: the input's gradient is again a 3x3 convolution (of dy, with the kernel turned round). The kernel's gradient is
the chain above transposed: dM = A dY A', dU = V.T @ dM, dw = G' dU G.

The values at 2 and -2 reach 4 times the pixels, so a few bits are lost: about 1e-5 relative in float32.
"""

import functools

import numpy as np

from ...device import array_module
from ..activations import rectify
from . import parallel
from .windows import as_strided, dense, extended

# A row for each point, in the order 0, 1, -1, 2, -2, infinity
BT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
G = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
A = ((1, 0, 0, 0), (1, 1, 1, 1), (1, -1, 1, -1), (1, 2, 4, 8), (1, -2, 4, -8), (0, 0, 0, 1))
FEW = 64  # tiles: then a kernel of many channels takes as long to read as to multiply by
LINE = 16  # numbers of padding: rows a power of two apart would share a few lines of the cache
LEAST_CHANNELS = 16  # with fewer, cutting tiles costs more than the products save


def suits(shape, stride):
    """Is a kernel of this shape (KH, KW, C, O) better off here?"""
    return stride == 1 and tuple(shape[:2]) == (3, 3) and min(shape[2:]) >= LEAST_CHANNELS


@functools.cache
def _matrix(xp, m, dtype):
    return xp.asarray(m, dtype)


def transformed(w, memo=None):
    """U of w (3, 3, C, O), in `parallel.panels`: (6, 6, P, C, O/P), the column's point before the row's. `memo` (a dict)
    remembers it, for a kernel that never changes."""
    if memo is not None and "u" in memo:
        return memo["u"]
    xp = array_module(w)
    c, o = w.shape[2:]
    width, g = parallel.panel(xp, o), _matrix(xp, G, w.dtype)
    u = xp.empty((6, 6, o // width, c, width), w.dtype)

    def job(k):
        part = w[..., width * k : width * (k + 1)]
        if xp is np and part.strides[3] > part.strides[2]:  # transposed, for dx
            lying = parallel.scratch(xp, "lying", (3, 3, width, c + LINE), w.dtype)[..., :c]
            lying[...] = part.swapaxes(2, 3)
            part = lying.swapaxes(2, 3)
        part = xp.ascontiguousarray(part)
        _both_ways(xp, g, part.reshape(3, 3, -1), u[:, :, k].reshape(6, 6, -1), "half")

    parallel.run(job, range(o // width))
    if memo is not None:
        memo["u"] = u
    return u


def _transform(xp, m, x, out):
    """out[i] = sum over k of m[i, k] x[k], for a small matrix m (I, K), x (K, ..., L) and out (I, ..., L)."""
    if xp is np:
        last = *range(1, x.ndim), 0
        x, out = (
            x.transpose(last),
            out.transpose(last),
        )  # the long side first, and in parts, as in parallel.product
        split = (*x.shape[:-2], *parallel.split(xp, x.shape[-2], m.size), -1)
        np.matmul(x.reshape(split), m.T, out=out.reshape(split))
    else:
        xp.matmul(m, x.reshape(len(x), -1), out=out.reshape(len(out), -1))


def _both_ways(xp, m, x, out, name):
    """out = (m x m').T, for x (K, K, L) and out (I, I, L): what was first is second now; `name` is the memory to use."""
    half = parallel.scratch(xp, name, (m.shape[0], *x.shape[1:]), x.dtype)
    _transform(xp, m, x.reshape(len(x), -1), half.reshape(len(half), -1))
    _transform(xp, m, half.swapaxes(0, 1), out)


def _values(xp, points, x, top, left, rows, columns, name, mask=None, panels=1):
    """The values at the 36 points of `rows` x `columns` tiles, 4 pixels apart, of which the first begins at pixel (top, left)
    of x (N, H, W, C), zero outside its edges: (6, 6, P, N*rows*columns, C/P), the column's point before the row's, with the
    channels in P panels. `points` is BT, for tiles of 6x6, or A, for 4x4. `mask` as in conv.py; `name` is the memory to use.

    First down the columns, for a whole band of image rows at once: that needs no copy of the overlapping tiles. Then the
    tiles are cut out of the values, and each is evaluated along its rows.
    """
    m, (n, _, w, c) = _matrix(xp, points, x.dtype), x.shape
    side = m.shape[1]
    width = 4 * columns + side - 4
    # The columns that x has of the window; the others are zero. On a GPU the window gets them, for there it is a copy anyway
    first, last = (min(max(v, 0), w) for v in (left, left + width)) if xp is np else (left, left + width)
    window = dense(xp, extended(xp, x, top, top + 4 * rows + side - 4, first, last, "window", mask))
    bands = parallel.scratch(xp, "bands", (6, n, rows, width * c), x.dtype)
    inside = slice(max(first - left, 0) * c, max(last - left, 0) * c)
    if inside.start > 0:
        bands[..., : inside.start] = 0
    if inside.stop < width * c:
        bands[..., inside.stop :] = 0
    if last > first:
        sn, sh, _, sc = window.strides
        strips = as_strided(xp)(window, (side, n, rows, (last - first) * c), (sh, sn, 4 * sh, sc))
        _transform(xp, m, strips, bands[..., inside])
    bands = bands.reshape(6, n * rows, width, panels, c // panels)
    sp, sr, sw, sk, sc = bands.strides
    shape = side, 6, panels, n * rows, columns, c // panels
    tiles = parallel.scratch(xp, "tiles", shape, x.dtype)
    tiles[...] = as_strided(xp)(bands, shape, (sw, sp, sk, sr, 4 * sw, sc))
    values = parallel.scratch(xp, name, (6, 6, panels, n * rows * columns, c // panels), x.dtype)
    _transform(xp, m, tiles.reshape(side, -1), values.reshape(6, -1))
    return values


def _shares(xp, images, rows, columns, c, o, itemsize):
    """[(images, tile rows, output channels), ...], each a job's: tiles that stay in cache with all channels; but a transformed
    kernel too large to stay there with them is read from memory for each block: then blocks about as large as the kernel, and
    where all tiles together are fewer than FEW the cores share the channels, so that each reads a part of the kernel."""
    width = parallel.panel(xp, o)
    if xp is np and images * rows * columns < FEW and o // width >= parallel.threads():
        panels = parallel.groups(xp, range(o // width))
        return [(slice(0, images), slice(0, rows), slice(p[0], p[-1] + 1)) for p in panels]
    kernel = 36 * c * o * itemsize
    row_bytes = columns * 36 * (c + o) * itemsize
    work = parallel.blocks(xp, images, rows, row_bytes, max(kernel, parallel.BLOCK_BYTES))
    return [(image, row, slice(0, o // width)) for image, row in work]


def correlate(x, u, size, top, left, b, relu, mask, out):
    """out (N, *size, O) = the convolution of x, zero outside its edges, with the kernel whose transform is u (6, 6, P, C, O/P).

    The first output sits on x's pixels from (-top, -left). Bias and ReLU while a block is in cache; `mask` as in conv.py.
    """
    xp = array_module(x)
    width = u.shape[4]
    height, columns = size[0], -(-size[1] // 4)

    def job(share):
        image, row, panel = share
        channels = slice(width * panel.start, width * panel.stop)
        n, rows, o = image.stop - image.start, row.stop - row.start, channels.stop - channels.start
        masked = None if mask is None else mask[image]
        # Two buffers by turns, so that more of a block stays in cache: bands, tiles, v, m, half way back to y
        v = _values(xp, BT, x[image], 4 * row.start - top, -left, rows, columns, "bands", masked)
        m = parallel.scratch(xp, "tiles", (6, 6, n * rows * columns, o), x.dtype)
        parallel.product(xp, v[:, :, 0], u[:, :, panel], m)
        if (
            b is not None
        ):  # a constant picture has the value 1 at the points (1, 1) and 0 at the others: A' M A is all ones
            m[1, 1] += b[channels]
        y = parallel.scratch(xp, "y", (4, 4, n * rows * columns * o), x.dtype)
        _both_ways(xp, _matrix(xp, A, x.dtype).T, m.reshape(6, 6, -1), y, "bands")
        if relu:
            rectify(xp, y, out=y)
        _lay_out(y.reshape(4, 4, n, rows, columns, o), out[image, 4 * row.start : 4 * row.stop, :, channels])

    parallel.run(job, _shares(xp, x.shape[0], -(-height // 4), columns, x.shape[3], out.shape[3], x.itemsize))


def _lay_out(y, place):
    """Copy tiles y (4, 4, N, rows, columns, O) to the pixels `place` (N, H, W, O); the last may reach over its edge."""
    y = y.transpose(2, 3, 0, 4, 1, 5)
    n, rows, _, columns, _, o = y.shape
    h, (whole, rest) = place.shape[1], divmod(place.shape[2], 4)
    if h < 4 * rows:
        place[...] = y.reshape(n, 4 * rows, 4 * columns, o)[:, :h, : place.shape[2]]
        return
    place[:, :, : 4 * whole].reshape(n, rows, 4, whole, 4, o)[...] = y[:, :, :, :whole]
    if rest:
        place[:, :, 4 * whole :].reshape(n, rows, 4, rest, o)[...] = y[:, :, :, whole, :rest]


def kernel_gradient(x, dy, top, left):
    """dw (3, 3, C, O) for y = correlate(x, ...) and dy (N, H, W, O). dU is four times as large as dw, with hundreds of channels
    more than a cache holds: it is made for a panel of input channels at a time, which goes back to dw at once."""
    xp = array_module(x)
    n, height, width, o = dy.shape
    c, rows, columns = x.shape[3], -(-height // 4), -(-width // 4)
    gt = _matrix(xp, G, x.dtype).T
    c_panel, o_panel = parallel.panel(xp, c), parallel.panel(xp, o)

    def job(share):
        blocks, panels, total = share
        parts = total.reshape(3, 3, len(panels), c_panel, -1, o_panel)
        du = parallel.scratch(xp, "du", (6, 6, o // o_panel, c_panel, o_panel), x.dtype)
        dw = parallel.scratch(xp, "dw", (3, 3, o // o_panel, c_panel, o_panel), x.dtype)
        for image, row in blocks:
            first, count = 4 * row.start, row.stop - row.start
            seen = x[image, :, :, c_panel * panels[0] : c_panel * (panels[-1] + 1)]
            v = _values(xp, BT, seen, first - top, -left, count, columns, "v", panels=len(panels)).swapaxes(
                -1, -2
            )
            dm = _values(xp, A, dy[image], first, 0, count, columns, "bands", panels=o // o_panel)
            for k in range(len(panels)):
                xp.matmul(v[:, :, k, None], dm, out=du)
                _both_ways(xp, gt, du.reshape(6, 6, -1), dw.reshape(3, 3, -1), "half")
                place, part = parts[:, :, k], dw.swapaxes(2, 3)
                if (image, row) == blocks[0]:
                    place[...] = part
                else:
                    place += part

    most, every = (
        parallel.SMALL // (c_panel * o_panel),
        range(c // c_panel),
    )  # tiles that a small product can have
    if (
        xp is np and n * rows * columns <= most and len(every) >= parallel.threads()
    ):  # the cores share the channels
        whole, dw = [(slice(0, n), slice(0, rows))], xp.empty((3, 3, c, o), x.dtype)
        parallel.run(
            job,
            [
                (whole, p, dw[:, :, c_panel * p[0] : c_panel * (p[-1] + 1)])
                for p in parallel.groups(xp, every)
            ],
        )
        return dw
    # Each block's dU goes back to dw, which takes as long for few tiles as for many
    work = parallel.groups(xp, parallel.blocks(xp, n, rows, columns, most))
    dw = xp.empty((len(work), 3, 3, c, o), x.dtype)
    parallel.run(job, [(blocks, every, total) for blocks, total in zip(work, dw, strict=True)])
    return dw.sum(axis=0)
