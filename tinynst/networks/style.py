"""The style net: Table 1 of the paper's supplement. It stylises images."""

import numpy as np

from ..device import array_module
from ..layers import InstanceNorm, ReflectPad, Sequential
from ..ops import arguments
from .transform import NORMS, PAD, PADDINGS, STYLE_UPSAMPLINGS, Blocks, TransformNet, check_options


class StyleNet(TransformNet):
    """RGB images in 0..255 in, stylised images of the same size out. The layers work on images minus VGG's
    mean colour, as in the official code. A net of several styles has their names in `styles`, and in `style`
    its default mixture (S,): its first style, until it is set."""

    kind = "style"

    def __init__(self, layers, options, styles=()):
        super().__init__(layers, options)
        self.styles = tuple(styles)
        self.style = self.mixture(0) if self.styles else None

    def forward(self, images, training=False, style=None):
        """images (N, H, W, 3), any H and W >= 1, RGB in 0..255 -> the same shape.
        `style`: see `mixture`; or its result, (S,), or one for each image, (N, S)."""
        x, mean = self._centred(images)
        y = self.layers.forward(x, training, self._rows(images, style))
        if training:
            self._shapes = images.shape, y.shape
        return y[:, : images.shape[1], : images.shape[2]] + mean  # y's height and width are multiples of 4

    def backward(self, dy, need=("x", "w")):
        """The gradient with respect to the images (None without "x" in `need`), from dy (N, H, W, 3)."""
        outer, inner = self._forward_shapes()
        arguments.shape("dy", dy, *outer)
        if outer != inner:
            full = array_module(dy).zeros(inner, dy.dtype)
            full[:, : outer[1], : outer[2]] = dy
            dy = full
        return self.layers.backward(dy, need)

    def mixture(self, style):
        """The share of each style, (S,) NumPy, sum one, from a row's number, a name, or {name: share}.

        Raises ValueError for a style that the net does not have and for shares that are negative or all zero.
        """
        shares = style if isinstance(style, dict) else {style: 1.0}
        mix = np.zeros(len(self.styles))
        for name, share in shares.items():
            row = self.styles.index(name) if name in self.styles else name
            if not isinstance(row, int | np.integer) or not 0 <= row < len(mix):
                known = ", ".join(self.styles) or "none: it has one style only"
                raise ValueError(f"the net has no style {name!r}; choose from {known}")
            if not 0 <= share < 1e9:
                raise ValueError(f"the share of {name} is {share}; it should be at least 0 and below 1e9")
            mix[row] += share
        if not mix.sum() > 0:
            raise ValueError("the shares of all styles are zero; at least one should be above zero")
        return mix / mix.sum()

    def _rows(self, images, style):
        """`style` as (N, S) in the images' dtype and on their device; None for a net of one style."""
        if not self.styles:
            if style is not None:
                raise ValueError(f"style is {style!r}, but this net has one style only: leave it out")
            return None
        mix = self.style if style is None else style
        mix = np.asarray(mix if isinstance(mix, np.ndarray) else self.mixture(mix), images.dtype)
        rows = np.broadcast_to(mix, (images.shape[0], len(self.styles)))
        return self.xp.asarray(np.ascontiguousarray(rows))

    def learn_norms_only(self):
        """From now on only the norms' gamma and beta are learnt; backward makes no other gradients."""
        for layer in self.layers.leaves().values():
            layer.frozen = not isinstance(layer, InstanceNorm)  # the base of all norms

    def about(self):
        names = self.styles
        several = {"styles": [{"name": name, "objective": None} for name in names]} if names else {}
        return super().about() | several | {"summary": f"{len(names)} styles" if names else "a style"}


def style_net(
    norm="instance",
    upsample="transpose",
    width=32,
    styles=1,
    padding="outer",
    *,
    seed=0,
    xp=np,
    dtype=np.float32,
):
    """Table 1: reflection padding 40; convs 9x9xW, 3x3x2W stride 2, 3x3x4W stride 2; five residual blocks of
    4W, each two unpadded 3x3 convs; two convs 3x3 of stride 1/2 back to W; conv 9x9x3 and 150*tanh. Norm and
    ReLU after every conv but the last and the residual blocks' second (norm only). W = `width` (the paper's
    32; the official instance-norm nets: 16).

    norm: "instance" (Ulyanov et al., arXiv:1607.08022) or "batch"
    upsample: "nearest", "smooth": enlarge, then a 3x3 conv, instead of each transposed convolution
    styles: their number or their names; with several, each has its own rows in the norms (arXiv:1610.07629)
    padding: "each": reflection at each convolution, 40% fewer pixels at 256x256; "outer": 40 pixels at first
    Raises ValueError for a wrong option.
    """
    options = {"norm": norm, "upsample": upsample, "width": width, "padding": padding}
    check_options(options, norm=NORMS, upsample=STYLE_UPSAMPLINGS, padding=PADDINGS)
    if isinstance(styles, int):
        if styles < 1:
            raise ValueError(f"styles is {styles}; it should be at least 1")
        styles = [f"style{k}" for k in range(1, styles + 1)] if styles > 1 else []
    names = list(styles)
    if names and norm != "instance":
        raise ValueError(f"norm is {norm!r}; a net of several styles has norm 'instance'")
    if len(set(names)) < len(names):
        raise ValueError(f"styles holds a name twice: {', '.join(names)}")
    blocks, w = Blocks(norm, upsample, padding, len(names), seed, xp, dtype), width
    layers = {"pad": ReflectPad(PAD)} if padding == "outer" else {}
    layers |= blocks.conv_norm("conv1", 3, w, 9)
    layers |= blocks.conv_norm("conv2", w, 2 * w, 3, stride=2)
    layers |= blocks.conv_norm("conv3", 2 * w, 4 * w, 3, stride=2)
    for k in range(1, 6):
        layers |= blocks.residual(f"residual{k}", 4 * w)
    layers |= blocks.up("up1", 4 * w, 2 * w)
    layers |= blocks.up("up2", 2 * w, w)
    layers |= blocks.out(w)
    return StyleNet(Sequential(layers), options, names)
