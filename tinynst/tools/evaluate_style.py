"""How good is a style net: after how many evaluations does L-BFGS on the pixels reach the same objective?

This is the paper's measurement (section 4.1, Fig. 5). For each photo: the objective of the net's output, and
of L-BFGS after each evaluation, started from noise and from the photo. Pictures are not clipped. The
objective is the one that the net was trained with, as its weights record it; each style of a net of several
has its own. The report also has measures of artefacts that the objective hardly penalises (tools/metrics.py).
"""

import dataclasses
import hashlib
import json
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from .. import device
from ..data import images, styles, weights
from ..data.files import check_folder, only_run, written_whole
from ..errors import UserError
from ..networks import VGG16
from ..samples import STYLES
from ..settings import Settings, option
from ..training.run import load_painting
from . import metrics
from .optimize import descend, noise
from .report import grouped, markdown_table, read_csv, write_csv, write_text
from .stylize import load_style

STARTS = {"noise": "L-BFGS from noise", "photo": "L-BFGS from the photo"}
ARTEFACTS = ("axis2", "axis4", "saturated", "profile")  # of the net's pictures; see metrics.py
COLUMNS = (
    "style_name",
    "image",
    "what",
    "evaluation",
    "seconds",
    "content",
    "style",
    "tv",
    "total",
    *ARTEFACTS,
)
TEXT = ("style_name", "image", "what", "profile")
MARKS = (10, 20, 40, 100, 300, 500)  # evaluations that the table shows
LEGEND = """Objectives in thousands, means: of the photo itself, of the net's output (total and its three
terms), and the lowest that L-BFGS has reached after so many evaluations. Equal to: the evaluations after
which L-BFGS is as good as the net, median (smallest to largest). Artefacts in the net's output, each 1 where
there are none: the axis peaks at periods of 2 and 4 pixels (median), the strongest line along the border; and
the share of saturated pixels (mean)."""


@dataclasses.dataclass(init=False)
class EvaluateStyleSettings(Settings):
    weights: str = option(None, "the net, or a style of it: FILE.h5:NAME", metavar="FILE.h5", required=True)
    images: list[str] = option(
        None, "photos that training did not use", metavar="IMAGE|FOLDER", required=True
    )
    out: str = option(None, "folder of the report", metavar="FOLDER", required=True)
    styles: list[str] | None = option(None, "styles of a net of several (default: all)", metavar="NAME")
    style: list[str] | None = option(
        None,
        "the paintings, by the file names in the weights (default: those that ship)",
        metavar="IMAGE|FOLDER",
    )
    size: int = option(256, "side of the square cut from the middle of each photo, in pixels", least=32)
    evaluations: int = option(100, "of the objective, for each photo and start", least=1)
    starts: list[str] = option(list(STARTS), "where L-BFGS starts", choices=tuple(STARTS))
    curves: str | None = option(
        None, "an earlier report: its L-BFGS results are used where they would be the same", metavar="FOLDER"
    )
    resume: bool = option(False, "keep the results of the report in --out, and measure the other photos")
    device: str = option("cpu", device.HELP)


def find_goals(name_or_path, wanted=None, paintings=None):
    """{style: (its recorded objective, the path of its painting)} of a net, except the identity.

    wanted: names of some of the styles; paintings: images and folders, searched before the paintings that
    ship. A single one may have any name if the net has one style. Raises UserError if a style, its painting
    or its objective is missing.
    """
    path, mix = styles.resolve(name_or_path)
    if mix and len(mix) > 1:
        raise UserError(f"--weights {name_or_path} is a mixture: name one style, or use --styles")
    about = weights.read_about(path)
    records = {record["name"]: record for record in styles.records(about)}
    names = list(mix or [name for name in records if name != styles.IDENTITY])
    for name in wanted or ():
        if name not in names:
            choices = f"choose from {', '.join(names)}"
            raise UserError(f"--styles: there is no {name!r} to measure in {name_or_path}; {choices}")
    given, goals = images.find(paintings) if paintings else [], {}
    any_name = not styles.names(about) and len(given) == 1
    for name in dict.fromkeys(wanted or names):
        file, objective = str(records[name].get("painting")), styles.objective(records[name].get("objective"))
        if objective is None:
            raise UserError(f"{path} does not record the objective of {name}: train this style again")
        painting = next((p for p in given if any_name or p.name == file), STYLES / file)
        if not painting.is_file():
            raise UserError(f"the painting {file} of the style {name} is not there: give it with --style")
        goals[name] = objective, painting
    return goals


def load_middle(path, size):
    """The square in the middle of a photo whose shorter side is made `size` pixels: (size, size, 3)."""
    photo = images.load(path, size)
    top, left = ((length - size) // 2 for length in photo.shape[:2])
    return photo[top : top + size, left : left + size]


# --- measuring ---


def evaluate(s):
    """Measure every style on every photo. The report is rewritten after each photo, so that a run may be
    stopped at any time and continued with --resume."""
    paths = images.find(s.images)
    if len({path.name for path in paths}) < len(paths):
        raise UserError("--images: two photos have the same file name, which identifies them: rename one")
    xp, out = device.select(s.device), check_folder(s.out)
    goals = find_goals(s.weights, s.styles, s.style)
    paintings = {style: load_painting(path, goal["style_size"]) for style, (goal, path) in goals.items()}
    net, name = load_style(s.weights, xp), styles.resolve(s.weights)[0].stem
    settings = {
        "weights": name,
        "size": s.size,
        "evaluations": s.evaluations,
        "starts": s.starts,
        "styles": {},
    }
    for style, (goal, _) in goals.items():
        settings["styles"][style] = goal | {"painting": hashlib.sha256(paintings[style]).hexdigest()}
    rows, known = _earlier_rows(out, settings, s.resume), _same_curves(s.curves, settings)
    done = grouped(rows, "style_name", "image")
    pairs = [(style, path) for style in goals for path in paths if (style, path.name) not in done]
    photos, vgg = {path: load_middle(path, s.size) for path in paths}, VGG16.load(xp=xp)
    objectives = {
        style: styles.style_objective(vgg, xp.asarray(painting[None]), goals[style][0])
        for style, painting in paintings.items()
    }
    out.mkdir(parents=True, exist_ok=True)
    with only_run(out):
        write_text(out / "settings.json", json.dumps(settings, indent=1))
        net.forward(xp.asarray(photos[paths[0]][None]))  # warm-up: its time does not count
        for style, path in tqdm(pairs, "photos", disable=None):
            curves = {start: known.get((style, path.name, start)) for start in s.starts}
            found = measure(net, style, objectives[style], photos[path], s.evaluations, curves)
            rows += [{"style_name": style, "image": path.name} | row for row in found]
            write_csv(out / "curves.csv", COLUMNS, rows)
            write_text(out / "report.md", report(rows, s.evaluations))
        plot(out / "curves.png", rows, f"{name} at {s.size}x{s.size}")
    print(report(rows, s.evaluations))
    print(f"in {out}: report.md, curves.csv, curves.png")


def _earlier_rows(out, settings, resume):
    """The rows of the report in `out` that is continued; none for a new report."""
    if not (out / "curves.csv").exists():
        return []
    if not resume:
        raise UserError(f"{out} holds a report already: continue it with --resume, or choose another --out")
    before = json.loads((out / "settings.json").read_text(encoding="utf-8"))
    for name, value in settings.items():
        if before.get(name) != value:
            other = f"{name} {before.get(name)}, not {value}"
            other = "other styles, paintings or objectives" if name == "styles" else other
            raise UserError(f"the report in {out} was begun with {other}: choose another --out")
    return read_csv(out / "curves.csv", TEXT)


def _same_curves(report, settings):
    """{(style, image, start): rows} of the folder `report`, for styles whose objective is the same there."""
    if report is None:
        return {}
    if not (Path(report) / "curves.csv").exists():
        raise UserError(f"--curves {report}: there is no curves.csv in this folder")
    before = json.loads((Path(report) / "settings.json").read_text(encoding="utf-8"))
    if before["size"] != settings["size"] or before["evaluations"] < settings["evaluations"]:
        other = f"{before['evaluations']} evaluations at {before['size']} pixels"
        raise UserError(f"--curves {report} has {other}: too few, or of another size")
    same = [name for name, goal in settings["styles"].items() if before["styles"].get(name) == goal]
    rows = [row for row in read_csv(Path(report) / "curves.csv", TEXT) if row["style_name"] in same]
    rows = [row for row in rows if row["evaluation"] <= settings["evaluations"]]
    return grouped(rows, "style_name", "image", "what")


def measure(net, style, objective, photo, evaluations, curves):
    """The rows of one photo (H, W, 3): the objective of the photo and of the net's output, with its
    artefacts, and that of L-BFGS from each start after each evaluation. curves: {start: rows that are known,
    or None}"""
    xp, rows = objective.vgg.xp, []

    def add(what, evaluation, seconds, terms):
        rows.append({"what": what, "evaluation": evaluation, "seconds": seconds, **terms})

    y = xp.asarray(photo[None])
    targets = objective.targets(y)
    add("itself", 0, 0.0, objective(y, targets)[0])
    painted, seconds = _timed(lambda: net.forward(y, style=style if net.styles else None), xp)
    add("net", 0, seconds, objective(painted, targets)[0])
    picture = device.to_numpy(painted)[0].clip(0, 255)
    peaks, lines = metrics.axis_peaks(picture), metrics.border_lines(picture, min(32, len(picture) // 4))
    rows[-1] |= {"axis2": peaks[2], "axis4": peaks[4], "saturated": metrics.saturated(picture)}
    rows[-1] |= {"profile": " ".join(f"{line:.4f}" for line in lines)}
    for start, known in curves.items():
        if known:
            rows += known
            continue
        first = photo if start == "photo" else noise(*photo.shape[:2])
        descent = descend(objective, targets, first, evaluations)
        for k in range(1, evaluations + 1):
            (terms, _), seconds = _timed(descent.__next__, xp)
            add(start, k, seconds, terms)
    return rows


def _timed(work, xp):
    """(result of `work()`, seconds until the device finished it)."""
    device.synchronize(xp)
    begin = time.perf_counter()
    result = work()
    device.synchronize(xp)
    return result, time.perf_counter() - begin


# --- the report ---


def totals(rows):
    return np.array([row["total"] for row in rows])


def lowest(rows):
    """{start: array (photos, evaluations)} of one style's rows: the lowest total so far."""
    by, photos = grouped(rows, "what"), len(grouped(rows, "image"))
    starts = {start: totals(by[start]).reshape(photos, -1) for start in STARTS if start in by}
    return {start: np.fmin.accumulate(array, axis=1) for start, array in starts.items()}


def equal_to(curve, total):
    """The number of evaluations after which the curve reaches `total`; infinity if it does not."""
    reached = np.flatnonzero(np.asarray(curve) <= total)
    return reached[0] + 1 if len(reached) else np.inf


def report(rows, evaluations):
    """The report as Markdown, of the rows of curves.csv: a table with a line for each photo and their mean,
    or for each of several styles, and the times."""
    by_style, photos, by = (grouped(rows, column) for column in ("style_name", "image", "what"))
    parts = by_style if len(by_style) > 1 else photos | {f"all {len(photos)}": rows}
    table = markdown_table([{"": name} | _cells(mine, evaluations) for name, mine in parts.items()])
    one_pass = np.median([row["seconds"] for row in by["net"]])
    one = np.median([row["seconds"] for start in STARTS for row in by.get(start, ())])
    return f"""Styles: {len(by_style)}. Photos: {len(photos)}.

{LEGEND}

{table}

One pass of the net takes {one_pass:.3f} s, one evaluation of L-BFGS {one:.3f} s (medians). 500 evaluations
take {500 * one / one_pass:.1f} times one pass.
"""


def _cells(rows, evaluations):
    """{column: cell} of the photos of one style that are in `rows`."""
    by, curves = grouped(rows, "what"), lowest(rows)
    nets = by["net"]
    values = {"itself": totals(by["itself"]), "net": totals(nets)}
    values |= {term: [row[term.lower()] for row in nets] for term in ("content", "style", "TV")}
    marks = [k for k in MARKS if k <= evaluations] or [evaluations]
    values |= {f"{start}, {k}": curve[:, k - 1] for start, curve in curves.items() for k in marks}
    thousands = {column: np.mean(value) / 1000 for column, value in values.items()}
    cells = {column: f"{x:,.0f}" if x >= 10 else f"{x:.2g}" for column, x in thousands.items()}
    for start, curve in curves.items():
        found = list(map(equal_to, curve, totals(nets)))
        shown = np.median(found), min(found), max(found)
        shown = [f"{k:g}" if np.isfinite(k) else f"over {evaluations}" for k in shown]
        cells[f"equal to, from {start}"] = "{} ({} to {})".format(*shown) if len(found) > 1 else shown[0]
    for period in (2, 4):
        cells[f"axis, {period}"] = f"{np.median([row[f'axis{period}'] for row in nets]):.2f}"
    lines = np.mean([np.array(row["profile"].split(), float) for row in nets], axis=0)
    saturated = 100 * np.mean([row["saturated"] for row in nets])
    return cells | {"border": f"{lines.max():.2f}", "saturated, %": f"{saturated:.2f}"}


def plot(path, rows, title):
    """The paper's Fig. 5 for each style: mean and range over the photos, lines for the net and the photo."""
    from matplotlib.figure import Figure  # takes half a second to import

    by_style = grouped(rows, "style_name")
    across = min(4, len(by_style))
    down = -(-len(by_style) // across)
    size = (8, 4.8) if across == 1 else (4 * across, 3 * down)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(f"{title}: mean, smallest to largest over the photos")
    panels = figure.subplots(down, across, squeeze=False).flat
    for axes, (style, mine) in zip(panels, by_style.items(), strict=False):
        by = grouped(mine, "what")
        axes.set(yscale="log", title=style, xlabel="evaluations", ylabel="objective")
        for k, (start, curve) in enumerate(lowest(mine).items()):
            steps = np.arange(1, curve.shape[1] + 1)
            axes.plot(steps, curve.mean(axis=0), f"C{k}", label=STARTS[start])
            axes.fill_between(steps, curve.min(axis=0), curve.max(axis=0), color=f"C{k}", alpha=0.15)
        net = totals(by["net"])
        axes.axhline(net.mean(), color="black", label="the net, one pass")
        axes.axhspan(net.min(), net.max(), color="black", alpha=0.1, linewidth=0)
        axes.axhline(totals(by["itself"]).mean(), color="grey", linestyle="--", label="the photo itself")
    figure.axes[0].legend(fontsize="small")
    for axes in figure.axes[len(by_style) :]:
        axes.set_axis_off()
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=120)
