"""What a learner's operation is graded on: its forward beside the naive twin, then each gradient. One mistake at a time."""

import contextlib
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from .. import layers, losses, ops, optim
from ..device import asarray, to_numpy
from . import forwards
from .cases import (
    IMAGE,
    LOSSES,
    OPERATIONS,
    OURS_ALONE,
    Case,
    check_case,
    describe,
    draw,
    layer_case,
    loss_case,
    operation_case,
)
from .report import Report
from .show import WIDTH, line

SAMPLES = 220  # of each input, at most: all of the images, and no more of larger kernels
LOSS_NAMES = tuple(dict.fromkeys(name for name, _ in LOSSES))
EASIEST_FIRST = (  # all that can be graded
    *(
        "relu",
        "scaled_tanh",
        "feature_loss",
        "pixel_loss",
        "grid_loss",
        "tv_loss",
        "gram_matrix",
        "style_loss",
    ),
    "center_crop",
    *(
        "upsample_nearest",
        "reflect_pad2d",
        "max_pool2d",
        "conv2d",
        "conv_transpose2d",
        "upsample_smooth",
        "upsample_bicubic",
    ),
    *("instance_norm", "conditional_instance_norm", "batch_norm", "Residual", "Adam"),
)
ALONE = (*LOSS_NAMES, "Residual", "Adam")  # those that have no function ..._backward beside them


@dataclass(frozen=True)
class Grade:
    """What became of one operation: `passed` True, False, or None while it is not yet written; `text` is for the learner.
    `report` is that of the gradients that did not pass, where it came so far."""

    name: str
    passed: bool | None
    text: str
    report: Report | None = None


class WrongReturn(TypeError):
    """A function of the learner's returns what it should not."""


@dataclass(frozen=True)
class _Variant:
    """One of the inputs that an operation is graded on. `forward_fault(seed, xp)` gives lines about what is wrong with the
    forward, none where nothing is; `case` checks its gradients."""

    forward_fault: Callable
    case: Case

    def __str__(self):
        return f"{self.case.name} ({self.case.label})"


def grade(name, forward, backward, seed, xp):
    """Grade one operation, loss (no backward) or class (as forward) of the learner's.

    What their code raises passes through, marked: `error.of_the_learner` is True, `error.case` says on which inputs.
    """
    if name == "Adam":
        return _grade_adam(learners(forward), seed, xp)
    variants = _variants(name, learners(forward), learners(backward))
    for variant in variants:  # all of them first: a gradient is only as right as what it is the gradient of
        with _naming(variant):
            fault = variant.forward_fault(seed, xp)
        if fault:
            return Grade(name, False, _failed(variant, fault))
    lines = []
    for variant in variants:
        try:
            with _naming(variant):
                report = check_case(variant.case, seed, xp, SAMPLES)
        except WrongReturn as error:
            return Grade(name, False, _failed(variant, [str(error)]))
        if report.passed is not True:
            return Grade(name, False, _screen(report, len(lines), len(variants)), report)
        lines.append(line(variant.case.label, report, name))
    return Grade(name, True, "\n".join(lines))


def learners(function):
    """`function`, such that what it raises is known for the learner's: whatever else is raised is our own mistake."""

    def call(*arguments, **options):
        try:
            return function(*arguments, **options)
        except (Exception, SystemExit) as error:
            error.of_the_learner = True
            raise

    return call


@contextlib.contextmanager
def _naming(variant):
    """What is raised in here says on which inputs."""
    try:
        yield
    except (Exception, SystemExit) as error:
        error.case = str(variant)
        raise


def _failed(where, fault):
    rest = [
        textwrap.fill(text, WIDTH, initial_indent="    ", subsequent_indent="      ") for text in fault[1:]
    ]
    return "\n".join([f"{where}: FAIL: {fault[0]}", *rest])


def _screen(report, right, variants):
    """The first mistake alone, and what is already right."""
    so_far = f", and the gradients on {right} of {variants} kinds of inputs" if right else ""
    wrong = [result for result in report.inputs if result.passed is not True]
    first = report.diagnoses[0].gradient if report.diagnoses else ""
    shown = [result for result in wrong if "d" + result.name == first] or wrong[:1]
    alone = replace(report, inputs=shown, diagnoses=report.diagnoses[:1])
    rest = [f"d{result.name}" for result in wrong if result not in shown and first != "all"]
    later = [f"also wrong, but one at a time: {', '.join(rest)}"] if rest else []
    return "\n".join([f"right: the forward{so_far}", str(alone), *later])


# --- the inputs -----------------------------------------------------------------------------------------------------


def _variants(name, forward, backward):
    """The _Variants of an operation, a loss or Residual."""
    if name == "Residual":
        return [_residual_variant(forward, pad, crop) for pad, crop in ((1, 0), (0, 2))]
    found = []
    for known, shapes, *rest in [*OPERATIONS, *LOSSES]:
        options = rest[0] if rest else {}
        if (
            known != name
            or any(key in OURS_ALONE for key in options)
            or next(iter(shapes.values()))[-1] >= 16
        ):
            continue  # many channels are for our own ways of computing, and a learner's loops are slow
        if name in LOSS_NAMES:
            checked = _checked_loss(name, forward)
            make = loss_case(checked, shapes)
        else:
            checked = _checked_forward(name, forward)
            make = operation_case(checked, _checked_backward(name, backward), shapes, options)
        found.append(
            _Variant(
                _forward_fault(name, checked, shapes, options),
                Case(name, describe(shapes, options), make, SAMPLES),
            )
        )
    return found


def _forward_fault(name, forward, shapes, options):
    """The forward check of an operation, beside its naive twin, or of a loss, beside our own."""

    def fault(seed, xp):
        arrays = draw(shapes, np.random.default_rng(seed), xp)
        plain = {key: to_numpy(array).copy() for key, array in arrays.items()}
        own = {key: array.copy() for key, array in arrays.items()}
        if name in LOSS_NAMES:
            what, right = "value", np.asarray(getattr(losses, name)(**plain)[0])
        else:
            what, right = "y", getattr(ops, f"{name}_naive")(**plain, **options)
        try:
            mine, _ = forward(*own.values()) if name in LOSS_NAMES else forward(**own, **options)
        except WrongReturn as error:
            return [str(error)]
        sizes = dict(zip("NHWC", next(iter(shapes.values())), strict=True))
        found = forwards.fault(what, to_numpy(mine), right, forwards.slips(name, plain, options), sizes)
        return found or _statistics_fault(own, plain, options)

    return fault


def _statistics_fault(own, plain, options):
    """Batch norm's running statistics after the forward, beside ours."""
    if "running_mean" not in plain:
        return []
    updated = {key: array.copy() for key, array in plain.items()}
    ops.batch_norm(**updated, **options)
    for key in ("running_mean", "running_var"):
        slips = forwards.statistics_slips(key, plain)
        found = forwards.fault(f"{key} after the forward", to_numpy(own[key]), updated[key], slips)
        if found:
            return found
    return []


# --- what a learner's function returns ------------------------------------------------------------------------------


def _array(what, value):
    """`value` as an array of numbers, on its device."""
    array = value if hasattr(value, "dtype") else np.asarray(value)
    if array.dtype.kind not in "fciub":
        raise WrongReturn(
            f"{what} is of type {type(value).__name__}; it should be an array of floating-point numbers"
        )
    return array


def _two(name, result, kind):
    if not isinstance(result, tuple) or len(result) != 2:
        raise WrongReturn(f"{name} must return {kind}, it returns {type(result).__name__}")
    return result


def _checked_forward(name, forward):
    def call(*arguments, **options):
        y, cache = _two(name, forward(*arguments, **options), "(y, cache)")
        return _array(f"{name}'s y", y), cache

    return call


def _checked_loss(name, loss):
    def call(*arguments):
        value, gradient = _two(name, loss(*arguments), "(value, gradient)")
        return _array(f"{name}'s value", value), _array(f"{name}'s gradient", gradient)

    return call


def _checked_backward(name, backward):
    def call(dy, cache):
        result = backward(dy, cache)
        gradients = result if isinstance(result, (tuple, list)) else (result,)
        return tuple(
            None if g is None else _array(f"{name}_backward's result {k}", g) for k, g in enumerate(gradients)
        )

    return call


# --- Residual and Adam ----------------------------------------------------------------------------------------------


class _Block(layers.Residual):
    """The library's layers, their parameters and gradients, in the learner's Residual."""

    def __init__(self, residual, inner, crop):
        super().__init__(inner, crop)
        self.learners = residual(inner, crop)

    def forward(self, x, training):
        return _array("Residual.forward's y", learners(self.learners.forward)(x, training))

    def backward(self, dy, need=("x", "w")):
        return _array("Residual.backward's dx", learners(self.learners.backward)(dy))

    def gradients(self):
        found = super().gradients()
        return {
            name: found.get(name) for name in self.parameters()
        }  # a layer whose backward was not called has none


def _residual_variant(residual, pad, crop):
    def build(xp):
        parts = {"rng": np.random.default_rng(0), "xp": xp, "dtype": np.float64}
        inner = {
            "conv1": layers.Conv(3, 3, 3, pad=pad, **parts),
            "norm": layers.InstanceNorm(3, relu=True, xp=xp, dtype=np.float64),
            "conv2": layers.Conv(3, 3, 3, pad=pad, **parts),
        }
        return _Block(residual, inner, crop)

    def fault(seed, xp):
        block = build(xp)
        x = np.random.default_rng(seed).standard_normal(IMAGE)
        through = to_numpy(layers.Sequential(block.layers).forward(asarray(x, xp), training=False))
        try:
            mine = to_numpy(block.forward(asarray(x, xp), training=True))
        except WrongReturn as error:
            return [str(error)]
        height, width = through.shape[1:3]
        slips = [
            ("without the identity: y = layers(x)", lambda: through),
            ("when the layers are left out: y = x", lambda: ops.center_crop_naive(x, crop)),
            (
                "when the identity is cropped at the bottom and right only",
                lambda: through + x[:, :height, :width],
            ),
            (
                "when the identity is cropped at the top and left only",
                lambda: through + x[:, 2 * crop :, 2 * crop :],
            ),
            (
                "with a ReLU after the addition",
                lambda: np.maximum(through + ops.center_crop_naive(x, crop), 0),
            ),
        ]
        return forwards.fault("y", mine, through + ops.center_crop_naive(x, crop), slips)

    shown = describe({"x": IMAGE}, {"crop": crop, "layers": "conv1, norm, conv2"})
    return _Variant(fault, Case("Residual", shown, layer_case(build, IMAGE), SAMPLES))


ADAM_SETTINGS = (
    {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-3},
    {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8},
)


def _grade_adam(adam, seed, xp):
    """Five steps of two parameters beside our own Adam's; with the second settings as defaults."""
    shapes, lines = {"w": (3, 4), "b": (5,)}, []
    for settings, given in zip(ADAM_SETTINGS, (ADAM_SETTINGS[0], {}), strict=True):
        where = f"Adam ({', '.join(f'{key}={value}' for key, value in given.items()) or 'the defaults'})"
        rng = np.random.default_rng(seed)
        start, *gradients = [
            {name: rng.standard_normal(shape) for name, shape in shapes.items()} for _ in range(6)
        ]
        fault = _adam_fault(adam, start, gradients, settings, given, xp)
        if fault:
            return Grade("Adam", False, _failed(where, fault))
        lines.append(f"{'Adam':17}{'ok':13}{len(gradients)} steps      {where[6:-1]}")
    return Grade("Adam", True, "\n".join(lines))


def _adam_fault(adam, start, gradients, settings, given, xp):
    """What is wrong after the first wrong step, as lines of text."""
    mine = {name: asarray(p.copy(), xp) for name, p in start.items()}
    right = {name: p.copy() for name, p in start.items()}
    optimiser, ours = adam(mine, **given), optim.Adam(right, **settings)
    arrays = dict(mine)  # the learner may put others in the dict
    for t, g in enumerate(gradients, 1):
        own = {name: asarray(array.copy(), xp) for name, array in g.items()}
        learners(optimiser.step)(own)
        ours.step(g)
        for place, (name, array) in enumerate(arrays.items()):
            if np.array_equal(to_numpy(array), start[name]):
                change = f"change the array itself: p -= ..., not p = p - ..., for p of {name}"
                return [f"step {t} leaves {name} as it was before", change]
            if not np.array_equal(to_numpy(own[name]), g[name]):
                return [
                    f"step {t} changes the gradient of {name} in place",
                    "others may still need it: work on a copy",
                ]
            past = [gradient[name] for gradient in gradients[:t]]
            slips = forwards.adam_slips(start[name], past, settings, place, len(arrays))
            fault = forwards.fault(name, to_numpy(array), right[name], slips)
            if fault:
                return [f"after step {t} {fault[0]}", *fault[1:]]
    return []
