"""Image files <-> arrays (H, W, 3), RGB, 0..255. The rest of the program sees no other kind of image."""

import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from ..device import to_numpy
from ..errors import UserError
from .files import check_file, check_input, written_whole

SAVED = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
READ = (*SAVED, ".gif", ".ppm", ".pgm")
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # BT.601: how much each of R, G, B counts for brightness
_GIVEN = os.environ.get("TINYNST_MAX_PIXELS", "")
_MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 1 << 32
# Decoding takes up to 16 bytes a pixel, and a file of a few kilobytes can declare any number of pixels.
Image.MAX_IMAGE_PIXELS = int(_GIVEN) if _GIVEN.isdecimal() else min(100_000_000, _MEMORY // 32)
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")  # Pillow opens others with other programs
UNREADABLE = {
    UnidentifiedImageError: "no image that can be read, an empty file, or one of zero pixels: "
    "use JPEG, PNG, WebP, TIFF, BMP or GIF",
    Image.DecompressionBombError: "too large: shrink it, or set TINYNST_MAX_PIXELS to its number of pixels",
    MemoryError: "not enough memory for an image of this size: shrink it",
}


def load(path, size=None, side="short"):
    """`open_rgb` as an array (H, W, 3), float32, 0..255 (whole numbers: files are decoded to 8 bits)."""
    return np.asarray(open_rgb(path, size, side), np.float32)


def open_rgb(path, size=None, side="short", enlarge=True):
    """Read an image file, or an open binary file, as a Pillow image of mode "RGB".

    size: its `side` ("short" or "long") becomes `size` pixels and the other follows (bicubic, antialiased)
    enlarge: False leaves an image that is smaller than `size` as it is

    Grey becomes RGB (16 bits are divided by 257), transparent becomes white, an animation gives its first
    frame, and a photo is turned upright. Raises UserError, naming the file, if it cannot be read.
    """
    if side not in ("short", "long") or (size is not None and size < 1):
        raise ValueError(f"side must be 'short' or 'long' and size at least 1, not {side!r} and {size}")

    def scaled(now, size):
        measured = min(now) if side == "short" else max(now)
        return tuple(max(1, round(length * size / measured)) for length in now)

    # A JPEG is decoded at 1/2, 1/4 or 1/8 of its size, but at least twice as large as needed.
    image = _read(path, _to_rgb, size and (lambda now: scaled(now, 2 * size)))
    width, height = image.size if size is None else scaled(image.size, size)
    if (width, height) == image.size or (max(width, height) > max(image.size) and not enlarge):
        return image
    if width * height > (Image.MAX_IMAGE_PIXELS or np.inf):
        now = f"{image.width}x{image.height} with its {side} side made {size}"
        raise UserError(f"{path}: {now} would be {width}x{height}, which is too large: give a smaller size")
    return image.resize((width, height), Image.Resampling.BICUBIC)


def load_parts(path):
    """Read an image file as (rgb, alpha, grey), for a program that keeps grey and transparency.

    rgb is (H, W, 3) uint8, with the colours stored under transparent places; alpha is (H, W) uint8, 255
    opaque, or None; grey says whether the file holds no colours (rgb is then the same three times).
    """

    def parts(image):
        grey = Image.getmodebase(image.mode) == "L"
        if not image.has_transparency_data:
            return np.asarray(_to_rgb(image)), None, grey
        rgba = np.asarray(image.convert("RGBA"))
        return rgba[:, :, :3], rgba[:, :, 3], grey

    return _read(path, parts)


def _read(path, convert, draft_size=None):
    """`convert` of the Pillow image at `path`, upright. Any error becomes a UserError that names the file."""
    # Pillow's warnings about odd metadata do not help users. Not `catch_warnings`: it swaps a list that all
    # threads share, and photos are loaded on a background thread.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    if isinstance(path, str | os.PathLike):
        check_input(path, "; expected one image")
    try:
        with Image.open(path, formats=FORMATS) as file:
            if draft_size:
                file.draft(None, draft_size(file.size))
            if file.width * file.height > (Image.MAX_IMAGE_PIXELS or np.inf):
                raise Image.DecompressionBombError
            return convert(_upright(file))
    except Exception as error:  # Pillow's decoders raise errors of any kind
        reason = next((text for kind, text in UNREADABLE.items() if isinstance(error, kind)), None)
        said = getattr(error, "strerror", None) or " ".join(f"damaged or cut short: {error}".split())
        raise UserError(f"{path}: {reason or said}") from error


def _upright(image):
    """`image`, decoded and turned as its EXIF orientation says."""
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # garbled EXIF data is no reason to refuse the photo: it is not turned
        return image


def _to_rgb(image):
    """`image` of any mode as "RGB": 16-bit and float scaled to 0..255, transparent places on white."""
    if image.mode.startswith(("I", "F")):
        # Pillow's convert() would clip. Integers have 16 bits: white is 65535 = 257 * 255. For floats the
        # largest value shows whether white is 1, 255 or 65535. Beyond that the brightest pixel is white.
        grey = np.nan_to_num(np.asarray(image, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        top = grey.max()
        white = max(65535, top)
        if image.mode == "F" and top <= 255:
            white = 1 if top <= 1 else 255
        return Image.fromarray(to_uint8(grey * (255 / white))).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def to_array(image):
    """`image`, a path, a Pillow image or an array (NumPy or CuPy), as an (H, W, 3) NumPy array, 0..255;
    ValueError for an array of another shape, of no numbers, or of some that are not finite."""
    if isinstance(image, str | os.PathLike):
        return np.asarray(open_rgb(image))
    if isinstance(image, Image.Image):
        return np.asarray(_to_rgb(_upright(image)))
    image = to_numpy(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0 or image.dtype.kind not in "biuf":
        raise ValueError(f"image is {image.dtype} of shape {image.shape}; it should be numbers (H, W, 3)")
    if not np.isfinite(image).all():
        raise ValueError("image holds NaN or infinity; it should be numbers in 0..255")
    return image


def to_uint8(image):
    """`image` (any shape, 0..255, NumPy or CuPy) as uint8 NumPy: clipped, rounded; ValueError for NaN, which
    would become black unseen."""
    image = to_numpy(image)
    if image.dtype == np.uint8:
        return image
    if np.isnan(image).any():
        raise ValueError("the image holds NaN: the net that made it has diverged, or its weights are damaged")
    return np.rint(np.clip(image, 0, 255)).astype(np.uint8)


def find(paths):
    """The image files in `paths` (one or several; files, or folders with all below them), sorted, each once.

    In folders files are chosen by suffix (READ), without hidden ones. Raises UserError for a missing path and
    for a folder without images.
    """
    found = set()
    for path in map(Path, [paths] if isinstance(paths, str | os.PathLike) else paths):
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
        if not path.is_dir():
            found.add(path)
            continue
        files, closed = [], []  # folders that may not be read are reported when they are opened as images
        for parent, folders, names in os.walk(path, onerror=closed.append):
            folders[:] = [name for name in folders if not name.startswith(".")]
            files += [Path(parent, name) for name in names]
        pictures = {f for f in files if f.name.lower().endswith(READ) and not f.name.startswith(".")}
        pictures |= {Path(error.filename) for error in closed}
        if not pictures:
            what = "holds files but no image" if files else "is an empty folder"
            raise UserError(f"{path} {what}: put images there ({' '.join(READ)})")
        found |= pictures
    return sorted(found, key=Path.as_posix)  # the same order on every system


def save(path, image, quality=95):
    """Write `image`, 0..255, clipped and rounded, in the format of the suffix of `path`, whole or not at all.

    image: (H, W, 3) RGB; (H, W) grey; or (H, W, 4) RGB and alpha, on white if the format has no transparency
    Raises UserError for an unknown suffix and if the file cannot be written.
    """
    path = check_file(path, SAVED)
    picture, options = Image.fromarray(to_uint8(image)), {"quality": quality}
    if picture.mode == "RGBA" and path.suffix.lower() in (".jpg", ".jpeg", ".bmp"):
        picture = _to_rgb(picture)
    if path.suffix.lower() in (".jpg", ".jpeg"):
        options["subsampling"] = 0  # full colour resolution: stylised images have hard colour edges
    try:
        with written_whole(path) as temporary:
            picture.save(temporary, **options)
    except (OSError, ValueError, KeyError) as error:
        what = f"{picture.width}x{picture.height} ({getattr(error, 'strerror', None) or error})"
        raise UserError(f"{path}: could not be written as {what}") from error


def resize(image, height, width):
    """`image` (H, W, C), any range, as (height, width, C) float32: bicubic, antialiased, neither rounded nor
    clipped where it overshoots next to sharp edges."""
    channels = [Image.fromarray(channel) for channel in np.moveaxis(np.asarray(image, np.float32), 2, 0)]
    return np.stack([c.resize((width, height), Image.Resampling.BICUBIC) for c in channels], axis=2)


def at_most(image, side):
    """`image` (H, W, 3), 0..255, as float32, shrunk if its longer side has more than `side` pixels."""
    scale = min(1.0, side / max(image.shape[:2]))
    return resize(image, *(max(1, round(length * scale)) for length in image.shape[:2]))


def preserve_color(stylised, content):
    """The brightness of `stylised` with the colours of `content`, both (H, W, 3), 0..255, as float32.

    Y of the first with Cb and Cr of the second (Gatys et al. 2016, arXiv:1606.05897, section 2.2). RGB is Y
    plus terms of Cb and Cr only, so changing Y adds the same number to all three channels.
    """
    stylised, content = np.asarray(stylised, np.float32), np.asarray(content, np.float32)
    difference = stylised @ LUMA - content @ LUMA
    return np.clip(content + difference[..., None], 0, 255)


def match_histogram(image, reference):
    """`image` (H, W, C) with each channel's distribution of values in `reference` (h, w, C): float32, 0..255.

    The value below which a share p of the image lies becomes that below which p of the reference lies.
    """

    def shares(channel):
        """The grey levels that occur, and the share of the pixels below each, plus half of those at it."""
        counts = np.bincount(to_uint8(channel).ravel(), minlength=256)
        below = (np.cumsum(counts) - counts / 2) / counts.sum()
        return np.flatnonzero(counts).astype(np.float64), below[counts > 0]

    matched = np.empty(image.shape, np.float32)
    for c in range(image.shape[2]):
        levels, own = shares(image[:, :, c])
        wanted, theirs = shares(reference[:, :, c])
        matched[:, :, c] = np.interp(image[:, :, c], levels, np.interp(own, theirs, wanted))
    return matched


def sheet(rows, captions=(), gap=8):
    """Lay rows of images (H, W, 3), 0..255, out on white, in cells of the largest image: (H, W, 3) uint8.

    captions: rows of strings (or None) to write under the images; gap: white pixels around each cell
    """
    font = ImageFont.load_default()
    line = 2 + sum(font.getbbox("Åg")[1::2]) if captions else 0
    height, width = np.max([image.shape[:2] for row in rows for image in row], axis=0).tolist()
    step_y, step_x = height + line + gap, width + gap
    page = Image.new("RGB", (gap + step_x * max(map(len, rows)), gap + step_y * len(rows)), "white")
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            h, w = image.shape[:2]
            place = gap + step_x * c + (width - w) // 2, gap + step_y * r + (height - h) // 2
            page.paste(Image.fromarray(to_uint8(image)), place)
    draw = ImageDraw.Draw(page)
    for r, texts in enumerate(captions):
        for c, text in enumerate(texts):
            shorter = (text[:end] + "..." for end in range(len(text or "") - 1, 0, -1))
            fitting = (each for each in (text or "", *shorter) if font.getlength(each) <= width)
            place = gap + step_x * c, gap + step_y * r + height + 1
            draw.text(place, next(fitting, ""), fill="black", font=font)
    return np.array(page)
