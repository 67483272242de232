"""A net of many styles as one picture: photos by styles, or a strip from one style to another."""

from ..cli import Parser
from ..data import images, styles, weights
from ..data.files import check_file
from ..data.styles import IDENTITY
from ..errors import UserError
from ..samples import PHOTOS
from .stylize import load_style, stylize

SHOWN = ("neuschwanstein.jpg", "horses.jpg", "chelsea.jpg")  # the net that ships was not trained on them
QUALITY = 80  # of a JPEG: a page of pictures to look at, not to edit
STEPS = (0, 0.25, 0.5, 0.75, 1)


def gallery(net, photos, names):
    """(rows of pictures, rows of captions): the photos, then each in the styles `names` of `net`."""
    rows = [[_painted(net, photo, name) for photo in photos] for name in names]
    captions = ["photos that the net was not trained on", *(name.replace("_", " ") for name in names)]
    return [list(photos), *rows], [[caption] for caption in captions]


def strip(net, photo, first, second):
    """The same for a photo between styles `first` and `second`; from "identity", the strength grows."""
    if first == IDENTITY:
        pictures = [_painted(net, photo, second, share) for share in STEPS]
        captions = [f"strength {share:g}, {second}" for share in STEPS]
    else:
        pictures = [_painted(net, photo, {first: 1 - share, second: share}) for share in STEPS]
        captions = [f"{first} {1 - share:.0%}, {second} {share:.0%}" for share in STEPS]
    return [pictures], [[caption.replace("_", " ") for caption in captions]]


def _painted(net, photo, style, strength=1.0):
    net.style = net.mixture(style)
    return stylize(net, photo, strength)


def main(arguments=None):
    """`python -m tinynst.gallery`; without arguments: photos that ship, in all styles that ship."""
    parser = Parser(prog="tinynst gallery", description=__doc__)
    add = parser.add_argument
    add("--out", metavar="IMAGE", default="gallery.jpg", help="the picture to write")
    add("--weights", metavar="NAME|FILE.h5", default=styles.GALLERY, help="a net of many styles")
    add("--images", metavar="IMAGE|FOLDER", nargs="+", help="photos (default: three that ship)")
    add("--styles", metavar="NAME", nargs="+", help="which styles (default: all)")
    add("--strip", metavar=("FROM", "TO"), nargs=2, help="the first photo from one style to another")
    add("--size", type=int, default=320, help="longer side of each photo, in pixels")
    s = parser.parse_args(arguments)
    if s.size < 16:
        raise UserError(f"--size is {s.size}; it should be at least 16")
    path, paths = weights.find(s.weights), images.find(s.images or [PHOTOS / name for name in SHOWN])
    out = check_file(s.out, images.SAVED, paths)
    net = load_style(path)
    if not net.styles:
        raise UserError(f"{path} holds one style only: paint with it by tinynst stylize")
    for name in (*(s.styles or ()), *(s.strip or ())):
        if name not in net.styles:
            raise UserError(f"{path} has no style {name!r}; choose from {', '.join(net.styles)}")
    photos = [images.load(photo, s.size, side="long") for photo in paths]
    names = s.styles or [name for name in net.styles if name != IDENTITY]
    pictures = strip(net, photos[0], *s.strip) if s.strip else gallery(net, photos, names)
    images.save(out, images.sheet(*pictures), QUALITY)
    print(f"wrote {out}")
