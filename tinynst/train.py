"""Train a style net: a photo goes through the net, VGG looks at the result, the losses say what is wrong, the gradient
walks back the same way, and Adam moves the weights."""

import hashlib
from pathlib import Path

import numpy as np

from . import __version__, dataset, device, images, runs, weights
from .cli import Parser, UserError, run
from .losses import StyleObjective
from .networks import VGG16, style_net
from .networks.transform import NORMS, UPSAMPLINGS
from .networks.vgg import STYLE_LAYERS
from .samples import PHOTOS, STYLES

# With no argument at all: about two minutes on two cores, enough to see the style. The official learning rate, 1e-3, throws
# a fresh net at batch 1 into a corner that it takes hundreds of steps to leave.
SHORT_RUN = {"iterations": 220, "image_size": 128, "batch": 1, "every": 110, "upsample": "nearest"}
SHORT_RUN |= {"style_weights": [8.0], "lr": 4e-4, "lr_rise": 25, "lr_fall": 0.25}

TEST_PHOTOS = ("neuschwanstein.jpg", "chelsea.jpg", "coffee.jpg")


class StyleTask:
    """What a style net learns from: photos, and the objective that a painting sets. See `trainer` for the interface."""

    def __init__(self, settings, xp):
        self.settings, self.xp = settings, xp
        width, height = images.open_rgb(settings["style"]).size
        if min(width, height) < 16:
            raise UserError(f"--style {settings['style']} is {width}x{height} pixels: at least 16x16 make a style")
        self.style = images.load(settings["style"], settings["style_size"], side="long")
        self.photos = [images.load(path, settings["image_size"]) for path in settings["samples"]]
        self.dataset = dataset.open_dataset(settings["content"], side=2 * settings["image_size"])
        self.net = style_net(settings["norm"], settings["upsample"], settings["width"], seed=settings["seed"], xp=xp)
        if settings["init"] and not settings["resume"]:
            runs.start_from(self.net, settings["init"], "--norm, --upsample and --width")
        self.objective = StyleObjective(
            VGG16.load(settings["vgg"], xp),
            xp.asarray(self.style[None]),
            *(runs.layer_weights(settings[f"{k}_layers"], settings[f"{k}_weights"], k) for k in ("content", "style")),
            settings["tv_weight"],
        )

    def inputs(self):
        """What a resumed run must find unchanged for its numbers to be the same: the painting and the count of photos."""
        return {"painting": hashlib.sha256(self.style.tobytes()).hexdigest(), "photos": len(self.dataset)}

    def batches(self, start):
        s = self.settings
        return dataset.Batches(self.dataset, s["batch"], s["image_size"], s["seed"], start)

    def step(self, photos):
        photos = self.xp.asarray(photos)
        y = self.net.forward(photos, training=True)
        terms, dy = self.objective(y, self.objective.targets(photos))
        self.net.backward(dy, input_gradient=False)
        return terms

    def sheet(self):
        """The painting and the test photos; under each photo what the net makes of it."""
        results = [device.to_numpy(self.net.forward(self.xp.asarray(photo[None])))[0] for photo in self.photos]
        painting, nothing = images.at_most(self.style, self.settings["image_size"]), np.full((1, 1, 3), 255, np.uint8)
        return images.sheet([[painting, *self.photos], [nothing, *results]], [[Path(self.settings["style"]).stem]])

    def save_weights(self, path, iteration, losses):
        """The settings go in without folders: the file is made to be given away."""
        s = runs.given_away(self.settings)
        about = {
            "kind": "style",
            "summary": f"{Path(s['style']).stem.replace('_', ' ')}, {iteration} iterations",
            "style_image": s["style"],
            "iterations": iteration,
            "photos": len(self.dataset),
            "losses": losses,
            "settings": s,
            "tinynst": __version__,
        }
        thumbnail = images.to_uint8(images.at_most(self.style, 128))
        weights.save(path, {**self.net.parameters(), **self.net.buffers()}, about, thumbnail=thumbnail)


def _parser():
    parser = Parser(
        prog="tinynst train",
        description="Train a net that paints photos in the style of one painting. With no argument: a short run on the "
        "photos and the painting that ship, about two minutes on two cores.",
    )
    add = parser.add_argument
    add("--style", metavar="IMAGE", help="the painting (default: The Starry Night, which ships)")
    runs.add_run_options(parser, "NAME-OF-THE-STYLE")
    add("--iterations", type=int, default=40000, help="steps to train")
    add("--batch", type=int, default=4, help="photos a step")
    add("--image-size", type=int, default=256, help="side of the square crops, in pixels")
    add("--style-size", type=int, default=256, help="longer side of the painting, in pixels: larger, larger brush strokes")
    add("--content-layers", nargs="*", default=["relu3_3"], metavar="LAYER", help="where contents are compared")
    add("--content-weights", nargs="*", type=float, default=[1.0], metavar="W", help="one, or one for each content layer")
    add("--style-layers", nargs="*", default=list(STYLE_LAYERS), metavar="LAYER", help="where Gram matrices are compared")
    add("--style-weights", nargs="*", type=float, default=[5.0], metavar="W", help="one, or one for each style layer")
    add("--tv-weight", type=float, default=1e-6, help="weight of the total variation: more, smoother")
    add("--norm", choices=tuple(NORMS), default="instance", help="normalisation in the net")
    add("--upsample", choices=UPSAMPLINGS, default="transpose", help="how the net enlarges")
    add("--width", type=int, default=32, help="filters of the first layer (the paper's: 32)")
    runs.add_schedule_options(parser)
    return parser


def _check(s):
    """Refuse settings that cannot work before any work is done; returns them with single weights spread over their layers."""
    s = dict(s)
    runs.check_schedule(s)
    for name, least in {"image_size": 32, "style_size": 16, "tv_weight": 0}.items():
        runs.at_least(s, name, least)
    for kind in ("content", "style"):
        layers, values = s[f"{kind}_layers"], s[f"{kind}_weights"]
        runs.layer_weights(layers, values, kind)
        s[f"{kind}_weights"] = values * len(layers) if len(values) == 1 else values
    if not any([*s["content_weights"], *s["style_weights"], s["tv_weight"]]):
        raise UserError("all loss weights are zero: there is nothing to learn")
    return s


def _complete(s, explicit):
    """What has no default in the parser: what ships, and a new folder with the style's name."""
    s["style"] = s["style"] or str(STYLES / "starry_night.jpg")
    s["content"] = s["content"] or str(PHOTOS)
    s["samples"] = s["samples"] or [PHOTOS / name for name in TEST_PHOTOS]
    name = Path(s["style"]).stem
    s["out"] = s["out"] or runs.fresh_folder(name if explicit else f"{name}-short")
    return runs.absolute(s, "style")


def main(arguments=None):
    """The command `python -m tinynst.train`."""
    settings, found = runs.settings(_parser(), arguments, SHORT_RUN, _complete, _check)
    runs.check_folder(settings, resumed=found is not None)
    task = StyleTask(settings, device.select(settings["device"]))
    use = "tinynst stylize PHOTO --style {} -o OUT.jpg"
    return runs.train(task, settings, found, Path(settings["style"]).stem, "tinynst train", use)


if __name__ == "__main__":
    run(main, "train")
