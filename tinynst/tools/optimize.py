"""The image itself as the parameter: no net is trained, VGG judges, and L-BFGS updates the pixels.

gatys    a photo in the style of one or several paintings: Gatys, Ecker, Bethge, CVPR 2016, which the paper's
nets imitate invert   what a layer of VGG still knows of a photo: the image with the same features (the
paper's Fig. 3) texture  what a style is: an image from noise with the same Gram matrices (Figs. 4 and 5)

Images are optimised as they are, RGB in 0..255 in float32, without bounds; values outside are clipped when it
is saved.
"""

import dataclasses
import math
from pathlib import Path

import numpy as np

from .. import device
from ..cli import Parser
from ..data import checkpoint, images
from ..data.styles import layer_weights
from ..errors import UserError
from ..losses import StyleObjective
from ..networks import VGG16
from ..networks.vgg import STYLE_LAYERS
from ..optim import LBFGS, Adam
from ..settings import flag, option
from ..training import run
from ..training.loop import Loop
from ..training.run import SMALLEST, RunSettings, load_painting

FIRST_STEP = 10.0  # grey levels: enough to see, and small against 255
LEAST_SIDE = 32  # pixels of a result, at its smallest scale
MODES = {
    "gatys": "a photo in the style of one painting or several, without a net",
    "invert": "the image that a layer of VGG cannot tell from a photo",
    "texture": "a painting's style and nothing else, from noise",
}
CONTENT = ("content", "content_layers", "content_weights", "preserve_color")
STYLE = ("style", "style_layers", "style_weights", "mix", "style_scale")
OTHER_NAMES = {
    "invert": {"content": "--image", "content_layers": "--layer"},
    "texture": {"style_layers": "--layers"},
}


@dataclasses.dataclass(init=False)
class OptimizeSettings(RunSettings):
    """The settings of `tinynst optimize MODE`, with the same defaults. There --image, --layer and --layers
    are other names of `content`, `content_layers` and `style_layers`."""

    mode: str = option("gatys", "gatys, invert or texture", choices=tuple(MODES))
    content: str | None = option(None, "the photo", metavar="IMAGE")
    content_layers: list[str] = option(["relu3_3"], "where contents are compared", nargs="*", metavar="LAYER")
    content_weights: list[float] = option([1.0], "one, or one for each content layer", nargs="*", metavar="W")
    preserve_color: bool = option(False, "keep the photo's colours; only its brightness is styled")
    style: list[str] = option([], "the painting, or several", metavar="IMAGE")
    style_layers: list[str] = option(
        list(STYLE_LAYERS), "where Gram matrices are compared", nargs="*", metavar="LAYER"
    )
    style_weights: list[float] = option([5.0], "one, or one for each style layer", nargs="*", metavar="W")
    mix: list[float] | None = option(
        None, "weight of each of several paintings (default: all equal)", metavar="W"
    )
    style_scale: float = option(
        1.0, "size of the painting relative to the result: larger gives larger strokes", metavar="X"
    )
    size: int = option(256, "shorter side of the result, in pixels (a texture is square)")
    iterations: int = option(200, "evaluations of the objective, at each scale", least=1, metavar="N")
    scales: int = option(1, "start at 1/2^(S-1) of the size and double it S-1 times", least=1, metavar="S")
    start: str | None = option(
        None, "the first image (default: content for gatys, else noise)", metavar="content|noise|FILE"
    )
    tv_weight: float = option(1e-6, "weight of the total variation: more is smoother", least=0, metavar="W")
    optimizer: str = option("lbfgs", "what updates the pixels", choices=("lbfgs", "adam"))
    lr: float = option(4.0, "Adam's learning rate: grey levels per step")
    every: int = option(
        50, "evaluations between checkpoints, each with the image so far", least=1, metavar="N"
    )

    @property
    def command(self):
        return f"tinynst optimize {self.mode}"

    @property
    def name(self):
        return self.mode

    @property
    def free(self):
        return RunSettings.free | ({"iterations"} if self.scales == 1 else set())

    @classmethod
    def options(cls, mode):
        """{setting: option} of this mode."""
        off = {"invert": STYLE + CONTENT[2:], "texture": CONTENT}.get(mode, ())
        names = [field.name for field in dataclasses.fields(cls) if field.name not in (*off, "mode")]
        return {name: OTHER_NAMES.get(mode, {}).get(name, flag(name)) for name in names}

    def complete(self):
        super().complete()
        if self.mode == "invert":
            self.style, self.style_layers, self.style_weights = [], [], []
        if self.mode == "texture":
            self.content, self.content_layers, self.content_weights = None, [], []
        self.start = self.start or ("content" if self.mode == "gatys" else "noise")
        self.mix = self.mix or [1.0] * len(self.style)

    def check(self):
        super().check()
        for name in ("lr", "style_scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{flag(name)} is {getattr(self, name):g}; it should be more than 0")
        least = LEAST_SIDE * 2 ** (self.scales - 1)
        if self.size < least:
            raise UserError(
                f"--size is {self.size}; with --scales {self.scales} it should be at least {least}"
            )
        good = len(self.mix) == len(self.style) and all(0 <= share < math.inf for share in self.mix)
        if not good or (self.style and not any(self.mix)):
            count = len(self.style)
            raise UserError(
                f"--mix should be one number for each of {count} paintings, at least 0 and not all 0"
            )
        options, loss_weights = self.options(self.mode), {}
        for kind in ("content", "style"):
            layers, values = getattr(self, f"{kind}_layers"), getattr(self, f"{kind}_weights")
            loss_weights[kind] = layer_weights(layers, values, kind, options.get(f"{kind}_layers"))
        if not any([*loss_weights["content"], *loss_weights["style"], self.tv_weight]):
            raise UserError("all weights are zero: there is nothing to minimise")
        for kind in ("content", "style"):
            if loss_weights[kind] and not getattr(self, kind):
                raise UserError(f"{self.mode} needs {options[kind]}, an image")
        if self.start == "content" and not self.content:
            raise UserError(
                f"--start content: {self.mode} has no photo to start from; choose noise or a file"
            )


def noise(height, width, seed=0):
    """A start without content: (H, W, 3) float32, grey with a little noise. What the loss does not see stays
    as it was at the start, so strong noise would still be there at the end."""
    return (128 + 10 * np.random.default_rng(seed).standard_normal((height, width, 3))).astype(np.float32)


def descend(objective, targets, picture, evaluations):
    """Lower a StyleObjective from `picture` (H, W, 3), NumPy, by L-BFGS: yields (terms, optimizer) after each
    evaluation.

    terms: {"content", "style", "tv", "total"} there; optimizer.value: the lowest total so far;
    optimizer.best(): its picture (1, H, W, 3), where the objective's VGG is.
    """
    y = objective.vgg.xp.array(picture[None])
    optimizer = LBFGS(y, first_step=FIRST_STEP)
    for _ in range(evaluations):
        terms, dy = objective(y, targets)
        optimizer.step(dy, terms["total"])
        yield terms, optimizer


class PictureRun(Loop):
    """An image that is optimised, in the folder settings.out; an iteration is one evaluation of the
    objective.

        result.png, sheet.png       the picture so far; with what it was made from, and the pictures on the
        way samples/000050.png          the picture so far losses.csv, losses.png      every term at every
        evaluation (also those of steps that were taken back); the plot checkpoint.h5               all that
        --resume needs, the images it was made from included

    With --scales S the image is first made at 1/2^(S-1) of its size, then enlarged and continued, S - 1
    times. `inputs`: {"content": (H, W, 3), "start": ..., "style0": ...}, at their full size.
    """

    def __init__(self, settings, inputs, xp):
        s = self.settings = settings
        super().__init__(s.out, s.scales * s.iterations, s.every)
        self.inputs, self.xp = inputs, xp
        self.by_adam = s.optimizer == "adam"
        self.vgg = VGG16.load(s.vgg, xp)
        self.title = f"{s.mode}: the objective at each evaluation"
        self._set_scale(0, inputs["start"])

    # --- one scale after the other

    def _set_scale(self, scale, picture):
        """Build the objective for this scale (the last is the full size) and start from `picture` (H, W, 3),
        made to fit."""
        s, shrink = self.settings, 2 ** (self.settings.scales - 1 - scale)
        h, w = (max(1, round(side / shrink)) for side in self.inputs["start"].shape[:2])

        def sized(image, height, width):
            image = image if image.shape[:2] == (height, width) else images.resize(image, height, width)
            return self.xp.array(image[None])

        def shrunk(image):
            return sized(image, *(max(1, round(side / shrink)) for side in image.shape[:2]))

        styles = [shrunk(self.inputs[f"style{k}"]) for k in range(len(s.mix))]
        content = layer_weights(s.content_layers, s.content_weights, "content")
        style = layer_weights(s.style_layers, s.style_weights, "style")
        self.objective = StyleObjective(self.vgg, styles, content, style, s.tv_weight, s.mix)
        self.targets = self.objective.targets(sized(self.inputs["content"], h, w)) if content else {}
        self.scale, self.picture = scale, sized(picture, h, w)
        parameters = {"picture": self.picture}
        self.optimizer = Adam(parameters, s.lr) if self.by_adam else LBFGS(parameters, first_step=FIRST_STEP)

    def step(self, _):
        if self.iteration == (self.scale + 1) * self.settings.iterations:
            self._set_scale(self.scale + 1, self.best())
        terms, dy = self.objective(self.picture, self.targets)
        if self.by_adam:
            if not math.isfinite(terms["total"]):
                raise self._diverged(f"the objective is {terms['total']}")
            self.optimizer.step({"picture": dy})
            return terms
        try:
            self.optimizer.step({"picture": dy}, terms["total"])
        except ValueError as error:
            raise self._diverged(error) from None
        if self.optimizer.converged and self.scale == self.settings.scales - 1:
            self.iterations = self.iteration + 1  # nothing leads further down
        return terms

    def _diverged(self, what):
        return UserError(
            f"stopped at evaluation {self.iteration + 1}: {what}; "
            "start again with lower weights or a lower --lr"
        )

    # --- results

    def best(self):
        """The picture so far, (H, W, 3) NumPy, unclipped: the best that L-BFGS has seen, or where Adam is."""
        return device.to_numpy(self.picture if self.by_adam else self.optimizer.best()["picture"])[0]

    def result(self):
        """The picture so far as it is shown: in the photo's colours where that was asked for."""
        picture = self.best()
        if not self.settings.preserve_color:
            return picture
        content = self.inputs["content"]
        return images.preserve_color(picture, images.resize(content, *picture.shape[:2]))

    def save(self):
        """Checkpoint, picture, plot and sheet, each whole or not at all; the checkpoint first."""
        arrays, numbers = self.optimizer.state()
        groups = {"inputs": self.inputs, "picture": {"picture": self.picture}, **arrays}
        state = {
            "iteration": self.iteration,
            "settings": self.settings.to_dict(),
            "scale": self.scale,
            "optimizer": numbers,
        }
        checkpoint.save(self.out / "checkpoint.h5", groups, state)
        try:
            picture = self.result()
            images.save(self.out / "result.png", picture)
            images.save(self.out / "samples" / f"{self.iteration:06}.png", picture)
        except ValueError as error:
            raise UserError(f"{error}; start again with a lower --lr") from None
        images.save(self.out / "sheet.png", self.sheet())
        self.plot()

    def sheet(self):
        """What the picture was made from, and under it up to six pictures on the way, the last the result."""
        names = {
            "content": self.settings.content,
            **{f"style{k}": path for k, path in enumerate(self.settings.style)},
        }
        made_from = [name for name in names if name in self.inputs]
        samples = sorted((self.out / "samples").glob("*.png"))
        samples = [path for path in samples if int(path.stem) <= self.iteration]
        chosen = sorted({round(k) for k in np.linspace(0, len(samples) - 1, min(6, len(samples)))})
        largest = max(self.inputs["start"].shape[:2])
        rows = [
            [images.at_most(self.inputs[name], largest) for name in made_from],
            [images.load(samples[k]) for k in chosen],
        ]
        captions = [
            [f"{name.rstrip('0123456789')}: {Path(names[name]).stem}" for name in made_from],
            [f"{int(samples[k].stem)} evaluations: {self._value(int(samples[k].stem)):.4g}" for k in chosen],
        ]
        return images.sheet(rows, captions)

    def _value(self, evaluation):
        """The objective of the picture that was saved after so many evaluations: the lowest of its scale, or
        Adam's last."""
        begin = (
            max(0, evaluation - 1) // self.settings.iterations * self.settings.iterations
            if self.settings.scales > 1
            else 0
        )
        totals = [row["total"] for row in self.losses if begin < row["iteration"] <= evaluation]
        return (totals[-1] if self.by_adam else np.fmin.reduce(totals)) if totals else np.nan

    def resume(self, arrays, state):
        """Take up where `checkpoint.load` says the run was."""
        self._set_scale(state["scale"], self.inputs["start"])
        try:
            device.copy_arrays(arrays["picture"], {"picture": self.picture})
            self.optimizer.load(arrays, state["optimizer"])
        except (KeyError, ValueError) as error:
            raise UserError(f"the checkpoint in {self.out} does not fit: {error}") from None
        self.continue_from(state["iteration"])


def _inputs(s):
    """{"content", "start", "style0", "style1", ...: (H, W, 3) float32}: what this run is made from, at full
    size."""
    inputs = {}
    if s.content:
        inputs["content"] = images.load(s.content, s.size)
    height, width = inputs["content"].shape[:2] if s.content else (s.size, s.size)
    if s.start == "noise":
        inputs["start"] = noise(height, width, s.seed)
    else:
        start = inputs["content"] if s.start == "content" else images.load(s.start)
        inputs["start"] = images.resize(start, height, width)
    for k, path in enumerate(s.style):
        inputs[f"style{k}"] = load_painting(
            path, s.style_scale * max(height, width), least=SMALLEST * 2 ** (s.scales - 1)
        )
    return inputs


def optimize(settings):
    """Optimise an image as the OptimizeSettings say. Returns the PictureRun: `.best()`, (H, W, 3); `.losses`;
    `.out`. Raises UserError for settings that cannot work."""
    s, arrays, state = run.begin(settings)
    picture = PictureRun(s, arrays["inputs"] if arrays else _inputs(s), device.select(s.device))
    if arrays:
        picture.resume(arrays, state)
    height, width = picture.inputs["start"].shape[:2]
    results = {name: picture.out / f"{name}.png" for name in ("result", "sheet", "losses")}
    return run.carry_out(picture, s, f"{s.mode}: {width}x{height}, {picture.iterations} evaluations", results)


def main(arguments=None):
    """The command `tinynst optimize`; `arguments` is a list of strings (None: the command line's)."""
    parser = Parser(
        prog="tinynst optimize", description="Optimise an image itself: style transfer, inversion, texture."
    )
    modes = parser.add_subparsers(dest="mode", required=True, metavar=" | ".join(MODES))
    for mode, text in MODES.items():
        OptimizeSettings.add_options(modes.add_parser(mode, help=text), OptimizeSettings.options(mode))
    return 0 if optimize(OptimizeSettings(**vars(parser.parse_args(arguments)))).finished else 130
