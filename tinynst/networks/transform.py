"""The image transformation nets of the paper's supplement: Table 1, for style, and Table 2, for super-resolution."""

import numpy as np

from .. import ops
from ..device import array_module, copy_arrays
from ..layers import (
    BatchNorm,
    ConditionalInstanceNorm,
    Conv,
    ConvTranspose,
    InstanceNorm,
    ReflectPad,
    ReLU,
    Residual,
    ScaledTanh,
    Sequential,
    Upsample,
    UpsampleSmooth,
)
from ..ops import arguments
from .vgg import MEAN_RGB

PAD = 40  # what the five residual blocks take off again: 5 blocks * 2 convolutions * 1 pixel, at a quarter of the size
NORMS = {"instance": InstanceNorm, "batch": BatchNorm}
STYLE_UPSAMPLINGS = ("transpose", "nearest", "smooth")
UPSAMPLINGS = ("transpose", "nearest")
PADDINGS = ("outer", "each")
FACTORS = (2, 4, 8)
SUPERRES_NORMS = ("batch", "none")
SPAN = (
    150.0  # what tanh is scaled by (see ops/activations.py), and the super-resolution net's input divided by
)


class TransformNet:
    """RGB images in 0..255 in, RGB images of the same size out. The layers work on images less VGG's mean colour, as the
    official code's do; the result can reach a little beyond 0..255 and is clipped only when it is saved.

    A net of several styles has their names in `styles`, and in `style` what it paints when it is not told: its first.
    """

    def __init__(self, layers, styles=()):
        self.layers = layers
        self.styles = tuple(styles)
        self.style = self.mixture(0) if self.styles else None
        self._shapes = None

    def forward(self, images, training=False, style=None):
        """images (N, H, W, 3), any H and W >= 1, RGB in 0..255 -> the same shape. `training` keeps what backward needs.
        `style`: see `mixture`; or its result, (S,), or one for each image, (N, S)."""
        xp = arguments.floating(images=images)
        arguments.shape("images", images, "N", "H", "W", 3)
        mean = xp.asarray(np.array(MEAN_RGB, images.dtype))
        y = self.layers.forward(images - mean, training, self._rows(images, style, xp))
        if training:
            self._shapes = images.shape, y.shape
        return y[:, : images.shape[1], : images.shape[2]] + mean  # the net's own sizes are multiples of 4

    def mixture(self, style):
        """How much of each style, (S,) NumPy adding up to one: a row's number, a style's name, or {name: share}.

        Raises ValueError for a style that the net does not have and for shares that are negative or all zero.
        """
        shares = style if isinstance(style, dict) else {style: 1.0}
        mix = np.zeros(len(self.styles))
        for name, share in shares.items():
            row = self.styles.index(name) if name in self.styles else name
            if not isinstance(row, int | np.integer) or not 0 <= row < len(mix):
                raise ValueError(
                    f"the net has no style {name!r}; choose from {', '.join(self.styles) or 'none: it has one'}"
                )
            if not 0 <= share < float("inf"):
                raise ValueError(f"the share of {name} is {share}; it should be at least 0")
            mix[row] += share
        if not mix.sum() > 0:
            raise ValueError("the shares of all styles are zero; one at least should be above it")
        return mix / mix.sum()

    def _rows(self, images, style, xp):
        """`style` as (N, S) in the images' dtype and on their device; None for a net of one style."""
        if not self.styles:
            if style is not None:
                raise ValueError(f"style is {style!r}, but this net has one style only: leave it out")
            return None
        mix = self.style if style is None else style
        mix = np.asarray(mix if isinstance(mix, np.ndarray) else self.mixture(mix), images.dtype)
        return xp.asarray(np.ascontiguousarray(np.broadcast_to(mix, (images.shape[0], len(self.styles)))))

    def backward(self, dy, input_gradient=True):
        """The gradient by the images (None without `input_gradient`), from dy (N, H, W, 3); leaves those by the parameters."""
        if self._shapes is None:
            raise RuntimeError("backward needs a forward(images, training=True) before it")
        outer, inner = self._shapes
        arguments.shape("dy", dy, *outer)
        if outer != inner:
            full = array_module(dy).zeros(inner, dy.dtype)
            full[:, : outer[1], : outer[2]] = dy
            dy = full
        return self.layers.backward(dy, input_gradient)

    def parameters(self):
        return self.layers.parameters()

    def learnt(self):
        return self.layers.learnt()

    def gradients(self):
        return self.layers.gradients()

    def learn_norms_only(self):
        """From now on only the norms' gamma and beta are learnt, the styles' rows: backward makes no other gradients."""
        for layer in self.layers.leaves():
            layer.frozen = not isinstance(layer, InstanceNorm | BatchNorm | ConditionalInstanceNorm)

    def buffers(self):
        return self.layers.buffers()

    def load(self, arrays):
        """Copy {name: NumPy array} over the parameters and buffers. Raises ValueError unless names and shapes fit."""
        copy_arrays(arrays, {**self.parameters(), **self.buffers()})


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
    """Table 1: reflection padding 40; convs 9x9xW, 3x3x2W stride 2, 3x3x4W stride 2; five residual blocks of 4W, each two
    unpadded 3x3 convs; two convs 3x3 of stride 1/2 back to W; conv 9x9x3 and 150*tanh. Norm and ReLU after every conv but
    the last and the residual blocks' second (norm only). W = `width` (the paper's 32; the official instance-norm nets: 16).

    upsample "nearest", "smooth": enlarge, then a 3x3 conv, in place of each transposed convolution
    styles: how many, or their names: with several, each has its own rows in the norms (arXiv:1610.07629)
    padding "each": reflection at each convolution in place of 40 pixels before the first: there four tenths fewer pixels at 256
    Raises ValueError for a wrong option.
    """
    choices = {
        "norm": (norm, NORMS),
        "upsample": (upsample, STYLE_UPSAMPLINGS),
        "padding": (padding, PADDINGS),
    }
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}; choose from {', '.join(allowed)}")
    if width < 1:
        raise ValueError(f"width is {width}; it should be at least 1")
    if isinstance(styles, int):
        names = [f"style{k}" for k in range(1, styles + 1)] if styles != 1 else []
        if styles < 1:
            raise ValueError(f"styles is {styles}; it should be at least 1")
    else:
        names = list(styles)
    if names and norm != "instance":
        raise ValueError(f"norm is {norm!r}; a net of several styles has norm 'instance'")
    if len(set(names)) < len(names):
        raise ValueError(f"styles holds a name twice: {', '.join(names)}")
    rng = np.random.default_rng(seed)
    kind = {"xp": xp, "dtype": dtype}
    drawn = {"rng": rng, **kind}

    def normed(channels, relu=True):
        return (
            ConditionalInstanceNorm(len(names), channels, relu, **kind)
            if names
            else NORMS[norm](channels, relu, **kind)
        )

    def conv(name, c, o, kernel, stride=1, bias=False):
        pad = kernel // 2
        if padding == "outer":
            return {name: Conv(c, o, kernel, stride, pad, bias, **drawn)}
        return {f"{name}_pad": ReflectPad(pad), name: Conv(c, o, kernel, stride, bias=bias, **drawn)}

    def residual(c):
        if padding == "each":
            convs = [conv(f"conv{k}", c, c, 3) for k in (1, 2)]
        else:
            convs = [{f"conv{k}": Conv(c, c, 3, **drawn)} for k in (1, 2)]
        norms = {"norm1": normed(c)}, {"norm2": normed(c, relu=False)}
        return Residual({**convs[0], **norms[0], **convs[1], **norms[1]}, crop=2 if padding == "outer" else 0)

    def up(name, c, o):
        if upsample == "transpose":
            return {name: ConvTranspose(c, o, **drawn), f"{name}_norm": normed(o)}
        enlarge = Upsample(2) if upsample == "nearest" else UpsampleSmooth()
        return {f"{name}_{upsample}": enlarge, **conv(name, c, o, 3), f"{name}_norm": normed(o)}

    w = width
    layers = {
        **({"pad": ReflectPad(PAD)} if padding == "outer" else {}),
        **conv("conv1", 3, w, 9),
        "conv1_norm": normed(w),
        **conv("conv2", w, 2 * w, 3, stride=2),
        "conv2_norm": normed(2 * w),
        **conv("conv3", 2 * w, 4 * w, 3, stride=2),
        "conv3_norm": normed(4 * w),
        **{f"residual{k}": residual(4 * w) for k in range(1, 6)},
        **up("up1", 4 * w, 2 * w),
        **up("up2", 2 * w, w),
        **conv("out", w, 3, 9, bias=True),
        "tanh": ScaledTanh(SPAN),
    }
    return TransformNet(Sequential(layers), names)


class SuperResolutionNet(TransformNet):
    """RGB images in 0..255 in, RGB images of `factor` times the height and width out. The layers work in units of SPAN about
    VGG's mean colour. With `residual` their result is what bicubic enlargement lacks, otherwise it is the picture."""

    def __init__(self, layers, factor, residual):
        super().__init__(layers)
        self.factor, self.residual = factor, residual

    def forward(self, images, training=False):
        """images (N, H, W, 3), any H and W >= 1, RGB in 0..255 -> (N, factor*H, factor*W, 3). `training` keeps what backward
        needs."""
        xp = arguments.floating(images=images)
        arguments.shape("images", images, "N", "H", "W", 3)
        mean = xp.asarray(np.array(MEAN_RGB, images.dtype))
        y = self.layers.forward((images - mean) / SPAN, training)
        if training:
            self._shapes = images.shape, y.shape
        return y + (ops.upsample_bicubic(images, self.factor)[0] if self.residual else mean)

    def backward(self, dy, input_gradient=True):
        """The gradient by the images (None without `input_gradient`), from dy (N, factor*H, factor*W, 3); leaves those by
        the parameters."""
        if self._shapes is None:
            raise RuntimeError("backward needs a forward(images, training=True) before it")
        images, y = self._shapes
        arguments.shape("dy", dy, *y)
        dx = self.layers.backward(dy, input_gradient)
        if dx is None:
            return None
        dx /= SPAN
        if self.residual:  # both ways lead to the images: their gradients add
            dx += ops.upsample_bicubic_backward(dy, (images, self.factor))[0]
        return dx


def super_resolution_net(
    factor, norm="batch", upsample="transpose", residual=False, width=64, *, seed=0, xp=np, dtype=np.float32
):
    """Table 2: conv 9x9xW; four residual blocks of W, each two 3x3 convs; log2(factor) convs 3x3xW of stride 1/2; conv 9x9x3
    and 150*tanh. Zero padding; norm and ReLU after every conv but the last and the residual blocks' second (norm only).
    W = `width`. factor: 2, 4 or 8. Raises ValueError for a wrong option.

    norm "none": biases in place of the norms
    upsample "nearest": enlarge, then a 3x3 conv, in place of each transposed convolution
    residual: the result is added to the bicubic enlargement, from which the net then starts (within a grey level or so)
    """
    choices = {
        "factor": (factor, FACTORS),
        "norm": (norm, SUPERRES_NORMS),
        "upsample": (upsample, UPSAMPLINGS),
    }
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}; choose from {', '.join(map(str, allowed))}")
    if width < 1:
        raise ValueError(f"width is {width}; it should be at least 1")
    rng = np.random.default_rng(seed)
    kind = {"xp": xp, "dtype": dtype}
    conv = {"rng": rng, **kind}
    w, bias = width, norm == "none"

    def normed(name, relu=True):
        if norm == "batch":
            return {name: BatchNorm(w, relu, **kind)}
        return {name.replace("norm", "relu"): ReLU()} if relu else {}

    def residual_block():
        convs = [{f"conv{k}": Conv(w, w, 3, pad=1, bias=bias, **conv)} for k in (1, 2)]
        return Residual({**convs[0], **normed("norm1"), **convs[1], **normed("norm2", relu=False)})

    def up(name):
        if upsample == "transpose":
            return {name: ConvTranspose(w, w, **conv), **normed(f"{name}_norm")}
        return {
            f"{name}_nearest": Upsample(2),
            name: Conv(w, w, 3, pad=1, bias=bias, **conv),
            **normed(f"{name}_norm"),
        }

    layers = {"conv1": Conv(3, w, 9, pad=4, bias=bias, **conv), **normed("conv1_norm")}
    layers |= {f"residual{k}": residual_block() for k in range(1, 5)}
    for k in range(1, factor.bit_length()):
        layers |= up(f"up{k}")
    layers |= {"out": Conv(w, 3, 9, pad=4, bias=True, **conv), "tanh": ScaledTanh(SPAN)}
    if residual:
        for array in layers["out"].parameters().values():
            array *= 0.01  # starts as bicubic enlargement
    return SuperResolutionNet(Sequential(layers), factor, residual)
