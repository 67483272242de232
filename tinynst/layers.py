"""An operation with its parameters and its memory of the forward pass.

A layer has `forward(x, training)`, `backward(dy, input_gradient=True)`, and three dicts of arrays: `parameters()`, learnt;
`gradients()`, the same keys, after a backward pass; `buffers()`, kept but not learnt (batch norm's running statistics). In
training, forward keeps what backward needs and backward uses it up; otherwise nothing is kept, and memory stays small.
"""

import numpy as np

from . import ops
from .ops.fast import parallel


class Layer:
    """What all layers share; a layer without parameters only says what its operation is. The forward of a `conditional` layer
    takes a mixture of styles too. A `frozen` layer has parameters that are not learnt: it makes no gradients by them."""

    conditional = False
    frozen = False

    def __init__(self):
        self._parameters, self._gradients, self._buffers, self._cache = {}, {}, {}, None

    def parameters(self):
        return dict(self._parameters)

    def gradients(self):
        return dict(self._gradients)

    def buffers(self):
        return dict(self._buffers)

    def learnt(self):
        """The parameters that are learnt: those that backward leaves gradients for."""
        return {} if self.frozen else self.parameters()

    def leaves(self):
        """The layers that this one is made of, down to single operations."""
        return [self]

    def _needed(self, input_gradient):
        return ("x",) * input_gradient + ("w",) * (not self.frozen)

    def _keep(self, cache, training):
        self._cache = cache if training else None

    def _take(self):
        cache, self._cache = self._cache, None
        if cache is None:
            raise RuntimeError(
                f"{type(self).__name__}.backward needs a forward(x, training=True) before it, one for each"
            )
        return cache


def _uniform(rng, shape, fan_in, xp, dtype):
    """The official code's (Torch's) start: uniform in +-1/sqrt(fan_in)."""
    return xp.asarray(rng.uniform(-1, 1, shape).astype(dtype) / np.sqrt(fan_in).astype(dtype))


class Conv(Layer):
    """ops.conv2d with its kernel w and, where no norm follows that would take it out again, its bias b."""

    def __init__(self, inputs, outputs, kernel, stride=1, pad=0, bias=False, *, rng, xp=np, dtype=np.float32):
        super().__init__()
        self.stride, self.pad = stride, pad
        fan_in = kernel * kernel * inputs
        self._parameters["w"] = _uniform(rng, (kernel, kernel, inputs, outputs), fan_in, xp, dtype)
        if bias:
            self._parameters["b"] = _uniform(rng, (outputs,), fan_in, xp, dtype)

    def forward(self, x, training):
        y, cache = ops.conv2d(x, self._parameters["w"], self._parameters.get("b"), self.stride, self.pad)
        self._keep(cache, training)
        return y

    def backward(self, dy, input_gradient=True):
        dx, dw, db = ops.conv2d_backward(dy, self._take(), need=self._needed(input_gradient))
        self._gradients = {} if self.frozen else {"w": dw} if db is None else {"w": dw, "b": db}
        return dx


class ConvTranspose(Layer):
    """ops.conv_transpose2d to twice the size, with its kernel w (3, 3, outputs, inputs)."""

    def __init__(self, inputs, outputs, *, rng, xp=np, dtype=np.float32):
        super().__init__()
        self._parameters["w"] = _uniform(rng, (3, 3, outputs, inputs), 9 * inputs, xp, dtype)

    def forward(self, x, training):
        y, cache = ops.conv_transpose2d(x, self._parameters["w"], stride=2, pad=1, output_pad=1)
        self._keep(cache, training)
        return y

    def backward(self, dy, input_gradient=True):
        dx, dw, _ = ops.conv_transpose2d_backward(dy, self._take(), need=self._needed(input_gradient))
        self._gradients = {} if self.frozen else {"w": dw}
        return dx


class InstanceNorm(Layer):
    """ops.instance_norm, then ReLU where `relu`."""

    def __init__(self, channels, relu=False, *, xp=np, dtype=np.float32):
        super().__init__()
        self.relu = relu
        self._parameters = {"gamma": xp.ones(channels, dtype), "beta": xp.zeros(channels, dtype)}

    def forward(self, x, training):
        y, cache = ops.instance_norm(x, self._parameters["gamma"], self._parameters["beta"], relu=self.relu)
        self._keep(cache, training)
        return y

    def backward(self, dy, input_gradient=True):
        dx, dgamma, dbeta = ops.instance_norm_backward(dy, self._take())
        self._gradients = {"gamma": dgamma, "beta": dbeta}
        return dx


class ConditionalInstanceNorm(Layer):
    """ops.conditional_instance_norm, a row of gamma and beta for each of `styles`, then ReLU where `relu`."""

    conditional = True

    def __init__(self, styles, channels, relu=False, *, xp=np, dtype=np.float32):
        super().__init__()
        self.relu = relu
        self._parameters = {
            "gamma": xp.ones((styles, channels), dtype),
            "beta": xp.zeros((styles, channels), dtype),
        }

    def forward(self, x, training, mix):
        """mix (N, styles): how much of each style each image gets."""
        y, cache = ops.conditional_instance_norm(x, **self._parameters, mix=mix, relu=self.relu)
        self._keep(cache, training)
        return y

    def backward(self, dy, input_gradient=True):
        dx, dgamma, dbeta, _ = ops.conditional_instance_norm_backward(dy, self._take())
        self._gradients = {"gamma": dgamma, "beta": dbeta}
        return dx


class BatchNorm(Layer):
    """ops.batch_norm, then ReLU where `relu`; in training it updates its running statistics, otherwise it uses them."""

    def __init__(self, channels, relu=False, *, xp=np, dtype=np.float32):
        super().__init__()
        self.relu = relu
        self._parameters = {"gamma": xp.ones(channels, dtype), "beta": xp.zeros(channels, dtype)}
        self._buffers = {"running_mean": xp.zeros(channels, dtype), "running_var": xp.ones(channels, dtype)}

    def forward(self, x, training):
        y, cache = ops.batch_norm(x, **self._parameters, **self._buffers, training=training, relu=self.relu)
        self._keep(cache, training)
        return y

    def backward(self, dy, input_gradient=True):
        dx, dgamma, dbeta = ops.batch_norm_backward(dy, self._take())
        self._gradients = {"gamma": dgamma, "beta": dbeta}
        return dx


class _Plain(Layer):
    """A layer without parameters: an operation, its backward, and the arguments they are called with."""

    def __init__(self, forward, backward, *arguments):
        super().__init__()
        self._operation, self._operation_backward, self._arguments = forward, backward, arguments

    def forward(self, x, training):
        y, cache = self._operation(x, *self._arguments)
        self._keep(cache, training)
        return y

    def backward(self, dy, input_gradient=True):
        return self._operation_backward(dy, self._take())[0] if input_gradient else None


class ReflectPad(_Plain):
    """ops.reflect_pad2d by `pad` pixels on each side."""

    def __init__(self, pad):
        super().__init__(ops.reflect_pad2d, ops.reflect_pad2d_backward, pad)


class Upsample(_Plain):
    """ops.upsample_nearest to `scale` times the size."""

    def __init__(self, scale):
        super().__init__(ops.upsample_nearest, ops.upsample_nearest_backward, scale)


class UpsampleSmooth(_Plain):
    """ops.upsample_smooth, to twice the size."""

    def __init__(self):
        super().__init__(ops.upsample_smooth, ops.upsample_smooth_backward)


class ReLU(_Plain):
    """ops.relu, for nets without norm: where there is one it is part of it."""

    def __init__(self):
        super().__init__(ops.relu, ops.relu_backward)


class ScaledTanh(_Plain):
    """ops.scaled_tanh."""

    def __init__(self, scale):
        super().__init__(ops.scaled_tanh, ops.scaled_tanh_backward, scale)


class Sequential(Layer):
    """Layers one after another, each with a name: {"conv1": Conv(...), ...}. A parameter is called "conv1.w"."""

    def __init__(self, layers):
        super().__init__()
        self.layers = layers

    @property
    def conditional(self):
        return any(layer.conditional for layer in self.layers.values())

    def forward(self, x, training, mix=None):
        for layer in self.layers.values():
            x = layer.forward(x, training, mix) if layer.conditional else layer.forward(x, training)
        return x

    def backward(self, dy, input_gradient=True):
        """Without `input_gradient` the walk ends at the first layer that learns something: below it nothing is learnt."""
        names = list(self.layers)
        last = (
            0
            if input_gradient
            else next((k for k, name in enumerate(names) if self.layers[name].learnt()), len(names))
        )
        for k in range(len(names) - 1, last - 1, -1):
            dy = self.layers[names[k]].backward(dy, input_gradient or k > last)
        return dy

    def _collect(self, what):
        return {
            f"{n}.{key}": array
            for n, layer in self.layers.items()
            for key, array in getattr(layer, what)().items()
        }

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


class Residual(Sequential):
    """y = layers(x) + x, the identity cropped by `crop` on each side to what unpadded convolutions leave. He et al.,
    arXiv:1512.03385; without a ReLU after the addition, as Gross and Wilber found and the paper uses."""

    def __init__(self, layers, crop=0):
        super().__init__(layers)
        self.crop = crop

    def _inner(self, x):
        return x[:, self.crop : x.shape[1] - self.crop, self.crop : x.shape[2] - self.crop]

    def forward(self, x, training, mix=None):
        return parallel.add(super().forward(x, training, mix), self._inner(x))

    def backward(self, dy, input_gradient=True):
        dx = super().backward(dy, input_gradient)
        if input_gradient:
            inner = self._inner(dx)
            parallel.add(inner, dy, out=inner)  # both ways lead to x: their gradients add
        return dx
