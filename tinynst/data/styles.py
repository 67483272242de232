"""The styles that a weights file holds: what is known of each, its rows in the net, and how a user names them.

A net of several styles has, in each norm, a row of gamma and beta for each. Its weights record under "styles" in the same
order what each row was trained for: {"name", "title", "painter", "source", "objective", "thumbnail", ...}.
"""

import base64
import csv
import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import UserError
from ..losses import StyleObjective
from ..networks.vgg import LAYERS
from . import images, weights

GALLERY = "gallery"  # the file of many styles that ships
IDENTITY = "identity"  # the row that was trained without a style: it gives the photo back
THUMBNAIL = 72  # pixels: about 2 kB as JPEG, so that a style, with its rows, is less than 10


def record(painting, objective):
    """What a weights file says of a style: `objective` (JSON-able), and all that SOURCES.tsv beside the painting says of it.
    The name is the file's, without its suffix. No copy of the painting: it may not be ours to give away."""
    painting = Path(painting)
    known = {"name": painting.stem, "painting": painting.name}
    sources = painting.with_name("SOURCES.tsv")
    if sources.is_file():
        with open(sources, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                if row.get("file") == painting.name:
                    title = ", ".join(filter(None, (row.get("title"), row.get("year"))))
                    found = {
                        "title": title,
                        "painter": row.get("author"),
                        "source": row.get("source") or row.get("origin"),
                    }
                    known |= {key: value for key, value in found.items() if value}
    return known | {"objective": objective}


def encoded(picture):
    """A thumbnail of what the net paints, (H, W, 3) in 0..255, as text that JSON can hold."""
    data = io.BytesIO()
    Image.fromarray(images.to_uint8(images.at_most(picture, THUMBNAIL))).save(data, "JPEG", quality=80)
    return base64.b64encode(data.getvalue()).decode("ascii")


def thumbnail(record):
    """A photo in this style, small, (H, W, 3) uint8, or None."""
    if not record.get("thumbnail"):
        return None
    with Image.open(io.BytesIO(base64.b64decode(record["thumbnail"])), formats=("JPEG",)) as picture:
        return np.asarray(picture.convert("RGB"))


def records(about):
    """The records of the styles in weights that say `about` of themselves; of a net of one style, one."""
    if about.get("styles"):
        return about["styles"]
    known = {
        "painting": about.get("style_image"),
        "title": about.get("summary"),
        "objective": objective(about.get("settings")),
    }
    return [{"name": Path(known["painting"] or "style").stem, **known}]


def names(about):
    """The names of the rows, () where the net has one style and no rows."""
    found = about.get("styles") or ()
    return tuple(record["name"] for record in found) if len(found) > 1 else ()


def objective(settings):
    """What a style was trained for, from a run's settings (any JSON); None where they do not say it."""
    wanted = ("content_layers", "content_weights", "style_layers", "style_weights", "tv_weight", "style_size")
    return {name: settings[name] for name in wanted} if set(wanted) <= set(settings or ()) else None


def layer_weights(layers, values, kind, option=None):
    """{layer: weight} of the options --KIND-layers (or `option`) and --KIND-weights, one weight for all or one each; zeros are
    left out, they would cost as much as the others. Raises UserError."""
    option = option or f"--{kind}-layers"
    for layer in layers:
        if layer not in LAYERS:
            raise UserError(f"{option}: there is no layer {layer!r}; choose from {', '.join(LAYERS)}")
    if len(set(layers)) < len(layers):
        raise UserError(f"{option} names a layer twice")
    values = values * len(layers) if len(values) == 1 else values
    if len(values) != len(layers) or not all(0 <= v < float("inf") for v in values):
        raise UserError(
            f"--{kind}-weights should be one number of at least 0, or one for each of {len(layers)} layers"
        )
    return {layer: value for layer, value in zip(layers, values, strict=True) if value}


def style_objective(vgg, painting, objective):
    """The StyleObjective of `objective`, as a record has it, for a painting (1, H, W, 3)."""
    content, style = (
        layer_weights(objective[f"{k}_layers"], objective[f"{k}_weights"], k) for k in ("content", "style")
    )
    return StyleObjective(vgg, painting, content, style, objective["tv_weight"])


def described(record):
    """A line about a style: its title and painter, as far as they are known."""
    return (
        ", ".join(filter(None, (record.get("title"), record.get("painter"))))
        or record.get("painting")
        or record["name"]
    )


# --- rows -------------------------------------------------------------------------------------------------------------


def with_rows(arrays, rows):
    """The arrays of a net with other rows: a number in `rows` for each row of the new net, which begins as that row of the
    old one. One number and no list: a net of one style, with vectors for tables."""
    changed = dict(arrays)
    for name, array in arrays.items():
        if name.endswith((".gamma", ".beta")):
            changed[name] = np.atleast_2d(array)[rows]
    return changed


def extract(source, name, target, half=False):
    """Write one style of the many at `source` as a net of its own. Raises UserError where there is no such style."""
    path = weights.find(source)
    arrays, about = weights.load(path)
    known = names(about)
    if name not in known:
        raise UserError(
            f"{path} has no style {name!r}; choose from {', '.join(known) or 'none: it holds one style only'}"
        )
    if Path(target).exists() and Path(target).samefile(path):
        raise UserError(f"{target} is the file to read: give the result another name")
    one = records(about)[known.index(name)]
    about = {**about, "styles": [one], "style_image": one.get("painting"), "summary": described(one)}
    weights.save(target, with_rows(arrays, known.index(name)), about, half, thumbnail(one))


# --- names ------------------------------------------------------------------------------------------------------------


def resolve(text):
    """Where the style is that a user means by `text`, and how much of each of its net's styles: (Path, {name: share} or None).

        starry_night                     a style that ships
        starry_night:0.6 great_wave:0.4  a mixture of styles that ship
        FILE.h5                          a net of one style, or the first of several
        FILE.h5:NAME, FILE.h5:A:0.6 B    a style, or a mixture, of the many in a file

    Raises UserError, with the names that there are, where the text means nothing.
    """
    text = str(text)
    file = re.fullmatch(r"(.+\.h5):(.+)", text)
    if file and not Path(text).is_file():
        path = weights.find(file[1])
        return path, _mixture(file[2], names(weights.read_about(path)))
    gallery = weights.SHIPPED / f"{GALLERY}.h5"
    known = names(weights.read_about(gallery)) if gallery.is_file() else ()
    if {word.partition(":")[0] for word in text.split()} & set(known):
        return gallery, _mixture(text, known)
    try:
        return weights.find(text), None
    except UserError:
        if (
            known
            and not text.endswith(".h5")
            and not Path(text).exists()
            and text not in weights.shipped(None)
        ):
            _mixture(text, (*known, *weights.shipped("style")))  # says which word is wrong
        raise


def _mixture(text, known):
    """{name: share} of "A:0.6 B:0.4"; shares that are not said are one."""
    mix = {}
    for word in text.split():
        name, _, share = word.partition(":")
        if name not in known:
            there = ", ".join(known) or "none: it holds one style only"
            raise UserError(
                f"there are no style weights called '{name}': choose from {there}, or give the path of a .h5 file"
            )
        try:
            mix[name] = mix.get(name, 0.0) + (float(share) if share else 1.0)
        except ValueError:
            raise UserError(
                f"--style: the share of {name} is {share!r}; it should be a number, as in {name}:0.5"
            ) from None
    return mix


def shipped():
    """{name: record} of all styles that ship: the gallery's, then those in files of their own."""
    found = {}
    for file in sorted(weights.shipped("style"), key=lambda name: name != GALLERY):
        about = weights.read_about(weights.find(file))
        several = names(about)
        found |= {
            (record["name"] if several else file): {"file": file, **record} for record in records(about)
        }
    return found
