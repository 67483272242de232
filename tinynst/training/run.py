"""What all runs share: settings, a folder, a checkpoint to resume from; for training also weights to start
from."""

import copy
import dataclasses
from pathlib import Path

import numpy as np

from .. import device
from ..data import checkpoint, images, weights
from ..data.photos import warn
from ..errors import UserError
from ..samples import PHOTOS
from ..settings import Settings, flag, option
from .loop import Trainer

SMALLEST = 16  # pixels of a painting's shorter side
# Names that settings in checkpoints had once
FORMER = {"inputs", "styles", "lr_decay_every", "lr_decay_factor", "layer"}


@dataclasses.dataclass(init=False)
class RunSettings(Settings):
    """What every run has. A subclass adds `command` and `name`, that of a new folder."""

    out: str | None = option(None, "folder for the results (default: a new one in runs/)", metavar="FOLDER")
    resume: bool = option(False, "continue the run in --out with the settings it was started with")
    iterations: int = option(200, "number of steps", least=1)
    every: int = option(500, "steps between checkpoints, each with a plot and test images", least=1)
    seed: int = option(0, "of all random numbers", least=0)
    vgg: str | None = option(None, "another VGG-16 file in Keras's layout", metavar="FILE.h5")
    device: str = option("cpu", "where to compute", choices=("cpu", "cuda"))

    free = frozenset(("resume", "out", "every", "device", "vgg"))  # what may change on --resume

    def complete(self):
        """Fill in the defaults that depend on other settings, and make paths absolute: a run may be resumed
        elsewhere."""
        self.vgg = self.vgg and str(Path(self.vgg).absolute())
        if not self.out:
            k, self.out = 1, f"runs/{self.name}"
            while Path(self.out).exists():
                k += 1
                self.out = f"runs/{self.name}-{k}"

    def check(self):
        """Raise UserError for settings that cannot work, before any work is done."""
        self.check_bounds()

    def use(self, values):
        """Replace defaults by `values`; what was given stays."""
        for name in values.keys() - self.given:
            setattr(self, name, values[name])


@dataclasses.dataclass(init=False)
class TrainingSettings(RunSettings):
    """What every training run has."""

    content: str | None = option(None, "photos (default: 80 that ship)", metavar="FOLDER|FILE.h5")
    samples: list[str] | None = option(None, "test photos (default: three that ship)", metavar="IMAGE")
    init: str | None = option(
        None, "start from these weights; none: from random ones", metavar="NAME|FILE.h5|none"
    )
    batch: int = option(4, "photos per step", least=1)
    image_size: int = option(256, "side of the square crops, in pixels", least=32)
    tv_weight: float = option(0.0, "weight of the total variation: more is smoother", least=0, metavar="W")
    lr: float = option(1e-3, "Adam's learning rate", least=0)
    lr_rise: int = option(0, "let it rise from zero over the first N steps", least=0, metavar="N")
    lr_fall: float = option(0.0, "let it fall to zero over this last part of the run", least=0, most=1)

    free = RunSettings.free | {"iterations", "style", "content", "samples"}
    start = None  # (arrays, about) of the weights at `init`; None: random weights, or a run that is resumed
    test_photos = ()

    def complete(self):
        super().complete()
        self.content = str(Path(self.content or PHOTOS).absolute())
        samples = images.find(self.samples or [PHOTOS / name for name in self.test_photos])
        self.samples = [str(path.absolute()) for path in samples]

    def start_from(self, path):
        """Read the weights at `path`. Raises UserError where they are not finite."""
        self.init, self.start = str(Path(path).absolute()), weights.load(path)
        if not all(np.isfinite(array).all() for array in self.start[0].values()):
            raise UserError(f"--init {path} holds numbers that are not finite: that training diverged")

    def public(self):
        """The settings as they are stored in weights: names without folders, and not where and how the run
        was done."""
        private = ("out", "resume", "samples", "every", "device")
        s = {name: value for name, value in self.to_dict().items() if name not in private}
        s |= {"style": [Path(path).name for path in s["style"]]} if "style" in s else {}
        return s | {name: Path(s[name]).name for name in ("content", "init", "vgg") if s[name]}


def begin(settings):
    """Return (settings, arrays, state): the complete settings of the run, and when it is resumed what its
    checkpoint holds (otherwise None and {}). Raises UserError for settings that cannot work and where results
    would be lost."""
    s, arrays, state = (*_resumed(settings),) if settings.resume else (copy.copy(settings), None, {})
    s.complete()
    s.check()
    out = Path(s.out)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; it should be a folder")
    if not arrays and any((out / name).exists() for name in ("checkpoint.h5", "weights.h5", "result.png")):
        raise UserError(f"{out} holds a run already: continue it with --resume, or choose another --out")
    if s.content and Path(s.content).resolve() in (out.resolve(), *out.resolve().parents):
        raise UserError(
            f"--out {out} lies inside --content {s.content}: its images would be trained on; choose another"
        )
    return s, arrays, state


def _resumed(settings):
    """The settings that the run in settings.out was started with, except those that may change, and its
    checkpoint."""
    if not settings.out:
        raise UserError("--resume needs --out, the folder of the run to continue")
    arrays, state = checkpoint.load(Path(settings.out) / "checkpoint.h5")
    kind, recorded = type(settings), state["settings"]
    names = {field.name for field in dataclasses.fields(settings)}
    foreign = recorded.keys() - names - FORMER
    started = None if foreign else kind(**{name: recorded[name] for name in names & recorded.keys()})
    if foreign or started.command != settings.command:
        raise UserError(
            f"the run in {settings.out} was not started by {settings.command}: "
            "use the command that started it"
        )
    if recorded.get("lr_decay_every"):
        warn("--lr-decay-every no longer exists: from here on the learning rate does not decay")
    before, now = started.to_dict(), {name: getattr(settings, name) for name in settings.given}
    for name in settings.given - started.free:
        changed = kind(**before | {name: now[name]})
        changed.check()
        if getattr(changed, name) != before[name]:
            raise UserError(
                f"{flag(name)} cannot change on --resume: the run was started with {before[name]}"
            )
    state = {
        name: recorded[name] for name in ("inputs", "styles") if name in recorded
    } | state  # where they once were
    return kind(**before | {name: now[name] for name in settings.given & started.free}), arrays, state


def train(task_class, settings):
    """Train as `settings` say and return the Trainer: .net, .losses, .out, .finished (False after Ctrl-C)."""
    s, arrays, state = begin(settings)
    task = task_class(s, device.select(s.device), state)
    trainer = Trainer(task, s)
    if arrays:
        trainer.resume(arrays, state)
    out = trainer.out
    results = {"weights": f"{out / 'weights.h5'}  ({task.use.format(out / 'weights.h5')})"}
    results |= {"losses": out / "losses.png", "picture": out / "samples" / f"{s.iterations:06}.png"}
    return carry_out(
        trainer, s, f"{task.title}: {len(task.dataset)} photos, {s.iterations} iterations", results
    )


def carry_out(loop, settings, what, results):
    """Run `loop` and return it; say before it `what` is done, and after it where the results are."""
    print(f"{what}; results in {loop.out}")
    loop.run()
    if not loop.finished:
        resume = f"{settings.command} --out {loop.out} --resume"
        print(f"stopped at iteration {loop.iteration}, saved; continue with: {resume}")
    for name, where in results.items() if loop.finished else ():
        print(f"{name + ':':8} {where}")
    return loop


def load_init(net, arrays, path, options):
    """Load the arrays of --init `path` into `net`; `options` names those that must fit."""
    try:
        net.load(arrays)
    except ValueError as error:
        raise UserError(f"--init {path} does not fit {options}: {error}") from None


def load_painting(path, longer_side, least=SMALLEST):
    """The painting at `path`, (H, W, 3) float32, RGB in 0..255, resized to `longer_side` pixels. Raises
    UserError for one smaller than SMALLEST pixels, and where the resized one has a side below `least`."""
    width, height = images.open_rgb(path).size
    if min(width, height) < SMALLEST:
        raise UserError(
            f"--style {path} is {width}x{height} pixels: at least {SMALLEST}x{SMALLEST} make a style"
        )
    painting = images.load(path, max(1, round(longer_side)), side="long")
    height, width = painting.shape[:2]
    if min(width, height) < least:
        larger = "give a larger --style-size (optimize: --style-scale or --size)"
        raise UserError(
            f"--style {path} would be used at {width}x{height} pixels, less than {least}: {larger}"
        )
    return painting
