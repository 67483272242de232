"""Enlarge photos 2, 4 or 8 times with a trained super-resolution net, large ones in tiles."""

import dataclasses
import functools

import numpy as np
from PIL import Image

from .. import device
from ..data import images, weights
from ..errors import UserError
from ..networks import super_resolution_net
from ..networks.transform import FACTORS
from ..settings import option
from . import apply

TILE = 512
MATCH = "give the result the colours of the image, per channel (default: yes with --loss feature)"

# The receptive field of a pixel of the result, in pixels of the small image to each side: 4 for the first 9x9
# convolution, 8 for eight of 3x3, under 2 for those that enlarge (1 + 1/2 + 1/4), at most 2 for the last 9x9.
REACH = 16


def load_superres(name_or_path, xp=np):
    """(net, about) of trained weights, on the device of `xp`: a name that ships, or the path of a .h5 file.

    Raises UserError, naming the file, if there is none, or it does not hold a super-resolution net.
    """
    recorded = ("factor", "norm", "upsample", "residual", "width")
    make = functools.partial(super_resolution_net, xp=xp)
    return weights.load_net(name_or_path, "superres", make, recorded)


def enlarge(net, image, tile=TILE, match_histogram=False):
    """Enlarge `image` with a super-resolution net: a (factor*H, factor*W, 3) uint8 NumPy array.

    image: a path, a Pillow image, or an array (H, W, 3), RGB, 0..255, uint8 or float, NumPy or CuPy
    tile: side of the squares of the result that are made at a time, in pixels: less takes less memory. There
        are no seams, because each is made from all pixels of the image that influence it
    match_histogram: give each channel of the result the image's distribution of values, as the paper does

    Raises ValueError for another shape or a tile below one pixel, UserError for an unreadable file.
    """
    return images.to_uint8(_enlarge(net, images.to_array(image), tile, match_histogram))


def _enlarge(net, image, tile, match_histogram):
    """`enlarge` in float32, for an array."""
    if tile < 1:
        raise ValueError(f"tile is {tile}; it should be at least 1 pixel")
    xp, f = device.array_module(*net.parameters().values()), net.factor
    height, width = image.shape[:2]
    result = np.empty((f * height, f * width, 3), np.float32)
    step = max(1, tile // f)
    for top in range(0, height, step):
        for left in range(0, width, step):
            first_row, first_column = max(0, top - REACH), max(0, left - REACH)
            part = image[first_row : top + step + REACH, first_column : left + step + REACH]
            made = device.to_numpy(net.forward(xp.asarray(part[None].astype(np.float32))))[0]
            place = result[f * top : f * (top + step), f * left : f * (left + step)]
            inner = made[f * (top - first_row) :, f * (left - first_column) :]
            np.clip(inner[: place.shape[0], : place.shape[1]], 0, 255, out=place)
    return images.match_histogram(result, image) if match_histogram else result


def _enlarge_file(net, tile, match_histogram, source, target):
    """Read, enlarge and write one image: the result's (height, width). Raises UserError naming the file."""
    photo, alpha, grey = images.load_parts(source)
    height, width = (net.factor * size for size in photo.shape[:2])
    if height * width > 2 * (Image.MAX_IMAGE_PIXELS or np.inf):
        raise UserError(f"{source}: {width}x{height} would be too large: use a smaller factor, or cut it up")
    try:
        result = _enlarge(net, photo, tile, match_histogram)
        if grey:
            result = result @ images.LUMA
        if alpha is not None:
            colours = np.stack([result] * 3, axis=2) if grey else result
            result = np.concatenate([colours, images.resize(alpha[:, :, None], height, width)], axis=2)
        images.save(target, result)
    except MemoryError as error:
        what = f"not enough memory to enlarge it to {width}x{height}"
        raise UserError(f"{source}: {what}: try --tile {tile // 2}") from error
    return height, width


@dataclasses.dataclass(init=False)
class SuperresSettings(apply.ApplySettings):
    """The settings of `tinynst superres`."""

    factor: int = option(4, "how many times larger on each side", choices=FACTORS)
    loss: str = option("feature", "sharp, or the least squared error", choices=("feature", "pixel"))
    weights: str | None = option(None, "other weights than --factor and --loss name", metavar="NAME|FILE.h5")
    tile: int = option(TILE, "side of the squares that are made at a time: less takes less memory", least=1)
    match_histogram: str | None = option(None, MATCH, choices=("yes", "no"))


def main(arguments=None):
    """The command `tinynst superres`. Returns the exit status."""
    epilog = f"{apply.FORMATS} Grey stays grey, and transparency is kept if the format has it."
    about = "Enlarge photos with a trained super-resolution net."
    s = SuperresSettings.parse(arguments, "superres", about, epilog)
    jobs = apply.plan(s.images, s.out)
    name = s.weights or f"superres_x{s.factor}_{s.loss}"
    net, about = load_superres(name, device.select(s.device))
    for what in s.given & {"factor", "loss"}:
        if getattr(s, what) != about.get(what):
            trained = f"{name} was trained with {about.get(what)}"
            raise UserError(f"--{what} is {getattr(s, what)}, but {trained}: leave it out")
    matched = s.match_histogram == "yes" or (not s.match_histogram and about.get("loss") == "feature")
    make = functools.partial(_enlarge_file, net, s.tile, matched)
    return apply.work(jobs, make, "enlarging", "enlarged", s.out)
