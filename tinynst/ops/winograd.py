"""3x3 convolution at stride 1 with a quarter of the products: Winograd's F(4x4, 3x3), written as matrix products.

A 4x4 tile of the output needs a 6x6 tile of the input. The plain way takes 16 * 9 = 144 products for it, per pair of
channels. Polynomial multiplication through values at six points (0, 1, 2, infinity, -1, -2), along each axis, takes 36:

    V = B'  tile  B     values of the image tile at the points     V = kron(B', B') @ tiles     (36 x 36)
    U = G  kernel G'    values of the kernel                       U = kron(G, G) @ w           (36 x 9)
    M = V * U           product of the values, summed over the channels: 36 matrix products (tiles, C) @ (C, O)
    Y = A'  M  A        back to pixels                             Y = kron(A', A') @ M         (16 x 36)

Neighbouring image tiles overlap by two pixels. S. Winograd, "Arithmetic Complexity of Computations" (1980); A. Lavin and
S. Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308, section 4, for the matrices.

Backward: the input's gradient is again a 3x3 convolution (of dy, with the kernel turned round). The kernel's gradient is
the chain above transposed: dM = kron(A', A').T @ dY, dU = V.T @ dM, dw = kron(G, G).T @ dU.

The values at 2 and -2 reach 4 times the pixels, so a few bits are lost: about 1e-5 relative in float32.
"""

import functools

import numpy as np

from .. import parallel
from ..device import array_module
from .activations import rectify
from .windows import as_strided, extended

# A row for each point, in the order 0, 1, 2, infinity, -1, -2
BT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 4, 0, -5, 0, 1),
    (0, 4, -4, -1, 1, 0),
    (0, 2, -1, -2, 1, 0),
)
G = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (0, 0, 1),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
)
A = ((1, 0, 0, 0), (1, 1, 1, 1), (1, 2, 4, 8), (0, 0, 0, 1), (1, -1, 1, -1), (1, -2, 4, -8))
FEW = 64  # tiles: then a kernel of many channels takes as long to read as to multiply by
LEAST_CHANNELS = 16  # with fewer, cutting tiles costs more than the products save


def suits(shape, stride):
    """Is a kernel of this shape (KH, KW, C, O) better off here?"""
    return stride == 1 and tuple(shape[:2]) == (3, 3) and min(shape[2:]) >= LEAST_CHANNELS


@functools.cache
def _matrix(xp, m, dtype):
    """kron(m, m): the transform of a tile laid out as one vector, rows after columns."""
    return xp.asarray(np.kron(m, m).astype(dtype))


@functools.cache
def _halves(xp, m, dtype):
    """kron(m, m) for a tile's even rows at the points 0, 1, 2 and for its odd rows at 1, 2, infinity: (2, 18, half a tile)."""
    m = np.array(m)
    return xp.asarray(np.stack([np.kron(m[k : k + 3, k::2], m) for k in (0, 1)]).astype(dtype))


def transformed(w, memo=None):
    """U of w (3, 3, C, O), in `parallel.panels`: (36, P, C, O/P). `memo` (a dict) remembers it, for a kernel that never
    changes."""
    if memo is not None and "u" in memo:
        return memo["u"]
    xp = array_module(w)
    c, o = w.shape[2:]
    width, g = parallel.panel(xp, o), _matrix(xp, G, w.dtype)
    u = xp.empty((36, o // width, c, width), w.dtype)

    def job(k):
        part = xp.ascontiguousarray(w[..., width * k : width * (k + 1)])
        _transform(xp, g, part.reshape(9, -1), u[:, k].reshape(36, -1))

    parallel.run(job, range(o // width))
    if memo is not None:
        memo["u"] = u
    return u


def _rows(xp, name, count, length, dtype):
    """Scratch memory (count, length). Rows a power of two apart would all fall on the same few lines of a cache and push
    each other out (a transform ran at 34 GFLOP/s instead of 96), so the CPU's rows are an odd number of cache lines apart."""
    if xp is not np:
        return xp.empty((count, length), dtype)
    line = 64 // np.dtype(dtype).itemsize
    return parallel.scratch(xp, name, (count, (-(-length // line) | 1) * line), dtype)[:, :length]


def _transform(xp, matrix, tiles, out):
    """out = matrix @ tiles, where a column is one channel of one tile; or two such products at once."""
    if xp is np:
        parallel.product(xp, tiles.swapaxes(-1, -2), matrix.swapaxes(-1, -2)[..., None, :, :], out.swapaxes(-1, -2))
    else:
        xp.matmul(matrix, tiles, out=out)
    return out


def _values(xp, m, tiles, name):
    """kron(m, m) @ tiles, for tiles (2, half a tile, L) as `_cut` gives them: their values at the 36 points, (2, 18, L).

    A polynomial's even terms have the same value at 1 and at -1, its odd terms opposite ones (at 2 and -2 too). So a tile's
    even rows and its odd rows are each evaluated by themselves, with half the products, then added and subtracted.
    """
    length = tiles.shape[2]
    rows = _rows(xp, name, 60, length, tiles.dtype)  # the points 0 | 1, 2: even | 1, 2: odd | infinity | -1, -2 | not used
    _transform(xp, _halves(xp, m, tiles.dtype), tiles, rows[:36].reshape(2, 18, length))
    even, odd = rows[6:18], rows[18:30]
    xp.subtract(even, odd, out=rows[36:48])
    xp.add(even, odd, out=even)
    return rows.reshape(2, 30, length)[:, :18]


def _pixels(xp, rows, name):
    """`_values` with A transposed: from the values, in rows as there, to the even and odd rows of tiles, (2, 8, L)."""
    length = rows.shape[1]
    plus, minus = rows[6:18], rows[36:48]
    xp.subtract(plus, minus, out=rows[18:30])
    xp.add(plus, minus, out=plus)
    y = _rows(xp, name, 16, length, rows.dtype).reshape(2, 8, length)
    return _transform(xp, _halves(xp, A, rows.dtype).swapaxes(1, 2), rows[:36].reshape(2, 18, length), y)


def _shares(xp, images, rows, columns, c, o, itemsize):
    """[(images, tile rows, output channels), ...], each a job's: tiles that stay in cache with all channels; but a transformed
    kernel too large to stay there with them is read from memory for each block: then blocks about as large as the kernel, and
    where all tiles together are fewer than FEW the cores share the channels, so that each reads a part of the kernel."""
    width = parallel.panel(xp, o)
    if xp is np and images * rows * columns < FEW and o // width >= parallel.threads():
        panels = parallel.groups(xp, range(o // width))
        return [(slice(0, images), slice(0, rows), slice(p[0], p[-1] + 1)) for p in panels]
    kernel = 36 * c * o * itemsize
    row_bytes = columns * 48 * (c + o) * itemsize
    work = parallel.blocks(xp, images, rows, row_bytes, max(kernel, parallel.BLOCK_BYTES))
    return [(image, row, slice(0, o // width)) for image, row in work]


def _tiles(xp, x, rows, columns, side):
    """A view of x (N, H, W, C) as (side, side, N, rows, columns, C): tiles of side x side, 4 apart."""
    sn, sh, sw, sc = x.strides
    return as_strided(xp)(x, (side, side, x.shape[0], rows, columns, x.shape[3]), (sh, sw, sn, 4 * sh, 4 * sw, sc))


def _cut(xp, x, top, left, rows, columns, side, name, mask=None, panels=1):
    """Copy the side x side tiles, 4 apart, of the window of x that begins at (top, left): their even and their odd rows,
    (2, half a tile, N*rows*columns*C), or with the channels in `panels` (2, half a tile, P*N*rows*columns*C/P)."""
    tiles = _rows(xp, name, side * side, x.shape[0] * rows * columns * x.shape[3], x.dtype)
    place = tiles.reshape(2, side // 2, side, panels, x.shape[0], rows, columns, -1).transpose(1, 0, 2, 4, 5, 6, 3, 7)
    # A pixel that goes to several tiles is read again and again, in an order that no cache foresees: it is brought near first
    copy = xp is np and side > 4
    bottom, right = top + 4 * rows + side - 4, left + 4 * columns + side - 4
    window = extended(xp, x, top, bottom, left, right, "window", mask, copy)
    cut = _tiles(xp, window, rows, columns, side)
    place[...] = cut.reshape(side // 2, 2, *cut.shape[1:5], panels, -1)
    return tiles.reshape(2, side * side // 2, -1)


def correlate(x, u, size, top, left, b, relu, mask, out):
    """out (N, *size, O) = the convolution of x, zero outside its edges, with the kernel whose transform is u (36, P, C, O/P).

    The first output sits on x's pixels from (-top, -left). Bias and ReLU while a block is in cache; `mask` as in conv.py.
    """
    xp = array_module(x)
    _, _, c, width = u.shape
    height, columns = size[0], -(-size[1] // 4)
    u = u.reshape(2, 18, *u.shape[1:])

    def job(share):
        image, row, panel = share
        channels = slice(width * panel.start, width * panel.stop)
        n, rows, o = image.stop - image.start, row.stop - row.start, channels.stop - channels.start
        count = n * rows * columns
        # Two buffers by turns, tiles -> v -> m -> y, so that more of a block stays in cache
        masked = None if mask is None else mask[image]
        tiles = _cut(xp, x[image], 4 * row.start - top, -left, rows, columns, 6, "tiles, m", masked)
        v = _values(xp, BT, tiles, "v, y").reshape(2, 18, count, c)
        m = _rows(xp, "tiles, m", 60, count * o, x.dtype)
        values = parallel.product(xp, v, u[:, :, panel], m.reshape(2, 30, count, o)[:, :18])
        if b is not None:  # a constant picture has the value 1 at the points (1, 1) and 0 at the others: A' M A is all ones
            values[0, 7] += b[channels]
        y = _pixels(xp, m, "v, y")
        if relu:
            rectify(xp, y, out=y)
        y = y.reshape(2, 2, 4, n, rows, columns, o).transpose(3, 4, 1, 0, 5, 2, 6)
        place = out[image, 4 * row.start : 4 * row.stop, :, channels]
        if place.shape[1:3] == (4 * rows, 4 * columns):
            place.reshape(n, rows, 2, 2, columns, 4, o)[...] = y
        else:  # the last tiles reach over the edge
            place[...] = y.reshape(n, 4 * rows, 4 * columns, o)[:, : place.shape[1], : place.shape[2]]

    parallel.run(job, _shares(xp, x.shape[0], -(-height // 4), columns, c, out.shape[3], x.itemsize))


def kernel_gradient(x, dy, top, left):
    """dw (3, 3, C, O) for y = correlate(x, ...) and dy (N, H, W, O). dU is four times as large as dw, with hundreds of channels
    more than a cache holds: it is made for a panel of input channels at a time, which goes back to dw at once."""
    xp = array_module(x)
    n, height, width, o = dy.shape
    c, rows, columns = x.shape[3], -(-height // 4), -(-width // 4)
    gt = _matrix(xp, G, x.dtype).T
    c_panel, o_panel = parallel.panel(xp, c), parallel.panel(xp, o)

    def job(share):
        blocks, panels = share
        seen = x[..., c_panel * panels[0] : c_panel * (panels[-1] + 1)]
        dw = xp.zeros((9, len(panels), o // o_panel, c_panel, o_panel), x.dtype)
        for image, row in blocks:
            first, count = 4 * row.start, row.stop - row.start
            tiles = _cut(xp, seen[image], first - top, -left, count, columns, 6, "tiles", panels=len(panels))
            v = _values(xp, BT, tiles, "v").reshape(2, 18, len(panels), 1, -1, c_panel).swapaxes(-1, -2)
            tiles = _cut(xp, dy[image], first, 0, count, columns, 4, "tiles", panels=o // o_panel)
            dm = _values(xp, A, tiles, "m").reshape(2, 18, o // o_panel, -1, o_panel)
            du = _rows(xp, "du", 36, c_panel * o, x.dtype)
            for k in range(len(panels)):
                xp.matmul(v[:, :, k], dm, out=du.reshape(2, 18, -1, c_panel, o_panel))
                dw[:, k] += _transform(xp, gt, du, _rows(xp, "dw", 9, c_panel * o, x.dtype)).reshape(dw[:, k].shape)
        return dw.transpose(0, 1, 3, 2, 4).reshape(3, 3, -1, o)

    most, every = parallel.SMALL // (c_panel * o_panel), range(c // c_panel)  # tiles that a small product can have
    if xp is np and n * rows * columns <= most and len(every) >= parallel.threads():  # the cores share the channels
        whole = [(slice(0, n), slice(0, rows))]
        return np.concatenate(parallel.run(job, [(whole, panels) for panels in parallel.groups(xp, every)]), axis=2)
    # Each block's dU goes back to dw, which takes as long for few tiles as for many
    work = parallel.blocks(xp, n, rows, columns, most)
    return sum(parallel.run(job, [(group, every) for group in parallel.groups(xp, work)]))
