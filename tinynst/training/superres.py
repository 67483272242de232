"""Train a super-resolution net: a photo is shrunk, the net enlarges it again, the loss says how far the result is from the
photo, pixel by pixel or as VGG sees it, the gradient walks back, and Adam moves the weights."""

import contextlib

import numpy as np

from .. import __version__, device, ops
from ..cli import Parser
from ..data import images, weights
from ..data import photos as dataset
from ..data.degradation import DEGRADATIONS, cut, shrink
from ..errors import UserError
from ..losses import StyleObjective, grid_loss, pixel_loss
from ..networks import VGG16, super_resolution_net
from ..networks.transform import FACTORS, SUPERRES_NORMS, UPSAMPLINGS
from ..networks.vgg import LAYERS
from ..samples import PHOTOS
from . import run as runs

# With no argument at all: about two minutes on two cores, enough to be sharper than bicubic enlargement
SHORT_RUN = {
    "iterations": 500,
    "image_size": 96,
    "every": 250,
    "norm": "none",
    "upsample": "nearest",
    "residual": True,
}
SHORT_RUN |= {"degradation": "bicubic", "loss": "pixel", "lr": 5e-4, "lr_rise": 50, "lr_fall": 0.5}

CROPS = (
    0.0,
    0.5,
)  # of a photo's short side: crops at the photo's own resolution or little below it are the sharpest
POOLED = 8  # VGG's pools before relu4_1 are in step with every eighth pixel
SHEET_SIDE = 192  # of the test photos' middle parts in the sheet, in pixels
TEST_PHOTOS = ("chelsea.jpg", "brandenburg_gate.jpg", "coffee.jpg")


class SuperResolutionTask:
    """What a super-resolution net learns from: photos and what is left of them when they are shrunk. See `trainer` for the
    interface."""

    def __init__(self, settings, xp):
        self.settings, self.xp, self.factor = settings, xp, settings["factor"]
        self.rates = {}  # every parameter gets the whole of --lr
        self.photos = [self._middle(images.load(path)) for path in settings["samples"]]
        self.dataset = dataset.open_dataset(settings["content"], side=2 * settings["image_size"])
        net_options = {name: settings[name] for name in ("factor", "norm", "upsample", "residual", "width")}
        self.net = super_resolution_net(**net_options, seed=settings["seed"], xp=xp)
        if settings["init"] != "none" and not settings["resume"]:
            arrays, _ = runs.read_init(settings["init"])
            runs.load_init(self.net, arrays, settings["init"], "--factor, --norm, --upsample and --width")
        layers = {name: 1.0 for name in settings["feature_layers"]}
        vgg = VGG16.load(settings["vgg"], xp) if layers else None
        self.features = StyleObjective(vgg, None, layers, {}, settings["tv_weight"])

    def _middle(self, photo):
        """The middle of a test photo, of a size that the factor divides."""
        top, left = (max(0, size - SHEET_SIDE) // 2 for size in photo.shape[:2])
        return cut(photo[top : top + SHEET_SIDE, left : left + SHEET_SIDE], self.factor)

    def inputs(self):
        """What a resumed run must find unchanged for its numbers to be the same: the count of photos."""
        return {"photos": len(self.dataset)}

    @contextlib.contextmanager
    def batches(self, start):
        """(number, photos): the number draws where VGG looks."""
        s = self.settings
        with dataset.Batches(self.dataset, s["batch"], s["image_size"], s["seed"], start, CROPS) as photos:
            yield enumerate(photos, start)

    def step(self, batch):
        number, high = batch
        corner = np.random.default_rng((self.settings["seed"], 2, number)).integers(POOLED, size=2)
        low = np.stack([self._shrunk(photo) for photo in high])
        y = self.net.forward(self.xp.asarray(low), training=True)
        terms, dy = self.objective(y, self.xp.asarray(high), corner)
        self.net.backward(dy, need=("w",))
        return terms

    def _shrunk(self, photo):
        """Whole numbers, as a file holds them, in the same range as the photo: 0..255."""
        return shrink(photo, self.factor, self.settings["degradation"]).astype(np.float32)

    def objective(self, y, high, corner=(0, 0)):
        """Return ({"feature", "pixel", "tv", "total": weighted float}, gradient by y) for images y and high, 0..255;
        with a weight for it also "grid".

        corner: the rows and columns at the top and left that VGG does not see. A max pool looks at squares of 2x2 pixels; were
        they always at the same places of the low image's pixels, the net would learn the grid that suits them.
        """
        seen = (slice(None), slice(corner[0], None), slice(corner[1], None))
        dy = self.xp.zeros_like(y)
        terms, dy[seen] = self.features(y[seen], self.features.targets(high[seen]))
        terms = {"feature": terms["content"], "pixel": 0.0, "tv": terms["tv"]}
        if self.settings["pixel_weight"]:
            terms["pixel"], dpixel = pixel_loss(y, high, self.settings["pixel_weight"])
            dy += dpixel
        if self.settings["grid_weight"]:
            terms["grid"], dgrid = grid_loss(y, high, self.settings["grid_weight"], self.factor)
            dy += dgrid
        terms["total"] = sum(terms.values())
        return terms, dy

    def sheet(self):
        """Of each test photo a row: the low image with its pixels to be seen, bicubic, the net, the photo."""
        rows = []
        for photo in self.photos:
            low = self._shrunk(photo)[None]
            nearest, bicubic = (
                ops.upsample_nearest(low, self.factor)[0],
                ops.upsample_bicubic(low, self.factor)[0],
            )
            result = device.to_numpy(self.net.forward(self.xp.asarray(low)))
            rows.append([nearest[0], bicubic[0], result[0], photo])
        return images.sheet(rows, [["low", "bicubic", "net", "truth"]] * len(rows))

    def save_weights(self, path, iteration, losses):
        """The settings go in without folders: the file is made to be given away."""
        s = runs.given_away(self.settings)
        about = {
            "kind": "superres",
            "summary": f"x{s['factor']}, {s['loss']} loss, {iteration} iterations",
            "factor": s["factor"],
            "loss": s["loss"],
            "degradation": s["degradation"],
            "iterations": iteration,
            "photos": len(self.dataset),
            "losses": losses,
            "settings": s,
            "tinynst": __version__,
        }
        weights.save(path, {**self.net.parameters(), **self.net.buffers()}, about)


def _parser():
    parser = Parser(
        prog="tinynst train_superres",
        description="Train a net that enlarges photos. With no argument: a short run on the photos that ship, about two "
        "minutes on two cores. Defaults are the paper's.",
    )
    add = parser.add_argument
    add(
        "--factor",
        type=int,
        choices=FACTORS,
        default=4,
        help="how many times larger the result is on each side",
    )
    add(
        "--loss",
        choices=("feature", "pixel"),
        default="feature",
        help="sharp as VGG sees it, or the least squared error",
    )
    runs.add_run_options(parser, "superres-xFACTOR-LOSS")
    add("--iterations", type=int, default=200000, help="steps to train")
    add("--batch", type=int, default=4, help="photos a step")
    add(
        "--image-size",
        type=int,
        default=288,
        help="side of the square crops, in pixels: a multiple of the factor",
    )
    add(
        "--degradation",
        choices=DEGRADATIONS,
        default="paper",
        help="how crops are shrunk: bicubic, or blurred before as well",
    )
    add(
        "--feature-layers",
        nargs="+",
        metavar="LAYER",
        help="where --loss feature compares (default: relu2_2)",
    )
    add(
        "--pixel-weight", type=float, metavar="W", help="of the pixel loss beside --loss feature (default: 0)"
    )
    add(
        "--grid-weight",
        type=float,
        metavar="W",
        help="of a loss against grids, beside --loss feature (default: 0)",
    )
    add("--tv-weight", type=float, default=0.0, help="weight of the total variation: more, smoother")
    add("--norm", choices=SUPERRES_NORMS, default="batch", help="normalisation in the net")
    add("--upsample", choices=UPSAMPLINGS, default="transpose", help="how the net enlarges")
    add("--residual", action="store_true", help="let the net learn what is added to the bicubic enlargement")
    add("--width", type=int, default=64, help="filters of each layer")
    runs.add_schedule_options(parser)
    return parser


def _check(s):
    """Refuse settings that cannot work before any work is done; returns them with those that depend on --loss filled in."""
    s = dict(s)
    runs.check_schedule(s)
    runs.at_least(s, "image_size", 32)
    runs.at_least(s, "tv_weight", 0)
    if s["image_size"] % s["factor"]:
        raise UserError(
            f"--image-size is {s['image_size']}; it should be a multiple of --factor {s['factor']}"
        )
    if s["loss"] == "pixel":
        for name, fixed in {
            "feature_layers": [],
            "pixel_weight": 1.0,
            "grid_weight": 0.0,
            "vgg": None,
        }.items():
            if s[name] not in (None, fixed):
                raise UserError(
                    f"--{name.replace('_', '-')} belongs to --loss feature; leave it out with --loss pixel"
                )
            s[name] = fixed
    else:
        s["feature_layers"] = s["feature_layers"] or ["relu2_2"]
        s["pixel_weight"] = s["pixel_weight"] or 0.0
        s["grid_weight"] = s["grid_weight"] or 0.0
    for name in ("pixel_weight", "grid_weight"):
        runs.at_least(s, name, 0)
    for layer in s["feature_layers"]:
        if layer not in LAYERS:
            raise UserError(f"--feature-layers: there is no layer {layer!r}; choose from {', '.join(LAYERS)}")
    if len(set(s["feature_layers"])) < len(s["feature_layers"]):
        raise UserError("--feature-layers names a layer twice")
    return s


def _complete(s, explicit):
    """What has no default in the parser: what ships, and a new folder with the net's name."""
    s["content"] = s["content"] or str(PHOTOS)
    s["samples"] = s["samples"] or [PHOTOS / name for name in TEST_PHOTOS]
    name = f"superres-x{s['factor']}-{s['loss']}"
    s["out"] = s["out"] or runs.fresh_folder(name if explicit else f"{name}-short")
    s["init"] = s["init"] or "none"
    if s["init"] != "none" and not s["resume"]:
        s["init"] = str(weights.find(s["init"], "superres"))
    return runs.absolute(s)


def main(arguments=None):
    """The command `python -m tinynst.train_superres`."""
    settings, found = runs.settings(_parser(), arguments, SHORT_RUN, _complete, _check)
    runs.check_folder(settings, resumed=found is not None)
    task = SuperResolutionTask(settings, device.select(settings["device"]))
    title = f"x{settings['factor']}, {settings['loss']} loss"
    use = f"tinynst superres PHOTO --factor {settings['factor']} --weights {{}} -o OUT.png"
    return runs.train(task, settings, found, title, "tinynst train_superres", use)
