"""Train a style net: a photo goes through the net, VGG looks at the result, the losses say what is wrong, the
gradient goes back the same way, and Adam updates the weights. Several paintings: one net with a row of gamma
and beta for each."""

import contextlib
import dataclasses
import hashlib
import itertools
from pathlib import Path

import numpy as np

from .. import __version__, device
from ..cli import Parser
from ..data import images, styles, weights
from ..data import photos as dataset
from ..data.styles import IDENTITY
from ..errors import UserError
from ..losses import StyleObjective
from ..networks import VGG16, style_net
from ..networks.transform import NORMS, PADDINGS, STYLE_UPSAMPLINGS
from ..networks.vgg import STYLE_LAYERS
from ..samples import PHOTOS, STYLES
from ..settings import flag, option
from . import run
from .run import TrainingSettings, load_init, load_painting

# From a net that can already paint, a painting is learned in about ten minutes on two cores.
FROM_A_NET = {
    "iterations": 800,
    "batch": 1,
    "lr": 1e-3,
    "lr_last": 0.1,
    "lr_rise": 20,
    "lr_fall": 0.5,
    "every": 200,
}
SHORT_RUN = {"iterations": 150, "every": 75}  # without any option: about two minutes
STYLE, SHORT_STYLE = (
    "starry_night.jpg",
    "road_to_tarascon.jpg",
)  # the second is not among those of the shipped net
TEST_PHOTOS = ("neuschwanstein.jpg", "chelsea.jpg", "coffee.jpg")

# What a run takes from the net that it starts from: how it is built, and what it was trained for
NET = ("norm", "upsample", "width", "padding")
OBJECTIVE = (
    "content_layers",
    "content_weights",
    "style_layers",
    "style_weights",
    "style_size",
    "style_level",
    "tv_weight",
)


@dataclasses.dataclass(init=False)
class StyleSettings(TrainingSettings):
    """The settings of `tinynst train`, with the same names and defaults."""

    style: list[str] | None = option(
        None,
        "the painting; several, or a folder: one net for all (default: The Starry Night)",
        metavar="IMAGE|FOLDER",
    )
    preset: str | None = option(
        None,
        "the losses and painting size of a shipped style; if its painting does not ship, give --style",
        metavar="NAME",
    )
    learn: str = option(
        "all",
        "with --init: the whole net; or only rows, which are added to the net's",
        choices=("all", "rows"),
    )
    iterations: int = option(40000, "training steps", least=1)
    style_size: int = option(
        256, "longer side of the painting, in pixels: larger gives larger strokes", least=16
    )
    content_layers: list[str] = option(["relu3_3"], "where contents are compared", nargs="*", metavar="LAYER")
    content_weights: list[float] = option([1.0], "one, or one for each content layer", nargs="*", metavar="W")
    style_layers: list[str] = option(
        list(STYLE_LAYERS), "where Gram matrices are compared", nargs="*", metavar="LAYER"
    )
    style_weights: list[float] = option([5.0], "one, or one for each style layer", nargs="*", metavar="W")
    style_level: float = option(
        0.0,
        "scale the style weights until plain photos have this style loss (0: do not)",
        least=0,
        metavar="LOSS",
    )
    tv_weight: float = option(1e-6, "weight of the total variation: more is smoother", least=0, metavar="W")
    norm: str = option("instance", "normalisation in the net", choices=tuple(NORMS))
    upsample: str = option("transpose", "how the net enlarges", choices=STYLE_UPSAMPLINGS)
    width: int = option(32, "filters of the first layer (the paper's: 32)", least=1)
    padding: str = option("outer", "reflect 40 pixels before the net, or at each layer", choices=PADDINGS)
    lr_last: float = option(
        1.0,
        "factor on the learning rate of the last layer: with 0.1 a new net takes 1e-3 at batch 1",
        least=0,
    )

    command, test_photos = "tinynst train", TEST_PHOTOS

    def complete(self):
        preset = _preset(self.preset) if self.preset and not self.resume else None
        if preset and not self.style:
            if not (STYLES / preset["painting"]).is_file():
                painting = styles.described(preset)
                raise UserError(
                    f"--preset {self.preset}: {painting} does not ship: give the painting with --style"
                )
            self.style = [STYLES / preset["painting"]]
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
        """The shipped net is the start unless the device or an option of the net says otherwise."""
        if self.init is None:
            from_scratch = (
                self.device == "cuda" or self.given & set(NET) or styles.GALLERY not in weights.shipped()
            )
            self.init = "none" if from_scratch else styles.GALLERY
        if self.init != "none":
            self.start_from(styles.resolve(self.init)[0])
            recorded = self.start[1].get("settings", {})
            self.use({name: recorded[name] for name in (*NET, *OBJECTIVE) if name in recorded})
            if "style_weights" in self.given:  # they count as they are
                self.use({"style_level": 0.0})
            self.use(FROM_A_NET if self.device == "cpu" else {})
            self.use({} if self.given else SHORT_RUN)

    def check(self):
        super().check()
        for kind in ("content", "style"):
            layers, values = getattr(self, f"{kind}_layers"), getattr(self, f"{kind}_weights")
            styles.layer_weights(layers, values, kind)
            setattr(self, f"{kind}_weights", values * len(layers) if len(values) == 1 else values)
        if not any([*self.content_weights, *self.style_weights, self.tv_weight]):
            raise UserError("all loss weights are zero: there is nothing to learn")


class StyleTask:
    """What a style net learns from: photos, and the objectives of the paintings. See loop.py for the
    interface.

    records: one for each row of the net (see data/styles.py), or one where the net has no rows; `state` has
    them when a run is resumed. Each step is for one of the rows that are learned, in an order that the seed
    decides.
    """

    use = "tinynst stylize PHOTO --style {} -o OUT.jpg"

    def __init__(self, settings, xp, state=None):
        s = self.settings = settings
        self.xp, self.records = xp, (state or {}).get("styles") or _records(s)
        self.names = [record["name"] for record in self.records]
        self.paintings = {Path(path).stem: load_painting(path, s.style_size) for path in s.style}
        self.title = ", ".join(self.paintings)
        self.photos = [images.load(path, s.image_size) for path in s.samples]
        self.dataset = dataset.open_dataset(s.content, side=2 * s.image_size)
        for path in s.style:
            if Path(path).stem not in self.names:
                known = ", ".join(self.names)
                raise UserError(
                    f"{path} has changed since the run was started (painting: it was for {known})"
                )
        self.vgg = VGG16.load(s.vgg, xp)
        self.objectives = {self.names.index(name): self._objective(name) for name in self.paintings}
        if IDENTITY in self.names and s.learn == "all":  # colours and edges from the first block, no style
            content = {"relu1_2": 1.0, **styles.layer_weights(s.content_layers, s.content_weights, "content")}
            self.objectives[self.names.index(IDENTITY)] = StyleObjective(self.vgg, None, content, {}, 0.0)
        build = {name: getattr(s, name) for name in (*NET, "seed")} | {"xp": xp}
        self.net = style_net(**build, styles=self.names if len(self.names) > 1 else 1)
        if s.start:
            self._start_from(*s.start, build)
        if s.learn == "rows":
            self.net.learn_norms_only()
        # A row of S has a gradient in one step of S, but Adam divides by the mean square over all steps:
        # without this factor it would move sqrt(S) times slower than the norms of a net of one style.
        factor = len(self.objectives) ** 0.5 if self.net.styles else 1.0
        norms = {
            name: factor for name in self.net.learnt() if name.endswith((".gamma", ".beta")) and factor > 1
        }
        self.rates = norms | {name: s.lr_last for name in ("out.w", "out.b") if name in self.net.learnt()}

    def _objective(self, name):
        """The objective of a painting; at the start of a run with --style-level its weights are scaled."""
        recorded = self.records[self.names.index(name)]["objective"]
        image = self.xp.asarray(self.paintings[name][None])
        made, level = styles.style_objective(self.vgg, image, recorded), self.settings.style_level
        if not level or not made.style or self.settings.resume:
            return made
        photos = [self.xp.asarray(images.load(PHOTOS / photo, 256)[None]) for photo in TEST_PHOTOS]
        now = np.mean(
            [made.value(photo, made.targets(photo)) for photo in photos]
        )  # no content is lost: all is style
        recorded["style_weights"] = [
            float(f"{weight * level / now:.3g}") for weight in recorded["style_weights"]
        ]
        return styles.style_objective(self.vgg, image, recorded)

    def _start_from(self, arrays, about, build):
        """Begin with given weights: a row whose name is known with that row, a new one with the row that
        suits its painting best."""
        fit = (self.settings.init, "--norm, --upsample, --width and --padding")
        known, rows = styles.names(about), dict.fromkeys(self.names, 0)
        if known:
            old = style_net(**build, styles=known)
            load_init(old, arrays, *fit)
            rows = {
                name: known.index(name) if name in known else self._closest(old, name) for name in self.names
            }
        arrays = styles.with_rows(arrays, list(rows.values()) if self.net.styles else rows[self.names[0]])
        load_init(self.net, arrays, *fit)

    def _closest(self, net, name):
        """The row of `net` with which its results for the test photos have the lowest loss for the painting
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

    def state(self):
        """What must be unchanged on resume for the same numbers, the paintings and the count of photos; and
        the records."""
        digest = hashlib.sha256(b"".join(painting.tobytes() for painting in self.paintings.values()))
        inputs = {"painting": digest.hexdigest(), "photos": len(self.dataset)}
        return {"inputs": inputs, "styles": self.records}

    @contextlib.contextmanager
    def batches(self, start):
        """(row, photos) for each step from number `start` on."""
        s = self.settings
        with dataset.batches(self.dataset, s.batch, s.image_size, s.seed, start) as photos:
            yield zip(self._rows(start), photos, strict=False)

    def _rows(self, start):
        """The row that each step from number `start` on is for: each round all that are learned, in a new
        order."""
        rows = sorted(self.objectives)
        for k in itertools.count(start):
            turn, place = divmod(k, len(rows))
            yield rows[np.random.default_rng((self.settings.seed, 2, turn)).permutation(len(rows))[place]]

    def step(self, batch):
        row, photos = batch
        photos = self.xp.asarray(photos)
        y = self.net.forward(photos, training=True, style=row if self.net.styles else None)
        terms, dy = self.objectives[row](y, self.objectives[row].targets(photos))
        self.net.backward(dy, need=("w",))
        return terms

    def sheet(self):
        """The test photos; under them, for each painting, what the net makes of them. At most six
        paintings."""
        shown = list(self.paintings)[:6]
        nothing = np.full((1, 1, 3), 255, np.uint8)
        rows = [[nothing, *self.photos]]
        for name in shown:
            results = [self._painted(name, photo) for photo in self.photos]
            rows.append([images.at_most(self.paintings[name], self.settings.image_size), *results])
        return images.sheet(rows, [[], *([name] for name in shown)])

    def _painted(self, name, photo=None):
        photo = self.photos[0] if photo is None else photo
        style = name if self.net.styles else None
        return device.to_numpy(self.net.forward(self.xp.asarray(photo[None]), style=style))[0]

    def save_weights(self, path, iteration, losses):
        """Without folders' names: the file is made to be shared."""
        records, trained = self.records.copy(), [self.names[row] for row in self.objectives]
        for k, record in enumerate(records):
            if record["name"] in trained:
                thumbnail = styles.encoded(self._painted(record["name"]))
                records[k] = record | {"iterations": iteration, "thumbnail": thumbnail}
        shown = [record for record in records if record["name"] != IDENTITY]
        several = f"{len(shown)} styles" if len(shown) > 1 else shown[0]["name"].replace("_", " ")
        about = {"kind": "style", "summary": f"{several}, {iteration} iterations"}
        about |= {
            "style_image": records[0].get("painting"),
            "iterations": iteration,
            "photos": len(self.dataset),
        }
        about |= {
            "losses": losses,
            "styles": records,
            "settings": self.settings.public(),
            "tinynst": __version__,
        }
        alone = next(iter(self.paintings.values())) if len(shown) == 1 else None
        thumbnail = None if alone is None else images.to_uint8(images.at_most(alone, 128))
        weights.save(path, {**self.net.parameters(), **self.net.buffers()}, about, thumbnail=thumbnail)


def _preset(name):
    """The record of a style that ships."""
    known = {key: record for key, record in styles.shipped().items() if record.get("objective")}
    if name not in known:
        raise UserError(f"--preset: no style called {name!r} ships; choose from {', '.join(known)}")
    return known[name]


def _records(s):
    """What the net's rows are for: the paintings, and a row that reproduces the photo; if only rows are
    learned, these come after the ones that the net has."""
    objective = styles.objective(s.to_dict())
    new = [styles.record(path, dict(objective)) for path in s.style]
    names = [record["name"] for record in new]
    for name in names:
        if names.count(name) > 1:
            raise UserError(
                f"--style: two paintings are called {name}: a style is named after its file, so rename one"
            )
    if IDENTITY in names:
        raise UserError(f"--style: {IDENTITY} is the name of the row without a style: rename the painting")
    if s.learn == "rows":
        if not s.start:
            raise UserError(
                "--learn rows needs --init, a trained net: without one the whole net must be learned"
            )
        if styles.names(s.start[1]):
            return [record for record in styles.records(s.start[1]) if record["name"] not in names] + new
    if len(new) > 1 and s.norm != "instance":
        raise UserError(f"--norm is {s.norm}; a net of several styles needs instance norm")
    return [*new, {"name": IDENTITY, "title": "the photo itself", "objective": None}] if len(new) > 1 else new


def train(settings=None):
    """Train a style net. `settings`: a StyleSettings; without any, a short run on a painting and photos that
    ship.

    Returns the Trainer when it has ended: `.net`; `.losses`, [{"iteration": 1, "content": ..., "style": ...,
    "tv": ..., "total": ...}, ...]; `.out`, the folder; `.finished`, False after Ctrl-C. Raises UserError for
    settings that cannot work.
    """
    return run.train(StyleTask, settings or StyleSettings())


def main(arguments=None):
    """The command `tinynst train`."""
    quick = ", ".join(f"{flag(name)} {value}" for name, value in FROM_A_NET.items())
    parser = Parser(
        prog="tinynst train",
        description="Train a net that paints photos in the style of one painting or several. It starts "
        "from the shipped net, which can already paint, so that ten minutes on two cores are enough; --init "
        "none is the paper's way. Without any option: a short run on photos and a painting that ship, "
        "about two minutes.",
        epilog="A run that starts from a net takes its --norm, --upsample, --width, --padding and losses, "
        f"and on the CPU {quick}, where they are not given. The shipped net is the start unless --init, "
        "--device cuda or an option of the net is given.",
    )
    StyleSettings.add_options(parser)
    return 0 if train(StyleSettings(**vars(parser.parse_args(arguments)))).finished else 130
