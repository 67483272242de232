"""VGG-16, the fixed net through whose eyes the losses look: any of its 13 layers forward, and the gradient back to the image.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", arXiv:1409.1556: 3x3
convolutions with ReLU in five blocks, a 2x2 max pool between the blocks. "relu3_2" is the second convolution of the third
block, after its ReLU.
"""

import numpy as np

from .. import ops
from ..data.weights import read_vgg16
from ..ops import arguments
from ..ops.fast import parallel

# The one place that knows VGG's input: it was trained on BGR images, 0..255, less the mean colour of ImageNet. `VGG16` takes
# RGB, so it turns its first kernel round instead of every image.
MEAN_RGB = (123.68, 116.779, 103.939)

BLOCKS = (2, 2, 3, 3, 3)  # convolutions per block
LAYERS = tuple(f"relu{block}_{k}" for block, count in enumerate(BLOCKS, 1) for k in range(1, count + 1))
STYLE_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")


class VGG16:
    """Fixed weights; features of RGB images and gradients back to them. Make one with `VGG16.load()`."""

    def __init__(self, weights, xp=np):
        """`weights`: {"conv1_1": (w (3, 3, 3, 64), b (64,)), ...} as `weights.read_vgg16` gives it (first kernel for BGR)."""
        self.weights = {}
        for name, (w, b) in weights.items():
            if name == "conv1_1":
                w = w[:, :, ::-1]
            self.weights[name] = xp.asarray(np.ascontiguousarray(w)), xp.asarray(b)
        self._memo = {
            name: {} for name in weights
        }  # the kernels never change: their Winograd transforms are kept
        self._caches = []

    @classmethod
    def load(cls, path=None, xp=np):
        """The weights of `path`, a Keras VGG-16 file (none: those that ship), on the device of `xp`. Raises UserError."""
        return cls(read_vgg16(path), xp)

    def forward(self, images, layers=STYLE_LAYERS, training=True):
        """Features {name: (N, H', W', C)} of images (N, H, W, 3), RGB in 0..255, at `layers`; stops at the last of them.

        The features are what backward needs to remember: read them, do not write to them. `training=False` keeps nothing
        for a backward pass (and leaves alone what an earlier pass kept). Raises ValueError for an unknown layer or images
        too small for it, TypeError for a wrong dtype.
        """
        xp = arguments.floating(images=images)
        arguments.shape("images", images, "N", "H", "W", 3)
        layers = (layers,) if isinstance(layers, str) else layers
        unknown = [name for name in layers if name not in LAYERS]
        if unknown or not layers:
            raise ValueError(
                f"unknown VGG-16 layer {unknown[0] if unknown else 'none'!r}; choose from {', '.join(LAYERS)}"
            )
        last = max(LAYERS.index(name) for name in layers)
        x = images - xp.asarray(np.array(MEAN_RGB, images.dtype))
        features, caches = {}, []
        for name in LAYERS[: last + 1]:
            block, k = map(int, name[4:].split("_"))
            if k == 1 and block > 1:
                if min(x.shape[1:3]) < 2:
                    least = 2 ** (block - 1)
                    raise ValueError(
                        f"images of {images.shape[1]}x{images.shape[2]} are too small for {name}: at least {least}x{least}"
                    )
                x, cache = ops.max_pool2d(x)
                caches.append((None, cache))
            conv = f"conv{block}_{k}"
            w, b = (v if v.dtype == x.dtype else v.astype(x.dtype) for v in self.weights[conv])
            memo = self._memo[conv].setdefault(str(x.dtype), {})
            x, cache = ops.conv2d(x, w, b, pad=1, relu=True, memo=memo)
            caches.append((name, cache))
            if name in layers:
                features[name] = x
        if training:
            self._caches = caches
        return features

    def backward(self, gradients):
        """The gradient by the images of the last `forward`, from {name: gradient by that feature}; where two ways meet
        they add. Raises ValueError for a layer that the forward pass did not reach."""
        reached = [name for name, _ in self._caches if name]
        for name in gradients:
            if name not in reached:
                raise ValueError(
                    f"no gradient can be put in at {name!r}: the last forward pass reached {reached or 'nothing'}"
                )
        dx = None
        for name, cache in reversed(self._caches):
            if name is None:
                if dx is not None:
                    (dx,) = ops.max_pool2d_backward(dx, cache)
                continue
            if name in gradients:
                if dx is None:
                    dx = gradients[name]
                else:
                    # never the caller's array: by now dx is a result of ours
                    parallel.add(dx, gradients[name], out=dx)
            if dx is not None:
                dx, _, _ = ops.conv2d_backward(dx, cache, need=("x",))
        self._caches = []
        return dx
