"""What the training commands share: their common options, a folder for each run, and going on with one that was stopped."""

from pathlib import Path

import numpy as np

from ..cli import given
from ..data import checkpoint, images, weights
from ..data.styles import layer_weights  # noqa: F401 (also for tools)
from ..errors import UserError
from .loop import Trainer

# What may change on --resume: where things lie (that they are the same is checked), how long and where to go on
FREE_ON_RESUME = ("resume", "out", "iterations", "every", "device", "style", "content", "samples", "vgg")
SCHEDULE = {
    "lr": "lr",
    "rise": "lr_rise",
    "decay_every": "lr_decay_every",
    "decay_factor": "lr_decay_factor",
    "fall": "lr_fall",
}


def add_run_options(parser, name):
    """What to learn from, where the results go (`name` describes the new folder) and from what to start."""
    add = parser.add_argument
    add(
        "--content",
        metavar="FOLDER|FILE.h5",
        help="photos, or a file that `tinynst dataset` packed (default: 80 photos that ship)",
    )
    add("--out", metavar="FOLDER", help=f"where the results go (default: runs/{name}, a new folder)")
    add(
        "--resume",
        action="store_true",
        help="go on with the run in --out, with the settings it was started with",
    )
    add("--init", metavar="NAME|FILE.h5|none", help="start from these weights; none: from random ones")
    add("--samples", metavar="IMAGE", nargs="+", help="test photos (default: three that ship)")
    add(
        "--vgg",
        metavar="FILE.h5",
        help="another VGG-16 file in Keras's layout, in place of the one that ships",
    )


def add_schedule_options(parser):
    """How the learning rate changes, and what else concerns the loop."""
    add = parser.add_argument
    add("--lr", type=float, default=1e-3, help="Adam's learning rate")
    add("--lr-rise", type=int, default=0, metavar="N", help="let it rise from zero over the first N steps")
    add(
        "--lr-decay-every",
        type=int,
        default=0,
        metavar="N",
        help="multiply it by --lr-decay-factor every N steps (0: never)",
    )
    add("--lr-decay-factor", type=float, default=0.5, metavar="F", help="see --lr-decay-every")
    add(
        "--lr-fall",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="let it fall to zero over this last share of the run",
    )
    add("--seed", type=int, default=0, help="of the first weights and of the photos' order")
    add(
        "--every",
        type=int,
        default=500,
        help="steps between checkpoints, with a plot and a sheet of test photos",
    )
    add("--device", choices=("cpu", "cuda"), default="cpu", help="where to compute")


def check_schedule(s):
    """Refuse settings that every training command has and that cannot work."""
    for name in ("iterations", "batch", "width", "every"):
        at_least(s, name, 1)
    for name in ("lr", "lr_rise", "lr_decay_every", "seed"):
        at_least(s, name, 0)
    for name in ("lr_fall", "lr_decay_factor"):
        if not 0 <= s[name] <= 1:
            raise UserError(f"--{name.replace('_', '-')} is {s[name]}; it should be between 0 and 1")


def at_least(s, name, least):
    """Refuse a number that is smaller, infinite or none."""
    if not least <= s[name] < float("inf"):
        raise UserError(f"--{name.replace('_', '-')} is {s[name]}; it should be at least {least}")


def settings(parser, arguments, short_run, complete, check):
    """The settings of this run and, when it is resumed, its checkpoint.

    short_run: the options of a run without any argument
    complete:  takes the options and the dict of those that were given, and fills in what has no default in the parser
    check:     takes the settings and returns them, spelt out; raises UserError for those that cannot work
    """
    options, explicit = vars(parser.parse_args(arguments)), given(parser, arguments)
    for name, value in explicit.items():
        if value == "" or (isinstance(value, list) and "" in value):
            raise UserError(f"--{name.replace('_', '-')} is empty")
    found = None
    if options["resume"]:
        if not options["out"]:
            raise UserError("--resume needs --out, the folder of the run to go on with")
        found = checkpoint.load(Path(options["out"]) / "checkpoint.h5")
        if not found[1]["settings"].keys() <= {*options, "inputs", "styles"}:
            raise UserError(
                f"the run in {options['out']} was not started by {parser.prog}: go on with it by the command that did"
            )
        started = {**options, **found[1]["settings"]}
        for name in explicit.keys() - set(FREE_ON_RESUME):
            if check({**started, name: explicit[name]})[name] != started[name]:
                shown = name.replace("_", "-")
                raise UserError(
                    f"--{shown} cannot change on --resume: the run was started with {started[name]}"
                )
        options = {**started, **{name: explicit[name] for name in FREE_ON_RESUME if name in explicit}}
    elif not explicit:
        options.update(short_run)
    return check(complete(options, explicit)), found


def fresh_folder(name):
    """runs/NAME, or runs/NAME-2, ... : never one that is there already."""
    k = 1
    while (folder := Path("runs") / (name if k == 1 else f"{name}-{k}")).exists():
        k += 1
    return str(folder)


def absolute(s):
    """Paths that still lead there when the run is resumed from another folder."""
    s = {**s, **{name: str(Path(s[name]).absolute()) for name in ("content", "vgg") if s.get(name)}}
    s["init"] = s["init"] if s["init"] in (None, "none") else str(Path(s["init"]).absolute())
    for name in {"style", "samples"} & s.keys():
        s[name] = [str(path.absolute()) for path in images.find(s[name])]
    return s


def check_folder(s, resumed):
    """Nothing that is there may be lost, and no picture of ours be trained on."""
    out = Path(s["out"])
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; it should be a folder")
    if not resumed and any((out / name).exists() for name in ("checkpoint.h5", "weights.h5")):
        raise UserError(f"{out} holds a run already: go on with it with --resume, or choose another --out")
    if Path(s["content"]).resolve() in (out.resolve(), *out.resolve().parents):
        raise UserError(
            f"--out {out} lies inside --content {s['content']}: its pictures would be trained on; choose another"
        )


def read_init(path):
    """The arrays of the weights of --init, and what they say of themselves. Raises UserError where they are not finite."""
    arrays, about = weights.load(path)
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise UserError(f"--init {path} holds numbers that are not finite: that training diverged")
    return arrays, about


def load_init(net, arrays, path, options):
    """Load the arrays of --init `path` into `net`; `options` names those that must fit."""
    try:
        net.load(arrays)
    except ValueError as error:
        raise UserError(f"--init {path} does not fit {options}: {error}") from None


def given_away(s):
    """The settings as they go into weights: what was learnt from what, without folders, and not where and how it ran."""
    s = {k: v for k, v in s.items() if k not in ("out", "resume", "samples", "every", "device", "inputs")}
    s |= {"style": [Path(path).name for path in s["style"]]} if "style" in s else {}
    return s | {k: Path(s[k]).name for k in ("content", "init", "vgg") if s.get(k)}


def train(task, s, found, title, command, use):
    """Run `task` to its end and say where everything is; returns the exit status. `use` shows what the weights are for."""
    inputs = task.inputs()
    for name, value in s.setdefault("inputs", inputs).items():
        if value != inputs[name]:
            where = ", ".join(s["style"]) if name == "painting" else s["content"]
            raise UserError(
                f"{where} has changed since the run was started ({name}: {str(value)[:8]}, now {str(inputs[name])[:8]})"
            )
    schedule = {name: s[option] for name, option in SCHEDULE.items()}
    trainer = Trainer(task, s["out"], s["iterations"], schedule, s["every"], s)
    if found:
        trainer.resume(*found)
    out = Path(s["out"])
    print(f"{title}: {len(task.dataset)} photos, {s['iterations']} iterations; results in {out}")
    finished = trainer.run()
    if not finished:
        print(f"stopped at iteration {trainer.iteration}, saved; go on with: {command} --out {out} --resume")
        return 130
    print(f"weights: {out / 'weights.h5'}  ({use.format(out / 'weights.h5')})")
    print(f"losses:  {out / 'losses.png'}")
    print(f"picture: {out / 'samples' / f'{trainer.iteration:06}.png'}")
    return 0
