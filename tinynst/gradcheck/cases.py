"""What `tinynst gradcheck` checks: every operation, loss, layer and network of this library on small random inputs."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .. import layers, losses, ops
from ..device import asarray
from ..networks import VGG16, style_net, super_resolution_net
from ..networks.vgg import LAYERS
from .check import gradcheck


@dataclass(frozen=True)
class Case:
    """One line of the command: `make(rng, xp)` gives gradcheck's arguments, of each input at most `samples` elements."""

    name: str
    label: str
    make: Callable
    samples: int = 200


# name, shapes of the arrays, options. N=2, H=5, W=7, C=3, O=4 unless a branch needs other sizes.
IMAGE = (2, 5, 7, 3)
NORM = {"x": IMAGE, "gamma": (3,), "beta": (3,)}
ROWS = {"x": IMAGE, "gamma": (4, 3), "beta": (4, 3), "mix": (2, 4)}
STATISTICS = {**NORM, "running_mean": (3,), "running_var": (3,)}
OPERATIONS = [
    ("conv2d", {"x": IMAGE, "w": (3, 3, 3, 4), "b": (4,)}, {}),
    ("conv2d", {"x": IMAGE, "w": (3, 3, 3, 4), "b": (4,)}, {"pad": 1}),
    ("conv2d", {"x": IMAGE, "w": (3, 3, 3, 4)}, {"stride": 2, "pad": 1}),
    ("conv2d", {"x": IMAGE, "w": (2, 3, 3, 4), "b": (4,)}, {"stride": 3, "pad": 2}),
    ("conv2d", {"x": IMAGE, "w": (1, 1, 3, 4), "b": (4,)}, {}),
    ("conv2d", {"x": IMAGE, "w": (9, 9, 3, 4), "b": (4,)}, {"pad": 4}),
    ("conv2d", {"x": (2, 5, 7, 16), "w": (9, 9, 16, 3), "b": (3,)}, {"pad": 4}),  # few outputs
    ("conv2d", {"x": (2, 5, 7, 16), "w": (3, 3, 16, 17), "b": (17,)}, {"pad": 1}),  # Winograd
    ("conv2d", {"x": (2, 7, 6, 17), "w": (3, 3, 17, 16)}, {}),  # Winograd, no padding
    ("conv2d", {"x": (2, 5, 7, 16), "w": (3, 3, 16, 16), "b": (16,)}, {"pad": 1, "relu": True}),
    ("conv2d", {"x": IMAGE, "w": (3, 3, 3, 4), "b": (4,)}, {"pad": 1, "relu": True}),
    ("conv_transpose2d", {"x": IMAGE, "w": (3, 3, 4, 3), "b": (4,)}, {}),
    ("conv_transpose2d", {"x": IMAGE, "w": (3, 3, 4, 3)}, {"output_pad": 0}),
    ("conv_transpose2d", {"x": IMAGE, "w": (3, 3, 4, 3), "b": (4,)}, {"stride": 1, "output_pad": 0}),
    (
        "conv_transpose2d",
        {"x": IMAGE, "w": (4, 5, 4, 3), "b": (4,)},
        {"stride": 3, "pad": 2, "output_pad": 2},
    ),
    (
        "conv_transpose2d",
        {"x": (2, 5, 7, 16), "w": (3, 3, 16, 16)},
        {"stride": 1, "output_pad": 0},
    ),  # Winograd
    ("batch_norm", STATISTICS, {}),
    ("batch_norm", STATISTICS, {"training": False}),
    ("batch_norm", STATISTICS, {"relu": True}),
    ("instance_norm", NORM, {}),
    ("instance_norm", NORM, {"relu": True}),
    ("conditional_instance_norm", ROWS, {}),
    ("conditional_instance_norm", ROWS, {"relu": True}),
    ("reflect_pad2d", {"x": IMAGE}, {"pad": 2}),
    ("reflect_pad2d", {"x": (2, 2, 3, 3)}, {"pad": 5}),  # there and back more than once
    ("center_crop", {"x": IMAGE}, {"crop": 2}),
    ("max_pool2d", {"x": IMAGE}, {}),
    ("max_pool2d", {"x": (2, 7, 8, 3)}, {"size": 3}),
    ("upsample_nearest", {"x": IMAGE}, {}),
    ("upsample_nearest", {"x": IMAGE}, {"scale": 3}),
    ("upsample_smooth", {"x": IMAGE}, {}),
    ("upsample_bicubic", {"x": IMAGE}, {}),
    ("upsample_bicubic", {"x": IMAGE}, {"scale": 3}),
    ("relu", {"x": IMAGE}, {}),
    ("scaled_tanh", {"x": IMAGE}, {}),
    ("scaled_tanh", {"x": IMAGE}, {"scale": 2.0}),
    ("gram_matrix", {"f": IMAGE}, {}),
]
OURS_ALONE = ("relu",)  # options of this library's that a learner's function need not have
LOSSES = [
    ("feature_loss", {"f": IMAGE, "target": IMAGE}),
    ("pixel_loss", {"y": IMAGE, "target": IMAGE}),
    ("grid_loss", {"y": IMAGE, "target": IMAGE}),
    ("style_loss", {"f": IMAGE, "target_gram": (3, 3)}),
    ("style_loss", {"f": IMAGE, "target_gram": (2, 3, 3)}),
    ("tv_loss", {"y": IMAGE}),
]


def draw(shapes, rng, xp=np):
    """Standard normal arrays of these shapes; a variance is positive."""
    arrays = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    if "running_var" in arrays:
        arrays["running_var"] = arrays["running_var"] ** 2 + 0.5
    return {name: asarray(array, xp) for name, array in arrays.items()}


def describe(shapes, options):
    sizes = [f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items()]
    return ", ".join(sizes[:2] + [f"{name}={value}" for name, value in options.items()])


def operation_case(forward, backward, shapes, options):
    """make() of an operation: the arrays are the inputs, the options are fixed."""

    def make(rng, xp):
        arrays = draw(shapes, rng, xp)
        return {
            "forward": lambda *inputs: forward(**dict(zip(arrays, inputs, strict=True)), **options),
            "backward": backward,
            "inputs": tuple(arrays.values()),
            "names": tuple(arrays),
            "mutable": tuple(name for name in arrays if name.startswith("running_")),
        }

    return make


def loss_case(function, shapes):
    """make() of a loss (value, gradient by the first argument): what else it takes is fixed."""

    def make(rng, xp):
        (name, x), *rest = draw(shapes, rng, xp).items()
        fixed = [array for _, array in rest]
        return {
            "forward": lambda x: function(x, *fixed),
            "backward": lambda dy, gradient: dy * gradient,
            "inputs": (x,),
            "names": (name,),
        }

    return make


def layer_case(build, shape, scale=1.0):
    """make() of anything with forward(x, training), backward(dy), parameters() and gradients()."""

    def make(rng, xp):
        layer = build(xp)
        parameters = layer.parameters()
        inputs = [asarray(scale * rng.standard_normal(shape), xp)]
        # away from the start's ones and zeros, where a wrong factor or a lost term would not show
        inputs += [
            p + asarray(0.2 * rng.standard_normal(p.shape), xp) for p in parameters.values() if p.ndim == 1
        ]
        by_name = iter(inputs[1:])
        inputs[1:] = [next(by_name) if p.ndim == 1 else p for p in parameters.values()]

        def forward(x, *values):
            for parameter, value in zip(parameters.values(), values, strict=True):
                parameter[...] = value
            return layer.forward(x, training=True), (x, *values)

        def backward(dy, cache):
            forward(*cache)  # a layer's backward uses up what its forward kept
            dx = layer.backward(dy)
            gradients = layer.gradients()
            return dx, *(gradients[name] for name in parameters)

        return {"forward": forward, "backward": backward, "inputs": inputs, "names": ("x", *parameters)}

    return make


def _small_vgg(rng, xp, until):
    """VGG-16 up to layer `until` with 4 channels where it has 64, and random weights of He's variance."""
    weights, c = {}, 3
    for name in LAYERS[: LAYERS.index(until) + 1]:
        o = 4 * min(2 ** (int(name[4]) - 1), 8)
        w = rng.standard_normal((3, 3, c, o)) * np.sqrt(2 / (9 * c))
        weights[name.replace("relu", "conv")] = w, rng.standard_normal(o)
        c = o
    return VGG16(weights, xp)


def _vgg(rng, xp):
    """VGG with gradients put in at two layers: y is both features in one row."""
    vgg = _small_vgg(rng, xp, "relu3_2")

    def forward(images):
        features = vgg.forward(images, ("relu2_1", "relu3_2"))
        return xp.concatenate([f.ravel() for f in features.values()]), (
            images,
            [f.shape for f in features.values()],
        )

    def backward(dy, cache):
        images, (first, second) = cache
        vgg.forward(images, ("relu2_1", "relu3_2"))  # VGG's backward uses up what its forward kept
        size = int(np.prod(first))
        return vgg.backward({"relu2_1": dy[:size].reshape(first), "relu3_2": dy[size:].reshape(second)})

    images = asarray(rng.uniform(0, 255, (2, 9, 8, 3)), xp)
    return {"forward": forward, "backward": backward, "inputs": (images,), "names": ("images",)}


def _objective(rng, xp):
    """The whole training loss by the picture: VGG, content, style and total variation."""
    vgg = _small_vgg(rng, xp, "relu2_2")
    painting, photos, y = (asarray(rng.uniform(0, 255, (n, 8, 9, 3)), xp) for n in (1, 2, 2))
    objective = losses.StyleObjective(
        vgg, painting, {"relu2_1": 1.0}, {"relu1_2": 1e-4, "relu2_2": 1e-3}, 1e-2
    )
    targets = objective.targets(photos)

    def forward(y):
        terms, dy = objective(y, targets)
        return terms["total"], dy

    return {
        "forward": forward,
        "backward": lambda dy, gradient: dy * gradient,
        "inputs": (y,),
        "names": ("y",),
    }


def _new(kind, *arguments, **options):
    """build() of a float64 layer; those that draw weights take rng."""

    def build(xp):
        return kind(*arguments, **options, xp=xp, dtype=np.float64)

    return build


def residual(xp):
    parts = {"rng": np.random.default_rng(0), "xp": xp, "dtype": np.float64}
    inner = {
        "conv1": layers.Conv(3, 3, 3, **parts),
        "norm": layers.InstanceNorm(3, relu=True, xp=xp, dtype=np.float64),
        "conv2": layers.Conv(3, 3, 3, **parts),
    }
    return layers.Residual(inner, crop=2)


def _cases():
    cases = []
    for name, shapes, options in OPERATIONS:
        make = operation_case(getattr(ops, name), getattr(ops, f"{name}_backward"), shapes, options)
        cases.append(Case(name, describe(shapes, options), make))
    for name, shapes in LOSSES:
        cases.append(Case(name, describe(shapes, {}), loss_case(getattr(losses, name), shapes)))
    rng = np.random.default_rng(0)
    for name, build in {
        "Conv": _new(layers.Conv, 3, 4, 3, stride=2, pad=1, bias=True, rng=rng),
        "ConvTranspose": _new(layers.ConvTranspose, 3, 4, rng=rng),
        "InstanceNorm": _new(layers.InstanceNorm, 3, relu=True),
        "BatchNorm": _new(layers.BatchNorm, 3, relu=True),
        "ReflectPad": lambda xp: layers.ReflectPad(2),
        "Upsample": lambda xp: layers.Upsample(2),
        "UpsampleSmooth": lambda xp: layers.UpsampleSmooth(),
        "ReLU": lambda xp: layers.ReLU(),
        "ScaledTanh": lambda xp: layers.ScaledTanh(150.0),
        "Residual": residual,
    }.items():
        cases.append(Case(name, "layer", layer_case(build, IMAGE)))
    for norm in ("instance", "batch"):
        for upsample in ("transpose", "nearest"):
            build = _new(style_net, norm, upsample, width=2)
            label = f"norm={norm}, upsample={upsample}, width=2"
            cases.append(Case("style_net", label, layer_case(build, (2, 6, 5, 3), scale=60.0), samples=3))
    build = _new(style_net, upsample="smooth", styles=3, width=2)
    label = "styles=3, upsample=smooth, width=2"
    cases.append(Case("style_net", label, layer_case(build, (2, 6, 5, 3), scale=60.0), samples=3))
    for options in ({"factor": 2}, {"factor": 4, "norm": "none", "upsample": "nearest", "residual": True}):
        label = ", ".join(f"{name}={value}" for name, value in options.items())
        build = _new(super_resolution_net, **options, width=4)
        label += ", width=4"
        cases.append(
            Case("super_resolution_net", label, layer_case(build, (2, 4, 5, 3), scale=60.0), samples=6)
        )
    cases.append(Case("VGG16", "to relu3_2, narrow, random weights, two taps", _vgg))
    cases.append(Case("StyleObjective", "content, style and total variation of a narrow VGG", _objective))
    return cases


CASES = _cases()


def check_case(case, seed, xp, samples=200):
    """The Report of one case."""
    arguments = case.make(np.random.default_rng(seed), xp)
    forward, backward, inputs = (arguments.pop(key) for key in ("forward", "backward", "inputs"))
    title = f"{case.name} ({case.label})"
    return gradcheck(
        forward, backward, inputs, **arguments, seed=seed, samples=min(case.samples, samples), title=title
    )
