"""The image itself as the parameter: no net is trained, VGG judges, and L-BFGS updates the pixels.

gatys    a photo in the style of one or several paintings (Gatys, Ecker, Bethge, CVPR 2016)
invert   what a layer of VGG still knows of a photo: an image with the same features (the paper's Fig. 3)
texture  what a style is: an image from noise with the same Gram matrices (Figs. 4 and 5)

Images are optimised in float32, RGB in 0..255, without bounds, and clipped when they are saved.
"""

import dataclasses
import math
from pathlib import Path

import numpy as np

from .. import device
from ..data import images
from ..data.styles import layer_weights
from ..errors import UserError
from ..losses import StyleObjective
from ..networks import VGG16
from ..networks.vgg import STYLE_LAYERS
from ..optim import LBFGS, Adam
from ..settings import flag, option
from ..training.loop import Loop
from ..training.run import SMALLEST, LossSettings, RunSettings, carry_out, load_painting

FIRST_STEP = 10.0  # grey levels: enough to see, and small against 255
LEAST_SIDE = 32  # pixels of a result, at its smallest scale
MODES = ("gatys", "invert", "texture")
UNUSED = {  # settings that mean nothing in a mode
    "gatys": (),
    "invert": ("style", "style_layers", "style_weights", "mix", "style_scale", "preserve_color"),
    "texture": ("content", "content_layers", "content_weights", "preserve_color"),
}


@dataclasses.dataclass(init=False)
class OptimizeSettings(LossSettings, RunSettings):
    """The settings of `tinynst optimize MODE`, with the same defaults."""

    mode: str = option("gatys", "what to make", flags=("mode",), choices=MODES)
    content: str | None = option(None, "the photo", flags=("--content", "--image"), metavar="IMAGE")
    content_layers: list[str] = option(
        ["relu3_3"], "where contents are compared", flags=("--content-layers", "--layer"), nargs="*"
    )
    preserve_color: bool = option(False, "keep the photo's colours; only its brightness is styled")
    style: list[str] = option([], "the painting, or several", metavar="IMAGE")
    style_layers: list[str] = option(
        list(STYLE_LAYERS), "where styles are compared", flags=("--style-layers", "--layers"), nargs="*"
    )
    mix: list[float] | None = option(None, "weight of each of several paintings (default: all equal)")
    style_scale: float = option(1.0, "size of the painting relative to the result: larger strokes")
    size: int = option(256, "shorter side of the result, in pixels (a texture is square)", most=16384)
    iterations: int = option(200, "evaluations of the objective, at each scale", least=1)
    scales: int = option(1, "start at 1/2^(N-1) of the size and double it N-1 times", least=1, most=16)
    start: str | None = option(None, "default: content for gatys, else noise", metavar="content|noise|FILE")
    optimizer: str = option("lbfgs", "what updates the pixels", choices=("lbfgs", "adam"))
    lr: float = option(4.0, "Adam's learning rate: grey levels per step")
    every: int = option(50, "evaluations between checkpoints, each with the current image", least=1)

    @property
    def command(self):
        return f"tinynst optimize {self.mode}"

    @property
    def name(self):
        return self.mode

    @property
    def free(self):
        return RunSettings.free | ({"iterations"} if self.scales == 1 else set())

    def complete(self):
        super().complete()
        for name in UNUSED[self.mode]:
            if name in self.given and not self.resume:
                raise UserError(f"{flag(name)} means nothing for {self.mode}: leave it out")
        if self.mode == "invert":
            self.style, self.style_layers, self.style_weights = [], [], []
        if self.mode == "texture":
            self.content, self.content_layers, self.content_weights = None, [], []
        self.start = self.start or ("content" if self.mode == "gatys" else "noise")
        self.mix = self.mix or [1.0] * len(self.style)

    def check(self):
        super().check()
        for name in ("lr", "style_scale"):
            if not getattr(self, name) > 0:
                raise UserError(f"{flag(name)} is {getattr(self, name):g}; it should be more than 0")
        least = LEAST_SIDE * 2 ** (self.scales - 1)
        if self.size < least:
            rule = f"with --scales {self.scales} it should be at least {least}"
            raise UserError(f"--size is {self.size}; {rule}")
        good = len(self.mix) == len(self.style) and all(0 <= share < math.inf for share in self.mix)
        if not good or (self.style and not any(self.mix)):
            rule = f"one number for each of {len(self.style)} paintings, at least 0 and not all 0"
            raise UserError(f"--mix should be {rule}")
        for kind, image in (("content", "--content or --image"), ("style", "--style")):
            if any(getattr(self, f"{kind}_weights")) and not getattr(self, kind):
                raise UserError(f"{self.mode} needs {image}: a file")
        if self.start == "content" and not self.content:
            raise UserError(f"--start content: {self.mode} has no photo; choose noise or a file")


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
    """An image that is optimised; an iteration is one evaluation of the objective. Next to the files of a
    Loop it writes result.png, the current picture, and sheet.png, with what it was made from and the pictures
    on the way. losses.csv also has the evaluations of steps that were taken back.

    With --scales S the image is first made at 1/2^(S-1) of its size, then enlarged and continued, S - 1
    times. `inputs`: {"content": (H, W, 3), "start": ..., "style0": ...}, at their full size.
    """

    def __init__(self, settings, xp, arrays=None, state=None):
        super().__init__(settings)
        s, self.xp, self.vgg = settings, xp, VGG16.load(settings.vgg, xp)
        self.iterations = s.scales * s.iterations
        self.inputs = arrays["inputs"] if arrays else _inputs(s)
        self.by_adam = s.optimizer == "adam"
        height, width = self.inputs["start"].shape[:2]
        self.title = f"{s.mode}: {width}x{height}"
        self._set_scale(0, self.inputs["start"])

    def _set_scale(self, scale, picture):
        """Build the objective for this scale (the last is the full size) and start from `picture` (H, W, 3),
        resized to it."""
        s, factor = self.settings, 2 ** (self.settings.scales - 1 - scale)

        def sized(image, like):
            height, width = (max(1, round(side / factor)) for side in like.shape[:2])
            image = image if image.shape[:2] == (height, width) else images.resize(image, height, width)
            return self.xp.array(image[None])

        paintings = [sized(self.inputs[f"style{k}"], self.inputs[f"style{k}"]) for k in range(len(s.mix))]
        content = layer_weights(s.content_layers, s.content_weights, "content")
        style = layer_weights(s.style_layers, s.style_weights, "style")
        self.objective = StyleObjective(self.vgg, paintings, content, style, s.tv_weight, s.mix)
        photo = self.inputs["content"] if content else None
        self.targets = self.objective.targets(sized(photo, self.inputs["start"])) if content else {}
        self.scale, self.picture = scale, sized(picture, self.inputs["start"])
        parameters = {"picture": self.picture}
        self.optimizer = Adam(parameters, s.lr) if self.by_adam else LBFGS(parameters, first_step=FIRST_STEP)

    def iterate(self, _):
        if self.iteration == (self.scale + 1) * self.settings.iterations:
            self._set_scale(self.scale + 1, self.best())
        terms, dy = self.objective(self.picture, self.targets)
        if self.by_adam and not math.isfinite(terms["total"]):
            raise self.diverged(f"the objective is {terms['total']}")
        try:
            self.optimizer.step({"picture": dy}, *(() if self.by_adam else (terms["total"],)))
        except ValueError as error:
            raise self.diverged(error) from None
        if not self.by_adam and self.optimizer.converged and self.scale == self.settings.scales - 1:
            self.iterations = self.iteration + 1  # nothing leads further down
        return terms

    def best(self):
        """The current picture, (H, W, 3) NumPy, unclipped: the best that L-BFGS has seen, or where Adam
        is."""
        return device.to_numpy(self.picture if self.by_adam else self.optimizer.best()["picture"])[0]

    def sample(self):
        """The current picture, in the photo's colours with --preserve-color."""
        picture = self.best()
        if not self.settings.preserve_color:
            return picture
        return images.preserve_color(picture, images.resize(self.inputs["content"], *picture.shape[:2]))

    def arrays(self):
        return {"inputs": self.inputs, "picture": {"picture": self.picture}, **self.optimizer.state()[0]}

    def state(self):
        return {"scale": self.scale, "optimizer": self.optimizer.state()[1]}

    def restore(self, arrays, state):
        self._set_scale(state["scale"], self.inputs["start"])
        device.copy_arrays(arrays["picture"], {"picture": self.picture})
        self.optimizer.load(arrays, state["optimizer"])

    def write_results(self):
        images.save(self.out / "result.png", self.sample())
        images.save(self.out / "sheet.png", self.sheet())

    def results(self):
        return {name: self.out / f"{name}.png" for name in ("result", "sheet", "losses")}

    def sheet(self):
        """What the picture was made from, and below it up to six pictures on the way, the last the result."""
        made_from = {"content": self.settings.content} if "content" in self.inputs else {}
        made_from |= {f"style{k}": path for k, path in enumerate(self.settings.style)}
        samples = sorted((self.out / "samples").glob("*.png"))
        samples = [path for path in samples if int(path.stem) <= self.iteration]
        places = np.linspace(0, len(samples) - 1, min(6, len(samples)))
        chosen = [samples[k] for k in sorted({round(k) for k in places})]
        largest = max(self.inputs["start"].shape[:2])
        rows = [[images.at_most(self.inputs[name], largest) for name in made_from]]
        rows += [[images.load(path) for path in chosen]]
        captions = [[f"{name.rstrip('0123456789')}: {Path(path).stem}" for name, path in made_from.items()]]
        captions += [[f"{int(path.stem)} evaluations" for path in chosen]]
        return images.sheet(rows, captions)


def _inputs(s):
    """The images that a run is made from, (H, W, 3) float32, at full size: {"content", "start", "style0",
    "style1", ...}."""
    inputs = {"content": images.load(s.content, s.size)} if s.content else {}
    height, width = inputs["content"].shape[:2] if s.content else (s.size, s.size)
    if s.start == "noise":
        inputs["start"] = noise(height, width, s.seed)
    else:
        start = inputs["content"] if s.start == "content" else images.load(s.start)
        inputs["start"] = images.resize(start, height, width)
    side, least = s.style_scale * max(height, width), SMALLEST * 2 ** (s.scales - 1)
    return inputs | {f"style{k}": load_painting(path, side, least) for k, path in enumerate(s.style)}


def optimize(settings):
    """Optimise an image as the OptimizeSettings say. Returns the PictureRun: `.best()`, (H, W, 3); `.losses`;
    `.out`. Raises UserError for settings that cannot work."""
    return carry_out(PictureRun, settings)
