"""Convolution: every output pixel is the dot product of a patch of the image with the kernel.

    y[n, i, j, o] = b[o] + sum over p, q, c of x[n, i*stride + p - pad, j*stride + q - pad, c] * w[p, q, c, o]

The pixels of the padded x that meet the tap w[p, q] are a slice with step `stride`, so y is a sum of KH*KW
matrix products. Backward visits the same slices: what forward read from x, backward adds to dx.
"""

from . import arguments


def conv2d(x, w, b=None, stride=1, pad=0, relu=False, memo=None):
    """Convolve x (N, H, W, C) with w (KH, KW, C, O) and add b (O,): y (N, OH, OW, O). Returns (y, cache).

    OH = (H + 2*pad - KH)//stride + 1, and OW likewise. x is padded with `pad` zeros on each side.
    relu: return max(y, 0)
    memo: a dict to keep between calls with a kernel that never changes (only the fast version uses it)
    Raises ValueError for a wrong shape, TypeError for a wrong dtype or mixed devices.
    """
    xp, stride, pad, (oh, ow) = check(x, w, b, stride, pad)
    padded = xp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    y = xp.zeros((x.shape[0], oh, ow, w.shape[3]), x.dtype)
    for p in range(w.shape[0]):
        for q in range(w.shape[1]):
            y += padded[:, p : p + oh * stride : stride, q : q + ow * stride : stride] @ w[p, q]
    if b is not None:
        y += b
    if relu:
        y = xp.maximum(y, 0)
    return y, (x, w, b is not None, stride, pad, (oh, ow), y if relu else None, memo)


def conv2d_backward(dy, cache, need=("x", "w")):
    """Return dx, dw, db for dy (N, OH, OW, O); None where there is no b or the gradient is not in `need`.

    dx[n, i*stride + p - pad, j*stride + q - pad] += dy[n, i, j] @ w[p, q].T     for all n, i, j, p, q
    dw[p, q] = sum over n, i, j of x[n, i*stride + p - pad, j*stride + q - pad] outer dy[n, i, j]
    """
    x, w, has_b, stride, pad, (oh, ow), rectified, _ = cache
    xp = arguments.floating(x=x, dy=dy)
    arguments.shape("dy", dy, x.shape[0], oh, ow, w.shape[3])
    if rectified is not None:
        dy = dy * (rectified > 0)
    padded = xp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    dpadded, dw = xp.zeros_like(padded), xp.zeros_like(w)
    for p in range(w.shape[0]):
        for q in range(w.shape[1]):
            pixels = slice(None), slice(p, p + oh * stride, stride), slice(q, q + ow * stride, stride)
            if "x" in need:
                dpadded[pixels] += dy @ w[p, q].T
            if "w" in need:
                dw[p, q] = xp.tensordot(padded[pixels], dy, axes=((0, 1, 2), (0, 1, 2)))
    dx = dpadded[:, pad : pad + x.shape[1], pad : pad + x.shape[2]]
    db = dy.sum(axis=(0, 1, 2)) if has_b else None
    return dx if "x" in need else None, dw if "w" in need else None, db if "w" in need else None


def check(x, w, b, stride, pad):
    """Check conv2d's arguments; return the array module, stride, pad and y's size (OH, OW)."""
    xp = arguments.floating(x=x, w=w, b=b)
    arguments.shape("x", x, "N", "H", "W", "C")
    arguments.shape("w", w, "KH", "KW", x.shape[3], "O")
    if b is not None:
        arguments.shape("b", b, w.shape[3])
    stride, pad = arguments.whole("stride", stride, 1), arguments.whole("pad", pad, 0)
    size = tuple((x.shape[k + 1] + 2 * pad - w.shape[k]) // stride + 1 for k in (0, 1))
    if min(size) < 1:
        text = f"{x.shape[1]}x{x.shape[2]} with pad {pad} is smaller than the kernel w"
        raise ValueError(f"x of {text} of {w.shape[0]}x{w.shape[1]}; enlarge x or pad")
    return xp, stride, pad, size
