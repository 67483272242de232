"""The styles in a weights file: what is known of each, its row in the net, and how a user names it.

A net of several styles has a row of gamma and beta for each of them in each norm. Its weights describe the
rows, in the same order, under "styles": a list of records {"name", "title", "painter", "source", "objective",
"thumbnail", ...}.
"""

import base64
import csv
import io
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import UserError
from ..losses import StyleObjective
from ..networks.vgg import LAYERS
from . import images, weights
from .files import check_file

GALLERY = "gallery"  # the shipped net of many styles
IDENTITY = "identity"  # the row that was trained without a style: it reproduces the photo
THUMBNAIL = 72  # pixels: about 2 kB as JPEG, so that a style with its rows takes less than 10 kB


def layer_weights(layers, values, kind):
    """{layer: weight} of the options --KIND-layers and --KIND-weights, one for all or one each,
    without those of weight zero, which would cost as much time. Raises UserError."""
    for layer in layers:
        if layer not in LAYERS:
            raise UserError(f"--{kind}-layers: there is no layer {layer!r}; choose from {', '.join(LAYERS)}")
    if len(set(layers)) < len(layers):
        raise UserError(f"--{kind}-layers names a layer twice")
    values = values * len(layers) if len(values) == 1 else values
    if len(values) != len(layers) or not all(0 <= v < float("inf") for v in values):
        each = f"one for each of {len(layers)} layers"
        raise UserError(f"--{kind}-weights should be one number of at least 0, or {each}")
    return {layer: value for layer, value in zip(layers, values, strict=True) if value}


def objective(settings):
    """What a style was trained for, from the settings of a run (any JSON); None if they do not record it."""
    wanted = ("content_layers", "content_weights", "style_layers", "style_weights", "tv_weight", "style_size")
    return {name: settings[name] for name in wanted} if set(wanted) <= set(settings or ()) else None


def style_objective(vgg, painting, objective):
    """The StyleObjective of a record's `objective` for a painting (1, H, W, 3)."""
    o = objective
    content = layer_weights(o["content_layers"], o["content_weights"], "content")
    style = layer_weights(o["style_layers"], o["style_weights"], "style")
    return StyleObjective(vgg, painting, content, style, o["tv_weight"])


def record(painting, objective):
    """The record of a style, named after the file: its `objective`, and what SOURCES.tsv next to it says. The
    painting itself is not stored: it may be under copyright."""
    painting = Path(painting)
    known, sources = {"name": painting.stem, "painting": painting.name}, painting.with_name("SOURCES.tsv")
    if sources.is_file():
        with open(sources, newline="", encoding="utf-8") as file:
            rows = {row.get("file"): row for row in csv.DictReader(file, delimiter="\t")}
        row = rows.get(painting.name, {})
        title = ", ".join(filter(None, (row.get("title"), row.get("year"))))
        source = row.get("source") or row.get("origin")
        found = {"title": title, "painter": row.get("author"), "source": source}
        known |= {key: value for key, value in found.items() if value}
    return known | {"objective": objective}


def records(about):
    """The records of the styles in weights with this description; one for a net of one style."""
    if about.get("styles"):
        return about["styles"]
    name = about.get("style_image")
    known = {"painting": name, "title": about.get("summary"), "objective": objective(about.get("settings"))}
    return [{"name": Path(name or "style").stem, **known}]


def names(about):
    """The names of the net's rows; () for a net of one style, which has no rows."""
    found = about.get("styles") or ()
    return tuple(record["name"] for record in found) if len(found) > 1 else ()


def described(record):
    """A line about a style: title and painter, as far as they are known."""
    known = ", ".join(filter(None, (record.get("title"), record.get("painter"))))
    return known or record.get("painting") or record["name"]


def encoded(picture):
    """A thumbnail of `picture` (H, W, 3), 0..255, as text that JSON can hold."""
    data = io.BytesIO()
    Image.fromarray(images.to_uint8(images.at_most(picture, THUMBNAIL))).save(data, "JPEG", quality=80)
    return base64.b64encode(data.getvalue()).decode("ascii")


def thumbnail(record):
    """The picture that `encoded` stored in a record, (H, W, 3) uint8, or None."""
    if not record.get("thumbnail"):
        return None
    return np.asarray(images.open_rgb(io.BytesIO(base64.b64decode(record["thumbnail"]))))


def with_rows(arrays, rows):
    """The arrays of a net with other rows: `rows` lists, for each new row, the old row that it copies; one
    number instead of a list makes a net of one style, with vectors instead of tables."""
    norms = (name for name in arrays if name.endswith((".gamma", ".beta")))
    return arrays | {name: np.atleast_2d(arrays[name])[rows] for name in norms}


def extract(source, name, target, half=False):
    """Write one style of the net at `source` as a net of its own. Raises UserError if it is not there."""
    path = weights.find(source)
    check_file(target, sources=[path])
    arrays, about = weights.load(path)
    known = names(about)
    if name not in known:
        choice = ", ".join(known) or "none: it holds one style only"
        raise UserError(f"{path} has no style {name!r}; choose from {choice}")
    one = records(about)[known.index(name)]
    about = {**about, "styles": [one], "style_image": one.get("painting"), "summary": described(one)}
    weights.save(target, with_rows(arrays, known.index(name)), about, half, thumbnail(one))


def resolve(text):
    """(Path of the weights, {style: share} or None) that a user means by `text`:

        starry_night                     a style that ships
        starry_night:0.6 great_wave:0.4  a mixture of styles that ship
        FILE.h5                          a net of one style, or the first of several
        FILE.h5:NAME, FILE.h5:A:0.6 B    a style, or a mixture, of those in a file

    Raises UserError, with the names that there are, if the text means nothing.
    """
    text = str(text)
    file, _, mixture = text.partition(".h5:")
    if mixture:
        path = weights.find(f"{file}.h5")
        return path, _mixture(mixture, names(weights.read_about(path)))
    gallery = weights.SHIPPED / f"{GALLERY}.h5"
    known = names(weights.read_about(gallery)) if gallery.is_file() else ()
    is_style = {word.partition(":")[0] for word in text.split()} & set(known)
    is_file = text.endswith(".h5") or Path(text).exists() or text in weights.shipped(None)
    if not is_style and (is_file or not known):
        return weights.find(text), None
    return gallery, _mixture(text, known)


def _mixture(text, known):
    """{name: share} of "A:0.6 B:0.4"; a share that is not given is 1."""
    mix = {}
    for word in text.split():
        name, _, share = word.partition(":")
        if name not in known:
            choice = ", ".join(known) or "none: it holds one style only"
            raise UserError(
                f"there are no style weights called '{name}': choose from {choice}, or a .h5 file"
            )
        try:
            mix[name] = mix.get(name, 0.0) + float(share or 1)
        except ValueError:
            wrong = f"the share of {name} is {share!r}; it should be a number, as in {name}:0.5"
            raise UserError(f"--style: {wrong}") from None
    return mix


def shipped():
    """{name: record} of all styles that ship: those of the gallery, then those in files of their own."""
    found = {}
    for file in sorted(weights.shipped("style"), key=lambda name: name != GALLERY):
        about = weights.read_about(weights.find(file))
        for each in records(about):
            found[each["name"] if names(about) else file] = {"file": file, **each}
    return found
