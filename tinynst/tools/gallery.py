"""A net of many styles as one picture: photos by styles, or a strip from one style to another."""

import dataclasses

from ..data import images, styles, weights
from ..data.files import check_file
from ..data.styles import IDENTITY
from ..errors import UserError
from ..samples import PHOTOS
from ..settings import Settings, option
from .stylize import load_style, stylize

SHOWN = ("neuschwanstein.jpg", "horses.jpg", "chelsea.jpg")  # the net that ships was not trained on them
QUALITY = 80  # of a JPEG: a page of pictures to look at, not to edit
STEPS = (0, 0.25, 0.5, 0.75, 1)


@dataclasses.dataclass(init=False)
class GallerySettings(Settings):
    out: str = option("gallery.jpg", "the picture to write", metavar="IMAGE")
    weights: str = option(styles.GALLERY, "a net of many styles", metavar="NAME|FILE.h5")
    images: list[str] | None = option(None, "photos (default: three that ship)", metavar="IMAGE|FOLDER")
    styles: list[str] | None = option(None, "which styles (default: all)", metavar="NAME")
    strip: list[str] | None = option(
        None, "the first photo from one style to another", nargs=2, metavar=("FROM", "TO")
    )
    size: int = option(320, "longer side of each photo, in pixels", least=16)


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
    """The command `tinynst gallery`; without options: photos that ship, in all styles that ship."""
    s = GallerySettings.parse(arguments, "gallery", __doc__)
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
