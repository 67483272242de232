"""Train a super-resolution net: a photo is shrunk, the net enlarges it again, the loss measures how far the
result is from the photo, per pixel or in VGG's features, the gradient goes back, and Adam updates the
weights."""

import contextlib
import dataclasses

import numpy as np

from .. import __version__, device, ops
from ..cli import Parser
from ..data import images, styles, weights
from ..data import photos as dataset
from ..data.degradation import DEGRADATIONS, cut, shrink
from ..errors import UserError
from ..losses import StyleObjective, grid_loss, pixel_loss
from ..networks import VGG16, super_resolution_net
from ..networks.transform import FACTORS, SUPERRES_NORMS, UPSAMPLINGS
from ..settings import flag, option
from . import run
from .run import TrainingSettings, load_init

# Without any option: about two minutes on two cores, enough to be sharper than bicubic enlargement
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
)  # of a photo's short side: crops at the photo's own resolution, or little below it, are the sharpest
POOLED = 8  # VGG's pools before relu4_1 are in step with every eighth pixel
SHEET_SIDE = 192  # pixels of the middle of each test photo in the sheet


@dataclasses.dataclass(init=False)
class SuperResSettings(TrainingSettings):
    """The settings of `tinynst train_superres`, with the same names and defaults."""

    factor: int = option(4, "how many times larger the result is on each side", choices=FACTORS)
    loss: str = option(
        "feature", "sharp in VGG's eyes, or the least squared error", choices=("feature", "pixel")
    )
    iterations: int = option(200000, "training steps", least=1)
    image_size: int = option(288, "side of the square crops, in pixels: a multiple of the factor", least=32)
    degradation: str = option(
        "paper", "how crops are shrunk: bicubic; paper: blurred first", choices=DEGRADATIONS
    )
    feature_layers: list[str] | None = option(
        None, "where --loss feature compares (default: relu2_2)", metavar="LAYER"
    )
    pixel_weight: float | None = option(
        None, "weight of the pixel loss next to --loss feature (default: 0)", least=0, metavar="W"
    )
    grid_weight: float | None = option(
        None, "weight of a loss against grids next to --loss feature (default: 0)", least=0, metavar="W"
    )
    norm: str = option("batch", "normalisation in the net", choices=SUPERRES_NORMS)
    upsample: str = option("transpose", "how the net enlarges", choices=UPSAMPLINGS)
    residual: bool = option(False, "the net learns what to add to the bicubic enlargement")
    width: int = option(64, "filters of each layer", least=1)

    command, test_photos = "tinynst train_superres", ("chelsea.jpg", "brandenburg_gate.jpg", "coffee.jpg")

    @property
    def name(self):
        return f"superres-x{self.factor}-{self.loss}" + ("" if self.given else "-short")

    def complete(self):
        self.use({} if self.given else SHORT_RUN)
        super().complete()
        self.init = self.init or "none"
        if self.init != "none" and not self.resume:
            self.start_from(weights.find(self.init, "superres"))

    def check(self):
        super().check()
        if self.image_size % self.factor:
            raise UserError(
                f"--image-size is {self.image_size}; it should be a multiple of --factor {self.factor}"
            )
        if self.loss == "pixel":
            for name, fixed in {
                "feature_layers": [],
                "pixel_weight": 1.0,
                "grid_weight": 0.0,
                "vgg": None,
            }.items():
                if getattr(self, name) not in (None, fixed):
                    raise UserError(f"{flag(name)} belongs to --loss feature; leave it out with --loss pixel")
                setattr(self, name, fixed)
        else:
            self.feature_layers = self.feature_layers or ["relu2_2"]
            self.pixel_weight, self.grid_weight = self.pixel_weight or 0.0, self.grid_weight or 0.0
        styles.layer_weights(self.feature_layers, [1.0], "feature")


class SuperResolutionTask:
    """What a super-resolution net learns from: photos, and what is left of them when they are shrunk. See
    loop.py."""

    def __init__(self, settings, xp, state=None):
        s = self.settings = settings
        self.xp, self.factor = xp, s.factor
        self.rates = {}  # all parameters learn at --lr
        self.title = f"x{s.factor}, {s.loss} loss"
        self.use = f"tinynst superres PHOTO --factor {s.factor} --weights {{}} -o OUT.png"
        self.photos = [self._middle(images.load(path)) for path in s.samples]
        self.dataset = dataset.open_dataset(s.content, side=2 * s.image_size)
        self.net = super_resolution_net(s.factor, s.norm, s.upsample, s.residual, s.width, seed=s.seed, xp=xp)
        if s.start:
            load_init(self.net, s.start[0], s.init, "--factor, --norm, --upsample and --width")
        layers = dict.fromkeys(s.feature_layers, 1.0)
        vgg = VGG16.load(s.vgg, xp) if layers else None
        self.features = StyleObjective(vgg, None, layers, {}, s.tv_weight)

    def _middle(self, photo):
        """The middle of a test photo, of a size that the factor divides."""
        top, left = (max(0, size - SHEET_SIDE) // 2 for size in photo.shape[:2])
        return cut(photo[top : top + SHEET_SIDE, left : left + SHEET_SIDE], self.factor)

    def state(self):
        """What must be unchanged on resume for the same numbers: the count of photos."""
        return {"inputs": {"photos": len(self.dataset)}}

    @contextlib.contextmanager
    def batches(self, start):
        """(number, photos): the number draws where VGG looks."""
        s = self.settings
        with dataset.batches(self.dataset, s.batch, s.image_size, s.seed, start, CROPS) as photos:
            yield enumerate(photos, start)

    def step(self, batch):
        number, high = batch
        corner = np.random.default_rng((self.settings.seed, 2, number)).integers(POOLED, size=2)
        low = np.stack([self._shrunk(photo) for photo in high])
        y = self.net.forward(self.xp.asarray(low), training=True)
        terms, dy = self.objective(y, self.xp.asarray(high), corner)
        self.net.backward(dy, need=("w",))
        return terms

    def _shrunk(self, photo):
        """Whole numbers, as a file holds them, in the same range as the photo: 0..255."""
        return shrink(photo, self.factor, self.settings.degradation).astype(np.float32)

    def objective(self, y, high, corner=(0, 0)):
        """Return ({"feature", "pixel", "tv", "total": weighted float}, gradient by y) for images y and high,
        0..255; with a weight for it also "grid".

        corner: the rows and columns at the top and left that VGG does not see. A max pool looks at squares of
        2x2 pixels; were they always at the same places of the low image's pixels, the net would learn the
        grid that suits them.
        """
        seen = (slice(None), slice(corner[0], None), slice(corner[1], None))
        dy = self.xp.zeros_like(y)
        terms, dy[seen] = self.features(y[seen], self.features.targets(high[seen]))
        terms = {"feature": terms["content"], "pixel": 0.0, "tv": terms["tv"]}
        if self.settings.pixel_weight:
            terms["pixel"], dpixel = pixel_loss(y, high, self.settings.pixel_weight)
            dy += dpixel
        if self.settings.grid_weight:
            terms["grid"], dgrid = grid_loss(y, high, self.settings.grid_weight, self.factor)
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
        """Write the net and how it was made; without folders' names, because the file is made to be
        shared."""
        s = self.settings
        about = {"kind": "superres", "summary": f"{self.title}, {iteration} iterations"}
        about |= {name: getattr(s, name) for name in ("factor", "loss", "degradation")}
        about |= {"iterations": iteration, "photos": len(self.dataset), "losses": losses}
        about |= {"settings": s.public(), "tinynst": __version__}
        weights.save(path, {**self.net.parameters(), **self.net.buffers()}, about)


def train_superres(settings=None):
    """Train a super-resolution net. `settings`: a SuperResSettings; without any, a short run on photos that
    ship.

    Returns the Trainer when it has ended: `.net`; `.losses`, [{"iteration": 1, "feature": ..., "total": ...},
    ...]; `.out`, the folder; `.finished`, False after Ctrl-C. Raises UserError for settings that cannot work.
    """
    return run.train(SuperResolutionTask, settings or SuperResSettings())


def main(arguments=None):
    """The command `tinynst train_superres`."""
    parser = Parser(
        prog="tinynst train_superres",
        description="Train a net that enlarges photos. Without any option: a short run on photos that ship, "
        "about two minutes on two cores. Defaults are the paper's.",
    )
    SuperResSettings.add_options(parser)
    return 0 if train_superres(SuperResSettings(**vars(parser.parse_args(arguments)))).finished else 130
