"""Super-resolution: shrink photos, enlarge them again, and measure how far the results are from the photos.

As the field does: a photo is cut to a multiple of the factor and shrunk by antialiased bicubic, on 8 bits;
results are rounded to 8 bits; PSNR and SSIM are of the brightness (Y of BT.601; a grey file's own values),
without the outermost FACTOR pixels. The distance is the mean of those at five layers of VGG-16 (Zhang et al.
2018), each shown too: a net that was trained with the feature loss was trained at one or two of them, so look
at the others. Of distances, less is better.

Written to the folder OUT: scores.csv, every number of every image and the means, and for each set a sheet of
pictures, the square of each photo where bicubic is furthest off.
"""

import argparse
import csv
import dataclasses
import functools
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from .. import device
from ..data import degradation, images, weights
from ..data.files import written_whole
from ..errors import UserError
from ..networks import VGG16
from ..samples import PHOTOS
from ..settings import Settings, option
from . import metrics, superres
from .evaluate_style import check_folder

LAYERS = metrics.DISTANCE_LAYERS
SCORES = ("psnr", "ssim", "distance", *LAYERS)
SQUARE, ZOOM = 112, 2  # pixels of the truth that a sheet shows of a photo, and how much larger it shows them

# PSNR and SSIM that the paper's supplement reports, {(set, factor): {method: ...}}, the methods named by
# their loss
PAPER = {
    ("Set5", 4): {"bicubic": (28.43, 0.8114), "pixel": (28.40, 0.8205), "feature": (27.09, 0.7680)},
    ("Set14", 4): {"bicubic": (25.99, 0.7301), "pixel": (25.75, 0.6994), "feature": (24.99, 0.6731)},
    ("BSD100", 4): {"bicubic": (25.96, 0.682), "pixel": (25.91, 0.6680), "feature": (24.95, 0.6317)},
    ("Set5", 8): {"bicubic": (23.80, 0.6455), "pixel": (24.77, 0.6864), "feature": (23.26, 0.7058)},
    ("Set14", 8): {"bicubic": (22.37, 0.5518), "pixel": (23.02, 0.5787), "feature": (21.64, 0.5837)},
    ("BSD100", 8): {"bicubic": (22.11, 0.5322), "pixel": (22.54, 0.5526), "feature": (21.35, 0.5474)},
}


# --- one photo ----------------------------------------------------------------------------------------------


def bicubic(low, factor):
    """`low` (H, W, 3) uint8 enlarged by bicubic interpolation, (factor*H, factor*W, 3) uint8: what a net has
    to beat."""
    size = low.shape[1] * factor, low.shape[0] * factor
    return np.asarray(Image.fromarray(low).resize(size, Image.Resampling.BICUBIC))


def scores(results, truth, factor, vgg, grey=False):
    """[{"psnr": dB, "ssim": ..., "distance": ..., "relu1_2": ..., ...}, ...] of images against `truth`, all
    (H, W, 3) uint8, without their outermost `factor` pixels. `grey`: their brightness is their own value,
    0..255, not Y of BT.601 in 16..235."""
    xp = vgg.xp
    inner = slice(factor, -factor)

    def seen(image):
        """The brightness of an image, and its features."""
        image = xp.asarray(image[inner, inner])
        own = xp.asarray(images.LUMA.astype(np.float64))
        y = image.astype(np.float64) @ own if grey else metrics.luma(image)
        return y, metrics.unit_features(image.astype(np.float32), vgg)

    y_truth, f_truth = seen(truth)
    found = []
    for result in results:
        y, f = seen(result)
        at = metrics.perceptual_distance(f, f_truth)
        score = {"psnr": metrics.psnr(y, y_truth), "ssim": metrics.ssim(y, y_truth)}
        found.append({**score, "distance": sum(at.values()) / len(at), **at})
    return found


# --- a set of photos ----------------------------------------------------------------------------------------


def score_set(paths, methods, factor, vgg, rows=0):
    """The scores of `methods`, {name: function that enlarges low}, on the photos `paths`.

    Returns {path: {method: scores}} and the pictures of the first `rows` photos for `sheet`. Raises
    UserError, naming the file, for a photo that cannot be read or is too small.
    """
    table, pictures = {}, []
    for path in tqdm(paths, "measuring", unit=" images", disable=None):
        photo, _, grey = images.load_parts(path)
        height, width = photo.shape[:2]
        least = 16 + 2 * factor  # VGG-16 needs 16 pixels for relu5_3, SSIM's window 11
        if min(height, width) < least:
            raise UserError(f"{path} is {width}x{height} pixels; x{factor} needs at least {least}x{least}")
        truth = degradation.cut(photo, factor)
        low = degradation.shrink(truth, factor)
        results = [images.to_uint8(enlarge(low)) for enlarge in methods.values()]
        found = dict(zip(methods, scores(results, truth, factor, vgg, grey), strict=True))
        table[path] = found
        if len(pictures) < rows:
            named = dict(zip(methods, results, strict=True))
            pictures.append(_row(path.stem, low, truth, named, found, factor))
    return table, pictures


def means(table):
    """{method: {score: its mean over the photos}} of what `score_set` returns."""
    methods = next(iter(table.values()))
    return {
        m: {name: float(np.mean([found[m][name] for found in table.values()])) for name in SCORES}
        for m in methods
    }


def _row(name, low, truth, results, found, factor):
    """[(picture, caption), ...]: the square where bicubic is furthest off, as it went in, as each method has
    it, the truth."""
    size = min(SQUARE, *truth.shape[:2])
    top, left = _worst_square(results["bicubic"], truth, size, factor)

    def cut(image, scale, step=1):
        part = image[top // step : (top + size) // step, left // step : (left + size) // step]
        return part.repeat(scale, axis=0).repeat(scale, axis=1)

    cells = [(cut(low, ZOOM * factor, factor), f"{name}, low")]
    cells += [
        (cut(image, ZOOM), f"{method} {found[method]['psnr']:.2f} dB, {found[method]['distance']:.3f}")
        for method, image in results.items()
    ]
    return [*cells, (cut(truth, ZOOM), "truth")]


def _worst_square(image, truth, size, step):
    """(top, left) of the square of `size` pixels, at multiples of `step`, in which `image` is furthest from
    `truth`."""
    squares = ((image.astype(np.float64) - truth) ** 2).sum(axis=2)
    # to[i, j]: the sum of all above i and left of j
    to = np.pad(squares, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    inside = to[size:, size:] - to[:-size, size:] - to[size:, :-size] + to[:-size, :-size]
    top, left = np.unravel_index(inside[::step, ::step].argmax(), inside[::step, ::step].shape)
    return top * step, left * step


# --- the command --------------------------------------------------------------------------------------------


@dataclasses.dataclass(init=False)
class EvaluateSuperresSettings(Settings):
    set: list[str] | None = option(
        None,
        "folders of photos, each a test set (default: the photos that ship: small JPEGs, to try it with)",
        metavar="FOLDER",
    )
    factor: int = option(4, "how many times larger", choices=(2, 4, 8))
    weights: list[str] | None = option(
        None,
        "nets to compare with bicubic; none after --weights: only bicubic (default: all for this factor)",
        nargs="*",
        metavar="NAME|FILE.h5",
    )
    match_histogram: bool = option(
        False,
        "before measuring, give each channel of a net's result the histogram of its input, as in the paper",
    )
    rows: int = option(8, "photos of each set on its sheet; 0: no sheet", least=0, metavar="N")
    device: str = option("cpu", "where to compute", choices=("cpu", "cuda"))
    out: str = option(None, "folder for scores.csv and the sheets, which are replaced")

    @classmethod
    def add_options(cls, parser):
        names = [field.name for field in dataclasses.fields(cls)]
        super().add_options(parser, names[:-1])
        about = cls.__dataclass_fields__["out"].metadata["help"]
        parser.add_argument(
            "-o", "--out", required=True, default=argparse.SUPPRESS, metavar="OUT", help=about
        )


def evaluate(s):
    """Measure with the options `s`, print the means, write OUT."""
    sets = _sets(s.set or [PHOTOS], s.out)
    xp = device.select(s.device)
    nets = _nets(s.weights, s.factor, s.match_histogram, xp)
    nets = {"bicubic": (functools.partial(bicubic, factor=s.factor), "bicubic"), **nets}
    methods, losses = ({name: pair[k] for name, pair in nets.items()} for k in (0, 1))
    vgg, tables, sheets = VGG16.load(xp=xp), {}, {}
    for name, paths in sets.items():
        tables[name], pictures = score_set(paths, methods, s.factor, vgg, s.rows)
        _print_means(name, s.factor, tables[name], losses)
        if pictures:
            sheets[name] = images.sheet(*([[cell[k] for cell in row] for row in pictures] for k in (0, 1)))
    _write_scores(Path(s.out) / "scores.csv", s.factor, tables)
    for name, sheet in sheets.items():
        images.save(Path(s.out) / f"{name}.png", sheet)


def _sets(folders, out):
    """{name of the set: its image files}. Raises UserError for two of one name, and where OUT would be read
    as a set."""
    if not out or "" in folders:
        raise UserError("an empty name was given for --set or -o: name folders (. is this one)")
    check_folder(out)
    sets = {}
    for folder in folders:
        name = Path(folder).resolve().stem
        if name in sets:
            raise UserError(f"--set names two sets called {name}: measure them in two runs, with two -o")
        if Path(folder).resolve() in (Path(out).resolve(), *Path(out).resolve().parents):
            raise UserError(
                f"-o {out} lies in the set {folder}: its sheets would be measured next time; choose another"
            )
        sets[name] = images.find(folder)
    return sets


def _nets(names, factor, match_histogram, xp):
    """{name: (function of low that enlarges it, loss it was trained with)} of weights; None: of all that ship
    for `factor`. Raises UserError for weights of another factor."""
    if names is None:
        factors = {
            name: weights.read_about(weights.find(name, None))["factor"]
            for name in weights.shipped("superres")
        }
        names = [name for name, of in factors.items() if of == factor]
    nets = {}
    for given in names:
        net, about = superres.load_superres(given, xp)
        if net.factor != factor:
            raise UserError(f"--weights {given} enlarges {net.factor} times: use --factor {net.factor}")
        name = given if Path(given).stem in nets else Path(given).stem
        enlarge = functools.partial(superres.enlarge, net, match_histogram=match_histogram)
        nets[name] = enlarge, about.get("loss")
    return nets


def _print_means(name, factor, table, losses):
    """A line for each method; beside it what the paper reports for that loss, where it does."""
    paper = PAPER.get((name, factor), {})
    count = f"{len(table)} image{'s' * (len(table) != 1)}"
    titles = f"{'PSNR':>7} {'SSIM':>7} {'distance':>9}  {' '.join(f'{layer:>8}' for layer in LAYERS)}"
    print(f"{f'{name}, x{factor}, {count}':28}{titles}{'   the paper' if paper else ''}")
    for method, mean in means(table).items():
        line = f"{method:28}{mean['psnr']:7.2f} {mean['ssim']:7.4f} {mean['distance']:9.4f}  "
        line += " ".join(f"{mean[layer]:8.4f}" for layer in LAYERS)
        reported = paper.get(losses[method])
        print(line + (f"   {reported[0]:.2f} / {reported[1]:.4f}" if reported else ""), flush=True)


def _write_scores(path, factor, tables):
    """scores.csv: a row for each image and method, and after each set its means, as the image "mean"."""
    with written_whole(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["set", "factor", "image", "method", *SCORES])
        for name, table in tables.items():
            lines = {path: (path.name, found) for path, found in table.items()}
            for image, found in [*lines.values(), ("mean", means(table))]:
                for method, values in found.items():
                    numbers = [round(values[score], 6) for score in SCORES]
                    writer.writerow([name, factor, image, method, *numbers])
