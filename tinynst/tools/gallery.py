"""What a net of many styles can do, as one picture: photos by styles, and strips from one style to another.

With no argument: photos that ship, which the net was not trained on, in all the styles that ship.
"""

import numpy as np

from ..cli import Parser
from ..data import images, styles, weights
from ..data.styles import IDENTITY
from ..errors import UserError
from ..samples import PHOTOS
from .stylize import load_style, stylize

SHOWN = ("neuschwanstein.jpg", "horses.jpg", "chelsea.jpg")
QUALITY = 80  # of a JPEG: a page of pictures to look at, not to work on
STEPS = (0, 0.25, 0.5, 0.75, 1)


def gallery(net, photos, names):
    """(rows of pictures, rows of captions): the photos, then what `net` makes of them in each of its styles `names`."""
    rows, captions = [list(photos)], [["photos that the net was not trained on"]]
    for name in names:
        rows.append([_painted(net, photo, name) for photo in photos])
        captions.append([name.replace("_", " ")])
    return rows, captions


def strip(net, photo, first, second):
    """The same for one photo on the way from one style to another; from "identity", the photo, it is a walk in strength."""
    if first == IDENTITY:
        pictures = [_painted(net, photo, second, share) for share in STEPS]
        return [pictures], [[f"strength {share:g}, {second.replace('_', ' ')}" for share in STEPS]]
    pictures = [_painted(net, photo, {first: 1 - share, second: share}) for share in STEPS]
    return [pictures], [
        [f"{first} {1 - share:.0%}, {second} {share:.0%}".replace("_", " ") for share in STEPS]
    ]


def _painted(net, photo, style, strength=1.0):
    net.style = net.mixture(style)
    return stylize(net, photo, strength)


def main(arguments=None):
    """The command `python -m tinynst.gallery`."""
    parser = Parser(prog="tinynst gallery", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--out", metavar="IMAGE", default="gallery.jpg", help="the picture to write")
    add("--weights", metavar="NAME|FILE.h5", default=styles.GALLERY, help="a net of many styles")
    add("--images", metavar="IMAGE|FOLDER", nargs="+", help="photos (default: three that ship)")
    add("--styles", metavar="NAME", nargs="+", help="which styles (default: all)")
    add(
        "--strip",
        metavar=("FROM", "TO"),
        nargs=2,
        help="five pictures of the first photo, from one style to another",
    )
    add("--size", type=int, default=320, help="longer side of each photo, in pixels")
    options = parser.parse_args(arguments)
    if options.size < 16:
        raise UserError(f"--size is {options.size}; it should be at least 16")
    out = images.check_writable(options.out)
    path = weights.find(options.weights)
    net = load_style(path)
    if not net.styles:
        raise UserError(f"{path} holds one style only: paint with it by tinynst stylize")
    for name in (*(options.styles or ()), *(options.strip or ())):
        if name not in net.styles:
            raise UserError(f"{path} has no style {name!r}; choose from {', '.join(net.styles)}")
    paths = images.find(options.images or [PHOTOS / name for name in SHOWN])
    photos = [images.load(photo, options.size, side="long").astype(np.float32) for photo in paths]
    if options.strip:
        rows, captions = strip(net, photos[0], *options.strip)
    else:
        rows, captions = gallery(
            net, photos, options.styles or [name for name in net.styles if name != IDENTITY]
        )
    images.save(out, images.sheet(rows, captions), QUALITY)
    print(f"wrote {out}")
