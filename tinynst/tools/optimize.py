"""The picture itself as the parameter: no net is trained, VGG looks, and L-BFGS moves the pixels.

gatys    one photo in the style of one or several paintings: Gatys, Ecker, Bethge, CVPR 2016, which the paper's nets imitate
invert   what a layer of VGG still knows of a photo: the picture with the same features (the paper's Fig. 3)
texture  what a style is: a picture from noise with the same Gram matrices (Figs. 4 and 5)

Pictures are optimised as they are, RGB in 0..255 in float32; nothing holds them there on the way, and what reaches beyond is
clipped when it is saved.
"""

import argparse
import math
import sys
from pathlib import Path

import numpy as np

from .. import device
from ..cli import Parser, given
from ..data import checkpoint, images
from ..errors import UserError
from ..losses import StyleObjective
from ..networks import VGG16
from ..networks.vgg import STYLE_LAYERS
from ..optim import LBFGS, Adam
from ..training.loop import Loop
from ..training.run import layer_weights

FIRST_STEP = 10.0  # grey levels: enough to see, and small against 255
SMALLEST = 16  # pixels, as for training
LEAST_SIDE = 32  # of a result, at its smallest scale
FREE_ON_RESUME = ("every", "out", "resume", "device", "vgg")


# --- library ----------------------------------------------------------------------------------------------------------


def noise(height, width, seed=0):
    """A start that knows nothing: (H, W, 3) float32, grey with a little noise. What the loss does not see stays as it is at
    the start, so loud noise would still be there at the end."""
    return (128 + 10 * np.random.default_rng(seed).standard_normal((height, width, 3))).astype(np.float32)


def descend(objective, targets, picture, evaluations):
    """Lower a StyleObjective from `picture` (H, W, 3), NumPy, by L-BFGS: yields (terms, optimizer) after each evaluation.

    terms: {"content", "style", "tv", "total"} there; optimizer.value: the lowest total so far; optimizer.best(): its picture
    (1, H, W, 3), where the objective's VGG is.
    """
    y = objective.vgg.xp.array(picture[None])
    optimizer = LBFGS(y, first_step=FIRST_STEP)
    for _ in range(evaluations):
        terms, dy = objective(y, targets)
        optimizer.step(dy, terms["total"])
        yield terms, optimizer


def load_style(path, longer_side, least=SMALLEST):
    """The painting at `path`, (H, W, 3) float32, its longer side made `longer_side` pixels. Raises UserError for one smaller
    than SMALLEST pixels, or that would be looked at with a side of less than `least`."""
    width, height = images.open_rgb(path).size
    if min(width, height) < SMALLEST:
        raise UserError(
            f"--style {path} is {width}x{height} pixels: at least {SMALLEST}x{SMALLEST} make a style"
        )
    style = images.load(path, max(1, round(longer_side)), side="long")
    if min(style.shape[:2]) < least:
        raise UserError(
            f"--style {path} would be looked at as {style.shape[1]}x{style.shape[0]} pixels, less than {least}: give a larger "
            "--style-scale or --size"
        )
    return style


# --- a run ------------------------------------------------------------------------------------------------------------


class PictureRun(Loop):
    """A picture on its way down, in the folder s["out"]; an iteration is one evaluation of the objective.

        result.png, sheet.png       the picture so far; with what it was made from, and the pictures on the way
        samples/000050.png          the picture so far
        losses.csv, losses.png      every term at every evaluation (those of steps that were taken back, too); the plot
        checkpoint.h5               all that --resume needs, the images it was made from included

    With --scales S the picture is first made at 1/2^(S-1) of its size, then enlarged and gone on with, S - 1 times. `inputs`:
    {"content": (H, W, 3), "start": ..., "style0": ...}, those there are, as they are at the full size.
    """

    def __init__(self, s, inputs, xp):
        super().__init__(s["out"], s["scales"] * s["iterations"], s["every"])
        self.s, self.inputs, self.xp = s, inputs, xp
        self.by_adam = s["optimizer"] == "adam"
        self.vgg = VGG16.load(s["vgg"], xp)
        self.title = f"{s['mode']}: the objective at each evaluation"
        self._set_scale(0, inputs["start"])

    # --- one scale after the other

    def _set_scale(self, scale, picture):
        """Build the objective for this scale (the last is the full size) and start from `picture` (H, W, 3), made to fit."""
        s, shrink = self.s, 2 ** (self.s["scales"] - 1 - scale)
        h, w = (max(1, round(side / shrink)) for side in self.inputs["start"].shape[:2])

        def sized(image, height, width):
            image = image if image.shape[:2] == (height, width) else images.resize(image, height, width)
            return self.xp.array(image[None])

        def shrunk(image):
            return sized(image, *(max(1, round(side / shrink)) for side in image.shape[:2]))

        styles = [shrunk(self.inputs[f"style{k}"]) for k in range(len(s["mix"]))]
        content = layer_weights(s["content_layers"], s["content_weights"], "content")
        style = layer_weights(s["style_layers"], s["style_weights"], "style")
        self.objective = StyleObjective(self.vgg, styles, content, style, s["tv_weight"], s["mix"])
        self.targets = self.objective.targets(sized(self.inputs["content"], h, w)) if content else {}
        self.scale, self.picture = scale, sized(picture, h, w)
        parameters = {"picture": self.picture}
        self.optimizer = (
            Adam(parameters, s["lr"]) if self.by_adam else LBFGS(parameters, first_step=FIRST_STEP)
        )

    def step(self, _):
        if self.iteration == (self.scale + 1) * self.s["iterations"]:
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
        if self.optimizer.converged and self.scale == self.s["scales"] - 1:
            self.iterations = self.iteration + 1  # nothing leads further down
        return terms

    def _diverged(self, what):
        return UserError(
            f"stopped at evaluation {self.iteration + 1}: {what}; start again with lower weights or a lower --lr"
        )

    # --- results

    def best(self):
        """The picture so far, (H, W, 3) NumPy, unclipped: the best that L-BFGS has seen, or where Adam is."""
        return device.to_numpy(self.picture if self.by_adam else self.optimizer.best()["picture"])[0]

    def result(self):
        """The picture so far as it is shown: in the photo's colours where that was asked for."""
        picture = self.best()
        if not self.s["preserve_color"]:
            return picture
        content = self.inputs["content"]
        return images.preserve_color(picture, images.resize(content, *picture.shape[:2]))

    def save(self):
        """Checkpoint, picture, plot and sheet, each whole or not at all; the checkpoint first."""
        arrays, numbers = self.optimizer.state()
        groups = {"inputs": self.inputs, "picture": {"picture": self.picture}, **arrays}
        state = {"iteration": self.iteration, "settings": self.s, "scale": self.scale, "optimizer": numbers}
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
            "content": self.s["content"],
            **{f"style{k}": path for k, path in enumerate(self.s["style"])},
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
        """The objective of the picture that was saved after so many evaluations: the lowest of its scale, or Adam's last."""
        begin = (
            max(0, evaluation - 1) // self.s["iterations"] * self.s["iterations"]
            if self.s["scales"] > 1
            else 0
        )
        totals = [terms["total"] for k, terms in self.history if begin < k <= evaluation]
        return (totals[-1] if self.by_adam else np.fmin.reduce(totals)) if totals else np.nan

    def resume(self, arrays, state):
        """Take up where `checkpoint.load` says the run was."""
        self._set_scale(state["scale"], self.inputs["start"])
        try:
            device.copy_arrays(arrays["picture"], {"picture": self.picture})
            self.optimizer.load(arrays, state["optimizer"])
        except (KeyError, ValueError) as error:
            raise UserError(f"the checkpoint in {self.out} does not fit: {error}") from None
        self.go_on_from(state["iteration"])


# --- the command ------------------------------------------------------------------------------------------------------


def _parser():
    """The parser, and that of each mode by its name."""
    parser = Parser(
        prog="tinynst optimize", description="Optimise a picture itself: style transfer, inversion, texture."
    )
    modes = parser.add_subparsers(dest="mode", required=True, metavar="gatys | invert | texture")
    gatys = modes.add_parser("gatys", help="a photo in the style of one painting or several, without a net")
    invert = modes.add_parser("invert", help="the picture that a layer of VGG cannot tell from a photo")
    texture = modes.add_parser("texture", help="a painting's style and nothing else, from noise")

    add = gatys.add_argument
    add("--content", metavar="IMAGE", help="the photo")
    add(
        "--content-layers",
        nargs="*",
        default=["relu3_3"],
        metavar="LAYER",
        help="where contents are compared",
    )
    add(
        "--content-weights",
        nargs="*",
        type=float,
        default=[1.0],
        metavar="W",
        help="one, or one for each content layer",
    )
    add("--preserve-color", action="store_true", help="keep the photo's colours; only brightness is styled")
    add(
        "--style-layers",
        nargs="*",
        default=list(STYLE_LAYERS),
        metavar="LAYER",
        help="where Gram matrices are compared",
    )
    texture.add_argument(
        "--layers",
        dest="style_layers",
        nargs="+",
        default=list(STYLE_LAYERS),
        metavar="LAYER",
        help="where Grams are compared",
    )
    invert.add_argument("--image", dest="content", metavar="IMAGE", help="the photo")
    invert.add_argument("--layer", default="relu3_3", help="the layer that is to be satisfied")
    for mode in (gatys, texture):
        add = mode.add_argument
        add("--style", nargs="+", metavar="IMAGE", help="the painting, or several")
        add(
            "--style-weights",
            nargs="*",
            type=float,
            default=[5.0],
            metavar="W",
            help="one, or one for each style layer",
        )
        add(
            "--mix",
            nargs="+",
            type=float,
            metavar="W",
            help="how much each of several paintings counts (default: all the same)",
        )
        larger = "longer side of the painting, against the result's: more, larger brush strokes"
        add("--style-scale", type=float, default=1.0, metavar="X", help=larger)
    for mode in (gatys, invert, texture):
        add = mode.add_argument
        add("--out", metavar="FOLDER", required=True, default=argparse.SUPPRESS, help="where the results go")
        add(
            "--resume",
            action="store_true",
            help="go on with the run in --out, with the settings it was started with",
        )
        add(
            "--size",
            type=int,
            default=256,
            help="shorter side of the result, in pixels (a texture is square)",
        )
        add(
            "--iterations",
            type=int,
            default=200,
            metavar="N",
            help="evaluations of the objective, at each scale",
        )
        add(
            "--scales",
            type=int,
            default=1,
            metavar="S",
            help="begin at 1/2^(S-1) of the size and double it S-1 times",
        )
        start, choices = ("content", "content|noise|FILE") if mode is gatys else ("noise", "noise|FILE")
        add("--start", default=start, metavar=choices, help="the picture to begin with")
        add(
            "--tv-weight",
            type=float,
            default=1e-6,
            metavar="W",
            help="weight of the total variation: more, smoother",
        )
        add("--optimizer", choices=("lbfgs", "adam"), default="lbfgs", help="what moves the pixels")
        add("--lr", type=float, default=4.0, help="Adam's learning rate: grey levels a step")
        add(
            "--every",
            type=int,
            default=50,
            metavar="N",
            help="evaluations between checkpoints, with the picture so far",
        )
        add("--seed", type=int, default=0, help="of the noise")
        add(
            "--vgg",
            metavar="FILE.h5",
            help="another VGG-16 file in Keras's layout, in place of the one that ships",
        )
        add("--device", choices=("cpu", "cuda"), default="cpu", help="where to compute")
    return parser, modes.choices


def _check(s):
    """Refuse settings that cannot work before any work is done."""
    for name, least in {"iterations": 1, "every": 1, "scales": 1, "seed": 0, "tv_weight": 0}.items():
        if not least <= s[name] < math.inf:
            raise UserError(f"--{name.replace('_', '-')} is {s[name]}; it should be at least {least}")
    for name in ("lr", "style_scale"):
        if not 0 < s[name] < math.inf:
            raise UserError(f"--{name.replace('_', '-')} is {s[name]}; it should be more than 0")
    least = LEAST_SIDE * 2 ** (s["scales"] - 1)
    if s["size"] < least:
        raise UserError(f"--size is {s['size']}; with --scales {s['scales']} it should be at least {least}")
    if (
        len(s["mix"]) != len(s["style"])
        or not all(0 <= w < math.inf for w in s["mix"])
        or (s["style"] and not any(s["mix"]))
    ):
        raise UserError(
            f"--mix should be one number for each of {len(s['style'])} paintings, at least 0 and not all 0"
        )
    option = {"invert": "--layer", "texture": "--layers"}.get(s["mode"])
    weights = {
        kind: layer_weights(s[f"{kind}_layers"], s[f"{kind}_weights"], kind, option)
        for kind in ("content", "style")
    }
    if not any([*weights["content"], *weights["style"], s["tv_weight"]]):
        raise UserError("all weights are zero: there is nothing to lower")
    for kind, option in (
        ("content", "--image" if s["mode"] == "invert" else "--content"),
        ("style", "--style"),
    ):
        if weights[kind] and not s[kind]:
            raise UserError(f"{s['mode']} needs {option}, an image")
    if s["start"] == "content" and not s["content"]:
        raise UserError(f"--start content: {s['mode']} has no photo to begin with; choose noise or a file")


def _settings(arguments):
    """The settings of this run, those of other modes switched off, and when it is resumed its checkpoint."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser, modes = _parser()
    s = vars(parser.parse_args(arguments))
    explicit = given(modes[s["mode"]], arguments[1:])
    for name, value in explicit.items():
        if value == "":
            raise UserError(f"--{name.replace('_', '-')} is empty")
    found = None
    if s["resume"]:
        found = checkpoint.load(Path(s["out"]) / "checkpoint.h5")
        started = found[1]["settings"]
        if started.get("mode") != s["mode"]:
            raise UserError(
                f"{s['out']} holds a run of {started.get('mode', 'another command')}, not of optimize {s['mode']}"
            )
        free = FREE_ON_RESUME + ("iterations",) * (started["scales"] == 1)
        for name in explicit.keys() - set(free):
            if explicit[name] != started[name]:
                raise UserError(
                    f"--{name.replace('_', '-')} cannot change on --resume: it was {started[name]}"
                )
        s = {**started, **{name: explicit[name] for name in free if name in explicit}}
    else:
        if s["mode"] == "invert":
            s["content_layers"], s["content_weights"] = [s["layer"]], [1.0]
        off = {"content": None, "content_layers": [], "content_weights": [], "preserve_color": False}
        off |= {"style": [], "style_layers": [], "style_weights": [], "style_scale": 1.0, "mix": None}
        s = {**off, **s}
        s["style"] = s["style"] or []
        s["mix"] = s["mix"] or [1.0] * len(s["style"])
    _check(s)
    return s, found


def _inputs(s):
    """{"content", "start", "style0", "style1", ...: (H, W, 3) float32}: all that this run looks at, at its full size."""
    inputs = {}
    if s["content"]:
        inputs["content"] = images.load(s["content"], s["size"])
    height, width = inputs["content"].shape[:2] if s["content"] else (s["size"], s["size"])
    if s["start"] == "noise":
        inputs["start"] = noise(height, width, s["seed"])
    else:
        start = inputs["content"] if s["start"] == "content" else images.load(s["start"])
        inputs["start"] = images.resize(start, height, width)
    for k, path in enumerate(s["style"]):
        inputs[f"style{k}"] = load_style(
            path, s["style_scale"] * max(height, width), least=SMALLEST * 2 ** (s["scales"] - 1)
        )
    return inputs


def main(arguments=None):
    """The command `python -m tinynst.optimize`; `arguments` is a list of strings (None: the command line's)."""
    s, found = _settings(arguments)
    out = Path(s["out"])
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; it should be a folder")
    if not found and any((out / name).exists() for name in ("checkpoint.h5", "result.png")):
        raise UserError(f"{out} holds a run already: go on with it with --resume, or choose another --out")
    picture = PictureRun(s, found[0]["inputs"] if found else _inputs(s), device.select(s["device"]))
    if found:
        picture.resume(*found)
    height, width = picture.inputs["start"].shape[:2]
    print(f"{s['mode']}: {width}x{height}, {picture.iterations} evaluations; results in {out}")
    if not picture.run():
        print(
            f"stopped at evaluation {picture.iteration}, saved; go on with: tinynst optimize {s['mode']} --out {out} --resume"
        )
        return 130
    for name in ("result", "sheet", "losses"):
        print(f"{name + ':':8} {out / name}.png")
    return 0
