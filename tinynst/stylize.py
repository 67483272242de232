"""Apply a trained style to photos: one forward pass of the style net for each.

`load_style` and `stylize` are the whole of it; the rest is what a command owes its user: any image file, whole folders,
no file overwritten that was not meant, one line for what went wrong.
"""

import argparse
import collections
import os
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from . import device, images, weights
from .cli import Parser, UserError, run
from .dataset import warn
from .networks import style_net

SETTINGS = ("norm", "upsample", "width")  # what style_net must know to build the net that the weights belong to


# --- library ----------------------------------------------------------------------------------------------------------


def load_style(name_or_path, xp=np):
    """The trained TransformNet of a style, on the device of `xp`: a name that ships, or the path of a .h5 file.

    Raises UserError, naming the file, where there is none, where it holds anything but a style, and where its settings
    or arrays do not make a net.
    """
    path = weights.find(name_or_path)
    arrays, about = weights.load(path)
    settings = about.get("settings")
    if not isinstance(settings, dict) or not set(SETTINGS) <= set(settings):
        raise UserError(f"{path} does not record all of its net's settings ({', '.join(SETTINGS)}): train this style again")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise UserError(f"{path} holds numbers that are not finite: the training diverged, or the file is damaged")
    try:
        net = style_net(**{name: settings[name] for name in SETTINGS}, xp=xp)
        net.load(arrays)
    except (TypeError, ValueError, MemoryError) as error:
        raise UserError(f"{path} does not make a style net: {error}") from error
    return net


def stylize(net, image, strength=1.0, preserve_color=False):
    """Paint `image` (H, W, 3), RGB, 0..255, any H and W from 1 on, with a style net: (H, W, 3) float32 NumPy, 0..255.

    strength: from 0, the photo, to 1, the full style; between them the two are blended pixel by pixel
    preserve_color: take only the brightness from the style, and the colours from the photo

    The image may be float or uint8, NumPy or CuPy; the net runs where its parameters are, on the whole image at once.
    Raises ValueError for another shape and for a strength outside 0..1.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"image has shape {tuple(image.shape)}; it should be (H, W, 3)")
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must be from 0 to 1, not {strength}")
    xp = device.array_module(*net.parameters().values())
    photo = device.to_numpy(image).astype(np.float32)
    painted = device.to_numpy(net.forward(device.asarray(photo[None], xp)))[0].clip(0, 255)
    if preserve_color:
        painted = images.preserve_color(painted, photo)
    strength = np.float32(strength)
    return strength * painted + (1 - strength) * photo


# --- which file becomes which -----------------------------------------------------------------------------------------


def _plan(inputs, out):
    """[(source, target), ...] of the paths `inputs` (strings: images, folders) and `out` (string: a file or folder).

    Raises UserError where an input is missing, a target cannot be written, is one of the sources, or comes up twice.
    """
    if not (out and all(inputs)):
        raise UserError("an empty name was given for an image or for -o: name a file or folder (. is this one)")
    to_folder = _is_folder(out, several=len(inputs) > 1 or Path(inputs[0]).is_dir())
    named = [pair for path in inputs for pair in _named(Path(path), Path(out) if to_folder else None)]
    targets = [Path(out) / name for name in _output_names([name for _, name in named])] if to_folder else [Path(out)]
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

    Where the results go into a folder `out` inside the one searched, those of an earlier run are not styled again.
    """
    sources = images.find(path)
    if not path.is_dir():
        return [(path, Path(path.name))]
    if out is not None and path.resolve() in out.resolve().parents:
        searched = [source for source in sources if not source.parent.resolve().is_relative_to(out.resolve())]
        if not searched:
            raise UserError(f"{path} holds no image but those in {out}, where the results go: name {out} to style these")
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
            raise UserError(f"{first} and {source} would both become {target}: style them in two runs, with two -o")
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


# --- the command ------------------------------------------------------------------------------------------------------


def _style_file(net, source, target, options):
    """Read, paint and write one image; returns its (height, width). Raises UserError naming the file that is at fault."""
    side = options.size
    try:
        image = np.asarray(images.open_rgb(source, side, "long", options.enlarge), np.float32)
        side = max(image.shape[:2])
        images.save(target, stylize(net, image, options.strength, options.preserve_color))
    except MemoryError as error:
        raise UserError(
            f"{source}: not enough memory to style it with a longer side of {side} pixels: try --size {max(1, side // 2)}"
        ) from error
    return image.shape[:2]


def _style_files(net, jobs, options):
    """Style one image after the other; returns how many could not be, each of them reported on standard error."""
    failed = 0
    progress = tqdm(jobs, "styling", unit=" images", disable=None)  # None: only on a terminal
    for source, target in progress:
        try:
            _style_file(net, source, target, options)
        except UserError as error:
            failed += 1
            warn(str(error))
        else:
            if progress.disable:
                _say(f"{source} -> {target}")
    return failed


def _say(text):
    """Print a line with file names in it, which may hold bytes that standard output's encoding does not know."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


class _ListStyles(argparse.Action):
    """--list-styles: print and exit, as --help does, so that no other argument is asked for."""

    def __call__(self, parser, *_):
        names = weights.shipped("style")
        for name in names:
            print(f"{name:20} {weights.read_about(weights.find(name)).get('summary', 'no description')}")
        if not names:
            print("no styles ship with this copy: train one (tinynst train --help), and give its file: --style FILE.h5")
        parser.exit()


def _parser():
    parser = Parser(
        prog="tinynst stylize",
        description="Apply a trained style to photos.",
        epilog="A result has the size and format of its image: JPEG, PNG, WebP, TIFF and BMP stay what they are, all others "
        "become PNG. What is transparent becomes white, of an animation the first frame is taken, and a photo that EXIF says "
        "lies on its side is turned. No input is ever overwritten; an older result of the same name is. An image that cannot "
        "be read is reported and passed over, and the exit status is then 1.",
    )
    required = {"required": True, "default": argparse.SUPPRESS}  # SUPPRESS: --help shows no "(default: None)"
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE|FOLDER", help="photos; of a folder all images, in folders below too"
    )
    parser.add_argument("--style", metavar="NAME|FILE.h5", help="a style that ships, or weights from training", **required)
    parser.add_argument(
        "-o",
        "--out",
        metavar="OUT",
        help="where results go. One image: a file, whose suffix is the format, or a folder (one that is there, a name that "
        "ends in / or has no suffix). Several, or a folder: a folder, where folders below the one given are kept",
        **required,
    )
    parser.add_argument(
        "--list-styles", action=_ListStyles, nargs=0, default=argparse.SUPPRESS, help="show the styles that ship, and exit"
    )
    parser.add_argument(
        "--size",
        type=int,
        metavar="N",
        help="first shrink images whose longer side is over N pixels to N; smaller ones stay as they are. Saves time and "
        "memory (about 0.5 GB for each megapixel), and makes brush strokes larger against the picture",
    )
    parser.add_argument("--enlarge", action="store_true", help="with --size: enlarge smaller images to N, too")
    parser.add_argument("--strength", type=float, default=1.0, metavar="0..1", help="blend: 0 is the photo, 1 the full style")
    parser.add_argument("--preserve-color", action="store_true", help="keep the photo's colours; only brightness is styled")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: an NVIDIA GPU, through CuPy")
    return parser


def main(arguments=None):
    """`python -m tinynst.stylize`; `arguments` is a list of strings (None: the command line's). Returns the exit status."""
    options = _parser().parse_args(arguments)
    if not 0 <= options.strength <= 1:
        raise UserError(f"--strength must be from 0 (the photo) to 1 (the full style), not {options.strength:g}")
    if options.size is not None and options.size < 1:
        raise UserError(f"--size must be at least 1 pixel, not {options.size}")
    if options.enlarge and options.size is None:
        raise UserError("--enlarge needs --size N: how large?")
    jobs = _plan(options.images, options.out)
    net = load_style(options.style, device.select(options.device))
    if len(jobs) == 1:
        [(source, target)] = jobs
        height, width = _style_file(net, source, target, options)
        _say(f"wrote {target}, {width}x{height}")
        return 0
    failed = _style_files(net, jobs, options)
    if failed == len(jobs):
        raise UserError(f"none of the {failed} images could be styled (the warnings above say why)")
    left_out = f", {failed} could not be (the warnings above say why)" if failed else ""
    _say(f"{len(jobs) - failed} images styled{left_out}; results are in {options.out}")
    return 1 if failed else 0


if __name__ == "__main__":
    run(main, "stylize")
