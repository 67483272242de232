"""Super-resolution: shrink photos, enlarge them again, and measure how far the results are from the photos.

The standard protocol: a photo is cut to a multiple of the factor and shrunk by antialiased bicubic; results
have 8 bits; PSNR and SSIM are of the brightness (Y of BT.601; a grey file's own values) without the outermost
FACTOR pixels. The distance (lower is better) is the mean over five layers of VGG-16 (Zhang et al. 2018). The
feature loss trains on one or two of them, so look at the others. Written to OUT: scores.csv, with every image
and the means, and for each set a sheet with the square of each photo where bicubic is worst.
"""

import dataclasses
import functools
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from .. import device
from ..data import degradation, images, weights
from ..data.files import check_folder
from ..errors import UserError
from ..networks import VGG16
from ..networks.transform import FACTORS
from ..samples import PHOTOS
from ..settings import Settings, option
from . import metrics, superres
from .report import grouped, markdown_table, write_csv

LAYERS = metrics.DISTANCE_LAYERS
SCORES = ("psnr", "ssim", "distance", *LAYERS)
ROWS = 8  # photos on a sheet
SQUARE, ZOOM = 112, 2  # the side of the squares on a sheet, in pixels of the photo, and their enlargement


@dataclasses.dataclass(init=False)
class EvaluateSuperresSettings(Settings):
    set: list[str] = option([str(PHOTOS)], "folders of photos, each a test set", metavar="FOLDER")
    factor: int = option(4, "how many times larger", choices=FACTORS)
    weights: list[str] | None = option(
        None, "nets to compare (default: those that ship)", nargs="*", metavar="NAME|FILE.h5"
    )
    match_histogram: bool = option(False, "give results the histograms of their input, as in the paper")
    device: str = option("cpu", device.HELP)
    out: str = option(None, "folder for the results", flags=("-o", "--out"), metavar="OUT", required=True)


def bicubic(low, factor):
    """`low` (H, W, 3) uint8 enlarged by bicubic interpolation: (factor*H, factor*W, 3) uint8."""
    size = low.shape[1] * factor, low.shape[0] * factor
    return np.asarray(Image.fromarray(low).resize(size, Image.Resampling.BICUBIC))


def scores(results, truth, factor, vgg, grey=False):
    """[{"psnr": dB, "ssim": ..., "distance": ..., "relu1_2": ..., ...}, ...] of images compared with `truth`,
    all (H, W, 3) uint8, without their outermost `factor` pixels. grey: the brightness is the grey value,
    0..255, and not Y of BT.601 in 16..235."""
    luma = vgg.xp.asarray(images.LUMA.astype(np.float64))

    def brightness_and_features(image):
        image = vgg.xp.asarray(image[factor:-factor, factor:-factor])
        y = image.astype(np.float64) @ luma if grey else metrics.luma(image)
        return y, metrics.unit_features(image.astype(np.float32), vgg)

    y_truth, f_truth = brightness_and_features(truth)
    found = []
    for y, f in map(brightness_and_features, results):
        at = metrics.perceptual_distance(f, f_truth)
        score = {"psnr": metrics.psnr(y, y_truth), "ssim": metrics.ssim(y, y_truth)}
        found.append({**score, "distance": sum(at.values()) / len(at), **at})
    return found


def score_set(paths, methods, factor, vgg):
    """The scores of `methods`, {name: function that enlarges low}, on the photos `paths`.

    Returns rows {"image", "method", **scores}, the last ones of the image "mean", and the squares of the
    first photos for a sheet, [([image, ...], [caption, ...]), ...]. Raises UserError, naming the file, for a
    photo that cannot be read or is too small.
    """
    rows, sheet = [], []
    for path in tqdm(paths, "measuring", unit=" images", disable=None):
        photo, _, grey = images.load_parts(path)
        height, width = photo.shape[:2]
        least = 16 + 2 * factor  # VGG-16 needs 16 pixels for relu5_3, SSIM's window 11
        if min(height, width) < least:
            raise UserError(f"{path} is {width}x{height} pixels; x{factor} needs at least {least}x{least}")
        truth = degradation.cut(photo, factor)
        low = degradation.shrink(truth, factor)
        results = {method: images.to_uint8(enlarge(low)) for method, enlarge in methods.items()}
        found = dict(zip(methods, scores(results.values(), truth, factor, vgg, grey), strict=True))
        rows += [{"image": path.name, "method": method, **score} for method, score in found.items()]
        if len(sheet) < ROWS:
            square = worst_square(results["bicubic"], truth, factor)
            shown = [low.repeat(factor, axis=0).repeat(factor, axis=1), *results.values(), truth]
            captions = [f"{method} {f['psnr']:.2f} dB, {f['distance']:.3f}" for method, f in found.items()]
            shown = [image[square].repeat(ZOOM, axis=0).repeat(ZOOM, axis=1) for image in shown]
            sheet.append((shown, [f"{path.stem}, low", *captions, "truth"]))
    for method, mine in grouped(rows, "method").items():
        means = {name: float(np.mean([row[name] for row in mine])) for name in SCORES}
        rows.append({"image": "mean", "method": method, **means})
    return rows, sheet


def worst_square(image, truth, step):
    """Slices (rows, columns), at multiples of `step`, of the square where `image` and `truth` differ most."""
    size = min(SQUARE, *truth.shape[:2])
    squares = ((image.astype(np.float64) - truth) ** 2).sum(axis=2)
    # sums[i, j]: the sum of all squares above i and left of j
    sums = np.pad(squares, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    inside = sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size] + sums[:-size, :-size]
    inside = inside[::step, ::step]
    return tuple(slice(k * step, k * step + size) for k in np.unravel_index(inside.argmax(), inside.shape))


def evaluate(s):
    """Measure, print the means, write OUT."""
    sets, xp = _sets(s.set, check_folder(s.out)), device.select(s.device)
    methods = {"bicubic": functools.partial(bicubic, factor=s.factor)}
    for name, net in _nets(s, xp):
        methods[name] = functools.partial(superres.enlarge, net, match_histogram=s.match_histogram)
    vgg, rows, sheets = VGG16.load(xp=xp), [], {}
    for name, paths in sets.items():
        table, sheet = score_set(paths, methods, s.factor, vgg)
        rows += [{"set": name, "factor": s.factor, **row} for row in table]
        sheets[name] = images.sheet(*zip(*sheet, strict=True))
        head, lines = f"{name}, x{s.factor}, {len(paths)} images", []
        for mean in table[-len(methods) :]:
            cells = {score: f"{mean[score]:.{2 if score == 'psnr' else 4}f}" for score in SCORES}
            lines.append({head: mean["method"]} | cells)
        print(f"{markdown_table(lines)}\n", flush=True)
    rows = [row | {name: round(row[name], 6) for name in SCORES} for row in rows]
    write_csv(Path(s.out) / "scores.csv", ("set", "factor", "image", "method", *SCORES), rows)
    for name, sheet in sheets.items():
        images.save(Path(s.out) / f"{name}.png", sheet)


def _sets(folders, out):
    """{name of the set: its image files}. Raises UserError for sets of one name, and if `out` is in a set."""
    sets = {}
    for folder in map(Path, folders):
        name = folder.resolve().stem
        if name in sets:
            raise UserError(f"--set names two sets called {name}: measure them in two runs, with two -o")
        if out.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"-o {out} lies in the set {folder}: choose a folder that is not measured")
        sets[name] = images.find(folder)
    return sets


def _nets(s, xp):
    """(name, net) of --weights, or of all that ship for --factor. Raises UserError for weights of another
    factor."""
    used = set()
    for given in weights.shipped("superres") if s.weights is None else s.weights:
        net, _ = superres.load_superres(given, xp)
        if net.factor == s.factor:
            name = given if Path(given).stem in used else Path(given).stem
            used.add(name)
            yield name, net
        elif s.weights is not None:
            raise UserError(f"--weights {given} enlarges {net.factor} times: use --factor {net.factor}")
