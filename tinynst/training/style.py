"""Train a style net: a photo goes through the net, VGG looks at the result, the losses say what is wrong, the
gradient goes back the same way, and Adam updates the weights. Several paintings: one net with a row of gamma
and beta for each."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from .. import device
from ..data import images, styles, weights
from ..data.styles import IDENTITY
from ..errors import UserError
from ..losses import StyleObjective
from ..networks import VGG16, style_net
from ..networks.transform import NORMS, PADDINGS, STYLE_UPSAMPLINGS
from ..samples import PHOTOS, STYLES
from ..settings import option
from . import run
from .run import LossSettings, load_painting
from .task import TrainingSettings, TrainingTask

# From a net that can already paint, a painting is learned in about ten minutes on two cores.
FROM_A_NET = dict(iterations=800, batch=1, lr=1e-3, lr_last=0.1, lr_rise=20, lr_fall=0.5, every=200)
SHORT_RUN = {"iterations": 150, "every": 75}  # without any option: about two minutes
STYLE, SHORT_STYLE = "starry_night.jpg", "road_to_tarascon.jpg"  # the shipped net does not know the second
TEST_PHOTOS = ("neuschwanstein.jpg", "chelsea.jpg", "coffee.jpg")

# What a run takes from the net that it starts from: how it is built, and what it was trained for
NET = ("norm", "upsample", "width", "padding")
OBJECTIVE = ("content_layers", "content_weights", "style_layers", "style_weights", "tv_weight")
OBJECTIVE += ("style_size", "style_level")


@dataclasses.dataclass(init=False)
class StyleSettings(LossSettings, TrainingSettings):
    """The settings of `tinynst train`, with the same names and defaults."""

    style: list[str] | None = option(None, "paintings (default: The Starry Night)", metavar="IMAGE|FOLDER")
    preset: str | None = option(None, "the losses and painting size of a shipped style", metavar="NAME")
    learn: str = option("all", "the whole net; or only new rows for --init", choices=("all", "rows"))
    iterations: int = option(40000, "training steps", least=1)
    style_size: int = option(256, "longer side of the painting: larger gives larger strokes", least=16)
    style_level: float = option(0.0, "scale the style weights: plain photos get this style loss", least=0)
    norm: str = option("instance", "normalisation in the net", choices=tuple(NORMS))
    upsample: str = option("transpose", "how the net enlarges", choices=STYLE_UPSAMPLINGS)
    width: int = option(32, "filters of the first layer (the paper's: 32)", least=1, most=4096)
    padding: str = option("outer", "reflect 40 pixels before the net, or at each layer", choices=PADDINGS)
    lr_last: float = option(1.0, "factor on the last layer's rate: try 0.1 for a new net at batch 1", least=0)

    command, test_photos = "tinynst train", TEST_PHOTOS

    def complete(self):
        preset = _preset(self.preset) if self.preset and not self.resume else None
        if preset and not self.style:
            self.style = [STYLES / preset["painting"]]
            if not self.style[0].is_file():
                painting = styles.described(preset)
                raise UserError(f"--preset {self.preset}: {painting} does not ship: give it with --style")
        paths = images.find(self.style or [STYLES / (STYLE if self.given else SHORT_STYLE)])
        self.style = [str(path.absolute()) for path in paths]
        if not self.resume:
            self._take_from_init()
        if preset:  # its weights are already scaled
            self.use(preset["objective"] | {"style_level": 0.0})
        super().complete()

    @property
    def name(self):
        stem = Path(self.style[0]).stem if len(self.style) == 1 else f"{len(self.style)}-styles"
        return stem if self.given else f"{stem}-short"

    def _take_from_init(self):
        """Start from the shipped net unless the device or an option of the net says otherwise."""
        if self.init is None:
            new = self.device != "cpu" or self.given & set(NET) or styles.GALLERY not in weights.shipped()
            self.init = "none" if new else styles.GALLERY
        if self.init != "none":
            self.start_from(styles.resolve(self.init)[0])
            recorded = self.start[1].get("settings", {})
            self.use({name: recorded[name] for name in (*NET, *OBJECTIVE) if name in recorded})
            if "style_weights" in self.given:  # they are not scaled
                self.use({"style_level": 0.0})
            self.use(FROM_A_NET if self.device == "cpu" else {})
            self.use({} if self.given else SHORT_RUN)


class StyleTask(TrainingTask):
    """A style net learns from photos and an objective for each painting.

    records: one for each row of the net (see data/styles.py), or one if the net has no rows. Each step is for
    one of the rows that are learned: a round takes all of them, in a random order.
    """

    use = "tinynst stylize PHOTO --style {} -o OUT.jpg"

    def __init__(self, settings, xp, arrays=None, state=None):
        super().__init__(settings, xp)
        s, self.records = settings, (state or {}).get("styles") or _records(settings)
        self.names = [record["name"] for record in self.records]
        self.paintings = {Path(path).stem: load_painting(path, s.style_size) for path in s.style}
        if not self.paintings.keys() <= set(self.names):
            known = f"(painting: {', '.join(self.names)}, now {', '.join(self.paintings)})"
            raise UserError(f"--style has changed since the run was started {known}")
        self.title = f"{', '.join(self.paintings)}: {len(self.dataset)} photos"
        self.photos = [images.load(path, s.image_size) for path in s.samples]
        self.vgg = VGG16.load(s.vgg, xp)
        self.objectives = {self.names.index(name): self._objective(name) for name in self.paintings}
        if IDENTITY in self.names and s.learn == "all":  # colours and edges from the first block, no style
            content = {"relu1_2": 1.0, **styles.layer_weights(s.content_layers, s.content_weights, "content")}
            self.objectives[self.names.index(IDENTITY)] = StyleObjective(self.vgg, None, content, {}, 0.0)
        build = {name: getattr(s, name) for name in (*NET, "seed")} | {"xp": xp}
        net = style_net(**build, styles=self.names if len(self.names) > 1 else 1)
        if s.start:
            self._start_from(*s.start, net, build)
        if s.learn == "rows":
            net.learn_norms_only()
        self.learn(net, self._rates(net))

    def _objective(self, name):
        """The objective of a painting; at the start of a run with --style-level its weights are scaled."""
        recorded = self.records[self.names.index(name)]["objective"]
        image = self.xp.asarray(self.paintings[name][None])
        made, level = styles.style_objective(self.vgg, image, recorded), self.settings.style_level
        if not level or not made.style or self.settings.resume:
            return made
        photos = [self.xp.asarray(images.load(PHOTOS / photo, 256)[None]) for photo in TEST_PHOTOS]
        losses = [made.value(photo, made.targets(photo)) for photo in photos]  # all style, no content
        scale = level / np.mean(losses)
        recorded["style_weights"] = [float(f"{weight * scale:.3g}") for weight in recorded["style_weights"]]
        return styles.style_objective(self.vgg, image, recorded)

    def _start_from(self, arrays, about, net, build):
        """Copy the weights of --init. A row whose name is known takes that row, a new one the row that suits
        its painting best."""
        fit = "--norm, --upsample, --width and --padding"
        known, rows = styles.names(about), [0] * len(self.names)
        if known:
            old = style_net(**build, styles=known)
            self.load_init(old, arrays, fit)
            rows = [known.index(name) if name in known else self._closest(old, name) for name in self.names]
        self.load_init(net, styles.with_rows(arrays, rows if net.styles else rows[0]), fit)

    def _closest(self, net, name):
        """The row of `net` with which its results for the test photos have the lowest loss for painting
        `name`."""
        if name == IDENTITY:
            return 0
        objective, totals = self.objectives[self.names.index(name)], np.zeros(len(net.styles))
        for photo in self.photos:
            photo = self.xp.asarray(images.at_most(photo, 128)[None].astype(np.float32))
            targets = objective.targets(photo)
            totals += [objective.value(net.forward(photo, style=row), targets) for row in range(len(totals))]
        best = int(totals.argmin())
        print(f"{name}: starts as {net.styles[best]}, the closest style of the net")
        return best

    def _rates(self, net):
        """A row of S has a gradient in one step of S, but Adam divides by the mean square over all steps:
        without the factor sqrt(S) it would move that much slower than the norms of a net of one style."""
        factor = len(self.objectives) ** 0.5
        norms = [name for name in net.learnt() if name.endswith((".gamma", ".beta"))]
        rates = dict.fromkeys(norms, factor) if net.styles and factor > 1 else {}
        return rates | {name: self.settings.lr_last for name in ("out.w", "out.b") if name in net.learnt()}

    def inputs(self):
        digest = hashlib.sha256(b"".join(painting.tobytes() for painting in self.paintings.values()))
        return {"painting": digest.hexdigest(), **super().inputs()}

    def state(self):
        return super().state() | {"styles": self.records}

    def choose(self, k):
        """The row that step k is for."""
        rows = sorted(self.objectives)
        turn, place = divmod(k, len(rows))
        return rows[np.random.default_rng((self.settings.seed, 2, turn)).permutation(len(rows))[place]]

    def step(self, batch):
        row, photos = batch
        photos = self.xp.asarray(photos)
        y = self.net.forward(photos, training=True, style=row if self.net.styles else None)
        terms, dy = self.objectives[row](y, self.objectives[row].targets(photos), read=False)
        self.net.backward(dy, need=("w",))
        return terms

    def sample(self):
        """The test photos; below them, for each of at most six paintings, what the net makes of them."""
        shown, empty = list(self.paintings)[:6], np.full((1, 1, 3), 255, np.uint8)
        rows = [[empty, *self.photos]]
        for name in shown:
            painting = images.at_most(self.paintings[name], self.settings.image_size)
            rows.append([painting, *(self._painted(name, photo) for photo in self.photos)])
        return images.sheet(rows, [[], *([name] for name in shown)])

    def _painted(self, name, photo):
        style = name if self.net.styles else None
        return device.to_numpy(self.net.forward(self.xp.asarray(photo[None]), style=style))[0]

    def about(self):
        records = self.records.copy()
        for row in self.objectives:
            thumbnail = styles.encoded(self._painted(self.names[row], self.photos[0]))
            records[row] = records[row] | {"iterations": self.iteration, "thumbnail": thumbnail}
        shown = [name for name in self.names if name != IDENTITY]
        what = f"{len(shown)} styles" if len(shown) > 1 else shown[0].replace("_", " ")
        about = {"summary": f"{what}, {self.iteration} iterations", "styles": records}
        about["style_image"] = records[0].get("painting")
        painting = images.to_uint8(images.at_most(next(iter(self.paintings.values())), 128))
        return about, painting if len(shown) == 1 else None


def _preset(name):
    """The record of a style that ships."""
    known = {key: record for key, record in styles.shipped().items() if record.get("objective")}
    if name not in known:
        raise UserError(f"--preset: no style called {name!r} ships; choose from {', '.join(known)}")
    return known[name]


def _records(s):
    """A record for each row: the paintings', and a row that reproduces the photo if there are several. With
    --learn rows those of the net come first."""
    objective = styles.objective(s.to_dict())
    new = [styles.record(path, dict(objective)) for path in s.style]
    names = [record["name"] for record in new]
    for name in names:
        if names.count(name) > 1 or name == IDENTITY:
            taken = "two paintings are" if name != IDENTITY else "the row without a style is"
            raise UserError(f"--style: {taken} called {name}: a style is named after its file, so rename it")
    if s.learn == "rows" and not s.start:
        raise UserError("--learn rows needs --init, a trained net")
    if s.learn == "rows" and styles.names(s.start[1]):
        return [record for record in styles.records(s.start[1]) if record["name"] not in names] + new
    if len(new) > 1 and s.norm != "instance":
        raise UserError(f"--norm is {s.norm}; a net of several styles needs instance norm")
    return [*new, {"name": IDENTITY, "title": "the photo itself", "objective": None}] if len(new) > 1 else new


def train(settings=None):
    """Train a style net. `settings`: a StyleSettings; None: a short run on a painting and photos that ship.
    Returns the run when it has ended: `.net`; `.losses`, [{"iteration": 1, "content": ..., "total": ...},
    ...]; `.out`, the folder; `.finished`, False after Ctrl-C. Raises UserError for settings that cannot
    work."""
    return run.carry_out(StyleTask, settings or StyleSettings())
