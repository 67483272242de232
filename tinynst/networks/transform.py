"""What the style net and the super-resolution net share: their building blocks, and how they are used, loaded
and saved."""

import numpy as np

from .. import __version__, layers
from ..device import array_module, copy_arrays
from .vgg import MEAN_RGB, check_images

PAD = 40  # what the five residual blocks crop: 5 blocks * 2 convolutions * 1 pixel, at a quarter of the size
NORMS = {"instance": layers.InstanceNorm, "batch": layers.BatchNorm}
STYLE_UPSAMPLINGS = ("transpose", "nearest", "smooth")
UPSAMPLINGS = ("transpose", "nearest")
PADDINGS = ("outer", "each")
FACTORS = (2, 4, 8)
SUPERRES_NORMS = ("batch", "none")
SPAN = 150.0  # the scale of tanh (see ops/activations.py); the super-resolution net's input is divided by it


def check_options(options, **choices):
    """Raise ValueError unless each option has a value among its `choices` and the width is at least 1."""
    for name, allowed in choices.items():
        if options[name] not in allowed:
            raise ValueError(f"{name} is {options[name]!r}; choose from {', '.join(map(str, allowed))}")
    if options["width"] < 1:
        raise ValueError(f"width is {options['width']}; it should be at least 1")


class Blocks:
    """The building blocks of both nets; each method returns {name: layer}.

    norm: "instance", "batch", or "none", where the convolutions have biases instead
    upsample: "transpose", or the way to enlarge before a 3x3 convolution: "nearest", "smooth"
    padding: "zero"; "each", reflection at each convolution; "outer", zero, but none in the residual blocks
    styles: 0, or the number of rows in each norm
    """

    def __init__(self, norm, upsample, padding, styles, seed, xp, dtype):
        self.norm_kind, self.upsample, self.padding, self.styles = norm, upsample, padding, styles
        self.kind = {"xp": xp, "dtype": dtype}
        self.random = {"rng": None if seed is None else np.random.default_rng(seed), **self.kind}

    def conv(self, name, inputs, outputs, kernel, stride=1, padded=True, bias=False):
        pad, bias = kernel // 2 if padded else 0, bias or self.norm_kind == "none"
        reflected = {f"{name}_pad": layers.ReflectPad(pad)} if self.padding == "each" else {}
        conv = layers.Conv(inputs, outputs, kernel, stride, 0 if reflected else pad, bias, **self.random)
        return reflected | {name: conv}

    def norm(self, name, channels, relu=True):
        """The norm, with ReLU where `relu`. In a net without norms: ReLU, or nothing."""
        if self.norm_kind == "none":
            return {name.replace("norm", "relu"): layers.ReLU()} if relu else {}
        if self.styles:
            return {name: layers.ConditionalInstanceNorm(self.styles, channels, relu, **self.kind)}
        return {name: NORMS[self.norm_kind](channels, relu, **self.kind)}

    def conv_norm(self, name, inputs, outputs, kernel, stride=1):
        return self.conv(name, inputs, outputs, kernel, stride) | self.norm(f"{name}_norm", outputs)

    def residual(self, name, channels):
        padded, inner = self.padding != "outer", {}
        for k in (1, 2):
            inner |= self.conv(f"conv{k}", channels, channels, 3, padded=padded)
            inner |= self.norm(f"norm{k}", channels, relu=k == 1)
        return {name: layers.Residual(inner, crop=0 if padded else 2)}

    def up(self, name, inputs, outputs):
        """To twice the size: a transposed convolution, or enlarging and a convolution; then norm and ReLU."""
        if self.upsample == "transpose":
            conv = {name: layers.ConvTranspose(inputs, outputs, **self.random)}
            return conv | self.norm(f"{name}_norm", outputs)
        enlarge = layers.Upsample(2) if self.upsample == "nearest" else layers.UpsampleSmooth()
        return {f"{name}_{self.upsample}": enlarge, **self.conv_norm(name, inputs, outputs, 3)}

    def out(self, inputs):
        """The last convolution and the tanh."""
        return self.conv("out", inputs, 3, 9, bias=True) | {"tanh": layers.ScaledTanh(SPAN)}


class TransformNet:
    """The base of both nets: RGB images (N, H, W, 3) in 0..255 in and out, of any size. The result can reach
    a little beyond 0..255 and is clipped when it is saved. `options` holds what the net was built with, `xp`
    its array module."""

    kind, shown = "transform", 256  # the kind of weights file; the side of the image in its table

    def __init__(self, layers, options):
        self.layers, self.options, self._shapes = layers, options, None
        self.parameters, self.learnt = layers.parameters, layers.learnt  # the net's arrays are its layers'
        self.gradients, self.buffers = layers.gradients, layers.buffers
        self.xp = array_module(*self.parameters().values())

    def __repr__(self):
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"{type(self).__name__}({options})\n{self.layers.table((self.shown, self.shown, 3))}"

    def _centred(self, images):
        """The images minus VGG's mean colour, and that mean colour."""
        mean = check_images(self, images).asarray(np.array(MEAN_RGB, images.dtype))
        return images - mean, mean

    def _forward_shapes(self):
        if self._shapes is None:
            raise RuntimeError("backward needs a forward(images, training=True) before it")
        return self._shapes

    def load(self, arrays):
        """Copy {name: NumPy array} into the net. Raises ValueError for other names or shapes."""
        copy_arrays(arrays, {**self.parameters(), **self.buffers()})

    def about(self):
        """What a weights file says of the net."""
        return {"kind": self.kind, "settings": dict(self.options), "tinynst": __version__}

    def save(self, path, style=None):
        """Write the net as a weights file (.h5) that the commands and `load_style` or `load_superres` read.

        style: the painting's file, for a net of one style: its name and a thumbnail are stored as well.
        Raises UserError for a painting that cannot be read.
        """
        from ..data import images, weights  # here, because a net in memory needs no files

        about, thumbnail = self.about(), None
        if style is not None:
            name = str(style).replace("\\", "/").rsplit("/", 1)[-1]
            about |= {"style_image": name, "summary": name.rsplit(".", 1)[0].replace("_", " ")}
            thumbnail = images.to_uint8(images.load(style, 128, side="long"))
        weights.save(path, {**self.parameters(), **self.buffers()}, about, thumbnail=thumbnail)
