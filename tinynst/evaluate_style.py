"""How good is a style net? As good as so many evaluations of L-BFGS on the picture itself, under the same objective.

The paper's measurement (section 4.1, Fig. 5). For each photo: the objective of what the net paints, that of L-BFGS on the
pixels after each evaluation, begun from noise and from the photo, and after how many of them it is as good as the net.
Neither picture is clipped. The objective is the one that the net was trained with, as its weights record it.
"""

import argparse
import csv
import json
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from . import device, images, weights
from .cli import UserError
from .files import only_run, written_whole
from .losses import StyleObjective
from .networks import VGG16
from .optimize import descend, load_style, noise
from .runs import layer_weights
from .samples import STYLES
from .stylize import load_style as load_net

COLUMNS = ("image", "what", "evaluation", "seconds", "content", "style", "tv", "total")
STARTS = ("noise", "photo")
MILESTONES = (100, 300, 500)  # evaluations: the paper's table of times


def add_options(parser):
    """The options of `evaluate style`."""
    add, required = parser.add_argument, {"required": True, "default": argparse.SUPPRESS}
    add("--weights", metavar="NAME|FILE.h5", help="the net: a style that ships, or weights from training", **required)
    add("--images", metavar="IMAGE|FOLDER", nargs="+", help="photos that the net was not trained on", **required)
    add("--out", metavar="FOLDER", help="where the report goes", **required)
    add("--style", metavar="IMAGE", help="the painting (default: the one that ships under the name that the weights record)")
    add(
        "--style-weights",
        nargs="+",
        type=float,
        metavar="W",
        help="in place of those recorded: one, or one for each style layer",
    )
    add("--count", type=int, metavar="N", help="the first N photos only")
    add("--size", type=int, default=256, help="the middle square of each photo, its shorter side made this many pixels")
    add("--evaluations", type=int, default=100, metavar="N", help="of the objective, for each photo and start")
    add("--starts", nargs="+", choices=STARTS, default=list(STARTS), help="where the optimisation begins")
    add("--seed", type=int, default=0, help="of the noise")
    add("--resume", action="store_true", help="keep the photos that the report in --out holds, and go on with the others")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="where to compute")


def evaluate(s):
    """Measure, photo by photo, and write the report anew after each: it can be stopped at any time."""
    for name, least in {"size": 32, "evaluations": 1, "count": 1, "seed": 0}.items():
        if getattr(s, name) is not None and getattr(s, name) < least:
            raise UserError(f"--{name} is {getattr(s, name)}; it should be at least {least}")
    paths = images.find(s.images)[: s.count]
    xp = device.select(s.device)
    net, objective, settings = net_and_objective(s.weights, xp, s.style, s.style_weights)
    settings |= {name: getattr(s, name) for name in ("size", "evaluations", "starts", "seed")}
    out = Path(s.out)
    rows = _begin(out, settings, s.resume)
    with only_run(out):
        _write(out / "settings.json", json.dumps(settings, indent=1))
        done = {row["image"] for row in rows}
        for path in tqdm([path for path in paths if path.name not in done], "photos", disable=None):
            photo = middle(images.load(path, s.size), s.size)
            for row in _measure(net, objective, photo, s, xp):
                rows.append(dict(zip(COLUMNS, (path.name, *row), strict=True)))
            _write_rows(out / "curves.csv", rows)
            text = report(rows, s.evaluations)
            _write(out / "report.md", text)
            plot(out / "curves.png", rows, f"{settings['weights']} at {s.size}x{s.size}")
    print(report(rows, s.evaluations))
    print(f"in {out}: report.md, curves.csv, curves.png")


def net_and_objective(name_or_path, xp, painting=None, style_weights=None):
    """A trained style net, the objective that its weights record (another painting's or with other style weights, where they
    are given), and what a report says of both, a dict. Raises UserError where the weights do not record all of it."""
    path = weights.find(name_or_path)
    net, about = load_net(path, xp), weights.load(path)[1]
    recorded = about["settings"]
    try:
        painting = Path(painting or STYLES / about["style_image"])
        content = layer_weights(recorded["content_layers"], recorded["content_weights"], "content")
        style = layer_weights(recorded["style_layers"], style_weights or recorded["style_weights"], "style")
        style_size, tv = recorded["style_size"], recorded["tv_weight"]
    except KeyError as error:
        raise UserError(f"{path} does not record {error}, so its objective is not known: train this style again") from None
    if not painting.exists():
        raise UserError(f"the painting {painting} is not there: give it with --style")
    settings = {"weights": path.stem, "painting": painting.name, "style_size": style_size}
    settings |= {"content": content, "style": style, "tv": tv}
    image = xp.asarray(load_style(painting, style_size)[None])
    return net, StyleObjective(VGG16.load(xp=xp), image, content, style, tv), settings


def _begin(out, settings, resume):
    """The rows that are there already, of the same measurement; none, in a new folder, without `resume`."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; it should be a folder")
    kept = out / "curves.csv"
    if not resume and kept.exists():
        raise UserError(f"{out} holds a report already: go on with it with --resume, or choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    if not kept.exists():
        return []
    before = json.loads((out / "settings.json").read_text())
    for name, value in settings.items():
        if before.get(name) != value:
            raise UserError(f"the report in {out} was begun with {name} {before.get(name)}, not {value}: choose another --out")
    return read_rows(kept)


def middle(image, size):
    """The middle square of `image` (H, W, 3), `size` pixels to the side."""
    top, left = ((length - size) // 2 for length in image.shape[:2])
    return image[top : top + size, left : left + size]


def _measure(net, objective, photo, s, xp):
    """Rows (what, evaluation, seconds, content, style, tv, total) of one photo (H, W, 3): the net's, then each start's."""
    y = xp.asarray(photo[None])
    targets = objective.targets(y)
    yield "itself", 0, 0.0, *_terms(objective(y, targets)[0])
    passes = []
    for _ in range(4):  # the first makes what later ones use again
        painted, seconds = _timed(lambda: net.forward(y), xp)
        passes.append(seconds)
    yield "net", 0, float(np.median(passes[1:])), *_terms(objective(painted, targets)[0])
    for start in s.starts:
        descent = descend(objective, targets, photo if start == "photo" else noise(*photo.shape[:2], s.seed), s.evaluations)
        for k in range(1, s.evaluations + 1):
            (terms, _), seconds = _timed(lambda descent=descent: next(descent), xp)
            yield start, k, seconds, *_terms(terms)


def _terms(terms):
    return [terms[name] for name in COLUMNS[4:]]


def _timed(work, xp):
    """(what `work()` returns, seconds until the device had done it)."""
    device.synchronize(xp)
    begin = time.perf_counter()
    result = work()
    device.synchronize(xp)
    return result, time.perf_counter() - begin


# --- the report -------------------------------------------------------------------------------------------------------


def read_rows(path):
    """The rows of curves.csv, numbers as numbers."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row.update({name: float(row[name]) for name in COLUMNS[3:]}, evaluation=int(row["evaluation"]))
    return rows


def curves(rows):
    """{start: {image: [lowest total so far, after each evaluation]}}, {image: the net's row} and {image: the photo's own}."""
    found = {}
    for row in rows:
        found.setdefault(row["what"], {}).setdefault(row["image"], []).append(row)
    own, nets = ({name: by[0] for name, by in found.pop(what).items()} for what in ("itself", "net"))
    lowest = {
        start: {name: np.fmin.accumulate([row["total"] for row in by]) for name, by in images.items()}
        for start, images in found.items()
    }
    return lowest, nets, own


def equal_to(curve, total):
    """After how many evaluations the curve has come down to `total`; None if it has not."""
    reached = np.flatnonzero(np.asarray(curve) <= total)
    return int(reached[0]) + 1 if len(reached) else None


def report(rows, evaluations):
    """The measurement as Markdown: a line for each photo, the means, and the times."""
    lowest, nets, own = curves(rows)
    marks = [k for k in (10, 20, 40, 100, 300, 500) if k <= evaluations] or [evaluations]
    head = ["photo", "itself", "net", "content", "style", "TV"]
    head += [f"{start}, {k}" for start in lowest for k in marks] + [f"equal to, from {start}" for start in lowest]
    lines = []
    for name, net in nets.items():
        line = [own[name]["total"], *(net[term] for term in ("total", "content", "style", "tv"))]
        line += [lowest[start][name][k - 1] for start in lowest for k in marks]
        lines.append((name, line, [equal_to(lowest[start][name], net["total"]) for start in lowest]))
    means = np.mean([line for _, line, _ in lines], axis=0)
    equals = [[equal[k] for _, _, equal in lines] for k in range(len(lowest))]
    middle = [_middle_of(found, evaluations) for found in equals]
    table = [head, ["---", *["---:"] * (len(head) - 1)]]
    table += [[name, *map(_thousands, line), *(_count(k, evaluations) for k in equal)] for name, line, equal in lines]
    table += [[f"mean of {len(lines)} (last columns: median)", *map(_thousands, means), *middle]]
    text = "\n".join("| " + " | ".join(line) + " |" for line in table)
    return (
        "Objectives in thousands: of the photo itself, of what the net paints (total and its three terms), and the lowest that "
        "L-BFGS has reached after so many evaluations. Equal to: the evaluations after which L-BFGS is as good as the net.\n\n"
        f"{text}\n\n{_times(rows)}\n"
    )


def _times(rows):
    one_pass = float(np.median([row["seconds"] for row in rows if row["what"] == "net"]))
    one = float(np.median([row["seconds"] for row in rows if row["what"] in STARTS]))
    lines = [["", "seconds", "times one pass"], ["---", "---:", "---:"], ["one pass of the net", f"{one_pass:.3f}", "1"]]
    for count in (1, *MILESTONES):
        lines.append(
            [f"{count} evaluation{'s' * (count > 1)} of L-BFGS", f"{one * count:.2f}", f"{one * count / one_pass:.1f}"]
        )
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{table}\n\n(Medians; those of {', '.join(map(str, MILESTONES))} are so many times that of one.)"


def _thousands(value):
    return f"{value / 1000:,.0f}" if value >= 10000 else f"{value / 1000:.2g}"


def _count(k, evaluations):
    return f"over {evaluations}" if k is None else str(k)


def _middle_of(found, evaluations):
    """The median of counts, those that were not reached being the largest."""
    middle = np.median([np.inf if k is None else k for k in found])
    return f"{middle:g}" if np.isfinite(middle) else f"over {evaluations}"


def plot(path, rows, title):
    """The paper's Fig. 5: the mean over the photos and the range, beside the lines of the net and of the photo itself."""
    from matplotlib.figure import Figure  # half a second to import, and not before there is something to draw

    lowest, nets, own = curves(rows)
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.add_subplot(yscale="log", xlabel="evaluations of the objective", ylabel="objective")
    axes.set_title(f"{title}, {len(nets)} photo{'s' * (len(nets) > 1)}: mean, smallest to largest")
    for start, by in lowest.items():
        values = np.array(list(by.values()))
        steps = np.arange(1, values.shape[1] + 1)
        (line,) = axes.plot(steps, values.mean(axis=0), label=f"L-BFGS from {'noise' if start == 'noise' else 'the photo'}")
        axes.fill_between(steps, values.min(axis=0), values.max(axis=0), color=line.get_color(), alpha=0.15, linewidth=0)
    totals = [net["total"] for net in nets.values()]
    axes.axhline(np.mean(totals), color="black", label="the net, one pass")
    axes.axhspan(min(totals), max(totals), color="black", alpha=0.1, linewidth=0)
    axes.axhline(np.mean([row["total"] for row in own.values()]), color="grey", linestyle="--", label="the photo itself")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _write_rows(path, rows):
    with written_whole(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def _write(path, text):
    with written_whole(path) as temporary:
        temporary.write_text(text)
