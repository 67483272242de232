"""What `tinynst gradcheck` checks: the library's operations, losses, layers and networks on random inputs.

All sizes are different (N 3, C 2, O 4, H 5, W 7), so that a wrong factor or axis has only one explanation.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .. import layers, losses, ops
from ..device import array_module, asarray
from ..networks import style_net, super_resolution_net
from ..networks.vgg import LAYERS, VGG16
from .compare import gradcheck

IMAGE = (3, 5, 7, 2)
WIDE = (2, 5, 7, 16)  # enough channels for the fast ways of ops/fast
CONV = {"x": IMAGE, "w": (3, 3, 2, 4), "b": (4,)}
UP = {"x": IMAGE, "w": (3, 3, 4, 2), "b": (4,)}
NORM = {"x": IMAGE, "gamma": (2,), "beta": (2,)}
ROWS = {"x": IMAGE, "gamma": (4, 2), "beta": (4, 2), "mix": (3, 4)}
STATISTICS = {**NORM, "running_mean": (2,), "running_var": (2,)}
OPERATIONS = {  # rows of (shapes, options): what a learner's function is graded on as well
    "relu": [({"x": IMAGE}, {})],
    "scaled_tanh": [({"x": IMAGE}, {}), ({"x": IMAGE}, {"scale": 2.0})],
    "gram_matrix": [({"f": IMAGE}, {})],
    "center_crop": [({"x": IMAGE}, {"crop": 1})],
    "upsample_nearest": [({"x": IMAGE}, {}), ({"x": IMAGE}, {"scale": 3})],
    "reflect_pad2d": [({"x": IMAGE}, {"pad": 2}), ({"x": (3, 2, 4, 2)}, {"pad": 5})],  # more than once
    "max_pool2d": [({"x": IMAGE}, {}), ({"x": (2, 7, 8, 3)}, {"size": 3})],
    "conv2d": [
        (CONV, {}),
        (CONV, {"pad": 1}),
        ({"x": IMAGE, "w": (3, 3, 2, 4)}, {"stride": 2, "pad": 1}),
        ({**CONV, "w": (2, 3, 2, 4)}, {"stride": 3, "pad": 2}),
        ({**CONV, "w": (1, 1, 2, 4)}, {}),
    ],
    "conv_transpose2d": [
        (UP, {}),
        ({"x": IMAGE, "w": (3, 3, 4, 2)}, {"output_pad": 0}),
        (UP, {"stride": 1, "output_pad": 0}),
        ({**UP, "w": (4, 5, 4, 2)}, {"stride": 3, "pad": 2, "output_pad": 2}),
    ],
    "upsample_smooth": [({"x": IMAGE}, {})],
    "upsample_bicubic": [({"x": IMAGE}, {}), ({"x": IMAGE}, {"scale": 3})],
    "instance_norm": [(NORM, {})],
    "conditional_instance_norm": [(ROWS, {})],
    "batch_norm": [(STATISTICS, {}), (STATISTICS, {"training": False})],
}
OURS_ALONE = {  # large kernels, many channels and fused ReLUs go other ways through the library
    "conv2d": [
        ({**CONV, "w": (9, 9, 2, 4)}, {"pad": 4}),
        ({"x": WIDE, "w": (9, 9, 16, 3), "b": (3,)}, {"pad": 4}),
        ({"x": WIDE, "w": (3, 3, 16, 17), "b": (17,)}, {"pad": 1}),
        ({"x": (2, 7, 6, 17), "w": (3, 3, 17, 16)}, {}),
        ({"x": WIDE, "w": (3, 3, 16, 16), "b": (16,)}, {"pad": 1, "relu": True}),
        (CONV, {"pad": 1, "relu": True}),
    ],
    "conv_transpose2d": [({"x": WIDE, "w": (3, 3, 16, 16)}, {"stride": 1, "output_pad": 0})],
    "instance_norm": [(NORM, {"relu": True})],
    "conditional_instance_norm": [(ROWS, {"relu": True})],
    "batch_norm": [(STATISTICS, {"relu": True})],
}
LOSSES = {  # the gradient is that with respect to the first array
    "feature_loss": [({"f": IMAGE, "target": IMAGE}, {})],
    "pixel_loss": [({"y": IMAGE, "target": IMAGE}, {})],
    "grid_loss": [({"y": IMAGE, "target": IMAGE}, {})],
    "tv_loss": [({"y": IMAGE}, {})],
    "style_loss": [({"f": IMAGE, "target_gram": (2, 2)}, {}), ({"f": IMAGE, "target_gram": (3, 2, 2)}, {})],
}
RESIDUAL = [({"x": IMAGE}, {"pad": 1, "crop": 0}), ({"x": IMAGE}, {"pad": 0, "crop": 2})]


@dataclass(frozen=True)
class Case:
    """One line of the command: `make(rng, xp)` gives gradcheck's arguments; `samples` limits slow ones."""

    name: str
    label: str
    make: Callable
    samples: int = 220

    def check(self, seed=0, xp=np, samples=220, **options):
        """The Report of this case."""
        options.update(self.make(np.random.default_rng(seed), xp), title=f"{self.name} ({self.label})")
        return gradcheck(**options, seed=seed, samples=min(samples, self.samples))


def draw(shapes, rng, xp=np):
    """Standard normal arrays of these shapes; variances are positive and Gram matrices symmetric."""
    arrays = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    if "running_var" in arrays:
        arrays["running_var"] = arrays["running_var"] ** 2 + 0.5
    if "target_gram" in arrays:
        arrays["target_gram"] = arrays["target_gram"] + arrays["target_gram"].swapaxes(-1, -2)
    return {name: asarray(array, xp) for name, array in arrays.items()}


def operation_case(name, forward, backward, shapes, options=None):
    """The Case of an operation, or with backward=None of a loss; the options are fixed."""
    options = options or {}
    sizes = [f"{key} {'x'.join(map(str, shape))}" for key, shape in shapes.items()]
    label = ", ".join([*sizes[:2], *(f"{key}={value}" for key, value in options.items())])

    def make(rng, xp):
        arrays = draw(shapes, rng, xp)
        return {
            "forward": lambda *inputs: forward(**dict(zip(arrays, inputs, strict=True)), **options),
            "backward": backward,
            "inputs": tuple(arrays.values()),
            "names": tuple(arrays),
            "mutable": tuple(key for key in arrays if key.startswith("running_")),
        }

    return Case(name, label, make)


def layer_case(name, label, build, shape=IMAGE, scale=1.0, samples=220):
    """The Case of what build(xp) makes: forward(x, training), backward(dy), parameters(), gradients()."""

    def make(rng, xp):
        layer = build(xp)
        parameters = layer.parameters()
        inputs = [asarray(scale * rng.standard_normal(shape), xp)]
        for p in parameters.values():  # away from 1 and 0, where a wrong factor or a lost term does not show
            inputs.append(p + asarray(0.2 * rng.standard_normal(p.shape), xp) if p.ndim == 1 else p.copy())

        def forward(x, *values):
            for parameter, value in zip(parameters.values(), values, strict=True):
                parameter[...] = value
            return layer.forward(x, training=True), (x, *values)

        def backward(dy, cache):
            forward(*cache)  # a layer's backward uses up what its forward kept
            dx, gradients = layer.backward(dy), layer.gradients()
            return dx, *(gradients.get(key) for key in parameters)

        return {"forward": forward, "backward": backward, "inputs": inputs, "names": ("x", *parameters)}

    return Case(name, label, make, samples)


def _small_vgg(rng, xp):
    """VGG-16 with 4 channels where it has 64, and random weights of He's variance."""
    weights, c = {}, 3
    for name in LAYERS:
        o = 4 * min(2 ** (int(name[4]) - 1), 8)
        w = rng.standard_normal((3, 3, c, o)) * np.sqrt(2 / (9 * c))
        weights[name.replace("relu", "conv")] = w, rng.standard_normal(o)
        c = o
    return VGG16(weights, xp)


def _vgg(rng, xp):
    vgg = _small_vgg(rng, xp)

    def forward(images):
        return vgg.forward(images, ("relu3_2",), training=True)["relu3_2"], images

    def backward(dy, images):
        forward(images)  # VGG's backward uses up what its forward kept
        return vgg.backward({"relu3_2": dy})

    images = asarray(rng.uniform(0, 255, (2, 9, 8, 3)), xp)
    return {"forward": forward, "backward": backward, "inputs": (images,), "names": ("images",)}


def _objective(rng, xp):
    """The whole training loss with respect to the picture: VGG, content, style and total variation."""
    vgg = _small_vgg(rng, xp)
    painting, photos, y = (asarray(rng.uniform(0, 255, (n, 8, 9, 3)), xp) for n in (1, 2, 2))
    style = {"relu1_2": 1e-4, "relu2_2": 1e-3}
    objective = losses.StyleObjective(vgg, painting, {"relu2_1": 1.0}, style, 1e-2)
    targets = objective.targets(photos)

    def loss(y):
        terms, dy = objective(y, targets)
        return terms["total"], dy

    return {"forward": loss, "inputs": (y,)}


def residual_parts(xp, pad=0, dtype=np.float64):
    """The layers of a small residual block."""
    parts = {"rng": np.random.default_rng(0), "xp": xp, "dtype": dtype}
    conv1, conv2 = (layers.Conv(2, 2, 3, pad=pad, **parts) for _ in range(2))
    norm = layers.InstanceNorm(2, relu=True, xp=xp, dtype=dtype)
    return {"conv1": conv1, "norm": norm, "conv2": conv2}


def residual_pair(kind):
    """A class like layers.Residual as forward(x, pad, crop) and backward(dy, cache)."""

    def forward(x, pad, crop):
        block = kind(residual_parts(array_module(x), pad, x.dtype), crop)
        return block.forward(x, True), (x, pad, crop)

    def backward(dy, cache):
        x, pad, crop = cache
        block = kind(residual_parts(array_module(x), pad, x.dtype), crop)
        block.forward(x, True)  # a layer's backward uses up what its forward kept
        return block.backward(dy)

    return forward, backward


def _operations():
    for rows in (OPERATIONS, OURS_ALONE):
        for name in rows:
            pair = getattr(ops, name), getattr(ops, f"{name}_backward")
            yield from (operation_case(name, *pair, shapes, options) for shapes, options in rows[name])
    for name, rows in LOSSES.items():
        yield from (operation_case(name, getattr(losses, name), None, shapes) for shapes, _ in rows)


def _net(make, width, options, xp):
    """A narrow net in float64. One that starts as bicubic enlargement (its last layer is small) gets a last
    layer of the usual size: rounding of the enlarged image would hide such small gradients."""
    net = make(**options, width=width, xp=xp, dtype=np.float64)
    if options.get("residual"):
        for name in ("out.w", "out.b"):
            net.parameters()[name][...] *= 100
    return net


def _layers():
    own, rng = {"dtype": np.float64}, np.random.default_rng(0)
    for name, build in {
        "Conv": lambda xp: layers.Conv(2, 4, 3, stride=2, pad=1, bias=True, rng=rng, xp=xp, **own),
        "ConvTranspose": lambda xp: layers.ConvTranspose(2, 4, rng=rng, xp=xp, **own),
        "InstanceNorm": lambda xp: layers.InstanceNorm(2, relu=True, xp=xp, **own),
        "BatchNorm": lambda xp: layers.BatchNorm(2, relu=True, xp=xp, **own),
        "ReflectPad": lambda xp: layers.ReflectPad(2),
        "Upsample": lambda xp: layers.Upsample(2),
        "UpsampleSmooth": lambda xp: layers.UpsampleSmooth(),
        "ReLU": lambda xp: layers.ReLU(),
        "ScaledTanh": lambda xp: layers.ScaledTanh(150.0),
        "Residual": lambda xp: layers.Residual(residual_parts(xp), crop=2),
    }.items():
        yield layer_case(name, "layer", build)
    ways = [{"norm": n, "upsample": u} for n in ("instance", "batch") for u in ("transpose", "nearest")]
    plain = {"factor": 4, "norm": "none", "upsample": "nearest", "residual": True}
    nets = [(style_net, 2, way) for way in (*ways, {"styles": 3, "upsample": "smooth"})]
    for net, width, options in [*nets, *((super_resolution_net, 4, way) for way in ({"factor": 2}, plain))]:
        label = ", ".join(f"{key}={value}" for key, value in options.items())
        build = functools.partial(_net, net, width, options)
        yield layer_case(net.__name__, label, build, (2, 6, 5, 3), scale=60.0, samples=3)


CASES = [
    *_operations(),
    *_layers(),
    Case("VGG16", "to relu3_2, narrow, random weights", _vgg),
    Case("StyleObjective", "content, style and total variation of a narrow VGG", _objective),
]
