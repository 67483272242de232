"""Apply a trained style to photos: one forward pass of the style net for each.

`load_style` and `stylize` are the whole of it; the rest is what a command owes its user: any image file, whole folders,
no file overwritten that was not meant, one line for what went wrong.
"""

import argparse
import functools

import numpy as np

from .. import device
from ..cli import Parser
from ..data import images, styles, weights
from ..data.styles import IDENTITY
from ..errors import UserError
from ..networks import style_net
from . import apply as jobs

SETTINGS = (
    "norm",
    "upsample",
    "width",
)  # what style_net must know to build the net that the weights belong to
LATER = ("padding",)  # recorded since nets may differ in it


# --- library ----------------------------------------------------------------------------------------------------------


def load_style(name_or_path, xp=np):
    """The trained TransformNet of a style, on the device of `xp`: a name that ships, the path of a .h5 file, or a mixture
    "starry_night:0.6 great_wave:0.4" (see `styles.resolve`), which the net's `style` then is.

    Raises UserError, naming the file, where there is none, where it holds anything but a style, and where its settings
    or arrays do not make a net.
    """
    path, mix = styles.resolve(name_or_path)
    rows = styles.names(weights.read_about(path))
    make = functools.partial(style_net, xp=xp, styles=rows or 1)
    net, _ = weights.load_net(path, "style", make, SETTINGS, LATER)
    if mix and rows:
        try:
            net.style = net.mixture(mix)
        except ValueError as error:
            raise UserError(f"--style {name_or_path}: {error}") from None
    return net


def stylize(net, image, strength=1.0, preserve_color=False):
    """Paint `image` (H, W, 3), RGB, 0..255, any H and W from 1 on, with a style net: (H, W, 3) float32 NumPy, 0..255.

    strength: from 0, the photo, to 1, the full style; between them a net that knows the photo as a style of its own is asked
        for a mixture of the two, so that brush strokes grow out of the photo; of other nets the two pictures are blended
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
    y = device.asarray(photo[None], xp)
    walk = IDENTITY in net.styles and 0 < strength < 1
    mix = strength * net.style + (1 - strength) * net.mixture(IDENTITY) if walk else net.style
    painted = device.to_numpy(net.forward(y, style=mix))[0]
    if walk:  # the photo's row gives it back a little soft: what it loses comes back as strength goes to zero
        painted = painted + np.float32(1 - strength) * (
            photo - device.to_numpy(net.forward(y, style=IDENTITY))[0]
        )
    painted = painted.clip(0, 255)
    if preserve_color:
        painted = images.preserve_color(painted, photo)
    blend = np.float32(1 if walk else strength)
    return blend * painted + (1 - blend) * photo


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


class _ListStyles(argparse.Action):
    """--list-styles: print and exit, as --help does, so that no other argument is asked for."""

    def __call__(self, parser, *_):
        shipped = styles.shipped()
        for name, record in shipped.items():
            print(f"{name:24} {styles.described(record)}")
        if not shipped:
            print(
                "no styles ship with this copy: train one (tinynst train --help), and give its file: --style FILE.h5"
            )
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
        "images",
        nargs="+",
        metavar="IMAGE|FOLDER",
        help="photos; of a folder all images, in folders below too",
    )
    parser.add_argument(
        "--style",
        metavar="NAME|FILE.h5",
        help='a style that ships, weights from training, or a mixture, as "starry_night:0.6 great_wave:0.4"; of a file of '
        "many styles FILE.h5:NAME",
        **required,
    )
    parser.add_argument(
        "-o",
        "--out",
        metavar="OUT",
        help="where results go. One image: a file, whose suffix is the format, or a folder (one that is there, a name that "
        "ends in / or has no suffix). Several, or a folder: a folder, where folders below the one given are kept",
        **required,
    )
    parser.add_argument(
        "--list-styles",
        action=_ListStyles,
        nargs=0,
        default=argparse.SUPPRESS,
        help="show the styles that ship, and exit",
    )
    parser.add_argument(
        "--size",
        type=int,
        metavar="N",
        help="first shrink images whose longer side is over N pixels to N; smaller ones stay as they are. Saves time and "
        "memory (about 0.5 GB for each megapixel), and makes brush strokes larger against the picture",
    )
    parser.add_argument(
        "--enlarge", action="store_true", help="with --size: enlarge smaller images to N, too"
    )
    parser.add_argument(
        "--strength", type=float, default=1.0, metavar="0..1", help="blend: 0 is the photo, 1 the full style"
    )
    parser.add_argument(
        "--preserve-color", action="store_true", help="keep the photo's colours; only brightness is styled"
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="cuda: an NVIDIA GPU, through CuPy"
    )
    return parser


def main(arguments=None):
    """`python -m tinynst.stylize`; `arguments` is a list of strings (None: the command line's). Returns the exit status."""
    options = _parser().parse_args(arguments)
    if not 0 <= options.strength <= 1:
        raise UserError(
            f"--strength must be from 0 (the photo) to 1 (the full style), not {options.strength:g}"
        )
    if options.size is not None and options.size < 1:
        raise UserError(f"--size must be at least 1 pixel, not {options.size}")
    if options.enlarge and options.size is None:
        raise UserError("--enlarge needs --size N: how large?")
    planned = jobs.plan(options.images, options.out)
    net = load_style(options.style, device.select(options.device))
    return jobs.work(
        planned,
        lambda source, target: _style_file(net, source, target, options),
        "styling",
        "styled",
        options.out,
    )
