"""Transposed convolution (the paper's "stride 1/2"): each input pixel adds the kernel, times its value, to y.

    y[n, i*stride + p - pad, j*stride + q - pad, c] += x[n, i, j, o] * w[p, q, c, o]

It is the adjoint of conv2d with the same w: <conv2d(u, w), x> = <u, conv_transpose2d(x, w)>. So each
one's forward is the other's gradient with respect to the input.
"""

from . import arguments
from .conv import conv2d, conv2d_backward


def conv_transpose2d(x, w, b=None, stride=2, pad=1, output_pad=1):
    """Transposed convolution of x (N, H, W, IN) with w (KH, KW, OUT, IN), plus b (OUT,): y (N, OH, OW, OUT).

    OH = (H - 1)*stride - 2*pad + KH + output_pad, and OW likewise; for 3x3 and the defaults twice the size.
    output_pad: more rows and columns at the bottom and right, fewer than stride: conv2d maps `stride` sizes
                to H, and this selects one of them
    Returns (y, cache). Raises ValueError for a wrong shape, TypeError for a wrong dtype or mixed devices.
    """
    xp, stride, pad, size = check(x, w, b, stride, pad, output_pad)
    u = xp.empty((x.shape[0], *size, w.shape[2]), x.dtype)  # conv2d's input; only its shape matters
    y, _, _ = conv2d_backward(x, (u, w, False, stride, pad, x.shape[1:3], None, None), need=("x",))
    if b is not None:
        y += b
    return y, (x, w, b is not None, stride, pad, size)


def conv_transpose2d_backward(dy, cache, need=("x", "w")):
    """Return dx, dw, db for dy (N, OH, OW, OUT); None where there is no b or the gradient is not in `need`.

    dx = conv2d(dy, w); dw is conv2d's, with dy as its input and x as the gradient with respect to its output.
    """
    x, w, has_b, stride, pad, size = cache
    arguments.floating(x=x, dy=dy)
    arguments.shape("dy", dy, x.shape[0], *size, w.shape[2])
    dx = dw = db = None
    if "x" in need:
        dx, _ = conv2d(dy, w, stride=stride, pad=pad)
    if "w" in need:
        _, dw, _ = conv2d_backward(x, (dy, w, False, stride, pad, x.shape[1:3], None, None), need=("w",))
        db = dy.sum(axis=(0, 1, 2)) if has_b else None
    return dx, dw, db


def check(x, w, b, stride, pad, output_pad):
    """Check conv_transpose2d's arguments; return the array module, stride, pad and y's size (OH, OW)."""
    xp = arguments.floating(x=x, w=w, b=b)
    arguments.shape("x", x, "N", "H", "W", "IN")
    arguments.shape("w", w, "KH", "KW", "OUT", x.shape[3])
    if b is not None:
        arguments.shape("b", b, w.shape[2])
    stride, pad = arguments.whole("stride", stride, 1), arguments.whole("pad", pad, 0)
    output_pad = arguments.whole("output_pad", output_pad, 0)
    if output_pad >= stride:
        raise ValueError(f"output_pad is {output_pad}; it should be less than the stride, {stride}")
    size = tuple((x.shape[k + 1] - 1) * stride - 2 * pad + w.shape[k] + output_pad for k in (0, 1))
    if min(size) < 1:
        raise ValueError(f"pad {pad} leaves nothing of the output ({size[0]}x{size[1]}); use a smaller pad")
    return xp, stride, pad, size
