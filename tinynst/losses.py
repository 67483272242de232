"""The paper's losses: each returns (value, gradient by its first argument). The value is a float, the mean over the batch."""

from . import ops, parallel
from .device import array_module
from .ops import arguments


def feature_loss(f, target, weight=1.0):
    """Eq. 2: ||f - target||^2 / (C*H*W) of features (N, H, W, C), target of the same shape: how far the content is off.
    Value and gradient are multiplied by `weight`."""
    arguments.floating(f=f, target=target)
    arguments.shape("f", f, "N", "H", "W", "C")
    arguments.shape("target", target, *f.shape)
    xp = array_module(f)
    df = xp.empty(f.shape, f.dtype)

    def job(block):
        difference = xp.subtract(f[block], target[block], out=df[block])
        square = (difference * difference).sum()
        difference *= 2 * weight / f.size
        return square

    row_bytes = 3 * f.shape[2] * f.shape[3] * f.itemsize
    squares = parallel.run(job, parallel.blocks(xp, f.shape[0], f.shape[1], row_bytes))
    return weight * float(sum(squares)) / f.size, df


def pixel_loss(y, target, weight=1.0):
    """||y - target||^2 / (C*H*W) of images (N, H, W, C): eq. 2 without a net that looks."""
    return feature_loss(y, target, weight)


def style_loss(f, target_gram, weight=1.0):
    """Eq. 4: ||G(f) - target_gram||^2, squared Frobenius norm, of features f (N, H, W, C); target_gram is (C, C), or (1 or N,
    C, C). Zero for any picture whose features fire together as the painting's do, wherever they are. Value and gradient are
    multiplied by `weight`."""
    arguments.floating(f=f, target_gram=target_gram)
    gram, cache = ops.gram_matrix(f)
    n, c, _ = gram.shape
    if tuple(target_gram.shape) not in {(c, c), (1, c, c), (n, c, c)}:
        raise ValueError(f"target_gram has shape {tuple(target_gram.shape)}; it should be ({c}, {c}) or (1 or {n}, {c}, {c})")
    difference = gram - target_gram
    value = weight * float((difference * difference).sum()) / n
    (df,) = ops.gram_matrix_backward(difference * (2 * weight / n), cache)
    return value, df


def tv_loss(y):
    """Total variation of images (N, H, W, C): half the sum of squared differences of neighbours, down and across."""
    xp = arguments.floating(y=y)
    arguments.shape("y", y, "N", "H", "W", "C")
    down, across = y[:, 1:] - y[:, :-1], y[:, :, 1:] - y[:, :, :-1]
    n = y.shape[0]
    value = 0.5 * (float((down * down).sum()) + float((across * across).sum())) / n
    dy = xp.zeros(y.shape, y.dtype)
    dy[:, 1:] += down
    dy[:, :-1] -= down
    dy[:, :, 1:] += across
    dy[:, :, :-1] -= across
    dy /= n
    return value, dy


class StyleObjective:
    """What a stylised picture is judged by: content, style and total variation, weighted and added (eq. 5).

    `content` and `style` are {layer: weight}. The weights are the official code's: it takes the *mean* of the squared
    differences of two Gram matrices where eq. 4 takes the sum, so eq. 4 is divided by C^2 here, in one place.
    """

    def __init__(self, vgg, style_image, content, style, tv, mix=None):
        """`style_image` (1, H, W, 3), RGB in 0..255: its Gram matrices are made once; without `style` it may be None.

        Several paintings: a list of images, with their weights `mix` (None: all the same). The target is the weighted mean of
        their Gram matrices: the sum of the weighted losses has the same gradient, and differs by what no picture can lower,
        sum_k m_k ||G - G_k||^2 = ||G - sum_k m_k G_k||^2 + constant (the weights m_k sum to one).
        """
        self.vgg, self.content, self.style, self.tv = vgg, content, style, tv
        paintings = style_image if isinstance(style_image, (list, tuple)) else [style_image]
        mix = [1.0] * len(paintings) if mix is None else mix
        self.grams = {}
        for painting, share in zip(paintings, mix, strict=True):
            features = vgg.forward(painting, tuple(style), training=False) if style else {}
            for name, f in features.items():
                gram = ops.gram_matrix(f)[0] * (share / sum(mix))
                self.grams[name] = gram if name not in self.grams else self.grams[name] + gram

    def targets(self, images):
        """The content features of `images` (N, H, W, 3): nothing is kept for a gradient, for none is wanted."""
        return self.vgg.forward(images, tuple(self.content), training=False) if self.content else {}

    def __call__(self, y, targets):
        """Return ({"content", "style", "tv", "total": weighted float}, gradient by y) for images y (N, H, W, 3), 0..255."""
        layers = tuple({**self.content, **self.style})
        features = self.vgg.forward(y, layers) if layers else {}
        terms, gradients = {"content": 0.0, "style": 0.0, "tv": 0.0}, {}

        for name, weight in self.content.items():
            value, gradients[name] = feature_loss(features[name], targets[name], weight)
            terms["content"] += value
        for name, weight in self.style.items():
            weight = weight / features[name].shape[3] ** 2
            value, df = style_loss(features[name], self.grams[name], weight)
            terms["style"] += value
            gradients[name] = df if name not in gradients else gradients[name] + df
        dy = self.vgg.backward(gradients) if layers else array_module(y).zeros_like(y)
        if self.tv:
            value, dtv = tv_loss(y)
            terms["tv"] = self.tv * value
            dtv *= self.tv
            dy += dtv
        terms["total"] = sum(terms.values())
        return terms, dy
