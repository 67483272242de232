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
from ..samples import PHOTOS
from ..settings import Settings, option
from . import metrics, superres
from .report import grouped, write_csv

LAYERS = metrics.DISTANCE_LAYERS
SCORES = ("psnr", "ssim", "distance", *LAYERS)
SQUARE, ZOOM = 112, 2  # the side of the squares on a sheet, in pixels of the photo, and their enlargement

# PSNR and SSIM in the paper's supplement, {(set, factor): {method: ...}}; methods are named by their loss
PAPER = {
    ("Set5", 4): {"bicubic": (28.43, 0.8114), "pixel": (28.40, 0.8205), "feature": (27.09, 0.7680)},
    ("Set14", 4): {"bicubic": (25.99, 0.7301), "pixel": (25.75, 0.6994), "feature": (24.99, 0.6731)},
    ("BSD100", 4): {"bicubic": (25.96, 0.682), "pixel": (25.91, 0.6680), "feature": (24.95, 0.6317)},
    ("Set5", 8): {"bicubic": (23.80, 0.6455), "pixel": (24.77, 0.6864), "feature": (23.26, 0.7058)},
    ("Set14", 8): {"bicubic": (22.37, 0.5518), "pixel": (23.02, 0.5787), "feature": (21.64, 0.5837)},
    ("BSD100", 8): {"bicubic": (22.11, 0.5322), "pixel": (22.54, 0.5526), "feature": (21.35, 0.5474)},
}


@dataclasses.dataclass(init=False)
class EvaluateSuperresSettings(Settings):
    set: list[str] | None = option(
        None, "folders of photos, each a test set (default: the small photos that ship)", metavar="FOLDER"
    )
    factor: int = option(4, "how many times larger", choices=(2, 4, 8))
    weights: list[str] | None = option(
        None,
        "nets to compare with bicubic; none after --weights: only bicubic (default: all for this factor)",
        nargs="*",
        metavar="NAME|FILE.h5",
    )
    match_histogram: bool = option(False, "give results the histograms of their input, as in the paper")
    rows: int = option(8, "photos of each set on its sheet; 0: no sheet", least=0, metavar="N")
    device: str = option("cpu", device.HELP)
    out: str = option(
        None,
        "folder for scores.csv and the sheets, which are replaced",
        flags=("-o", "--out"),
        metavar="OUT",
        required=True,
    )


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


def score_set(paths, methods, factor, vgg, pictures=0):
    """The scores of `methods`, {name: function that enlarges low}, on the photos `paths`.

    Returns rows {"image", "method", **scores}, the last ones of the image "mean", and of the first `pictures`
    photos the squares for a sheet, [([image, ...], [caption, ...]), ...]. Raises UserError, naming the file,
    for a photo that cannot be read or is too small.
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
        if len(sheet) < pictures:
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
    sets = _sets(s.set or [PHOTOS], check_folder(s.out))
    xp = device.select(s.device)
    methods, losses = {"bicubic": functools.partial(bicubic, factor=s.factor)}, {"bicubic": "bicubic"}
    for name, net, loss in _nets(s, xp):
        losses[name] = loss
        methods[name] = functools.partial(superres.enlarge, net, match_histogram=s.match_histogram)
    vgg, rows, sheets = VGG16.load(xp=xp), [], {}
    for name, paths in sets.items():
        table, sheet = score_set(paths, methods, s.factor, vgg, s.rows)
        rows += [{"set": name, "factor": s.factor, **row} for row in table]
        _print_means(name, s.factor, len(paths), table[-len(methods) :], losses)
        if sheet:
            sheets[name] = images.sheet(*zip(*sheet, strict=True))
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
    """(name, net, loss it was trained with) of --weights, or of all that ship for --factor. Raises UserError
    for weights of another factor."""
    shipped = [] if s.weights is not None else weights.shipped("superres")
    names = [name for name in shipped if weights.read_about(weights.find(name, None))["factor"] == s.factor]
    used = set()
    for given in s.weights or names:
        net, about = superres.load_superres(given, xp)
        if net.factor != s.factor:
            raise UserError(f"--weights {given} enlarges {net.factor} times: use --factor {net.factor}")
        name = given if Path(given).stem in used else Path(given).stem
        used.add(name)
        yield name, net, about.get("loss")


def _print_means(name, factor, count, means, losses):
    """A line for each method, with what the paper reports for its loss."""
    paper = PAPER.get((name, factor), {})
    head = f"{name}, x{factor}, {count} image{'s' * (count != 1)}"
    titles = f"{'PSNR':>7} {'SSIM':>7} {'distance':>9}  {' '.join(f'{layer:>8}' for layer in LAYERS)}"
    print(f"{head:28}{titles}{'   the paper' if paper else ''}")
    for mean in means:
        line = f"{mean['method']:28}{mean['psnr']:7.2f} {mean['ssim']:7.4f} {mean['distance']:9.4f}  "
        line += " ".join(f"{mean[layer]:8.4f}" for layer in LAYERS)
        reported = paper.get(losses[mean["method"]])
        print(line + (f"   {reported[0]:.2f} / {reported[1]:.4f}" if reported else ""), flush=True)
