"""What training a style net and training a super-resolution net have in common."""

import dataclasses
import math
from pathlib import Path

import numpy as np

from ..data import images, photos, weights
from ..device import copy_arrays, to_numpy
from ..errors import UserError
from ..optim import Adam
from ..samples import PHOTOS
from ..settings import option
from .loop import Loop
from .run import RunSettings

READ_EVERY = 10  # iterations on a GPU


@dataclasses.dataclass(init=False)
class TrainingSettings(RunSettings):
    """What every training run has."""

    content: str | None = option(None, "photos (default: 80 that ship)", metavar="FOLDER|FILE.h5")
    samples: list[str] | None = option(None, "test photos (default: three that ship)", metavar="IMAGE")
    init: str | None = option(None, "weights to start from; none: random ones", metavar="NAME|FILE.h5|none")
    batch: int = option(4, "photos per step", least=1, most=4096)
    image_size: int = option(256, "side of the square crops, in pixels", least=32, most=16384)
    tv_weight: float = option(0.0, "weight of the total variation: more is smoother", least=0)
    lr: float = option(1e-3, "Adam's learning rate", least=0)
    lr_rise: int = option(0, "let it rise from zero over the first N steps", least=0)
    lr_fall: float = option(0.0, "let it fall to zero over this last part of the run", least=0, most=1)
    ops: str | None = option(None, "run on your own functions that pass their check", metavar="FOLDER")

    free = RunSettings.free | {"iterations", "style", "content", "samples", "ops"}
    start = None  # (arrays, about) of the weights at `init`; None: random weights, or a run that is resumed
    test_photos = ()

    def complete(self):
        super().complete()
        self.content = str(Path(self.content or PHOTOS).absolute())
        samples = self.samples or [PHOTOS / name for name in self.test_photos]
        self.samples = [str(path.absolute()) for path in images.find(samples)]
        self.ops = self.ops and str(Path(self.ops).absolute())

    def start_from(self, path):
        """Read the weights at `path`. Raises UserError if they are not finite."""
        self.init, self.start = str(Path(path).absolute()), weights.load(path)
        if not all(np.isfinite(array).all() for array in self.start[0].values()):
            raise UserError(f"--init {path} holds numbers that are not finite: that training diverged")

    def public(self):
        """The settings as weights files record them: without folders, and not where and how the run was
        done."""
        private = ("out", "resume", "samples", "every", "device")
        s = {name: value for name, value in self.to_dict().items() if name not in private}
        s |= {"style": [Path(path).name for path in s["style"]]} if "style" in s else {}
        return s | {name: Path(s[name]).name for name in ("content", "init", "vgg", "ops") if s[name]}


def learning_rate(iteration, iterations, lr, rise=0, fall=0.0):
    """The rate at `iteration` (from 0): it rises linearly to `lr` over the first `rise` iterations and falls
    linearly to zero over the last fraction `fall` of the run."""
    lr *= min(1.0, (iteration + 1) / rise) if rise else 1.0
    left = (iterations - iteration) / iterations
    return lr * min(1.0, left / fall) if fall else lr


class TrainingTask(Loop):
    """Trains a net on batches of photos. Next to the files of a Loop it writes weights.h5, the net for use.
    Batches are numbered, so the iteration is the whole random state.

    A subclass calls `learn(net)` when it is built. It has choose(k), the random choice of iteration k;
    step((choice, photos)), which returns the losses and leaves the gradients in `net`; and about(), what the
    weights file says of it and a thumbnail (H, W, 3) uint8 or None.
    """

    crops = (0.5, 1.0)  # sides of the crops, as fractions of the photo's shorter side
    own = {}  # noqa: RUF012  the functions of --ops that are used: {name: digest of its file}

    def __init__(self, settings, xp):
        super().__init__(settings)
        self.xp, self.read_every = xp, 1 if xp is np else READ_EVERY
        self.dataset = photos.open_dataset(settings.content, side=2 * settings.image_size)

    @property
    def status(self):
        """1 as well if photos could not be read and were left out."""
        return super().status or min(1, self.dataset.skipped)

    def learn(self, net, rates=None):
        """Let Adam update `net`. rates: {parameter: factor on its learning rate}, where it is not 1."""
        self.net, self.adam = net, Adam(net.learnt(), self.settings.lr)
        self.adam.rates = rates or {}

    def load_init(self, net, arrays, options):
        """Copy the arrays of --init into `net`; `options` names the options that must fit."""
        try:
            net.load(arrays)
        except ValueError as error:
            raise UserError(f"--init {self.settings.init} does not fit {options}: {error}") from None

    def batches(self):
        s = self.settings
        return photos.batches(self.dataset, s.batch, s.image_size, s.seed, self.iteration, self.crops)

    def iterate(self, batch):
        s, terms = self.settings, self.step((self.choose(self.iteration), batch))
        self.adam.lr = learning_rate(self.iteration, s.iterations, s.lr, s.lr_rise, s.lr_fall)
        self.adam.step(self.net.gradients())
        return terms

    def check(self, terms, iteration):
        if not all(map(math.isfinite, terms.values())):
            text = ", ".join(f"{name} {value:g}" for name, value in terms.items())
            raise self.diverged(text, iteration)

    def inputs(self):
        """What must be unchanged on resume for the same numbers."""
        return {"photos": len(self.dataset), "ops": self.own}

    def state(self):
        return {"inputs": self.inputs()}

    def _net_arrays(self):
        return {**self.net.parameters(), **self.net.buffers()}

    def arrays(self):
        groups = {"net": self._net_arrays(), **self.adam.state()[0]}
        for group, named in groups.items():
            groups[group] = {name: to_numpy(array) for name, array in named.items()}
            for name, array in groups[group].items():
                if not np.isfinite(array).all():
                    raise self.diverged(f"{group}.{name} holds a number that is not finite")
        return groups

    def restore(self, arrays, state):
        recorded = {"ops": {}} | (state.get("inputs") or {})
        if recorded["ops"] != self.own:
            changed = sorted(name for name, _ in recorded["ops"].items() ^ self.own.items())
            text = "--ops: the run was started with other functions, or other text in their files"
            raise UserError(f"{text}: {', '.join(dict.fromkeys(changed))}")
        for name, now in self.inputs().items():
            before = recorded.get(name, now)  # very old checkpoints do not record it
            if before != now:
                option = "--style" if name == "painting" else f"--content {self.settings.content}"
                change = f"({name}: {str(before)[:8]}, now {str(now)[:8]})"
                raise UserError(f"{option} has changed since the run was started {change}")
        copy_arrays(arrays["net"], self._net_arrays())
        self.adam.load(arrays, state["iteration"])

    def write_results(self):
        last, (about, thumbnail) = self.losses[-100:], self.about()
        means = {name: sum(row[name] for row in last) / len(last) for name in (last[0] if last else ())}
        means.pop("iteration", None)
        record = {"iterations": self.iteration, "photos": len(self.dataset), "losses": means}
        record |= {"ops": list(self.own)} if self.own else {}
        about = self.net.about() | record | {"settings": self.settings.public()} | about
        weights.save(self.out / "weights.h5", self._net_arrays(), about, thumbnail=thumbnail)

    def results(self):
        path, picture = self.out / "weights.h5", self.out / "samples" / f"{self.iteration:06}.png"
        used = f"{path}  ({self.use.format(path)})"
        return {"weights": used, "losses": self.out / "losses.png", "picture": picture}
