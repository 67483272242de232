"""What `stylize` and `superres` share: which image becomes which file, and the work on each."""

import collections
import os
from pathlib import Path

from tqdm import tqdm

from ..data import images
from ..data.files import check_folder
from ..data.photos import warn
from ..errors import UserError

FORMATS = (
    "JPEG, PNG, WebP, TIFF and BMP keep their format, all others become PNG; results have 8 bits a channel. "
    "An animation gives its first frame, and a photo is turned upright by its EXIF orientation. No input is "
    "ever overwritten; an older result of the same name is. An image that cannot be read is reported and "
    "passed over; the exit status is then 1."
)


def add_options(parser):
    """The options that both commands have."""
    add = parser.add_argument
    photos = "photos; of a folder all images, in folders below too"
    add("images", nargs="+", metavar="IMAGE|FOLDER", help=photos)
    where = (
        "where results go. One image: a file, whose suffix is the format, or a folder (it exists, ends in / "
        "or has no suffix). Several, or a folder: a folder, in which folders below the one given are kept"
    )
    add("-o", "--out", metavar="OUT", required=True, help=where)
    add("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: an NVIDIA GPU, through CuPy")


def plan(inputs, out):
    """[(source, target), ...] for the paths `inputs` (images, folders) and `out` (a file or folder), strings.

    Raises UserError if an input is missing, or a target cannot be written, is an input, or is the target of
    two inputs.
    """
    if not (out and all(inputs)):
        raise UserError("an empty name was given for an image or -o: name a file or folder (. is this one)")
    folder = Path(out) if _is_folder(out, len(inputs) > 1 or Path(inputs[0]).is_dir()) else None
    named = [pair for path in inputs for pair in _named(Path(path), folder)]
    names = _output_names([name for _, name in named])
    targets = [folder / name for name in names] if folder else [Path(out)]
    jobs = {}
    for (source, _), target in zip(named, targets, strict=True):
        place = os.path.normcase(os.path.realpath(target.parent)), os.path.normcase(target.name)
        first, _ = jobs.setdefault(place, (source, target))  # an image given twice is one job
        if first != source and not os.path.samefile(first, source):
            raise UserError(f"{first} and {source} would both become {target}: use two runs, with two -o")
    jobs = list(jobs.values())
    for parent in {target.parent for _, target in jobs}:
        check_folder(parent)
    sources = {_identity(source): source for source, _ in jobs}
    for _, target in jobs:
        images.check_writable(target)
        if target.exists() and _identity(target) in sources:
            source = sources[_identity(target)]
            raise UserError(f"{target} would overwrite {source}, which is an input: give another -o")
    return jobs


def _identity(path):
    """Equal for two paths of one file, as os.path.samefile; a key in a dict saves comparing all pairs."""
    status = path.stat()
    return status.st_dev, status.st_ino


def _is_folder(out, several):
    """Whether `out` names a folder: it exists, holds several results, ends in / or has no suffix."""
    path, slash = Path(out), out.endswith(("/", os.sep))
    if path.is_dir():
        return True
    if path.exists() and (several or slash):
        raise UserError(f"{out} is a file: name a folder{' for the results of several images' * several}")
    if several and path.suffix.lower() in images.READ:
        raise UserError(f"{out} is a name for one image: name a folder for the results of several images")
    return several or slash or (not path.suffix and not path.exists())


def _named(path, out):
    """[(source, its name below the output folder), ...] of an image or folder; results in a folder `out`
    inside it are not taken as sources in the next run."""
    sources = images.find(path)
    if not path.is_dir():
        return [(path, Path(path.name))]
    if out is not None and path.resolve() in out.resolve().parents:
        results = [source for source in sources if source.parent.resolve().is_relative_to(out.resolve())]
        sources = [source for source in sources if source not in results]
        if not sources:
            raise UserError(f"{path} holds no image but those in {out}, where results go: name that folder")
        if results:
            warn(f"passed over {len(results)} images in {out}, where the results go")
    return [(source, source.relative_to(path)) for source in sources]


def _output_names(names):
    """The same names for formats that are written; otherwise x.gif becomes x.png, or x.gif.png if taken."""
    wanted = [name if name.suffix.lower() in images.SAVED else name.with_suffix(".png") for name in names]
    times = collections.Counter(new for _, new in set(zip(names, wanted, strict=True)))
    pairs = zip(names, wanted, strict=True)
    return [new if new == old or times[new] == 1 else old.with_name(f"{old.name}.png") for old, new in pairs]


def work(jobs, make, doing, done, out):
    """Call make(source, target) -> (height, width) for each of the `jobs` of `plan`; returns the exit status.

    A single job that fails raises its UserError; of several, each failure is reported and the others go on.
    `doing` and `done` are words for the messages, as "styling", "styled"; `out` is where the results are.
    """
    if len(jobs) == 1:
        [(source, target)] = jobs
        height, width = make(source, target)
        print(f"wrote {target}, {width}x{height}", flush=True)
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
                print(f"{source} -> {target}", flush=True)
    if failed == len(jobs):
        raise UserError(f"none of the {failed} images could be {done} (see the warnings above)")
    left_out = f", {failed} could not be (see the warnings above)" if failed else ""
    print(f"{len(jobs) - failed} images {done}{left_out}; results are in {out}", flush=True)
    return 1 if failed else 0
