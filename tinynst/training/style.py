"""Train a style net: a photo goes through the net, VGG looks at the result, the losses say what is wrong, the gradient
walks back the same way, and Adam moves the weights. Several paintings: one net with a row of gamma and beta for each."""

import contextlib
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
from . import run as runs

# From a net that paints already, a painting is learnt in about ten minutes on two cores.
FROM_A_NET = {
    "iterations": 800,
    "batch": 1,
    "lr": 1e-3,
    "lr_last": 0.1,
    "lr_rise": 20,
    "lr_fall": 0.5,
    "every": 200,
}
# With no argument at all: about two minutes.
SHORT_RUN = {"iterations": 150, "every": 75}
STYLE = "starry_night.jpg"
SHORT_STYLE = "road_to_tarascon.jpg"  # one that the net that ships does not know

NET = ("norm", "upsample", "width", "padding")  # what style_net is built from, beside the styles
OBJECTIVE = (
    "content_layers",
    "content_weights",
    "style_layers",
    "style_weights",
    "style_size",
    "style_level",
    "tv_weight",
)
TEST_PHOTOS = ("neuschwanstein.jpg", "chelsea.jpg", "coffee.jpg")


class StyleTask:
    """What a style net learns from: photos, and the objectives that paintings set. See `trainer` for the interface.

    settings["styles"]: a record for each row of the net (see styles.py), or one, where the net has no rows. Each step is for
    one of those that are learnt, in an order that the seed decides.
    """

    def __init__(self, settings, xp):
        self.settings, self.xp = settings, xp
        self.paintings = {
            Path(path).stem: _painting(path, settings["style_size"]) for path in settings["style"]
        }
        self.photos = [images.load(path, settings["image_size"]) for path in settings["samples"]]
        self.dataset = dataset.open_dataset(settings["content"], side=2 * settings["image_size"])
        self.names = [record["name"] for record in settings["styles"]]
        for path in settings["style"]:
            if Path(path).stem not in self.names:
                known = ", ".join(self.names)
                raise UserError(
                    f"{path} has changed since the run was started (painting: it was for {known})"
                )
        self.vgg = VGG16.load(settings["vgg"], xp)
        self.objectives = {
            self.names.index(name): self._objective(name, image) for name, image in self.paintings.items()
        }
        if (
            IDENTITY in self.names and settings["learn"] == "all"
        ):  # colours and edges from the first block, no style
            content = runs.layer_weights(settings["content_layers"], settings["content_weights"], "content")
            nothing = StyleObjective(self.vgg, None, {"relu1_2": 1.0, **content}, {}, 0.0)
            self.objectives[self.names.index(IDENTITY)] = nothing
        rows = self.names if len(self.names) > 1 else 1
        build = {name: settings[name] for name in NET} | {"seed": settings["seed"], "xp": xp}
        self.net = style_net(**build, styles=rows)
        if settings["init"] != "none" and not settings["resume"]:
            self._start_from(settings["init"], build)
        if settings["learn"] == "rows":
            self.net.learn_norms_only()
        self.rates = self._rates()

    def _objective(self, name, image):
        """The objective that a painting (H, W, 3) sets; with --style-level, at the start of a run, its weights are found."""
        recorded = self.settings["styles"][self.names.index(name)]["objective"]
        image = self.xp.asarray(image[None])
        made = styles.style_objective(self.vgg, image, recorded)
        level = self.settings["style_level"]
        if not level or not made.style or self.settings["resume"]:
            return made
        photos = [self.xp.asarray(images.load(PHOTOS / photo, 256)[None]) for photo in TEST_PHOTOS]
        now = np.mean(
            [made.value(photo, made.targets(photo)) for photo in photos]
        )  # no content is lost: all of it is style
        recorded["style_weights"] = [
            float(f"{weight * level / now:.3g}") for weight in recorded["style_weights"]
        ]
        return styles.style_objective(self.vgg, image, recorded)

    def _rates(self):
        """Shares of the learning rate. A row of S has a gradient in one step of S, while Adam divides by the mean square over
        all steps: it would move the square root of S times slower than the norms of a net of one style."""
        rows = len(self.objectives) ** 0.5 if self.net.styles else 1.0
        rates = (
            {name: rows for name in self.net.learnt() if name.endswith((".gamma", ".beta"))}
            if rows > 1
            else {}
        )
        return rates | {
            name: self.settings["lr_last"] for name in ("out.w", "out.b") if name in self.net.learnt()
        }

    def _start_from(self, path, build):
        """Begin with the weights at `path`: a row of a name that is there with that row, a new one with the row that suits
        its painting best."""
        arrays, about = runs.read_init(path)
        known = styles.names(about)
        rows = dict.fromkeys(self.names, 0)
        if known:
            old = style_net(**build, styles=known)
            runs.load_init(old, arrays, path, "--norm, --upsample, --width and --padding")
            rows = {
                name: known.index(name) if name in known else self._closest(old, name) for name in self.names
            }
        arrays = styles.with_rows(arrays, list(rows.values()) if self.net.styles else rows[self.names[0]])
        runs.load_init(self.net, arrays, path, "--norm, --upsample, --width and --padding")

    def _closest(self, net, name):
        """The row of `net` with which its pictures of the test photos have the lowest loss for the painting `name`."""
        if name == IDENTITY:
            return 0
        objective, totals = self.objectives[self.names.index(name)], np.zeros(len(net.styles))
        for photo in self.photos:
            photo = self.xp.asarray(images.at_most(photo, 128)[None].astype(np.float32))
            targets = objective.targets(photo)
            totals += [objective.value(net.forward(photo, style=row), targets) for row in range(len(totals))]
        best = int(totals.argmin())
        print(f"{name}: begins as {net.styles[best]}, the nearest style that the net knows")
        return best

    def inputs(self):
        """What a resumed run must find unchanged for its numbers to be the same: the paintings and the count of photos."""
        digest = hashlib.sha256()
        for painting in self.paintings.values():
            digest.update(painting.tobytes())
        return {"painting": digest.hexdigest(), "photos": len(self.dataset)}

    @contextlib.contextmanager
    def batches(self, start):
        """(row, photos) for each step from number `start` on."""
        s = self.settings
        with dataset.Batches(self.dataset, s["batch"], s["image_size"], s["seed"], start) as photos:
            yield zip(self._rows(start), photos, strict=False)

    def _rows(self, start):
        """The row that each step from number `start` on is for: all that are learnt, each round in a new order."""
        rows = sorted(self.objectives)
        for k in itertools.count(start):
            turn, place = divmod(k, len(rows))
            yield rows[np.random.default_rng((self.settings["seed"], 2, turn)).permutation(len(rows))[place]]

    def step(self, batch):
        row, photos = batch
        photos = self.xp.asarray(photos)
        y = self.net.forward(photos, training=True, style=row if self.net.styles else None)
        terms, dy = self.objectives[row](y, self.objectives[row].targets(photos))
        self.net.backward(dy, need=("w",))
        return terms

    def sheet(self):
        """The test photos; under them, for each painting, what the net makes of them. At most six paintings."""
        shown = list(self.paintings)[:6]
        nothing = np.full((1, 1, 3), 255, np.uint8)
        rows = [[nothing, *self.photos]]
        for name in shown:
            results = [self._painted(name, photo) for photo in self.photos]
            rows.append([images.at_most(self.paintings[name], self.settings["image_size"]), *results])
        return images.sheet(rows, [[], *([name] for name in shown)])

    def _painted(self, name, photo=None):
        photo = self.photos[0] if photo is None else photo
        style = name if self.net.styles else None
        return device.to_numpy(self.net.forward(self.xp.asarray(photo[None]), style=style))[0]

    def save_weights(self, path, iteration, losses):
        """The settings go in without folders: the file is made to be given away."""
        s = runs.given_away(self.settings)
        trained = {self.names[row] for row in self.objectives}
        records = [
            r | {"iterations": iteration, "thumbnail": styles.encoded(self._painted(r["name"]))}
            if r["name"] in trained
            else r
            for r in s.pop("styles")
        ]
        shown = [r for r in records if r["name"] != IDENTITY]
        several = f"{len(shown)} styles" if len(shown) > 1 else shown[0]["name"].replace("_", " ")
        about = {
            "kind": "style",
            "summary": f"{several}, {iteration} iterations",
            "style_image": records[0].get("painting"),
            "iterations": iteration,
            "photos": len(self.dataset),
            "losses": losses,
            "styles": records,
            "settings": s,
            "tinynst": __version__,
        }
        alone = next(iter(self.paintings.values())) if len(shown) == 1 else None
        thumbnail = None if alone is None else images.to_uint8(images.at_most(alone, 128))
        weights.save(path, {**self.net.parameters(), **self.net.buffers()}, about, thumbnail=thumbnail)


def _painting(path, longer_side):
    width, height = images.open_rgb(path).size
    if min(width, height) < 16:
        raise UserError(f"--style {path} is {width}x{height} pixels: at least 16x16 make a style")
    return images.load(path, longer_side, side="long")


def _parser():
    parser = Parser(
        prog="tinynst train",
        description="Train a net that paints photos in the style of one painting or of several. It begins as the net that "
        "ships, which paints already, so that ten minutes on two cores are enough; --init none is the paper's way. With no "
        "argument: a short run on the photos and a painting that ship, about two minutes.",
    )
    add = parser.add_argument
    add(
        "--style",
        metavar="IMAGE|FOLDER",
        nargs="+",
        help="the painting; several, or a folder: one net that knows them all (default: The Starry Night, which ships)",
    )
    runs.add_run_options(parser, "NAME-OF-THE-STYLE")
    add(
        "--preset",
        metavar="NAME",
        help="the settings of a style that ships, its losses and the size of the painting; where that does not ship, name it "
        "with --style",
    )
    add(
        "--learn",
        choices=("all", "rows"),
        default="all",
        help="with --init: the whole net, for these paintings alone; or only gamma and beta of their rows, which are added to "
        "those that the net has",
    )
    add("--iterations", type=int, default=40000, help="steps to train")
    add("--batch", type=int, default=4, help="photos a step")
    add("--image-size", type=int, default=256, help="side of the square crops, in pixels")
    add(
        "--style-size",
        type=int,
        default=256,
        help="longer side of the painting, in pixels: larger, larger brush strokes",
    )
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
    add(
        "--style-layers",
        nargs="*",
        default=list(STYLE_LAYERS),
        metavar="LAYER",
        help="where Gram matrices are compared",
    )
    add(
        "--style-weights",
        nargs="*",
        type=float,
        default=[5.0],
        metavar="W",
        help="one, or one for each style layer",
    )
    add(
        "--style-level",
        type=float,
        default=0.0,
        metavar="LOSS",
        help="scale the style weights until photos as they are have this style loss, so that calm paintings and loud ones "
        "count alike (0: leave them)",
    )
    add("--tv-weight", type=float, default=1e-6, help="weight of the total variation: more, smoother")
    add("--norm", choices=tuple(NORMS), default="instance", help="normalisation in the net")
    add("--upsample", choices=STYLE_UPSAMPLINGS, default="transpose", help="how the net enlarges")
    add("--width", type=int, default=32, help="filters of the first layer (the paper's: 32)")
    add(
        "--padding",
        choices=PADDINGS,
        default="outer",
        help="reflection: 40 pixels before the net (the paper's), or at each layer",
    )
    runs.add_schedule_options(parser)
    add(
        "--lr-last",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="share of the learning rate for the last layer: there each number of the picture is a sum of 2,592 products, and "
        "steps of one size throw it about; with 0.1 a fresh net takes 1e-3 at batch 1",
    )
    parser.epilog = (
        "A run that starts from a net takes the net's own --norm, --upsample, --width, --padding and losses, and on the CPU "
        + ", ".join(f"--{name.replace('_', '-')} {value}" for name, value in FROM_A_NET.items())
        + ", where they are not given. The net that ships is the start unless --init, --device cuda or an option of the net "
        "says otherwise."
    )
    return parser


def _check(s):
    """Refuse settings that cannot work before any work is done; returns them with single weights spread over their layers."""
    s = dict(s)
    runs.check_schedule(s)
    for name, least in {
        "image_size": 32,
        "style_size": 16,
        "style_level": 0,
        "tv_weight": 0,
        "lr_last": 0,
    }.items():
        runs.at_least(s, name, least)
    for kind in ("content", "style"):
        layers, values = s[f"{kind}_layers"], s[f"{kind}_weights"]
        runs.layer_weights(layers, values, kind)
        s[f"{kind}_weights"] = values * len(layers) if len(values) == 1 else values
    if not any([*s["content_weights"], *s["style_weights"], s["tv_weight"]]):
        raise UserError("all loss weights are zero: there is nothing to learn")
    return s


def _complete(s, explicit):
    """What has no default in the parser: what ships, what the net brings that the run starts from, and a new folder with the
    style's name. `explicit`: the options that were given."""
    preset = _preset(s["preset"]) if s["preset"] and not s["resume"] else {}
    if preset and not s["style"]:
        if not (STYLES / preset["painting"]).is_file():
            raise UserError(
                f"--preset {s['preset']}: the painting, {styles.described(preset)}, does not ship: name it with --style"
            )
        s["style"] = [STYLES / preset["painting"]]
    s["style"] = [
        str(path) for path in images.find(s["style"] or [STYLES / (STYLE if explicit else SHORT_STYLE)])
    ]
    s["content"] = s["content"] or str(PHOTOS)
    s["samples"] = s["samples"] or [PHOTOS / name for name in TEST_PHOTOS]
    if not s["resume"]:
        if s["init"] is None:
            ours = s["device"] == "cuda" or explicit.keys() & set(NET)
            s["init"] = "none" if ours or styles.GALLERY not in weights.shipped() else styles.GALLERY
        if s["init"] != "none":
            s["init"] = str(styles.resolve(s["init"])[0])
            recorded = runs.read_init(s["init"])[1].get("settings", {})
            s |= {
                name: recorded[name]
                for name in (*NET, *OBJECTIVE)
                if name in recorded and name not in explicit
            }
            if "style_weights" in explicit and "style_level" not in explicit:
                s["style_level"] = 0.0  # weights that were given count as they are
            quick = FROM_A_NET if s["device"] == "cpu" else {}
            s |= {name: value for name, value in quick.items() if name not in explicit}
            s |= SHORT_RUN if not explicit else {}
        if preset:
            objective = preset["objective"] | {"style_level": 0.0}  # its weights were found already
            s |= {name: value for name, value in objective.items() if name not in explicit}
    if "styles" not in s:  # a new run, or one that was begun before nets could have several
        s["styles"] = _records(s)
    name = Path(s["style"][0]).stem if len(s["style"]) == 1 else f"{len(s['style'])}-styles"
    s["out"] = s["out"] or runs.fresh_folder(name if explicit else f"{name}-short")
    return runs.absolute(s)


def _preset(name):
    """The record of a style that ships."""
    known = {key: record for key, record in styles.shipped().items() if record.get("objective")}
    if name not in known:
        raise UserError(f"--preset: no style called {name!r} ships; choose from {', '.join(known)}")
    return known[name]


def _records(s):
    """What the net's rows are for: the paintings, and a row that gives the photo back; after what a net knows already, if only
    rows are learnt."""
    objective = styles.objective(_check(s))
    new = [styles.record(path, dict(objective)) for path in s["style"]]
    names = [record["name"] for record in new]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"--style: two paintings are called {twice}: the name is the style's, so rename one")
    if IDENTITY in names:
        raise UserError(
            f"--style: a painting called {IDENTITY} would be taken for the row without a style: rename it"
        )
    if s["learn"] == "rows":
        if s["init"] == "none":
            raise UserError(
                "--learn rows needs --init, a trained net: without one the whole net must be learnt"
            )
        about = runs.read_init(s["init"])[1]
        if styles.names(about):
            return [record for record in styles.records(about) if record["name"] not in names] + new
    if len(new) > 1 and s["norm"] != "instance":
        raise UserError(f"--norm is {s['norm']}; a net of several styles needs instance norm")
    photo = {"name": IDENTITY, "title": "the photo itself", "objective": None}
    return [*new, photo] if len(new) > 1 else new


def main(arguments=None):
    """The command `python -m tinynst.train`."""
    settings, found = runs.settings(_parser(), arguments, {}, _complete, _check)
    runs.check_folder(settings, resumed=found is not None)
    task = StyleTask(settings, device.select(settings["device"]))
    title = ", ".join(task.paintings)
    use = "tinynst stylize PHOTO --style {} -o OUT.jpg"
    return runs.train(task, settings, found, title, "tinynst train", use)
