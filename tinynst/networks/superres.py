"""The super-resolution net: Table 2 of the paper's supplement. It enlarges images."""

import numpy as np

from .. import ops
from ..layers import Sequential
from ..ops import arguments
from .transform import FACTORS, SPAN, SUPERRES_NORMS, UPSAMPLINGS, Blocks, TransformNet, check_options


class SuperResolutionNet(TransformNet):
    """RGB images in 0..255 in, images of `factor` times the height and width out. The layers work on images
    minus VGG's mean colour, divided by SPAN. With `residual` their result is added to bicubic enlargement,
    otherwise to the mean colour."""

    kind, shown = "superres", 64

    def __init__(self, layers, options):
        super().__init__(layers, options)
        self.factor, self.residual = options["factor"], options["residual"]

    def forward(self, images, training=False):
        """images (N, H, W, 3), any H and W >= 1, RGB in 0..255 -> (N, factor*H, factor*W, 3)."""
        x, mean = self._centred(images)
        y = self.layers.forward(x / SPAN, training)
        if training:
            self._shapes = images.shape, y.shape
        return y + (ops.upsample_bicubic(images, self.factor)[0] if self.residual else mean)

    def backward(self, dy, need=("x", "w")):
        """The gradient with respect to the images (None without "x" in `need`), from dy (N, factor*H,
        factor*W, 3)."""
        images, y = self._forward_shapes()
        arguments.shape("dy", dy, *y)
        dx = self.layers.backward(dy, need)
        if dx is None:
            return None
        dx /= SPAN
        if self.residual:  # the images reach y on two paths: their gradients add
            dx += ops.upsample_bicubic_backward(dy, (images, self.factor))[0]
        return dx

    def about(self):
        return super().about() | {"summary": f"x{self.factor}", "factor": self.factor}


def super_resolution_net(
    factor, norm="batch", upsample="transpose", residual=False, width=64, *, seed=0, xp=np, dtype=np.float32
):
    """Table 2: conv 9x9xW; four residual blocks of W, each two 3x3 convs; log2(factor) convs 3x3xW of stride
    1/2; conv 9x9x3 and 150*tanh. Zero padding; norm and ReLU after every conv but the last and the residual
    blocks' second (norm only). W = `width`.

    factor: 2, 4 or 8
    norm: "batch", or "none": biases instead of the norms
    upsample: "nearest": enlarge, then a 3x3 conv, instead of each transposed convolution
    residual: the result is added to bicubic enlargement, and the net starts within a grey level or so of it
    Raises ValueError for a wrong option.
    """
    options = {"factor": factor, "norm": norm, "upsample": upsample, "residual": residual, "width": width}
    check_options(options, factor=FACTORS, norm=SUPERRES_NORMS, upsample=UPSAMPLINGS)
    blocks, w = Blocks(norm, upsample, "zero", 0, seed, xp, dtype), width
    layers = blocks.conv_norm("conv1", 3, w, 9)
    for k in range(1, 5):
        layers |= blocks.residual(f"residual{k}", w)
    for k in range(1, factor.bit_length()):
        layers |= blocks.up(f"up{k}", w, w)
    layers |= blocks.out(w)
    if residual:
        for array in layers["out"].parameters().values():
            array *= 0.01  # starts as bicubic enlargement
    return SuperResolutionNet(Sequential(layers), options)
