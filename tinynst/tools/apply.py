"""What `stylize` and `superres` share: which image becomes which file, and the work on each."""

import collections
import dataclasses
import os
from pathlib import Path

from tqdm import tqdm

from .. import device
from ..data import images
from ..data.files import check_file, check_folder
from ..data.photos import warn
from ..errors import UserError, printable
from ..settings import Settings, option

FORMATS = (
    "JPEG, PNG, WebP, TIFF and BMP keep their format, all others become PNG; results have 8 bits a channel. "
    "Inputs are never overwritten, older results are. An image that cannot be read is reported and passed "
    "over; the exit status is then 1. Images of more than 100 million pixels (less on a machine with little "
    "memory) are refused: set TINYNST_MAX_PIXELS in the environment to allow more."
)
OUT = "one image: a file or a folder (it exists, ends in / or has no suffix); several: a folder"


@dataclasses.dataclass(init=False)
class ApplySettings(Settings):
    """The options that both commands have."""

    images: list[str] = option(None, "photos, or folders of them", flags=("images",), metavar="IMAGE|FOLDER")
    out: str = option(None, OUT, flags=("-o", "--out"), metavar="OUT", required=True)
    device: str = option("cpu", device.HELP)


def plan(inputs, out):
    """[(source, target), ...] for the paths `inputs` (images, folders) and `out` (a file or folder), strings.

    `out` is a folder if there are several inputs or one is a folder, if it exists as a folder, ends in / or
    has no suffix. Raises UserError if an input is missing, or a target cannot be written, is an input, or is
    the target of two inputs.
    """
    path, several = Path(out), len(inputs) > 1 or Path(inputs[0]).is_dir()
    to_folder = several or path.is_dir() or out.endswith(("/", os.sep)) or not (path.suffix or path.exists())
    if to_folder and path.is_file():
        raise UserError(f"{out} is a file: name a folder{' for the results of several images' * several}")
    if several and path.suffix.lower() in images.READ and not path.is_dir():
        raise UserError(f"{out} is a name for one image: name a folder for the results of several images")

    named = []  # (source, its name below the output folder)
    for source in map(Path, inputs):
        inside = _photos_below(source, path) if source.is_dir() else images.find(source)
        named += [(each, each.relative_to(source if source.is_dir() else each.parent)) for each in inside]
    jobs = {}
    for (source, _), name in zip(named, _output_names([name for _, name in named]), strict=True):
        target = path / name if to_folder else path
        place = os.path.normcase(target.parent.resolve() / target.name)
        first, _ = jobs.setdefault(place, (source, target))  # an image given twice is one job
        if first != source and _identity(first) != _identity(source):
            raise UserError(f"{first} and {source} would both become {target}: use two runs, with two -o")
    sources = {_identity(source): source for source, _ in jobs.values()}
    for _, target in jobs.values():
        check_folder(target.parent)
        clash = sources.get(_identity(target)) if target.exists() else None
        check_file(target, images.SAVED, [clash] if clash else [])
    return list(jobs.values())


def _identity(path):
    """The inode and device of a file, the same for all links to it; of a link to nothing, its path."""
    return path.stat()[1:3] if path.exists() else path


def _photos_below(folder, out):
    """The images below `folder`; results of earlier runs, if `out` is below it, are left out."""
    found = images.find(folder)
    if folder.resolve() not in out.resolve().parents:
        return found
    photos = [path for path in found if not path.parent.resolve().is_relative_to(out.resolve())]
    if not photos:
        raise UserError(f"{folder} holds no image but those in {out}, where results go: name that folder")
    if len(photos) < len(found):
        warn(f"passed over {len(found) - len(photos)} images in {out}, where the results go")
    return photos


def _output_names(names):
    """The same names for formats that are written; otherwise x.gif becomes x.png, or x.gif.png if taken."""
    wanted = {n: n if n.suffix.lower() in images.SAVED else n.with_suffix(".png") for n in names}
    times = collections.Counter(wanted.values())
    taken = {name for name, new in wanted.items() if new != name and times[new] > 1}
    return [name.with_name(f"{name.name}.png") if name in taken else wanted[name] for name in names]


def work(jobs, make, doing, done, out):
    """Call make(source, target) -> (height, width) for each of the `jobs` of `plan`; returns the exit status.

    A single job that fails raises its UserError; of several, each failure is reported and the others go on.
    `doing` and `done` are words for the messages, as "styling", "styled".
    """
    if len(jobs) == 1:
        [(source, target)] = jobs
        height, width = make(source, target)
        print(printable(f"wrote {target}, {width}x{height}"), flush=True)
        return 0
    failed = 0
    progress = tqdm(jobs, doing, unit=" images", disable=None)  # None: only on a terminal
    for source, target in progress:
        try:
            make(source, target)
        except UserError as error:
            failed += 1
            warn(str(error))
        else:
            if progress.disable:
                print(printable(f"{source} -> {target}"), flush=True)
    if failed == len(jobs):
        raise UserError(f"none of the {failed} images could be {done} (see the warnings above)")
    left_out = f", {failed} could not be (see the warnings above)" if failed else ""
    print(printable(f"{len(jobs) - failed} images {done}{left_out}; results are in {out}"), flush=True)
    return 1 if failed else 0
