"""Apply a trained style to photos: one forward pass of the style net for each."""

import argparse
import dataclasses
import functools

import numpy as np

from .. import device
from ..data import images, styles, weights
from ..data.styles import IDENTITY
from ..errors import UserError
from ..networks import style_net
from ..settings import option
from . import apply

STYLE = 'a style, a mixture as "starry_night:0.6 great_wave:0.4", a .h5 file, or FILE.h5:NAME of several'


def load_style(name_or_path, xp=np):
    """The trained StyleNet of a style, on the device of `xp`: a name that ships ("starry_night"), the path of
    a .h5 file, or a mixture "starry_night:0.6 great_wave:0.4" (see `styles.resolve`).

    Raises UserError, naming the file, if there is none, or it does not hold a style.
    """
    path, mix = styles.resolve(name_or_path)
    rows = styles.names(weights.read_about(path))
    make = functools.partial(style_net, xp=xp, styles=rows or 1)
    net, _ = weights.load_net(path, "style", make, ("norm", "upsample", "width"), later=("padding",))
    if mix and rows:
        try:
            net.style = net.mixture(mix)
        except ValueError as error:
            raise UserError(f"--style {name_or_path}: {error}") from None
    return net


def stylize(net, image, strength=1.0, preserve_color=False):
    """Paint `image` with a style net: an (H, W, 3) uint8 NumPy array.

    image: a path, a Pillow image, or an array (H, W, 3), RGB, 0..255, uint8 or float, NumPy or CuPy
    strength: from 0, the photo, to 1, the full style. A net that has a row for the photo itself paints with a
        mixture of the two rows, so brush strokes grow out of the photo; with other nets pictures are blended
    preserve_color: take only the brightness from the style, and the colours from the photo

    Raises ValueError for another shape or a strength outside 0..1, UserError for an unreadable file.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must be from 0 to 1, not {strength}")
    photo = images.to_array(image).astype(np.float32)
    x = device.asarray(photo[None], device.array_module(*net.parameters().values()))
    if IDENTITY in net.styles and 0 < strength < 1:
        mix = strength * net.style + (1 - strength) * net.mixture(IDENTITY)
        painted, same = (device.to_numpy(net.forward(x, style=style))[0] for style in (mix, IDENTITY))
        # The identity row gives a soft photo: what it loses is added as strength goes to zero.
        painted, strength = painted + np.float32(1 - strength) * (photo - same), 1.0
    else:
        painted = device.to_numpy(net.forward(x, style=net.style))[0]
    painted = painted.clip(0, 255)
    if preserve_color:
        painted = images.preserve_color(painted, photo)
    share = np.float32(strength)
    return images.to_uint8(share * painted + (1 - share) * photo)


def _style_file(net, s, source, target):
    """Read, paint and write one image: its (height, width). Raises UserError naming the file at fault."""
    side = s.size
    try:
        image = np.asarray(images.open_rgb(source, side, "long", s.enlarge))
        side = max(image.shape[:2])
        images.save(target, stylize(net, image, s.strength, s.preserve_color))
    except MemoryError as error:
        what = f"not enough memory to style it with a longer side of {side} pixels"
        raise UserError(f"{source}: {what}: try --size {max(1, side // 2)}") from error
    return image.shape[:2]


class _ListStyles(argparse.Action):
    """--list-styles: print and exit, as --help does, so that no other argument is required."""

    def __call__(self, parser, *_):
        shipped = styles.shipped()
        for name, record in shipped.items():
            print(f"{name:24} {styles.described(record)}")
        if not shipped:
            print("no styles ship with this copy: train one (tinynst train --help): --style FILE.h5")
        parser.exit()


@dataclasses.dataclass(init=False)
class StylizeSettings(apply.ApplySettings):
    """The settings of `tinynst stylize`."""

    style: str = option(None, STYLE, metavar="NAME|FILE.h5", required=True)
    list_styles: bool = option(False, "show the styles that ship, and exit", action=_ListStyles, nargs=0)
    size: int | None = option(None, "shrink to this longer side first (smaller ones stay)", least=1)
    enlarge: bool = option(False, "with --size: enlarge smaller images to N, too")
    strength: float = option(1.0, "0 is the photo, 1 the full style", least=0, most=1, metavar="0..1")
    preserve_color: bool = option(False, "keep the photo's colours; only brightness is styled")


def main(arguments=None):
    """The command `tinynst stylize`. Returns the exit status."""
    epilog = f"{apply.FORMATS} Transparent becomes white. A result has the size of its image."
    s = StylizeSettings.parse(arguments, "stylize", "Apply a trained style to photos.", epilog)
    if s.enlarge and s.size is None:
        raise UserError("--enlarge needs --size N: how large?")
    jobs = apply.plan(s.images, s.out)
    net = load_style(s.style, device.select(s.device))
    return apply.work(jobs, functools.partial(_style_file, net, s), "styling", "styled", s.out)
