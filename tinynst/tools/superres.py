"""Enlarge photos 2, 4 or 8 times with a trained super-resolution net.

`load_superres` and `enlarge` are the whole of it; the rest is the command. Large photos go through the net in tiles, so
that memory does not grow with them.
"""

import functools

import numpy as np
from PIL import Image

from .. import device
from ..cli import Parser, given
from ..data import images, weights
from ..errors import UserError
from ..networks import super_resolution_net
from ..networks.transform import FACTORS
from . import apply as jobs

SETTINGS = (
    "factor",
    "norm",
    "upsample",
    "residual",
    "width",
)  # what super_resolution_net must know to build the net

# How far, in pixels of the small image, a pixel of the result can see: 4 for the first 9x9 convolution, 8 for eight of 3x3,
# less than 2 for those that enlarge (1 + 1/2 + 1/4), at most 2 for the last 9x9, whose pixels are the result's.
REACH = 16
TILE = 512


# --- library ----------------------------------------------------------------------------------------------------------


def load_superres(name_or_path, xp=np):
    """(net, about) of trained weights, on the device of `xp`: a name that ships, or the path of a .h5 file.

    Raises UserError, naming the file, where there is none, where it holds anything but a super-resolution net, and where its
    settings or arrays do not make one.
    """
    return weights.load_net(
        name_or_path, "superres", functools.partial(super_resolution_net, xp=xp), SETTINGS
    )


def enlarge(net, image, tile=TILE, match_histogram=False):
    """Enlarge `image` (H, W, 3), RGB, 0..255, any H and W from 1 on: (factor*H, factor*W, 3) float32 NumPy, 0..255.

    tile: side of the squares of the result that are made at a time, in pixels: less takes less memory. Each is made from
        all that it can see of the image, so that no seam can be seen: the numbers differ by rounding alone
    match_histogram: give each channel of the result the image's distribution of values, as the paper does

    The image may be float or uint8, NumPy or CuPy; the net runs where its parameters are. Raises ValueError for another
    shape and for a tile of less than one pixel.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"image has shape {tuple(image.shape)}; it should be (H, W, 3)")
    if tile < 1:
        raise ValueError(f"tile is {tile}; it should be at least 1 pixel")
    xp, f = device.array_module(*net.parameters().values()), net.factor
    image = device.to_numpy(image)
    height, width = image.shape[:2]
    result = np.empty((f * height, f * width, 3), np.float32)
    step = max(1, tile // f)
    for top in range(0, height, step):
        for left in range(0, width, step):
            rows, inner_rows = _seen(top, step, height, f)
            columns, inner_columns = _seen(left, step, width, f)
            part = xp.asarray(image[None, rows, columns].astype(np.float32))
            made = device.to_numpy(net.forward(part))[0, inner_rows, inner_columns]
            place = result[f * top : f * (top + step), f * left : f * (left + step)]
            np.clip(made, 0, 255, out=place)
    return images.match_histogram(result, image) if match_histogram else result


def _seen(start, step, size, factor):
    """Of an image's `size` rows (or columns): the slice that the result's rows from `start` on, `step` of them, can see, and
    where these lie in what the net makes of it."""
    first, last = max(0, start - REACH), min(size, start + step + REACH)
    return slice(first, last), slice(factor * (start - first), factor * (min(start + step, size) - first))


# --- the command ------------------------------------------------------------------------------------------------------


def _enlarge_file(net, source, target, tile, match_histogram):
    """Read, enlarge and write one image; returns the result's (height, width). Raises UserError naming the file at fault."""
    photo, alpha, grey = images.load_parts(source)
    height, width = (net.factor * size for size in photo.shape[:2])
    if height * width > 2 * (Image.MAX_IMAGE_PIXELS or np.inf):
        raise UserError(
            f"{source}: {width}x{height} would be too large for a picture: use a smaller factor, or cut it up"
        )
    try:
        result = enlarge(net, photo, tile, match_histogram)
        if grey:
            result = (result @ images.LUMA)[:, :, None]
        if alpha is not None:
            result = result if result.shape[2] == 3 else result.repeat(3, axis=2)
            result = np.concatenate([result, images.resize(alpha[:, :, None], height, width)], axis=2)
        images.save(target, result[:, :, 0] if result.shape[2] == 1 else result)
    except MemoryError as error:
        raise UserError(
            f"{source}: not enough memory to enlarge it to {width}x{height}: try --tile {tile // 2}"
        ) from error
    return height, width


def _parser():
    parser = Parser(
        prog="tinynst superres",
        description="Enlarge photos with a trained super-resolution net.",
        epilog="Results have 8 bits a channel and the format of their image: JPEG, PNG, WebP, TIFF and BMP stay what they are, "
        "all others become PNG. Grey images stay grey, transparency is kept where the format knows it, of "
        "an animation the first frame is taken, and a photo that EXIF says lies on its side is turned. No input is ever "
        "overwritten; an older result of the same name is.",
    )
    add = parser.add_argument
    add(
        "images",
        nargs="+",
        metavar="IMAGE|FOLDER",
        help="photos; of a folder all images, in folders below too",
    )
    add(
        "-o",
        "--out",
        metavar="OUT",
        required=True,
        help="one image: a file or folder; several, or a folder: a folder",
    )
    add("--factor", type=int, choices=FACTORS, default=4, help="how many times larger on each side")
    add(
        "--loss",
        choices=("feature", "pixel"),
        default="feature",
        help="sharp for the eye, or the least squared error",
    )
    add(
        "--weights", metavar="NAME|FILE.h5", help="other weights than those that ship for --factor and --loss"
    )
    add(
        "--tile",
        type=int,
        default=TILE,
        metavar="N",
        help="side of the squares of the result made at a time: memory",
    )
    parser.add_argument(
        "--match-histogram",
        choices=("yes", "no"),
        help="give the result the brightness and colours of the image, channel by channel (default: yes with --loss feature, "
        "as in the paper)",
    )
    add("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: an NVIDIA GPU, through CuPy")
    return parser


def _load(options, explicit):
    """The net that the options name; --factor and --loss must not contradict --weights."""
    name = options.weights or f"superres_x{options.factor}_{options.loss}"
    net, about = load_superres(name, device.select(options.device))
    for option in ("factor", "loss"):
        if option in explicit and explicit[option] != about.get(option):
            raise UserError(
                f"--{option} is {explicit[option]}, but {name} was trained with {about.get(option)}: leave it out"
            )
    return net, about


def main(arguments=None):
    """`python -m tinynst.superres`; `arguments` is a list of strings (None: the command line's). Returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.tile < 1:
        raise UserError(f"--tile must be at least 1 pixel, not {options.tile}")
    planned = jobs.plan(options.images, options.out)
    net, about = _load(options, given(parser, arguments))
    matched = (
        (about.get("loss") == "feature")
        if options.match_histogram is None
        else options.match_histogram == "yes"
    )
    return jobs.work(
        planned,
        lambda source, target: _enlarge_file(net, source, target, options.tile, matched),
        "enlarging",
        "enlarged",
        options.out,
    )
