"""Train a super-resolution net: a photo is shrunk, the net enlarges it again, the loss compares the result
with the photo, per pixel or in VGG's features, the gradient goes back, and Adam updates the weights."""

import dataclasses

import numpy as np

from .. import device, ops
from ..data import images, styles, weights
from ..data.degradation import DEGRADATIONS, cut, shrink
from ..errors import UserError
from ..losses import StyleObjective, grid_loss, pixel_loss
from ..networks import VGG16, super_resolution_net
from ..networks.transform import FACTORS, SUPERRES_NORMS, UPSAMPLINGS
from ..settings import flag, option
from . import run
from .task import TrainingSettings, TrainingTask

# Without any option: about two minutes on two cores, enough to be sharper than bicubic enlargement
SHORT_RUN = dict(iterations=500, image_size=96, every=250, norm="none", upsample="nearest", residual=True)
SHORT_RUN |= dict(degradation="bicubic", loss="pixel", lr=5e-4, lr_rise=50, lr_fall=0.5)
POOLED = 8  # VGG's pools before relu4_1 are in step with every eighth pixel
SHEET_SIDE = 192  # pixels of the middle of each test photo in the sheet


@dataclasses.dataclass(init=False)
class SuperResSettings(TrainingSettings):
    """The settings of `tinynst train_superres`, with the same names and defaults."""

    factor: int = option(4, "how many times larger the result is on each side", choices=FACTORS)
    loss: str = option("feature", "compare VGG's features, or pixels", choices=("feature", "pixel"))
    iterations: int = option(200000, "training steps", least=1)
    image_size: int = option(
        288, "side of the square crops, in pixels: a multiple of the factor", least=32, most=16384
    )
    degradation: str = option("paper", "how to shrink; paper: blurred before", choices=DEGRADATIONS)
    feature_layers: list[str] | None = option(None, "for --loss feature (default: relu2_2)", metavar="LAYER")
    pixel_weight: float | None = option(
        None, "of the pixel loss next to --loss feature (default: 0)", least=0
    )
    grid_weight: float | None = option(None, "of a loss against grids, likewise (default: 0)", least=0)
    norm: str = option("batch", "normalisation in the net", choices=SUPERRES_NORMS)
    upsample: str = option("transpose", "how the net enlarges", choices=UPSAMPLINGS)
    residual: bool = option(False, "the net learns what to add to the bicubic enlargement")
    width: int = option(64, "filters of each layer", least=1, most=4096)

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
            rule = f"a multiple of --factor {self.factor}"
            raise UserError(f"--image-size is {self.image_size}; it should be {rule}")
        defaults = {"feature_layers": ["relu2_2"], "pixel_weight": 0.0, "grid_weight": 0.0}
        if self.loss == "pixel":
            defaults = {"feature_layers": [], "pixel_weight": 1.0, "grid_weight": 0.0, "vgg": None}
        for name, default in defaults.items():
            if self.loss == "pixel" and getattr(self, name) not in (None, default):
                raise UserError(f"{flag(name)} belongs to --loss feature; leave it out with --loss pixel")
            setattr(self, name, getattr(self, name) or default)
        styles.layer_weights(self.feature_layers, [1.0], "feature")


class SuperResolutionTask(TrainingTask):
    """A super-resolution net learns from photos and what is left of them when they are shrunk."""

    crops = (0.0, 0.5)  # crops at the photo's own resolution, or little below it, are the sharpest

    def __init__(self, settings, xp, arrays=None, state=None):
        super().__init__(settings, xp)
        s, self.factor = settings, settings.factor
        self.title = f"x{s.factor}, {s.loss} loss: {len(self.dataset)} photos"
        self.use = f"tinynst superres PHOTO --factor {s.factor} --weights {{}} -o OUT.png"
        self.photos = [self._middle(images.load(path)) for path in s.samples]
        net = super_resolution_net(s.factor, s.norm, s.upsample, s.residual, s.width, seed=s.seed, xp=xp)
        if s.start:
            self.load_init(net, s.start[0], "--factor, --norm, --upsample and --width")
        self.learn(net)
        vgg = VGG16.load(s.vgg, xp) if s.feature_layers else None
        layers = dict.fromkeys(s.feature_layers, 1.0)
        self.features = StyleObjective(vgg, None, layers, {}, s.tv_weight)

    def _middle(self, photo):
        """The middle of a test photo, of a size that the factor divides."""
        top, left = (max(0, size - SHEET_SIDE) // 2 for size in photo.shape[:2])
        return cut(photo[top : top + SHEET_SIDE, left : left + SHEET_SIDE], self.factor)

    def _shrunk(self, photo):
        return shrink(photo, self.factor, self.settings.degradation).astype(np.float32)

    def choose(self, k):
        """How many rows at the top and columns at the left VGG does not see in step k. A max pool looks at
        squares of 2x2 pixels. If they were always at the same places of the low image's pixels, the net
        would learn the grid that suits them."""
        return np.random.default_rng((self.settings.seed, 2, k)).integers(POOLED, size=2)

    def step(self, batch):
        corner, high = batch
        low = np.stack([self._shrunk(photo) for photo in high])
        y = self.net.forward(self.xp.asarray(low), training=True)
        terms, dy = self.objective(y, self.xp.asarray(high), corner)
        self.net.backward(dy, need=("w",))
        return terms

    def objective(self, y, high, corner=(0, 0)):
        """Return ({"feature", "pixel", "tv", "total": weighted number}, gradient with respect to y) for
        images y and high, 0..255; with a weight for it also "grid"."""
        s, seen = self.settings, (slice(None), slice(corner[0], None), slice(corner[1], None))
        dy = self.xp.zeros_like(y)
        terms, dy[seen] = self.features(y[seen], self.features.targets(high[seen]), read=False)
        terms = {"feature": terms["content"], "pixel": 0.0, "tv": terms["tv"]}
        if s.pixel_weight:
            terms["pixel"], dpixel = pixel_loss(y, high, s.pixel_weight)
            dy += dpixel
        if s.grid_weight:
            terms["grid"], dgrid = grid_loss(y, high, s.grid_weight, self.factor)
            dy += dgrid
        return terms | {"total": sum(terms.values())}, dy

    def sample(self):
        """A row for each test photo: the low image with visible pixels, bicubic, the net, the photo."""
        rows = []
        for photo in self.photos:
            low = self._shrunk(photo)[None]
            enlarged = [ops.upsample_nearest(low, self.factor)[0], ops.upsample_bicubic(low, self.factor)[0]]
            enlarged.append(device.to_numpy(self.net.forward(self.xp.asarray(low))))
            rows.append([*(each[0] for each in enlarged), photo])
        return images.sheet(rows, [["low", "bicubic", "net", "truth"]] * len(rows))

    def about(self):
        s = self.settings
        summary = f"x{s.factor}, {s.loss} loss, {self.iteration} iterations"
        return {"summary": summary, "loss": s.loss, "degradation": s.degradation}, None


def train_superres(settings=None):
    """Train a super-resolution net. `settings`: a SuperResSettings; None: a short run on photos that ship.
    Returns the run and raises errors as `train` in style.py."""
    return run.carry_out(SuperResolutionTask, settings or SuperResSettings())
