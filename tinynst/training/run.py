"""What all runs share: settings, a folder for the results, and a checkpoint to resume from."""

import contextlib
import copy
import dataclasses
from pathlib import Path

from .. import device
from ..data import checkpoint, images
from ..data.files import check_folder
from ..data.photos import warn
from ..data.styles import layer_weights
from ..errors import UserError
from ..networks.vgg import STYLE_LAYERS
from ..settings import Settings, flag, option
from .loop import UNFIT

SMALLEST = 16  # pixels of a painting's shorter side, as it is used

# The settings in older checkpoints also hold these parts of the state, and these options, which are ignored
FORMER_STATE, FORMER_OPTIONS = {"inputs", "styles"}, {"lr_decay_every", "lr_decay_factor", "layer"}


@dataclasses.dataclass(init=False)
class RunSettings(Settings):
    """What every run has. A subclass adds `command` and `name`, that of a new folder."""

    out: str | None = option(None, "folder for the results (default: a new one in runs/)", metavar="FOLDER")
    resume: bool = option(False, "continue the run in --out with the settings it was started with")
    iterations: int = option(200, "number of steps", least=1)
    every: int = option(500, "steps between checkpoints, each with a plot and test images", least=1)
    seed: int = option(0, "of all random numbers", least=0)
    vgg: str | None = option(None, "another VGG-16 file in Keras's layout", metavar="FILE.h5")
    device: str = option("cpu", device.HELP)

    free = frozenset(("resume", "out", "every", "device", "vgg"))  # what may change on --resume
    content = ops = None

    def complete(self):
        """Fill in the defaults that depend on other settings, and make paths absolute."""
        self.vgg = self.vgg and str(Path(self.vgg).absolute())
        if not self.out:
            k, self.out = 1, f"runs/{self.name}"
            while Path(self.out).exists():
                k += 1
                self.out = f"runs/{self.name}-{k}"

    def check(self):
        """Raise UserError for settings that cannot work."""
        self.check_bounds()

    def use(self, values):
        """Replace defaults by `values`; what was given stays."""
        for name in values.keys() - self.given:
            setattr(self, name, values[name])


@dataclasses.dataclass(init=False)
class LossSettings(Settings):
    """The losses of style transfer: where features are compared, and how much each comparison counts."""

    content_layers: list[str] = option(["relu3_3"], "where contents are compared", nargs="*", metavar="LAYER")
    content_weights: list[float] = option([1.0], "one, or one for each content layer", nargs="*")
    style_layers: list[str] = option(
        list(STYLE_LAYERS), "where styles are compared", nargs="*", metavar="LAYER"
    )
    style_weights: list[float] = option([5.0], "one, or one for each style layer", nargs="*")
    tv_weight: float = option(1e-6, "weight of the total variation: more is smoother", least=0)

    def check(self):
        super().check()
        for kind in ("content", "style"):
            layers, values = getattr(self, f"{kind}_layers"), getattr(self, f"{kind}_weights")
            layer_weights(layers, values, kind)
            setattr(self, f"{kind}_weights", values * len(layers) if len(values) == 1 else values)
        if not any([*self.content_weights, *self.style_weights, self.tv_weight]):
            raise UserError("all loss weights are zero: there is nothing to minimise")


def begin(settings):
    """Return (settings, arrays, state): the complete settings of the run, and its checkpoint if it is resumed
    (otherwise None and {}). Raises UserError for settings that cannot work, and if results would be lost."""
    s, arrays, state = _resumed(settings) if settings.resume else (copy.copy(settings), None, {})
    s.complete()
    s.check()
    out = check_folder(s.out)
    if not arrays and any((out / name).exists() for name in ("checkpoint.h5", "weights.h5", "result.png")):
        raise UserError(f"{out} holds a run already: continue it with --resume, or choose another --out")
    if s.content and Path(s.content).resolve() in (out.resolve(), *out.resolve().parents):
        raise UserError(f"--out {out} lies inside --content {s.content}: its images would be trained on")
    return s, arrays, state


def _resumed(settings):
    """The settings that the run in settings.out was started with, except those that may change and are given;
    and its checkpoint. Raises UserError if another setting differs."""
    if not settings.out:
        raise UserError("--resume needs --out, the folder of the run to continue")
    arrays, state = checkpoint.load(Path(settings.out) / "checkpoint.h5")
    kind, recorded = type(settings), state["settings"]
    names = {field.name for field in dataclasses.fields(kind)}
    foreign = recorded.keys() - names - FORMER_STATE - FORMER_OPTIONS
    started = None if foreign else kind(**{name: recorded[name] for name in names & recorded.keys()})
    if foreign or started.command != settings.command:
        raise UserError(f"the run in {settings.out} was not started by {settings.command}")
    if recorded.get("lr_decay_every"):
        warn("--lr-decay-every no longer exists: from here on the learning rate does not decay")
    s = kind(**started.to_dict() | {name: getattr(settings, name) for name in settings.given})
    for each in (started, s):
        each.check()
    for name in settings.given - started.free:
        if getattr(s, name) != (before := getattr(started, name)):
            raise UserError(f"{flag(name)} cannot change on --resume: the run was started with {before}")
    return s, arrays, {name: recorded[name] for name in FORMER_STATE & recorded.keys()} | state


def carry_out(task_class, settings):
    """Carry out a run and return it when it has ended. `task_class` is a subclass of Loop that is built from
    (settings, xp, arrays, state), the last two from the checkpoint or None and {}."""
    s, arrays, state = begin(settings)
    xp = device.select(s.device)
    with _own_functions(s.ops, xp) as own:
        try:
            task = task_class(s, xp, arrays, state)
        except UNFIT as error:
            if not arrays:
                raise
            raise UserError(f"the checkpoint in {s.out} is damaged: {error!r}") from error
        task.own = own
        return _carry_out(task, arrays, state)


def _own_functions(folder, xp):
    """The context in which the functions in `folder` are used; it gives {name: digest of its file}."""
    if not folder:
        return contextlib.nullcontext({})
    from ..swap import using  # here, because most runs do not need the gradient checker

    return using(folder, xp)


def _carry_out(task, arrays, state):
    s = task.settings
    if arrays:
        task.resume(arrays, state)
    print(f"{task.title}, {task.iterations} iterations; results in {task.out}")
    task.run()
    if not task.finished:
        resume = f"{s.command} --out {task.out} --resume"
        print(f"stopped at iteration {task.iteration}, saved; continue with: {resume}")
    for name, where in task.results().items() if task.finished else ():
        print(f"{name + ':':8} {where}")
    return task


def load_painting(path, longer_side, least=SMALLEST):
    """The painting at `path`, (H, W, 3) float32, 0..255, resized to `longer_side` pixels. Raises UserError if
    its shorter side then has less than `least` pixels."""
    painting = images.load(path, max(1, round(longer_side)), side="long")
    height, width = painting.shape[:2]
    if min(height, width) < least:
        larger = "give a larger --style-size (optimize: --style-scale or --size)"
        raise UserError(f"--style {path} would be used at {width}x{height} pixels: {larger}")
    return painting
