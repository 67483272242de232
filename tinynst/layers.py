"""A layer is an operation with its parameters and what its forward pass keeps for the backward pass.

    y = layer.forward(x, training=False)            training=True keeps what one backward needs
    dx = layer.backward(dy, need=("x", "w"))        None without "x"; no parameter gradients without "w"

Three dicts of arrays: `parameters()`, which are learnt; `gradients()`, with the same names, after a backward
pass; and `buffers()`, which are saved but not learnt (batch norm's running statistics).
"""

import numpy as np

from . import ops


class Layer:
    """The base of all layers. A `conditional` layer's forward takes a mixture of styles as well. A `frozen`
    layer has parameters that are not learnt: it computes no gradients with respect to them."""

    conditional = False
    frozen = False

    def __init__(self, parameters=None, buffers=None):
        self._parameters, self._buffers = parameters or {}, buffers or {}
        self._gradients, self._cache = {}, None

    def parameters(self):
        return dict(self._parameters)

    def gradients(self):
        return {} if self.frozen else dict(self._gradients)

    def buffers(self):
        return dict(self._buffers)

    def learnt(self):
        """The parameters that are learnt: backward computes gradients with respect to these."""
        return {} if self.frozen else self.parameters()

    def leaves(self):
        """The layers that this one consists of, down to single operations."""
        return [self]

    def out_shape(self, shape):
        """The shape (H, W, C) of y for one image x of `shape` (H, W, C)."""
        return shape

    def forget(self):
        """Drop what forward kept for a backward pass."""
        self._cache = None

    def _keep(self, cache, training):
        if training:
            self._cache = cache

    def _take(self):
        cache, self._cache = self._cache, None
        if cache is None:
            name = type(self).__name__
            raise RuntimeError(f"{name}.backward needs a forward(x, training=True) before it, one for each")
        return cache

    def _need(self, need):
        """`need` for this layer's operation: a frozen layer needs no parameter gradients."""
        return tuple(what for what in need if what == "x" or not self.frozen)

    def _learn(self, need, **gradients):
        """Store the gradients with respect to the parameters, if they are needed."""
        wanted = "w" in self._need(need)
        self._gradients = {name: g for name, g in gradients.items() if wanted and g is not None}


def _uniform(rng, shape, fan_in, xp, dtype):
    """Initial weights, uniform in +-1/sqrt(fan_in), as in the official code (Torch's default)."""
    return xp.asarray(rng.uniform(-1, 1, shape).astype(dtype) / np.sqrt(fan_in).astype(dtype))


class Conv(Layer):
    """ops.conv2d with kernel w (kernel, kernel, inputs, outputs) and, with `bias`, b (outputs,). A norm right
    after the convolution would subtract b again, so there it is left out."""

    def __init__(self, inputs, outputs, kernel, stride=1, pad=0, bias=False, *, rng, xp=np, dtype=np.float32):
        fan_in = kernel * kernel * inputs
        super().__init__({"w": _uniform(rng, (kernel, kernel, inputs, outputs), fan_in, xp, dtype)})
        if bias:
            self._parameters["b"] = _uniform(rng, (outputs,), fan_in, xp, dtype)
        self.stride, self.pad = stride, pad

    def forward(self, x, training=False):
        y, cache = ops.conv2d(x, **self._parameters, stride=self.stride, pad=self.pad)
        self._keep(cache, training)
        return y

    def backward(self, dy, need=("x", "w")):
        dx, dw, db = ops.conv2d_backward(dy, self._take(), need=self._need(need))
        self._learn(need, w=dw, b=db)
        return dx

    def out_shape(self, shape):
        kernel, _, _, outputs = self._parameters["w"].shape
        return *((side + 2 * self.pad - kernel) // self.stride + 1 for side in shape[:2]), outputs


class ConvTranspose(Layer):
    """ops.conv_transpose2d to twice the size, with kernel w (3, 3, outputs, inputs)."""

    def __init__(self, inputs, outputs, *, rng, xp=np, dtype=np.float32):
        super().__init__({"w": _uniform(rng, (3, 3, outputs, inputs), 9 * inputs, xp, dtype)})

    def forward(self, x, training=False):
        y, cache = ops.conv_transpose2d(x, self._parameters["w"], stride=2, pad=1, output_pad=1)
        self._keep(cache, training)
        return y

    def backward(self, dy, need=("x", "w")):
        dx, dw, _ = ops.conv_transpose2d_backward(dy, self._take(), need=self._need(need))
        self._learn(need, w=dw)
        return dx

    def out_shape(self, shape):
        return 2 * shape[0], 2 * shape[1], self._parameters["w"].shape[2]


class InstanceNorm(Layer):
    """ops.instance_norm, with `relu` followed by ReLU. It starts with gamma = 1, beta = 0."""

    def __init__(self, channels, relu=False, *, xp=np, dtype=np.float32):
        super().__init__({"gamma": xp.ones(channels, dtype), "beta": xp.zeros(channels, dtype)})
        self.relu = relu

    def forward(self, x, training=False):
        y, cache = ops.instance_norm(x, **self._parameters, relu=self.relu)
        self._keep(cache, training)
        return y

    def backward(self, dy, need=("x", "w")):
        dx, dgamma, dbeta = ops.instance_norm_backward(dy, self._take())
        self._learn(need, gamma=dgamma, beta=dbeta)
        return dx if "x" in need else None


class ConditionalInstanceNorm(InstanceNorm):
    """ops.conditional_instance_norm: a row of gamma and beta for each of `styles` styles."""

    conditional = True

    def __init__(self, styles, channels, relu=False, *, xp=np, dtype=np.float32):
        super().__init__((styles, channels), relu, xp=xp, dtype=dtype)

    def forward(self, x, training=False, mix=None):
        """mix (N, styles): the share of each style in each image."""
        y, cache = ops.conditional_instance_norm(x, **self._parameters, mix=mix, relu=self.relu)
        self._keep(cache, training)
        return y

    def backward(self, dy, need=("x", "w")):
        dx, dgamma, dbeta, _ = ops.conditional_instance_norm_backward(dy, self._take())
        self._learn(need, gamma=dgamma, beta=dbeta)
        return dx if "x" in need else None


class BatchNorm(InstanceNorm):
    """ops.batch_norm: in training it updates its running statistics, otherwise it uses them."""

    def __init__(self, channels, relu=False, *, xp=np, dtype=np.float32):
        super().__init__(channels, relu, xp=xp, dtype=dtype)
        self._buffers = {"running_mean": xp.zeros(channels, dtype), "running_var": xp.ones(channels, dtype)}

    def forward(self, x, training=False):
        y, cache = ops.batch_norm(x, **self._parameters, **self._buffers, training=training, relu=self.relu)
        self._keep(cache, training)
        return y

    def backward(self, dy, need=("x", "w")):
        dx, dgamma, dbeta = ops.batch_norm_backward(dy, self._take())
        self._learn(need, gamma=dgamma, beta=dbeta)
        return dx if "x" in need else None


class _Plain(Layer):
    """A layer without parameters: an operation, its backward, and the arguments of the forward."""

    def __init__(self, forward, backward, *arguments, scale=1.0, pad=0):
        super().__init__()
        self._operation, self._operation_backward, self._arguments = forward, backward, arguments
        self._scale, self._pad = scale, pad  # what it does to the height and width

    def forward(self, x, training=False):
        y, cache = self._operation(x, *self._arguments)
        self._keep(cache, training)
        return y

    def backward(self, dy, need=("x", "w")):
        return self._operation_backward(dy, self._take())[0] if "x" in need else None

    def out_shape(self, shape):
        return *(int(self._scale * side) + 2 * self._pad for side in shape[:2]), shape[2]


class ReflectPad(_Plain):
    """ops.reflect_pad2d by `pad` pixels on each side."""

    def __init__(self, pad):
        super().__init__(ops.reflect_pad2d, ops.reflect_pad2d_backward, pad, pad=pad)


class MaxPool(_Plain):
    """ops.max_pool2d, to half the size."""

    def __init__(self):
        super().__init__(ops.max_pool2d, ops.max_pool2d_backward, scale=0.5)


class Upsample(_Plain):
    """ops.upsample_nearest to `scale` times the size."""

    def __init__(self, scale):
        super().__init__(ops.upsample_nearest, ops.upsample_nearest_backward, scale, scale=scale)


class UpsampleSmooth(_Plain):
    """ops.upsample_smooth, to twice the size."""

    def __init__(self):
        super().__init__(ops.upsample_smooth, ops.upsample_smooth_backward, scale=2)


class ReLU(_Plain):
    """ops.relu, for nets without norms: a norm applies its ReLU itself."""

    def __init__(self):
        super().__init__(ops.relu, ops.relu_backward)


class ScaledTanh(_Plain):
    """ops.scaled_tanh."""

    def __init__(self, scale):
        super().__init__(ops.scaled_tanh, ops.scaled_tanh_backward, scale)


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
        found = {name: getattr(layer, what)() for name, layer in self.layers.items()}
        return {f"{name}.{key}": array for name, arrays in found.items() for key, array in arrays.items()}

    def leaves(self):
        return [leaf for layer in self.layers.values() for leaf in layer.leaves()]

    def parameters(self):
        return self._collect("parameters")

    def learnt(self):
        return self._collect("learnt")

    def gradients(self):
        return self._collect("gradients")

    def buffers(self):
        return self._collect("buffers")

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
            rows.append(
                (name, type(layer).__name__, "x".join(map(str, shape)), f"{count:,}" if count else "")
            )
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
