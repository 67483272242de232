"""3x3 convolution at stride 1 with a quarter of the products: Winograd's F(4x4, 3x3) as matrix products.

A 4x4 tile of the output depends on a 6x6 tile of the input: 16 * 9 = 144 products per pair of channels.
Polynomial multiplication through values at six points (0, 1, -1, 2, -2, infinity) along each axis takes 36:

    V = B'  tile  B     values of the image tile at the points
    U = G  kernel G'    values of the kernel
    M = V * U           their product, summed over the channels: 36 matrix products (tiles, C) @ (C, O)
    Y = A'  M  A        back to pixels

Backward: the input's gradient is again a 3x3 convolution, of dy with the flipped kernel. The kernel's
gradient is the chain above transposed: dM = A dY A', dU = V.T @ dM, dw = G' dU G.

Each transform is a product of a small matrix with long rows, all tiles and channels side by side, for one
axis at a time. The values at 2 and -2 are large, which costs some accuracy: about 1e-5 relative in float32.

S. Winograd, "Arithmetic Complexity of Computations" (1980); A. Lavin and S. Gray, "Fast Algorithms for
Convolutional Neural Networks", arXiv:1509.09308, section 4, for the matrices.
"""

import functools

import numpy as np

from ...device import array_module
from . import matmul, parallel
from .parallel import scratch
from .windows import as_strided, dense, window

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
FEW = 64  # with fewer tiles, a kernel of many channels takes as long to read as to multiply by
LINE = 16  # padding in numbers: rows that are a power of two apart would share a few lines of the cache
LEAST_CHANNELS = 16  # with fewer, cutting tiles costs more than the products save


def suits(shape, stride):
    """Is Winograd's algorithm the better one for a kernel of this shape (KH, KW, C, O)?"""
    return stride == 1 and tuple(shape[:2]) == (3, 3) and min(shape[2:]) >= LEAST_CHANNELS


@functools.cache
def _matrix(xp, m, dtype):
    return xp.asarray(m, dtype)


def _transform(xp, m, x, out):
    """out[i] = sum over k of m[i, k] x[k], for a small matrix m (I, K), x (K, ..., L) and out (I, ..., L)."""
    if xp is np:  # the long side first, and in parts, as in matmul.product
        last = *range(1, x.ndim), 0
        x, out = x.transpose(last), out.transpose(last)
        parts = (*x.shape[:-2], *matmul.split(xp, x.shape[-2], m.size), -1)
        np.matmul(x.reshape(parts), m.T, out=out.reshape(parts))
    else:
        xp.matmul(m, x.reshape(len(x), -1), out=out.reshape(len(out), -1))


def _both_ways(xp, m, x, out, name):
    """out = (m x m').T for x (K, K, L) and out (I, I, L): the first axis becomes the second."""
    half = scratch(xp, name, (m.shape[0], *x.shape[1:]), x.dtype)
    _transform(xp, m, x.reshape(len(x), -1), half.reshape(len(half), -1))
    _transform(xp, m, half.swapaxes(0, 1), out)


def transformed(w, memo=None):
    """U of w (3, 3, C, O) in `matmul.panels`: (6, 6, P, C, O/P), the column's point before the row's.

    memo: a dict that keeps it, for a kernel that never changes
    """
    if memo is not None and "u" in memo:
        return memo["u"]
    xp, (c, o) = array_module(w), w.shape[2:]
    width, g = matmul.panel(xp, o), _matrix(xp, G, w.dtype)
    u = xp.empty((6, 6, o // width, c, width), w.dtype)

    def job(k):
        part = w[..., width * k : width * (k + 1)]
        if xp is np and part.strides[3] > part.strides[2]:  # for dx: copy rows, then transpose in cache
            lying = scratch(xp, "lying", (3, 3, width, c + LINE), w.dtype)[..., :c]
            lying[...] = part.swapaxes(2, 3)
            part = lying.swapaxes(2, 3)
        part = xp.ascontiguousarray(part).reshape(3, 3, -1)
        _both_ways(xp, g, part, u[:, :, k].reshape(6, 6, -1), "half")

    parallel.run(job, range(o // width))
    if memo is not None:
        memo["u"] = u
    return u


def _values(xp, points, x, top, left, rows, columns, name, mask=None, panels=1):
    """The values at the 36 points of `rows` x `columns` tiles, 4 pixels apart; the first begins at pixel
    (top, left) of x (N, H, W, C), which is zero outside its edges: (6, 6, P, N*rows*columns, C/P), the
    column's point before the row's, with the channels in P panels.

    points: BT for tiles of 6x6, A for 4x4;  mask: as in conv.correlate;  name: the memory to use

    First down the columns, for a whole band of image rows, where the overlapping tiles need no copy. Then the
    tiles are cut out of these values and transformed along their rows.
    """
    m, (n, _, w, c) = _matrix(xp, points, x.dtype), x.shape
    side = m.shape[1]
    width = 4 * columns + side - 4
    # The columns of x in the window; the others are zero. On a GPU the window, a copy anyway, has the zeros
    first, last = (min(max(v, 0), w) for v in (left, left + width)) if xp is np else (left, left + width)
    seen = dense(xp, window(xp, x, top, top + 4 * rows + side - 4, first, last, "window", mask))
    bands = scratch(xp, "bands", (6, n, rows, width * c), x.dtype)
    inside = slice(max(first - left, 0) * c, max(last - left, 0) * c)
    if inside.start > 0:
        bands[..., : inside.start] = 0
    if inside.stop < width * c:
        bands[..., inside.stop :] = 0
    if last > first:
        sn, sh, _, sc = seen.strides
        strips = as_strided(xp, seen, (side, n, rows, (last - first) * c), (sh, sn, 4 * sh, sc))
        _transform(xp, m, strips, bands[..., inside])
    bands = bands.reshape(6, n * rows, width, panels, c // panels)
    sp, sr, sw, sk, sc = bands.strides
    shape = side, 6, panels, n * rows, columns, c // panels
    tiles = scratch(xp, "tiles", shape, x.dtype)
    tiles[...] = as_strided(xp, bands, shape, (sw, sp, sk, sr, 4 * sw, sc))
    values = scratch(xp, name, (6, 6, panels, n * rows * columns, c // panels), x.dtype)
    _transform(xp, m, tiles.reshape(side, -1), values.reshape(6, -1))
    return values


def _shares(xp, images, rows, columns, c, o, itemsize):
    """The jobs [(images, rows of tiles, panels of output channels), ...].

    A job's tiles stay in cache with all their channels. A transformed kernel too large for the cache is read
    from memory for each block, so blocks are then about as large as the kernel. With fewer than FEW tiles in
    all, the cores share the output channels, so that each reads only a part of the kernel.
    """
    panels = range(o // matmul.panel(xp, o))
    if xp is np and images * rows * columns < FEW and len(panels) >= parallel.threads():
        shares = parallel.groups(xp, panels)
        return [(slice(0, images), slice(0, rows), slice(p[0], p[-1] + 1)) for p in shares]
    row_bytes, kernel_bytes = columns * 36 * (c + o) * itemsize, 36 * c * o * itemsize
    work = parallel.blocks(xp, images, rows, row_bytes, max(kernel_bytes, parallel.BLOCK_BYTES))
    return [(image, row, slice(0, len(panels))) for image, row in work]


def correlate(x, u, out, corner, b, relu, mask):
    """conv.correlate with the kernel whose transform is u (6, 6, P, C, O/P)."""
    xp, width = array_module(x), u.shape[4]
    rows, columns = -(-out.shape[1] // 4), -(-out.shape[2] // 4)

    def job(share):
        image, row, panel = share
        channels = slice(width * panel.start, width * panel.stop)
        n, rows, o = image.stop - image.start, row.stop - row.start, channels.stop - channels.start
        masked = None if mask is None else mask[image]
        # Two buffers in turn, so that more of a block stays in cache: bands, tiles, v, m, half of y, y
        v = _values(xp, BT, x[image], 4 * row.start - corner[0], -corner[1], rows, columns, "bands", masked)
        m = scratch(xp, "tiles", (6, 6, n * rows * columns, o), x.dtype)
        matmul.product(xp, v[:, :, 0], u[:, :, panel], m)
        if b is not None:  # A' M A is all ones for the M that is 1 at the points (1, 1) and 0 at the others
            m[1, 1] += b[channels]
        y = scratch(xp, "y", (4, 4, n * rows * columns * o), x.dtype)
        _both_ways(xp, _matrix(xp, A, x.dtype).T, m.reshape(6, 6, -1), y, "bands")
        if relu:
            xp.clip(y, 0, np.inf, out=y)
        place = out[image, 4 * row.start : 4 * row.stop, :, channels]
        _lay_out(y.reshape(4, 4, n, rows, columns, o), place)

    parallel.run(job, _shares(xp, x.shape[0], rows, columns, x.shape[3], out.shape[3], x.itemsize))


def _lay_out(y, place):
    """Copy tiles y (4, 4, N, rows, columns, O) to `place` (N, H, W, O), over whose edges the last may
    reach."""
    y = y.transpose(2, 3, 0, 4, 1, 5)
    n, rows, _, columns, _, o = y.shape
    h, (whole, rest) = place.shape[1], divmod(place.shape[2], 4)
    if h < 4 * rows:
        place[...] = y.reshape(n, 4 * rows, 4 * columns, o)[:, :h, : place.shape[2]]
        return
    place[:, :, : 4 * whole].reshape(n, rows, 4, whole, 4, o)[...] = y[:, :, :, :whole]
    if rest:
        place[:, :, 4 * whole :].reshape(n, rows, 4, rest, o)[...] = y[:, :, :, whole, :rest]


def kernel_gradient(x, dy, corner):
    """dw (3, 3, C, O) of `correlate`. dU is four times as large as dw, with hundreds of channels larger than
    a cache: it is computed for one panel of input channels at a time and transformed to dw at once."""
    xp, (n, height, width, o), c = array_module(x), dy.shape, x.shape[3]
    rows, columns = -(-height // 4), -(-width // 4)
    c_panel, o_panel = matmul.panel(xp, c), matmul.panel(xp, o)

    def job(share):
        blocks, panels, total = share
        total = total.reshape(3, 3, len(panels), c_panel, -1, o_panel)
        du = scratch(xp, "du", (6, 6, o // o_panel, c_panel, o_panel), x.dtype)
        dw = scratch(xp, "dw", (3, 3, o // o_panel, c_panel, o_panel), x.dtype)
        channels = slice(c_panel * panels[0], c_panel * (panels[-1] + 1))
        for image, row in blocks:
            first, count, seen = 4 * row.start, row.stop - row.start, x[image, :, :, channels]
            v = _values(xp, BT, seen, first - corner[0], -corner[1], count, columns, "v", panels=len(panels))
            dm = _values(xp, A, dy[image], first, 0, count, columns, "bands", panels=o // o_panel)
            for k in range(len(panels)):
                xp.matmul(v[:, :, k, None].swapaxes(-1, -2), dm, out=du)
                _both_ways(xp, _matrix(xp, G, x.dtype).T, du.reshape(6, 6, -1), dw.reshape(3, 3, -1), "half")
                if (image, row) == blocks[0]:
                    total[:, :, k] = dw.swapaxes(2, 3)
                else:
                    total[:, :, k] += dw.swapaxes(2, 3)

    most = matmul.SMALL // (c_panel * o_panel)  # tiles of a small product
    every = range(c // c_panel)
    if xp is np and n * rows * columns <= most and len(every) >= parallel.threads():  # share the channels
        dw, whole = xp.empty((1, 3, 3, c, o), x.dtype), [(slice(0, n), slice(0, rows))]
        shares = parallel.groups(xp, every)
        work = [(whole, p, dw[0, :, :, c_panel * p[0] : c_panel * (p[-1] + 1)]) for p in shares]
    else:
        shares = parallel.groups(xp, parallel.blocks(xp, n, rows, columns, most))
        dw = xp.empty((len(shares), 3, 3, c, o), x.dtype)
        work = [(blocks, every, dw[k]) for k, blocks in enumerate(shares)]
    parallel.run(job, work)
    return dw.sum(axis=0)
