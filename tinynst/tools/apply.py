"""Images that become images: which file becomes which, and the work on one after the other."""

import collections
import os
import sys
from pathlib import Path

from tqdm import tqdm

from ..data import images
from ..data.photos import warn
from ..errors import UserError

# --- which file becomes which -----------------------------------------------------------------------------------------


def plan(inputs, out):
    """[(source, target), ...] of the paths `inputs` (strings: images, folders) and `out` (string: a file or folder).

    Raises UserError where an input is missing, a target cannot be written, is one of the sources, or comes up twice.
    """
    if not (out and all(inputs)):
        raise UserError(
            "an empty name was given for an image or for -o: name a file or folder (. is this one)"
        )
    to_folder = _is_folder(out, several=len(inputs) > 1 or Path(inputs[0]).is_dir())
    named = [pair for path in inputs for pair in _named(Path(path), Path(out) if to_folder else None)]
    targets = (
        [Path(out) / name for name in _output_names([name for _, name in named])]
        if to_folder
        else [Path(out)]
    )
    jobs = _without_repeats([source for source, _ in named], targets)
    _check_targets(jobs)
    return jobs


def _is_folder(out, several):
    """Does `out` name a folder? With `several` results it must; for one it does if it is one, ends in / or has no suffix."""
    path, slash = Path(out), out.endswith(("/", os.sep))
    if path.is_dir():
        return True
    if path.exists() and (several or slash):
        raise UserError(f"{out} is a file: name a folder{' for the results of several images' * several}")
    if several and path.suffix.lower() in images.READ:
        raise UserError(f"{out} is a name for one image: name a folder for the results of several images")
    return several or slash or (not path.suffix and not path.exists())


def _named(path, out):
    """[(source, its name below the output folder), ...]: for a folder, the path from there; for a file, its own name.

    Where the results go into a folder `out` inside the one searched, those of an earlier run are not taken again.
    """
    sources = images.find(path)
    if not path.is_dir():
        return [(path, Path(path.name))]
    if out is not None and path.resolve() in out.resolve().parents:
        searched = [source for source in sources if not source.parent.resolve().is_relative_to(out.resolve())]
        if not searched:
            raise UserError(
                f"{path} holds no image but those in {out}, where the results go: name {out} if these are meant"
            )
        if len(searched) < len(sources):
            warn(f"passed over {len(sources) - len(searched)} images in {out}, where the results go")
        sources = searched
    return [(source, source.relative_to(path)) for source in sources]


def _output_names(names):
    """The same names where the suffix is a format that is written; else .png: x.gif becomes x.png, or x.gif.png if taken."""
    wanted = [name if name.suffix.lower() in images.SAVED else name.with_suffix(".png") for name in names]
    pairs = list(zip(names, wanted, strict=True))
    times = collections.Counter(new for _, new in set(pairs))
    return [new if new == old or times[new] == 1 else old.with_name(f"{old.name}.png") for old, new in pairs]


def _without_repeats(sources, targets):
    """[(source, target), ...], an image given twice only once. Raises UserError where two would become one file."""
    jobs = {}
    for source, target in zip(sources, targets, strict=True):
        place = os.path.normcase(os.path.realpath(target.parent)), os.path.normcase(target.name)
        first, _ = jobs.setdefault(place, (source, target))
        if first != source and not os.path.samefile(first, source):
            raise UserError(
                f"{first} and {source} would both become {target}: give them in two runs, with two -o"
            )
    return list(jobs.values())


def _check_targets(jobs):
    """Raise UserError unless every target can be written and none is a file that is to be read, by whatever name."""
    sources = {_identity(source): source for source, _ in jobs}
    for folder in {target.parent for _, target in jobs}:
        _check_folder(folder)
    for _, target in jobs:
        images.check_writable(target)
        if target.exists() and _identity(target) in sources:
            source = sources[_identity(target)]
            raise UserError(f"{target} would overwrite {source}, which is to be read: give another -o")


def _identity(path):
    """Equal for two paths exactly where os.path.samefile says so; as a key it saves comparing all with all."""
    status = path.stat()
    return status.st_dev, status.st_ino


def _check_folder(folder):
    """Raise UserError unless `folder` is there and may be written into, or can be made."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not there.is_dir():
        raise UserError(f"{there} is a file, so nothing can be written into {folder}: give another -o")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"nothing may be written into {there}: give another -o, or change its permissions")


# --- the work ---------------------------------------------------------------------------------------------------------


def work(jobs, make, doing, done, out):
    """Call make(source, target) -> (height, width) for each of the `jobs`, which `plan` made; returns the exit status.

    One job that fails raises its UserError; of several, each that fails is reported and passed over. `doing` and `done` say
    what is done, as "styling", "styled"; `out` is where the results are.
    """
    if len(jobs) == 1:
        [(source, target)] = jobs
        height, width = make(source, target)
        say(f"wrote {target}, {width}x{height}")
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
                say(f"{source} -> {target}")
    if failed == len(jobs):
        raise UserError(f"none of the {failed} images could be {done} (the warnings above say why)")
    left_out = f", {failed} could not be (the warnings above say why)" if failed else ""
    say(f"{len(jobs) - failed} images {done}{left_out}; results are in {out}")
    return 1 if failed else 0


def say(text):
    """Print a line with file names in it, which may hold bytes that standard output's encoding does not know."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
