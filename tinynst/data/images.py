"""Image files <-> arrays (H, W, 3), RGB, 0..255. The rest of the program sees no other kind of image."""

import contextlib
import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from ..device import to_numpy
from ..errors import UserError
from .files import check_file, written_whole

SAVED = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
OPAQUE = (".jpg", ".jpeg", ".bmp")  # saved without transparency
READ = (*SAVED, ".gif", ".ppm", ".pgm")
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # BT.601: how much each of R, G, B counts for brightness


def load(path, size=None, side="short"):
    """Read an image file as (H, W, 3) float32, RGB, 0..255 (whole numbers: files are decoded to 8 bits).

    size: None for the image as it is; otherwise its `side` ("short" or "long") becomes `size` pixels, larger
    or smaller, and the other follows (bicubic, antialiased). Grey becomes RGB (16-bit grey is divided by
    257), transparent becomes white, an animation gives its first frame, and a photo is turned upright by its
    EXIF orientation. Raises UserError, naming the file, if it is missing, no image, damaged, or too large.
    """
    return np.asarray(open_rgb(path, size, side), np.float32)


def open_rgb(path, size=None, side="short", enlarge=True):
    """As `load`, but returns a Pillow image of mode "RGB"; with enlarge=False a smaller image keeps its size.

    `path` may also be an open binary file.
    """
    if side not in ("short", "long"):
        raise ValueError(f"side must be 'short' or 'long', not {side!r}")
    if size is not None and size < 1:
        raise ValueError(f"size must be at least 1 pixel, not {size}")
    with _naming(path), Image.open(path) as file:
        if size is not None:  # a JPEG is decoded at 1/2, 1/4 or 1/8, but at least twice as large as needed
            file.draft(None, _scaled(file.size, 2 * size, side))
        image = _to_rgb(_upright(file))
    if size is None:
        return image
    width, height = _scaled(image.size, size, side)
    if (width, height) == image.size or (max(width, height) > max(image.size) and not enlarge):
        return image
    if width * height > (Image.MAX_IMAGE_PIXELS or np.inf):
        result = f"{image.width}x{image.height} with its {side} side made {size} would be {width}x{height}"
        raise UserError(f"{path}: {result}, which is too large: give a smaller size")
    return image.resize((width, height), Image.Resampling.BICUBIC)


def load_parts(path):
    """Read an image file as (rgb, alpha, grey), for a program that keeps grey and transparency.

    rgb: (H, W, 3) uint8, as `load`, but with the colours stored under transparent places
    alpha: (H, W) uint8, 0 transparent to 255 opaque, or None if the file has no transparency
    grey: whether the file holds no colours (rgb is then the same three times)
    """
    with _naming(path), Image.open(path) as file:
        image = _upright(file)
        grey, alpha = Image.getmodebase(image.mode) == "L", None
        if image.has_transparency_data:
            image = image.convert("RGBA")
            alpha = np.asarray(image.getchannel("A"))
            image = image.convert("RGB")  # drops A, blends nothing
        return np.asarray(_to_rgb(image)), alpha, grey


def to_array(image):
    """`image`, a path, a Pillow image or an array (NumPy or CuPy), as an (H, W, 3) NumPy array, 0..255.

    Raises UserError for a file that cannot be read, ValueError for an array of another shape.
    """
    if isinstance(image, str | os.PathLike):
        return np.asarray(open_rgb(image))
    if isinstance(image, Image.Image):
        return np.asarray(_to_rgb(_upright(image)))
    image = to_numpy(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"image has shape {image.shape}; it should be (H, W, 3)")
    return image


def find(paths):
    """The image files in `paths` (one or several; files, or folders with all below them), sorted, each once.

    Folders are searched by suffix (READ), without hidden files and folders; a file named directly is taken as
    it is. Raises UserError for a missing path and for a folder without images.
    """
    found = set()
    for path in [paths] if isinstance(paths, str | os.PathLike) else paths:
        path = Path(path)
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
        found.update(_find_in(path) if path.is_dir() else [path])
    return sorted(found, key=lambda path: path.as_posix())  # the same order on every system


def _find_in(folder):
    """The images below `folder`."""
    images, others = [], 0
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and name.lower().endswith(READ):
                images.append(Path(parent, name))
            else:
                others += 1
    if not images:
        what = f"holds {others} file{'s' * (others != 1)} but no image" if others else "is an empty folder"
        raise UserError(f"{folder} {what}: put images there ({' '.join(READ)})")
    return images


@contextlib.contextmanager
def _naming(path):
    """Turn any error inside the block into a UserError that names the file and says what is wrong with it."""
    # Pillow's warnings about odd metadata do not help users. Not `catch_warnings`: it swaps a list that all
    # threads share, and photos are loaded on a background thread.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        yield
    except Exception as error:  # Pillow's decoders raise errors of any kind
        raise UserError(f"{path}: {_reason(path, error)}") from error


def _reason(path, error):
    """What is wrong with the image file at `path`, given the error that reading it raised."""
    is_file = isinstance(path, str | os.PathLike)
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if is_file and os.path.isdir(path):
        return "this is a folder; expected one image"
    if isinstance(error, UnidentifiedImageError):
        if is_file and os.path.getsize(path) == 0:
            return "the file is empty (0 bytes)"
        return "no image that can be read, or one of zero pixels: use JPEG, PNG, WebP, TIFF, BMP or GIF"
    if isinstance(error, Image.DecompressionBombError):
        return f"too large (more than {2 * Image.MAX_IMAGE_PIXELS // 10**6} million pixels): shrink it"
    if isinstance(error, MemoryError):
        return "not enough memory for an image of this size: shrink it"
    if isinstance(error, OSError) and error.errno is not None:
        return error.strerror
    return f"the image is damaged or cut short ({' '.join(str(error).split()) or type(error).__name__})"


def _scaled(size, wanted, side):
    """(width, height) when the short or long side of `size` becomes `wanted`."""
    now = min(size) if side == "short" else max(size)
    return tuple(max(1, round(length * wanted / now)) for length in size)


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
        return Image.fromarray(_grey_to_8bit(np.asarray(image, np.float32), image.mode)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _grey_to_8bit(grey, mode):
    """Grey (H, W) of Pillow's mode "I;16", "I" or "F" as uint8. Pillow's convert() would clip it.

    Integers have 16 bits: white is 65535 = 257 * 255. For floats the largest value shows whether white is 1,
    255 or 65535. Beyond that white is unknown: the brightest pixel becomes white.
    """
    grey = np.nan_to_num(grey, nan=0.0, posinf=0.0, neginf=0.0)
    top = grey.max()
    white = max(65535, top)
    if mode == "F" and top <= 255:
        white = 1 if top <= 1 else 255
    return to_uint8(grey * (255 / white))


def to_uint8(image):
    """`image` (any shape, 0..255, NumPy or CuPy) as uint8 NumPy: clipped to 0..255, rounded.

    Raises ValueError for NaN: it would become black, and the mistake would not be seen.
    """
    image = to_numpy(image)
    if image.dtype == np.uint8:
        return image
    if np.isnan(image).any():
        raise ValueError("the image holds NaN: the net that made it has diverged, or its weights are damaged")
    return np.rint(np.clip(image, 0, 255)).astype(np.uint8)


def resize(image, height, width):
    """Resize `image` (H, W, C), any range, to (height, width, C) float32: bicubic, antialiased.

    Uses Pillow's float mode "F", so nothing is rounded to 8 bits. Next to sharp edges bicubic interpolation
    overshoots the range of its input; that is not clipped.
    """
    if image.ndim != 3 or height < 1 or width < 1:
        raise ValueError(f"resize takes (H, W, C) to at least 1x1, not {image.shape} to {height}x{width}")
    channels = [Image.fromarray(channel) for channel in np.moveaxis(np.asarray(image, np.float32), 2, 0)]
    return np.stack([c.resize((width, height), Image.Resampling.BICUBIC) for c in channels], axis=2)


def at_most(image, side):
    """`image` (H, W, 3), 0..255, shrunk if its longer side has more than `side` pixels."""
    scale = min(1.0, side / max(image.shape[:2]))
    return resize(image, *(max(1, round(length * scale)) for length in image.shape[:2]))


def preserve_color(stylised, content):
    """The brightness of `stylised` with the colours of `content`, both (H, W, 3), 0..255, as float32.

    In YCbCr (BT.601) that is Y of the first with Cb and Cr of the second. RGB is Y plus terms of Cb and Cr
    only, so changing Y adds the same number to all three channels. (Gatys et al. 2016, arXiv:1606.05897,
    section 2.2.) Raises ValueError if the shapes differ.
    """
    stylised, content = np.asarray(stylised, np.float32), np.asarray(content, np.float32)
    if stylised.shape != content.shape or stylised.shape[-1:] != (3,):
        raise ValueError(f"two (H, W, 3) of one size are needed, not {stylised.shape} and {content.shape}")
    difference = stylised @ LUMA - content @ LUMA
    return np.clip(content + difference[..., None], 0, 255)


def match_histogram(image, reference):
    """`image` (H, W, C) with each channel's distribution of values in `reference` (h, w, C): float32, 0..255.

    Monotone: the value below which a share p of the image lies becomes the value below which the same share
    of the reference lies. Shares are counted in steps of one grey level and interpolated between them.
    """
    matched = np.empty(image.shape, np.float32)
    for c in range(image.shape[2]):
        levels, shares = _shares(image[:, :, c])
        wanted, their_shares = _shares(reference[:, :, c])
        matched[:, :, c] = np.interp(image[:, :, c], levels, np.interp(shares, their_shares, wanted))
    return matched


def _shares(channel):
    """The grey levels that occur, and the share of the pixels below each, plus half of those at it."""
    counts = np.bincount(to_uint8(channel).ravel(), minlength=256)
    below = (np.cumsum(counts) - counts / 2) / counts.sum()
    return np.flatnonzero(counts).astype(np.float64), below[counts > 0]


def sheet(rows, captions=(), gap=8):
    """Lay `rows`, a list of rows of images (H, W, 3), 0..255, out on white: one (H, W, 3) uint8 image.

    Each cell has the size of the largest image; smaller ones are centred. Rows may differ in length.
    captions: rows of strings in the same arrangement, written under the images (None or "": none)
    gap: white pixels between and around the cells
    """
    sizes = [image.shape[:2] for row in rows for image in row]
    if not sizes:
        raise ValueError("sheet needs at least one image")
    font = ImageFont.load_default()
    line = 2 + sum(font.getbbox("Åg")[1::2]) if captions else 0
    height, width = np.max(sizes, axis=0).tolist()
    step_y, step_x = height + line + gap, width + gap
    page = Image.new("RGB", (gap + step_x * max(map(len, rows)), gap + step_y * len(rows)), "white")
    draw = ImageDraw.Draw(page)
    for top, row in zip(range(gap, page.height, step_y), rows, strict=True):
        for left, image in zip(range(gap, page.width, step_x), row, strict=False):
            h, w = image.shape[:2]
            page.paste(Image.fromarray(to_uint8(image)), (left + (width - w) // 2, top + (height - h) // 2))
    for top, texts in zip(range(gap, page.height, step_y), captions or (), strict=False):
        for left, text in zip(range(gap, page.width, step_x), texts, strict=False):
            draw.text((left, top + height + 1), _fitted(text or "", font, width), fill="black", font=font)
    return np.array(page)


def _fitted(text, font, width):
    """As much of `text` as fits into `width` pixels, with "..." if it was cut."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..." if text else ""


def check_writable(path):
    """Return `path` as a Path if an image can be saved under that name; raise UserError if not."""
    return check_file(path, SAVED)


def save(path, image, quality=95):
    """Write `image`, 0..255, clipped and rounded, in the format of the suffix of `path`.

    image: (H, W, 3) RGB; (H, W) grey; or (H, W, 4) RGB and alpha, on white if the format has no transparency.
    JPEG has `quality` 95 and full colour resolution: stylised images have hard colour edges. The file is
    written whole or not at all; missing folders are made. Raises UserError for an unknown suffix and if the
    file cannot be written.
    """
    path = check_writable(path)
    picture = Image.fromarray(to_uint8(image))
    if picture.mode == "RGBA" and path.suffix.lower() in OPAQUE:
        picture = _to_rgb(picture)
    options = {"quality": quality}
    if path.suffix.lower() in (".jpg", ".jpeg"):
        options["subsampling"] = 0
    try:
        with written_whole(path) as temporary:
            picture.save(temporary, **options)
    except (OSError, ValueError, KeyError) as error:
        what = f"{picture.width}x{picture.height} ({getattr(error, 'strerror', None) or error})"
        raise UserError(f"{path}: could not be written as {what}") from error
