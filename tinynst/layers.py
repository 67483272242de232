"""A layer is an operation with its parameters and what its forward pass keeps for the backward pass.

    y = layer.forward(x, training=False)            training=True keeps what one backward needs
    dx = layer.backward(dy, need=("x", "w"))        None without "x"; no parameter gradients without "w"

Three dicts of arrays: `parameters()`, which are learnt; `gradients()`, with the same names, after a backward
pass; and `buffers()`, which are saved but not learnt (batch norm's running statistics).
"""

import functools

import numpy as np

from . import ops


class Layer:
    """The base of all layers: y = operation(x, **parameters, **buffers, **settings)."""

    operation = ""  # its name in ops; the name of its backward ends in _backward
    selective = False  # that backward takes `need` and computes only those gradients
    conditional = False  # forward takes a mixture of styles as well
    frozen = False  # the parameters are not learnt: backward computes no gradients with respect to them
    times = 1  # y has this many times the height and width of x

    def __init__(self, parameters=None, buffers=None, **settings):
        self._parameters, self._buffers, self.settings = parameters or {}, buffers or {}, settings
        self._gradients, self._cache = {}, None

    def parameters(self):
        return dict(self._parameters)

    def learnt(self):
        """The parameters that are learnt: backward computes gradients with respect to these."""
        return {} if self.frozen else self.parameters()

    def gradients(self):
        return {} if self.frozen else dict(self._gradients)

    def buffers(self):
        return dict(self._buffers)

    def leaves(self):
        """{name: layer} of the single operations that this layer consists of."""
        return {"": self}

    def out_shape(self, shape):
        """The shape (H, W, C) of y for one image x of `shape` (H, W, C)."""
        return int(self.times * shape[0]), int(self.times * shape[1]), shape[2]

    def forget(self):
        """Drop what forward kept for a backward pass."""
        self._cache = None

    def forward(self, x, training=False):
        return self._apply(x, training)

    def _apply(self, x, keep, **more):
        arguments = {**self._parameters, **self._buffers, **self.settings, **more}
        y, cache = getattr(ops, self.operation)(x, **arguments)
        if keep:
            self._cache = cache
        return y

    def backward(self, dy, need=("x", "w")):
        cache, self._cache = self._cache, None
        if cache is None:
            name = type(self).__name__
            raise RuntimeError(f"{name}.backward needs a forward(x, training=True) before it, one for each")
        need = tuple(what for what in need if what == "x" or not self.frozen)
        backward = getattr(ops, f"{self.operation}_backward")
        dx, *gradients = backward(dy, cache, need=need) if self.selective else backward(dy, cache)
        self._gradients = dict(zip(self._parameters, gradients, strict=False)) if "w" in need else {}
        return dx if "x" in need else None


def _uniform(rng, shape, fan_in, xp, dtype):
    """Initial weights, uniform in +-1/sqrt(fan_in), as in the official code (Torch's default). Without `rng`
    zeros, for weights that will be loaded."""
    if rng is None:
        return xp.zeros(shape, dtype)
    return xp.asarray(rng.uniform(-1, 1, shape).astype(dtype) / np.sqrt(fan_in).astype(dtype))


class Conv(Layer):
    """ops.conv2d with kernel w (kernel, kernel, inputs, outputs) and, with `bias`, b (outputs,). A norm right
    after the convolution would subtract b again, so there it is left out."""

    operation, selective = "conv2d", True

    def __init__(self, inputs, outputs, kernel, stride=1, pad=0, bias=False, *, rng, xp=np, dtype=np.float32):
        shapes = {"w": (kernel, kernel, inputs, outputs)} | ({"b": (outputs,)} if bias else {})
        fan_in = kernel * kernel * inputs
        weights = {name: _uniform(rng, shape, fan_in, xp, dtype) for name, shape in shapes.items()}
        super().__init__(weights, stride=stride, pad=pad)
        self.stride, self.pad = stride, pad

    def out_shape(self, shape):
        kernel, _, _, outputs = self._parameters["w"].shape
        return *((side + 2 * self.pad - kernel) // self.stride + 1 for side in shape[:2]), outputs


class ConvTranspose(Layer):
    """ops.conv_transpose2d to twice the size, with kernel w (3, 3, outputs, inputs)."""

    operation, selective = "conv_transpose2d", True

    def __init__(self, inputs, outputs, *, rng, xp=np, dtype=np.float32):
        w = _uniform(rng, (3, 3, outputs, inputs), 9 * inputs, xp, dtype)
        super().__init__({"w": w}, stride=2, pad=1, output_pad=1)

    def out_shape(self, shape):
        return 2 * shape[0], 2 * shape[1], self._parameters["w"].shape[2]


class InstanceNorm(Layer):
    """ops.instance_norm, with `relu` followed by ReLU. It starts with gamma = 1, beta = 0. The base of all
    norms."""

    operation = "instance_norm"

    def __init__(self, channels, relu=False, *, xp=np, dtype=np.float32):
        super().__init__({"gamma": xp.ones(channels, dtype), "beta": xp.zeros(channels, dtype)}, relu=relu)
        self.relu = relu


class ConditionalInstanceNorm(InstanceNorm):
    """ops.conditional_instance_norm: a row of gamma and beta for each of `styles` styles."""

    operation, conditional = "conditional_instance_norm", True

    def __init__(self, styles, channels, relu=False, *, xp=np, dtype=np.float32):
        super().__init__((styles, channels), relu, xp=xp, dtype=dtype)

    def forward(self, x, training=False, mix=None):
        """mix (N, styles): the share of each style in each image."""
        return self._apply(x, training, mix=mix)


class BatchNorm(InstanceNorm):
    """ops.batch_norm: in training it updates its running statistics, otherwise it uses them."""

    operation = "batch_norm"

    def __init__(self, channels, relu=False, *, xp=np, dtype=np.float32):
        super().__init__(channels, relu, xp=xp, dtype=dtype)
        self._buffers = {"running_mean": xp.zeros(channels, dtype), "running_var": xp.ones(channels, dtype)}

    def forward(self, x, training=False):
        return self._apply(x, training, training=training)


class ReflectPad(Layer):
    """ops.reflect_pad2d by `pad` pixels on each side."""

    operation = "reflect_pad2d"

    def __init__(self, pad):
        super().__init__(pad=pad)

    def out_shape(self, shape):
        return *(side + 2 * self.settings["pad"] for side in shape[:2]), shape[2]


class MaxPool(Layer):
    """ops.max_pool2d, to half the size."""

    operation, times = "max_pool2d", 0.5


class Upsample(Layer):
    """ops.upsample_nearest to `scale` times the size."""

    operation = "upsample_nearest"

    def __init__(self, scale):
        super().__init__(scale=scale)
        self.times = scale


class UpsampleSmooth(Layer):
    """ops.upsample_smooth, to twice the size."""

    operation, times = "upsample_smooth", 2


class ReLU(Layer):
    """ops.relu, for nets without norms: a norm applies its ReLU itself."""

    operation = "relu"


class ScaledTanh(Layer):
    """ops.scaled_tanh."""

    operation = "scaled_tanh"

    def __init__(self, scale):
        super().__init__(scale=scale)


class Sequential(Layer):
    """Layers one after another, by name: {"conv1": Conv(...), ...}. A parameter is called "conv1.w"."""

    def __init__(self, layers):
        super().__init__()
        self.layers = layers

    @property
    def conditional(self):
        return any(layer.conditional for layer in self.layers.values())

    def forward(self, x, training=False, mix=None):
        for layer in self.layers.values():
            x = layer.forward(x, training, mix) if layer.conditional else layer.forward(x, training)
        return x

    def backward(self, dy, need=("x", "w")):
        """Without "x" in `need` it stops at the first layer that learns: none below needs a gradient."""
        layers = list(self.layers.values())
        if "x" not in need:
            while layers and not layers[0].learnt():
                del layers[0]
        for layer in reversed(layers):
            dy = layer.backward(dy, need if layer is layers[0] else ("x", *need))
        return dy if "x" in need else None

    def _collect(self, what):
        """What the method of this name gives, of all layers: {"conv1.w": array, ...}."""
        found = {name: getattr(layer, what)() for name, layer in self.layers.items()}
        return {f"{name}.{key}": array for name, arrays in found.items() for key, array in arrays.items()}

    parameters = functools.partialmethod(_collect, "parameters")
    learnt = functools.partialmethod(_collect, "learnt")
    gradients = functools.partialmethod(_collect, "gradients")
    buffers = functools.partialmethod(_collect, "buffers")

    def leaves(self):
        return {name.rstrip("."): leaf for name, leaf in self._collect("leaves").items()}

    def out_shape(self, shape):
        for layer in self.layers.values():
            shape = layer.out_shape(shape)
        return shape

    def table(self, shape):
        """A text table: each layer, its output for an image of `shape` (H, W, C), its parameters."""
        height, width, channels = shape
        rows, total = [("layer", "kind", f"output for {height}x{width}x{channels}", "parameters")], 0
        for name, layer in self.layers.items():
            shape, count = layer.out_shape(shape), sum(p.size for p in layer.parameters().values())
            total += count
            size = "x".join(map(str, shape))
            rows.append((name, type(layer).__name__, size, f"{count:,}" if count else ""))
        rows.append(("in all", "", "", f"{total:,}"))
        return "\n".join(f"{name:<13}{kind:<25}{size:<24}{count:>12}" for name, kind, size, count in rows)


class Residual(Sequential):
    """y = layers(x) + x, where x is cropped by `crop` on each side to the size that unpadded convolutions
    leave. He et al., arXiv:1512.03385; without a ReLU after the addition, as in Gross and Wilber's variant,
    which the paper uses."""

    def __init__(self, layers, crop=0):
        super().__init__(layers)
        self.crop = crop

    def _inner(self, x):
        return x[:, self.crop : x.shape[1] - self.crop, self.crop : x.shape[2] - self.crop]

    def forward(self, x, training=False, mix=None):
        return ops.add(super().forward(x, training, mix), self._inner(x))

    def backward(self, dy, need=("x", "w")):
        dx = super().backward(dy, need)
        if "x" in need:  # x reaches y on two paths: their gradients add
            inner = self._inner(dx)
            ops.add(inner, dy, out=inner)
        return dx
