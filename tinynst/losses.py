"""The paper's losses. Each returns (value, gradient with respect to its first argument), both multiplied by
`weight`; the value is the mean over the batch: a float, or for CuPy arrays a 0-d array, because to read it is
to wait for the GPU. float32 or float64; a wrong shape raises ValueError, a wrong dtype TypeError."""

import numpy as np

from . import ops
from .device import array_module, floats, on_gpu
from .ops import arguments
from .ops.fast import parallel
from .ops.fast.cuda import losses as kernels


def feature_loss(f, target, weight=1.0):
    """Eq. 2: ||f - target||^2 / (C*H*W) of features (N, H, W, C) and a target of the same shape: the content
    loss. Value and gradient are multiplied by `weight`."""
    arguments.floating(f=f, target=target)
    arguments.shape("f", f, "N", "H", "W", "C")
    arguments.shape("target", target, *f.shape)
    if on_gpu(f):
        return kernels.squared_difference(f, target, weight / f.size, 2 * weight / f.size)
    xp = array_module(f)
    df = xp.empty(f.shape, f.dtype)

    def job(block):
        difference = xp.subtract(f[block], target[block], out=df[block])
        square = (difference * difference).sum()
        difference *= 2 * weight / f.size
        return square

    row_bytes = 3 * f.shape[2] * f.shape[3] * f.itemsize
    squares = parallel.run(job, parallel.blocks(xp, f.shape[0], f.shape[1], row_bytes))
    return weight * _number(sum(squares)) / f.size, df


def pixel_loss(y, target, weight=1.0):
    """||y - target||^2 / (C*H*W) of images (N, H, W, C): the squared error, without VGG."""
    return feature_loss(y, target, weight)


def style_loss(f, target_gram, weight=1.0):
    """Eq. 4: ||G(f) - target_gram||^2, squared Frobenius norm, of features f (N, H, W, C); target_gram is (C,
    C), or (1 or N, C, C). It compares which features occur together, wherever they are in the image. Value
    and gradient are multiplied by `weight`."""
    arguments.floating(f=f, target_gram=target_gram)
    gram, cache = ops.gram_matrix(f)
    n, c, _ = gram.shape
    if tuple(target_gram.shape) not in {(c, c), (1, c, c), (n, c, c)}:
        expected = f"({c}, {c}) or (1 or {n}, {c}, {c})"
        raise ValueError(f"target_gram has shape {tuple(target_gram.shape)}; it should be {expected}")
    if on_gpu(gram):
        value, dgram = kernels.squared_difference(gram, target_gram, weight / n, 2 * weight / n)
    else:
        difference = gram - target_gram
        value = weight * _number((difference * difference).sum()) / n
        dgram = difference * float(2 * weight / n)
    (df,) = ops.gram_matrix_backward(dgram, cache)
    return value, df


def tv_loss(y, weight=1.0):
    """Total variation of images (N, H, W, C): half the sum of squared differences of neighbours, down and
    across. Value and gradient are multiplied by `weight`."""
    xp = arguments.floating(y=y)
    arguments.shape("y", y, "N", "H", "W", "C")
    n = y.shape[0]
    if on_gpu(y):
        return kernels.total_variation(y, 0.5 * weight / n, weight / n)
    down, across = y[:, 1:] - y[:, :-1], y[:, :, 1:] - y[:, :, :-1]
    value = 0.5 * (_number((down * down).sum()) + _number((across * across).sum())) / n
    dy = xp.zeros(y.shape, y.dtype)
    dy[:, 1:] += down
    dy[:, :-1] -= down
    dy[:, :, 1:] += across
    dy[:, :, :-1] -= across
    dy /= n
    dy *= weight
    return weight * value, dy


def grid_loss(y, target, weight=1.0, period=2):
    """How much of the difference of images y (N, H, W, C) and `target` is a pattern that repeats every
    `period` pixels.

    In squares of 2x2 periods (a rest at the bottom and right is left out): the mean of y - target at each of
    the period^2 positions, minus the square's mean, squared, averaged, times `weight`. A net that enlarges
    `period` times makes each of the period^2 pixels with its own weights, so the cheapest texture that it can
    learn is a grid: a grid differs in the same way from period to period, while real texture mostly cancels.
    Raises ValueError for a period below 1 or above the image's sides.
    """
    xp = arguments.floating(y=y, target=target)
    arguments.shape("y", y, "N", "H", "W", "C")
    arguments.shape("target", target, *y.shape)
    n, h, w, c = y.shape
    period = arguments.whole("period", period, 1)
    if period > min(h, w):
        raise ValueError(f"period is {period}; it should be at most the image's shorter side, {min(h, w)}")
    down, across = min(2, h // period), min(2, w // period)  # periods in a square
    rows, columns = h // (down * period), w // (across * period)
    seen = slice(None), slice(rows * down * period), slice(columns * across * period)
    difference = (y[seen] - target[seen]).reshape(n, rows, down, period, columns, across, period, c)
    grid = difference.mean(axis=(2, 5), keepdims=True)
    grid -= grid.mean(axis=(3, 6), keepdims=True)
    dy = xp.zeros_like(y)
    each = grid * (2 * weight / (grid.size * down * across))
    dy[seen] = xp.broadcast_to(each, difference.shape).reshape(y[seen].shape)
    return weight * _number((grid * grid).sum()) / grid.size, dy


def _number(value):
    """NumPy's scalar as a float; CuPy's 0-d array as it is."""
    return float(value) if isinstance(value, np.generic) else value


class StyleObjective:
    """The loss of a stylised image: content, style and total variation, weighted and added (eq. 5).

    `content` and `style` are {layer: weight}. The weights are the official code's, which takes the *mean* of
    the squared differences of two Gram matrices where eq. 4 takes the sum: eq. 4 is divided by C^2 here.
    """

    def __init__(self, vgg, style_image, content, style, tv, mix=None):
        """`style_image` (1, H, W, 3), RGB in 0..255: its Gram matrices are computed once; without `style` it
        may be None.

        Several paintings: a list of images, with their weights `mix` (None: equal). The target is the
        weighted mean of their Gram matrices. The sum of the weighted losses has the same gradient and differs
        only by a constant: sum_k m_k ||G - G_k||^2 = ||G - sum_k m_k G_k||^2 + constant, where the weights
        m_k sum to one.
        """
        self.vgg, self.content, self.style, self.tv = vgg, content, style, tv
        paintings = style_image if isinstance(style_image, (list, tuple)) else [style_image]
        mix = [1.0] * len(paintings) if mix is None else mix
        self.grams = {}
        for painting, share in zip(paintings, mix, strict=True):
            for name, f in self._features(painting, style).items():
                gram = ops.gram_matrix(f)[0] * (share / sum(mix))
                self.grams[name] = gram if name not in self.grams else self.grams[name] + gram

    def _features(self, images, layers, training=False):
        return self.vgg.forward(images, tuple(layers), training) if layers else {}

    def targets(self, images):
        """The content features of `images` (N, H, W, 3); nothing is kept for a backward pass."""
        return self._features(images, self.content)

    def value(self, y, targets):
        """The total for images y, a float, without a gradient."""
        features = self._features(y, self.content | self.style)
        total = sum(value for _, _, value, _ in self._losses(features, targets))
        return float(total + (tv_loss(y, self.tv)[0] if self.tv else 0.0))

    def _losses(self, features, targets):
        """(term, layer, value, gradient with respect to its features) of each content and style loss."""
        for name, weight in self.content.items():
            yield "content", name, *feature_loss(features[name], targets[name], weight)
        for name, weight in self.style.items():
            weight = weight / features[name].shape[3] ** 2
            yield "style", name, *style_loss(features[name], self.grams[name], weight)

    def __call__(self, y, targets, read=True):
        """Return ({"content", "style", "tv", "total": weighted float}, gradient with respect to y) for images
        y (N, H, W, 3) in 0..255; `targets` as the method of that name returns them.

        read=False: leave the terms on a GPU, as 0-d arrays, for `device.floats` to read later
        """
        layers = self.content | self.style
        features = self._features(y, layers, training=True)
        terms, gradients = {"content": 0.0, "style": 0.0, "tv": 0.0}, {}
        for term, name, value, df in self._losses(features, targets):
            terms[term] += value
            gradients[name] = df if name not in gradients else ops.add(df, gradients[name], out=df)
        dy = self.vgg.backward(gradients) if layers else array_module(y).zeros_like(y)
        if self.tv:
            terms["tv"], dtv = tv_loss(y, self.tv)
            dy += dtv
        terms["total"] = sum(terms.values())
        return floats(terms) if read else terms, dy
