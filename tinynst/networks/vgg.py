"""VGG-16, the fixed net whose features the losses compare: features at any of its 13 layers, and the gradient
back to the image.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", arXiv:1409.1556:
3x3 convolutions with ReLU in five blocks, a 2x2 max pool between the blocks. "relu3_2" is the second
convolution of the third block, after its ReLU.
"""

import numpy as np

from .. import ops
from ..device import array_module
from ..layers import Layer, MaxPool, Sequential
from ..ops import arguments

# VGG was trained on BGR images in 0..255, minus the mean colour of ImageNet. VGG16 takes RGB: it reverses the
# channels once in its first kernel, not in every image.
MEAN_RGB = (123.68, 116.779, 103.939)

BLOCKS = (2, 2, 3, 3, 3)  # convolutions per block
LAYERS = tuple(f"relu{block}_{k}" for block, count in enumerate(BLOCKS, 1) for k in range(1, count + 1))
STYLE_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")


def check_images(net, images):
    """The array module of `images` (N, H, W, 3). Raises ValueError for another shape, TypeError for another
    dtype or for images on another device than the net's."""
    xp = arguments.floating(images=images)
    if xp is not net.xp:
        on_gpu, on_cpu = "the GPU, the net is on the CPU", "the CPU, the net is on the GPU"
        where, move = (on_gpu, "to_numpy(images)") if net.xp is np else (on_cpu, "asarray(images, cupy)")
        advice = f"move them with tinynst.device.{move}, or make the net with xp={xp.__name__}"
        raise TypeError(f"images are on {where}: {advice}")
    arguments.shape("images", images, "N", "H", "W", 3)
    return xp


class FixedConv(Layer):
    """A 3x3 convolution with ReLU and a constant kernel: transformed for Winograd once per dtype."""

    operation, selective, frozen = "conv2d", True, True

    def __init__(self, w, b):
        super().__init__({"w": w, "b": b}, pad=1, relu=True)
        self._memo = {}

    def forward(self, x, training=False):
        w, b = (p.astype(x.dtype, copy=False) for p in self._parameters.values())
        return self._apply(x, training, w=w, b=b, memo=self._memo.setdefault(str(x.dtype), {}))

    def out_shape(self, shape):
        return *shape[:2], self._parameters["b"].size


class VGG16:
    """Features of RGB images and gradients back to them. `layers` is a Sequential of conv1_1, conv1_2, pool1,
    conv2_1, ...; `xp` is the array module of the weights. Make one with `VGG16.load()`."""

    def __init__(self, weights, xp=np):
        """weights: {"conv1_1": (w (3, 3, 3, 64), b (64,)), ...}, the first kernel for BGR, as in Keras."""
        layers = {}
        for name, (w, b) in weights.items():
            if name == "conv1_1":
                w = w[:, :, ::-1]
            elif name.endswith("_1"):
                layers[f"pool{int(name[4]) - 1}"] = MaxPool()
            layers[name] = FixedConv(xp.asarray(np.ascontiguousarray(w)), xp.asarray(b))
        self.layers = Sequential(layers)
        self.xp = array_module(*self.layers.parameters().values())
        self._reached = {}  # {tap: layer} that the last forward pass with training=True went through

    @classmethod
    def load(cls, path=None, xp=np):
        """The weights of a Keras VGG-16 file (None: those that ship). Raises UserError for a wrong file."""
        from ..data.weights import read_vgg16  # here, because a net made from arrays needs no files

        return cls(read_vgg16(path), xp)

    def __repr__(self):
        return f"VGG16\n{self.layers.table((256, 256, 3))}"

    def forward(self, images, layers=STYLE_LAYERS, training=True):
        """Features {name: (N, H', W', C)} of images (N, H, W, 3), RGB in 0..255, at `layers`; stops at the
        last of them. The features belong to what backward needs: do not write to them.

        `training=False` keeps nothing for a backward pass, and what an earlier pass kept stays. Raises
        ValueError for an unknown layer or images that are too small for it, TypeError for a wrong dtype or
        device.
        """
        xp = check_images(self, images)
        layers = (layers,) if isinstance(layers, str) else layers
        unknown = [repr(name) for name in layers if name not in LAYERS]
        if unknown or not layers:
            raise ValueError(f"unknown VGG-16 layer {[*unknown, 'none'][0]}; choose from {', '.join(LAYERS)}")
        last = max(layers, key=LAYERS.index)
        height, width, least = *images.shape[1:3], 2 ** (int(last[4]) - 1)  # each pool halves the size
        if min(height, width) < least:
            raise ValueError(f"images of {height}x{width} are too small for {last}: at least {least}x{least}")
        x, features, reached = images - xp.asarray(np.array(MEAN_RGB, images.dtype)), {}, {}
        for name, layer in self.layers.layers.items():
            tap = name.replace("conv", "relu")
            x, reached[tap] = layer.forward(x, training), layer
            if tap in layers:
                features[tap] = x
            if tap == last:
                break
        if training:
            self._reached = reached
        return features

    def backward(self, gradients):
        """The gradient with respect to the images of the last forward pass, from {name: gradient of that
        feature}. Raises ValueError for a layer that the forward pass did not reach."""
        for name in gradients:
            if name not in self._reached:
                reached = [tap for tap in self._reached if tap in LAYERS] or "nothing"
                raise ValueError(f"{name!r} can have no gradient: the last forward pass reached {reached}")
        dx = None
        for tap, layer in reversed(self._reached.items()):
            if tap in gradients:  # the sum of what comes from above and in here, in an array of our own
                dx = gradients[tap] if dx is None else ops.add(dx, gradients[tap], out=dx)
            if dx is None:
                layer.forget()
            else:
                dx = layer.backward(dx, need=("x",))
        self._reached = {}
        return dx
