"""Train a style net: a photo goes through the net, VGG looks at the result, the losses say what is wrong, the gradient
walks back the same way, and Adam moves the weights."""

import hashlib
from pathlib import Path

import numpy as np

from . import __version__, checkpoint, dataset, device, images, weights
from .cli import Parser, UserError, given, run
from .losses import StyleObjective
from .networks import VGG16, style_net
from .networks.transform import NORMS, UPSAMPLINGS
from .networks.vgg import LAYERS, STYLE_LAYERS
from .samples import PHOTOS, STYLES
from .trainer import Trainer

# With no argument at all: about two minutes on two cores, enough to see the style. The official learning rate, 1e-3, throws
# a fresh net at batch 1 into a corner that it takes hundreds of steps to leave.
SHORT_RUN = {"iterations": 220, "image_size": 128, "batch": 1, "every": 110, "upsample": "nearest"}
SHORT_RUN |= {"style_weights": [8.0], "lr": 4e-4, "lr_rise": 25, "lr_fall": 0.25}

# What may change on --resume: where things lie (that they are the same is checked), how long and where to go on
FREE_ON_RESUME = ("resume", "out", "iterations", "every", "device", "style", "content", "samples", "vgg")
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
            self._start_from(settings["init"])
        self.objective = StyleObjective(
            VGG16.load(settings["vgg"], xp),
            xp.asarray(self.style[None]),
            _weighted(settings["content_layers"], settings["content_weights"]),
            _weighted(settings["style_layers"], settings["style_weights"]),
            settings["tv_weight"],
        )

    def inputs(self):
        """What a resumed run must find unchanged for its numbers to be the same: the painting and the count of photos."""
        return {"painting": hashlib.sha256(self.style.tobytes()).hexdigest(), "photos": len(self.dataset)}

    def _start_from(self, path):
        arrays, _ = weights.load(path)
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise UserError(f"--init {path} holds numbers that are not finite: that training diverged")
        try:
            self.net.load(arrays)
        except ValueError as error:
            raise UserError(f"--init {path} does not fit --norm, --upsample and --width: {error}") from None

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
        painting, nothing = _shrunk(self.style, self.settings["image_size"]), np.full((1, 1, 3), 255, np.uint8)
        return images.sheet([[painting, *self.photos], [nothing, *results]], [[Path(self.settings["style"]).stem]])

    def save_weights(self, path, iteration, losses):
        """The settings go in without folders: the file is made to be given away."""
        mine = ("out", "resume", "samples", "every", "device", "inputs")  # where and how it ran, not what was learnt
        s = {k: v for k, v in self.settings.items() if k not in mine}
        s.update({k: Path(s[k]).name for k in ("style", "content", "init", "vgg") if s[k]})
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
        thumbnail = images.to_uint8(_shrunk(self.style, 128))
        weights.save(path, {**self.net.parameters(), **self.net.buffers()}, about, thumbnail=thumbnail)


def _shrunk(image, side):
    """`image` with a longer side of at most `side`."""
    h, w = image.shape[:2]
    scale = min(1.0, side / max(h, w))
    return images.resize(image, max(1, round(h * scale)), max(1, round(w * scale)))


def _weighted(layers, values):
    """{layer: weight}, without those that count for nothing: they would cost as much as the others."""
    return {layer: value for layer, value in zip(layers, values, strict=True) if value}


def _parser():
    parser = Parser(
        prog="tinynst train",
        description="Train a net that paints photos in the style of one painting. With no argument: a short run on the "
        "photos and the painting that ship, about two minutes on two cores.",
    )
    add = parser.add_argument
    add("--style", metavar="IMAGE", help="the painting (default: The Starry Night, which ships)")
    add(
        "--content",
        metavar="FOLDER|FILE.h5",
        help="photos, or a file that `tinynst dataset` packed (default: 80 photos that ship)",
    )
    add("--out", metavar="FOLDER", help="where the results go (default: runs/NAME-OF-THE-STYLE, a new folder)")
    add("--resume", action="store_true", help="go on with the run in --out, with the settings it was started with")
    add("--init", metavar="NAME|FILE.h5", help="start from these weights, not from random ones")
    add("--samples", metavar="IMAGE", nargs="+", help="test photos (default: three that ship)")
    add("--iterations", type=int, default=40000, help="steps to train")
    add("--batch", type=int, default=4, help="photos a step")
    add("--image-size", type=int, default=256, help="side of the square crops, in pixels")
    add("--style-size", type=int, default=256, help="longer side of the painting, in pixels: larger, larger brush strokes")
    add("--content-layers", nargs="*", default=["relu3_3"], metavar="LAYER", help="where contents are compared")
    add("--content-weights", nargs="*", type=float, default=[1.0], metavar="W", help="one, or one for each content layer")
    add("--style-layers", nargs="*", default=list(STYLE_LAYERS), metavar="LAYER", help="where Gram matrices are compared")
    add("--style-weights", nargs="*", type=float, default=[5.0], metavar="W", help="one, or one for each style layer")
    add("--tv-weight", type=float, default=1e-6, help="weight of the total variation: more, smoother")
    add("--lr", type=float, default=1e-3, help="Adam's learning rate")
    add("--lr-rise", type=int, default=0, metavar="N", help="let it rise from zero over the first N steps")
    add("--lr-decay-every", type=int, default=0, metavar="N", help="multiply it by --lr-decay-factor every N steps (0: never)")
    add("--lr-decay-factor", type=float, default=0.5, metavar="F", help="see --lr-decay-every")
    add("--lr-fall", type=float, default=0.0, metavar="SHARE", help="let it fall to zero over this last share of the run")
    add("--norm", choices=tuple(NORMS), default="instance", help="normalisation in the net")
    add("--upsample", choices=UPSAMPLINGS, default="transpose", help="how the net enlarges")
    add("--width", type=int, default=32, help="filters of the first layer (the paper's: 32)")
    add("--seed", type=int, default=0, help="of the first weights and of the photos' order")
    add("--every", type=int, default=500, help="steps between checkpoints, with a plot and a sheet of test photos")
    add("--vgg", metavar="FILE.h5", help="another VGG-16 file in Keras's layout, in place of the one that ships")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="where to compute")
    return parser


def _check(s):
    """Refuse settings that cannot work before any work is done; returns them with single weights spread over their layers."""
    s = dict(s)
    for name, least in {"iterations": 1, "batch": 1, "image_size": 32, "style_size": 16, "width": 1, "every": 1}.items():
        if s[name] < least:
            raise UserError(f"--{name.replace('_', '-')} is {s[name]}; it should be at least {least}")
    for name in ("tv_weight", "lr", "lr_rise", "lr_decay_every", "seed"):
        if not 0 <= s[name] < float("inf"):
            raise UserError(f"--{name.replace('_', '-')} is {s[name]}; it should be at least 0")
    for name in ("lr_fall", "lr_decay_factor"):
        if not 0 <= s[name] <= 1:
            raise UserError(f"--{name.replace('_', '-')} is {s[name]}; it should be between 0 and 1")
    for kind in ("content", "style"):
        layers, values = s[f"{kind}_layers"], s[f"{kind}_weights"]
        for layer in layers:
            if layer not in LAYERS:
                raise UserError(f"--{kind}-layers: there is no layer {layer!r}; choose from {', '.join(LAYERS)}")
        if len(set(layers)) < len(layers):
            raise UserError(f"--{kind}-layers names a layer twice")
        if len(values) == 1:
            values = values * len(layers)
        if len(values) != len(layers) or not all(0 <= v < float("inf") for v in values):
            raise UserError(f"--{kind}-weights should be one number of at least 0, or one for each of {len(layers)} layers")
        s[f"{kind}_weights"] = values
    if not any([*s["content_weights"], *s["style_weights"], s["tv_weight"]]):
        raise UserError("all loss weights are zero: there is nothing to learn")
    return s


def _fresh_folder(name):
    """runs/NAME, or runs/NAME-2, ... : never one that is there already."""
    k = 1
    while (folder := Path("runs") / (name if k == 1 else f"{name}-{k}")).exists():
        k += 1
    return folder


def _settings(arguments):
    """The settings of this run and, when it is resumed, its checkpoint."""
    parser = _parser()
    options, explicit = vars(parser.parse_args(arguments)), given(parser, arguments)
    for name, value in explicit.items():
        if value == "":
            raise UserError(f"--{name.replace('_', '-')} is empty")
    found = None
    if options["resume"]:
        if not options["out"]:
            raise UserError("--resume needs --out, the folder of the run to go on with")
        found = checkpoint.load(Path(options["out"]) / "checkpoint.h5")
        started = {**options, **found[1]["settings"]}
        for name in explicit.keys() - set(FREE_ON_RESUME):
            if _check({**started, name: explicit[name]})[name] != started[name]:
                shown = name.replace("_", "-")
                raise UserError(f"--{shown} cannot change on --resume: the run was started with {started[name]}")
        options = {**started, **{name: explicit[name] for name in FREE_ON_RESUME if name in explicit}}
    elif not explicit:
        options.update(SHORT_RUN)
    options["style"] = options["style"] or str(STYLES / "starry_night.jpg")
    options["content"] = options["content"] or str(PHOTOS)
    options["samples"] = options["samples"] or [PHOTOS / name for name in TEST_PHOTOS]
    name = Path(options["style"]).stem
    options["out"] = options["out"] or str(_fresh_folder(name if explicit else f"{name}-short"))
    return _check(_absolute(options)), found


def _absolute(s):
    """Paths that still lead there when the run is resumed from another folder."""
    s = {**s, **{name: str(Path(s[name]).absolute()) for name in ("style", "content", "vgg") if s[name]}}
    s["samples"] = [str(path.absolute()) for path in images.find(s["samples"])]
    if s["init"] and not s["resume"]:
        s["init"] = str(weights.find(s["init"]).absolute())
    return s


def _check_folder(s, resumed):
    """Nothing that is there may be lost, and no picture of ours be trained on."""
    out = Path(s["out"])
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; it should be a folder")
    if not resumed and any((out / name).exists() for name in ("checkpoint.h5", "weights.h5")):
        raise UserError(f"{out} holds a run already: go on with it with --resume, or choose another --out")
    if Path(s["content"]).resolve() in (out.resolve(), *out.resolve().parents):
        raise UserError(f"--out {out} lies inside --content {s['content']}: its pictures would be trained on; choose another")


def main(arguments=None):
    """The command `python -m tinynst.train`."""
    settings, found = _settings(arguments)
    _check_folder(settings, resumed=found is not None)
    task = StyleTask(settings, device.select(settings["device"]))
    inputs = task.inputs()
    for name, value in settings.setdefault("inputs", inputs).items():
        if value != inputs[name]:
            where = settings["style"] if name == "painting" else settings["content"]
            raise UserError(
                f"{where} has changed since the run was started ({name}: {str(value)[:8]}, now {str(inputs[name])[:8]})"
            )
    schedule = {
        "lr": settings["lr"],
        "rise": settings["lr_rise"],
        "decay_every": settings["lr_decay_every"],
        "decay_factor": settings["lr_decay_factor"],
        "fall": settings["lr_fall"],
    }
    trainer = Trainer(task, settings["out"], settings["iterations"], schedule, settings["every"], settings)
    if found:
        trainer.resume(*found)
    out = Path(settings["out"])
    print(f"{Path(settings['style']).stem}: {len(task.dataset)} photos, {settings['iterations']} iterations; results in {out}")
    finished = trainer.run()
    if not finished:
        print(f"stopped at iteration {trainer.iteration}, saved; go on with: tinynst train --out {out} --resume")
        return 130
    print(f"weights: {out / 'weights.h5'}  (tinynst stylize PHOTO --style {out / 'weights.h5'} -o OUT.jpg)")
    print(f"losses:  {out / 'losses.png'}")
    print(f"picture: {out / 'samples' / f'{trainer.iteration:06}.png'}")
    return 0


if __name__ == "__main__":
    run(main, "train")
