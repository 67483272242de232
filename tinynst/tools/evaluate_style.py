"""How good is a style net: after how many evaluations does L-BFGS on the pixels reach the same objective?

This is the paper's measurement (section 4.1, Fig. 5). For each photo: the objective of the net's output, and
that of L-BFGS after each evaluation, started from noise and from the photo. Pictures are not clipped. The
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
from ..losses import StyleObjective
from ..networks import VGG16
from ..samples import STYLES
from ..settings import Settings, option
from ..training.run import load_painting
from . import metrics
from .optimize import descend, noise
from .report import grouped, markdown_table, read_csv, write_csv, write_text
from .stylize import load_style as load_net

TERMS = ("content", "style", "tv", "total")
COLUMNS = ("style_name", "image", "what", "evaluation", "seconds", *TERMS)  # of curves.csv
EYE_COLUMNS = ("style_name", "image", "axis2", "axis4", "border", "saturated", "profile")  # of eyes.csv
TEXT = ("style_name", "image", "what", "profile")
STARTS = {"noise": "L-BFGS from noise", "photo": "L-BFGS from the photo"}
LEGEND = """Objectives in thousands, means: of the photo itself, of what the net paints (total and its three
terms), and the lowest that L-BFGS has reached after so many evaluations. Equal to: the evaluations after
which L-BFGS is as good as the net, median (smallest to largest). What the eye sees in what the net paints,
each 1 where there is nothing: the axis peaks at periods of 2 and 4 pixels (median), the strongest line along
the border; and the share of saturated pixels (mean)."""


@dataclasses.dataclass(init=False)
class EvaluateStyleSettings(Settings):
    weights: str = option(
        None, "the net, or one style of it: FILE.h5:NAME", metavar="NAME|FILE.h5", required=True
    )
    images: list[str] = option(
        None, "photos that training did not use", metavar="IMAGE|FOLDER", required=True
    )
    out: str = option(None, "folder of the report", metavar="FOLDER", required=True)
    styles: list[str] | None = option(None, "styles of a net of several (default: all)", metavar="NAME")
    style: list[str] | None = option(
        None,
        "the paintings, matched with the file names in the weights (default: those that ship); the painting "
        "of a net of one style may have any name",
        metavar="IMAGE|FOLDER",
    )
    style_weights: list[float] | None = option(
        None, "replace the recorded weights: one, or one for each style layer", metavar="W"
    )
    count: int | None = option(None, "only the first N photos", least=1, metavar="N")
    size: int = option(256, "side of the square cut from the middle of each photo, in pixels", least=32)
    evaluations: int = option(100, "of the objective, for each photo and start", least=1, metavar="N")
    starts: list[str] = option(list(STARTS), "where the optimisation starts", choices=tuple(STARTS))
    seed: int = option(0, "of the noise", least=0)
    curves: list[str] | None = option(
        None,
        "earlier reports: their L-BFGS results and times are reused where the same run would be repeated",
        metavar="FILE.csv|FOLDER",
    )
    resume: bool = option(False, "keep the results of the report in --out, and measure the other photos")
    device: str = option("cpu", device.HELP)


def find_goals(name_or_path, wanted=None, paintings=None, style_weights=None):
    """{style: (objective, painting (H, W, 3))} of a net, except the identity. The objective is a dictionary
    for settings.json: equal ones give equal curves.

    wanted: names of some of the styles; paintings: images and folders, searched before the paintings that
    ship; style_weights: instead of the recorded ones. Raises UserError if a style, its painting or its
    objective is missing.
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
        file, recorded = str(records[name].get("painting")), styles.objective(records[name].get("objective"))
        if recorded is None:
            raise UserError(f"{path} does not record the objective of {name}: train this style again")
        painting = next((p for p in given if any_name or p.name == file), STYLES / file)
        if not painting.is_file():
            raise UserError(f"the painting {file} of the style {name} is not there: give it with --style")
        recorded["style_weights"] = style_weights or recorded["style_weights"]
        image, goal = load_painting(painting, recorded["style_size"]), {"painting": painting.name}
        goal |= {"pixels": hashlib.sha256(image.tobytes()).hexdigest(), "style_size": recorded["style_size"]}
        for kind in ("content", "style"):
            layers, values = recorded[f"{kind}_layers"], recorded[f"{kind}_weights"]
            goal[kind] = styles.layer_weights(layers, values, kind)
        goals[name] = goal | {"tv": recorded["tv_weight"]}, image
    return goals


def make_objective(vgg, goal, painting):
    """The StyleObjective of a goal of `find_goals`."""
    return StyleObjective(vgg, vgg.xp.asarray(painting[None]), goal["content"], goal["style"], goal["tv"])


def middle(image, size):
    """The square of `size` pixels in the middle of `image` (H, W, 3)."""
    top, left = ((length - size) // 2 for length in image.shape[:2])
    return image[top : top + size, left : left + size]


# --- measuring ---


def evaluate(s):
    """Measure every style on every photo. The report is rewritten after each photo, so that a run may be
    stopped at any time and continued with --resume."""
    paths = images.find(s.images)[: s.count]
    if len({path.name for path in paths}) < len(paths):
        raise UserError("--images: two photos have the same file name, which identifies them: rename one")
    xp, out = device.select(s.device), check_folder(s.out)
    goals = find_goals(s.weights, s.styles, s.style, s.style_weights)
    net, source = load_net(s.weights, xp), styles.resolve(s.weights)[0]
    settings = {"weights": source.stem, "styles": {name: goal for name, (goal, _) in goals.items()}}
    settings |= {name: getattr(s, name) for name in ("size", "evaluations", "starts", "seed")}
    earlier = _earlier_curves(s.curves or (), settings)
    rows, eyes = _begin(out, settings, s.resume)
    pairs = [(style, path) for style in goals for path in paths]
    if s.curves:
        found = [earlier.get((style, path.name), {}) for style, path in pairs]
        same = sum(start in curves for curves in found for start in s.starts)
        print(f"{same} of {len(pairs) * len(s.starts)} curves of L-BFGS are in earlier reports")
    done = grouped(rows, "style_name", "image")
    pairs = [(style, path) for style, path in pairs if (style, path.name) not in done]
    with only_run(out):
        write_text(out / "settings.json", json.dumps(settings, indent=1))
        photos, vgg = {path: middle(images.load(path, s.size), s.size) for path in paths}, VGG16.load(xp=xp)
        objectives = {style: make_objective(vgg, *goals[style]) for style in {style for style, _ in pairs}}
        net.forward(xp.asarray(photos[paths[0]][None]))  # warm-up: its time does not count
        for style, path in tqdm(pairs, "photos", disable=None):
            known = earlier.get((style, path.name), {})
            found, artefacts = _measure(net, style, objectives[style], photos[path], s, known)
            pair = {"style_name": style, "image": path.name}
            rows += [pair | row for row in found]
            eyes.append(pair | artefacts)
            # eyes.csv first: a photo counts as measured once it is in curves.csv
            write_csv(out / "eyes.csv", EYE_COLUMNS, eyes)
            write_csv(out / "curves.csv", COLUMNS, rows)
            write_text(out / "report.md", report(rows, eyes, s.evaluations))
        title = source.stem if len(goals) > 1 else next(iter(goals))
        plot(out / "curves.png", rows, f"{title} at {s.size}x{s.size}")
    print(report(rows, eyes, s.evaluations))
    print(f"in {out}: report.md, curves.csv, eyes.csv, curves.png")


def _read(curves):
    """(settings, rows) of the report whose curves.csv is the path `curves`."""
    return json.loads(curves.with_name("settings.json").read_text()), read_csv(curves, TEXT)


def _begin(out, settings, resume):
    """The rows of curves.csv and eyes.csv to continue with; none for a new report."""
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "curves.csv").exists():
        return [], []
    if not resume:
        raise UserError(f"{out} holds a report already: continue it with --resume, or choose another --out")
    before, rows = _read(out / "curves.csv")
    for name, value in settings.items():
        if before.get(name) != value:
            other = f"{name} {before.get(name)}, not {value}"
            other = "other styles, paintings or objectives" if name == "styles" else other
            raise UserError(f"the report in {out} was begun with {other}: choose another --out")
    eyes = grouped(read_csv(out / "eyes.csv", TEXT), "style_name", "image")
    return rows, [eyes[pair][0] for pair in grouped(rows, "style_name", "image")]


def _earlier_curves(places, settings):
    """{(style, image): {what: rows}} of the reports in `places` that L-BFGS would repeat: with the same
    objective, size and seed, and at least as many evaluations. The first report with a pair counts."""
    found, most = {}, settings["evaluations"]
    for place in map(Path, places):
        file = place / "curves.csv" if place.is_dir() else place
        if not (file.is_file() and file.with_name("settings.json").is_file()):
            raise UserError(f"--curves {place}: there is no report, curves.csv with settings.json next to it")
        before, rows = _read(file)
        if before["evaluations"] >= most and all(before[name] == settings[name] for name in ("size", "seed")):
            old, new = _objectives(before), _objectives(settings)
            same = [name for name in new if old.get(name) == new[name]]
            rows = [row for row in rows if row["style_name"] in same and row["evaluation"] <= most]
            found = grouped(rows, "style_name", "image") | found
    return {pair: grouped(mine, "what") for pair, mine in found.items()}


def _objectives(settings):
    """{style: its objective}, without the name of the painting, which may differ for the same pixels."""
    return {name: goal | {"painting": None} for name, goal in settings.get("styles", {}).items()}


def _measure(net, style, objective, photo, s, known):
    """(rows of curves.csv, row of eyes.csv) of one photo (H, W, 3): the objective of the photo, of the net's
    output, and of L-BFGS from each start, unless `known` from an earlier report, {what: rows}."""
    xp, rows = objective.vgg.xp, []

    def add(what, evaluation, seconds, terms):
        row = {"what": what, "evaluation": evaluation, "seconds": seconds}
        rows.append(row | {name: terms[name] for name in TERMS})

    y = xp.asarray(photo[None])
    targets = objective.targets(y)
    add("itself", 0, 0.0, objective(y, targets)[0])
    painted, seconds = _timed(lambda: net.forward(y, style=style if net.styles else None), xp)
    add("net", 0, seconds, objective(painted, targets)[0])
    if known and abs(known["itself"][0]["total"] - rows[0]["total"]) > 1e-3 * rows[0]["total"]:
        known = {}  # another photo with the same name
    for start in s.starts:
        rows += known.get(start, [])
        if start not in known:
            picture = photo if start == "photo" else noise(s.size, s.size, s.seed)
            descent = descend(objective, targets, picture, s.evaluations)
            for k in range(1, s.evaluations + 1):
                (terms, _), seconds = _timed(descent.__next__, xp)
                add(start, k, seconds, terms)
    picture = device.to_numpy(painted)[0].clip(0, 255)
    peaks, lines = metrics.axis_peaks(picture), metrics.border_lines(picture, min(32, s.size // 4))
    artefacts = {"axis2": peaks[2], "axis4": peaks[4], "border": float(lines.max())}
    profile = " ".join(f"{line:.4f}" for line in lines)
    return rows, artefacts | {"saturated": metrics.saturated(picture), "profile": profile}


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


def curves(rows):
    """Of one style's rows: (rows of the photos themselves, rows of the net, {start: array (photos,
    evaluations)}), the lowest total so far."""
    by = grouped(rows, "what")
    starts = {what: totals(by[what]).reshape(len(by["net"]), -1) for what in by if what in STARTS}
    lowest = {what: np.fmin.accumulate(array, axis=1) for what, array in starts.items()}
    return by["itself"], by["net"], lowest


def equal_to(curve, total):
    """The number of evaluations after which the curve reaches `total`; infinity if it does not."""
    reached = np.flatnonzero(np.asarray(curve) <= total)
    return reached[0] + 1 if len(reached) else np.inf


def counts(rows):
    """Of one style's rows: {start: [evaluations that L-BFGS needs to match the net, for each photo]}."""
    _, nets, lowest = curves(rows)
    return {start: list(map(equal_to, array, totals(nets))) for start, array in lowest.items()}


def report(rows, eyes, evaluations):
    """The report as Markdown, of the rows of curves.csv and eyes.csv: a table with a line for each photo, or
    for each of several styles, then the times."""
    by_style, photos = grouped(rows, "style_name"), grouped(rows, "image")
    several = len(by_style) > 1
    eyes_of, lines = grouped(eyes, "style_name" if several else "image"), []
    for name, mine in (by_style if several else photos).items():
        lines.append(_line(name, mine, eyes_of[name], evaluations, several))
    if not several:
        title = f"mean of {len(photos)} (last columns: median)"
        lines.append(_line(title, rows, eyes, evaluations, several))
    one_pass = np.median([row["seconds"] for row in rows if row["what"] == "net"])
    one = np.median([row["seconds"] for row in rows if row["what"] in STARTS])
    times = [{"": "one pass of the net", "seconds": f"{one_pass:.3f}", "times one pass": "1"}]
    for k in (1, 100, 300, 500):
        name, ratio = f"{k} evaluation{'s' * (k > 1)} of L-BFGS", f"{k * one / one_pass:.1f}"
        times.append({"": name, "seconds": f"{k * one:.2f}", "times one pass": ratio})
    return f"""{len(by_style)} style{"s" * several} on {len(photos)} photo{"s" * (len(photos) > 1)}.

{LEGEND}

{markdown_table(lines)}

{markdown_table(times)}

(Medians; those of 100, 300, 500 are so many times that of one.)
"""


def _line(name, rows, eyes, evaluations, several):
    """{column: cell} of the photos of one style that are in `rows` and `eyes`."""
    own, nets, lowest = curves(rows)
    values = {"itself": totals(own), "net": totals(nets)}
    if not several:
        values |= {term: [row[term.lower()] for row in nets] for term in ("content", "style", "TV")}
        marks = [k for k in (10, 20, 40, 100, 300, 500) if k <= evaluations] or [evaluations]
        values |= {f"{start}, {k}": array[:, k - 1] for start, array in lowest.items() for k in marks}
    line = {"style" if several else "photo": name}
    for column, value in values.items():
        thousands = np.mean(value) / 1000
        line[column] = f"{thousands:,.0f}" if thousands >= 10 else f"{thousands:.2g}"
    for start, found in counts(rows).items():
        cells = [f"{k:g}" if np.isfinite(k) else f"over {evaluations}" for k in _middle_and_range(found)]
        line[f"equal to, from {start}"] = "{} ({} to {})".format(*cells) if len(found) > 1 else cells[0]
    border = np.mean([np.array(row["profile"].split(), float) for row in eyes], axis=0).max()
    saturated = 100 * np.mean([row["saturated"] for row in eyes])
    axis2, axis4 = (np.median([row[name] for row in eyes]) for name in ("axis2", "axis4"))
    artefacts = {"axis, 2": axis2, "axis, 4": axis4, "border": border, "saturated, %": saturated}
    return line | {column: f"{value:.2f}" for column, value in artefacts.items()}


def _middle_and_range(values):
    return np.median(values), min(values), max(values)


def plot(path, rows, title):
    """For one style the paper's Fig. 5: mean and range over the photos, with lines for the net and for the
    photo itself. For several styles: how many evaluations L-BFGS needs to match the net."""
    from matplotlib.figure import Figure  # takes half a second to import

    by_style, photos = grouped(rows, "style_name"), len(grouped(rows, "image"))
    several = len(by_style) > 1
    figure = Figure(figsize=(8, 1.8 + 0.3 * len(by_style) if several else 4.8), layout="constrained")
    axes = figure.add_subplot()
    kind = "median" if several else "mean"
    axes.set_title(f"{title}, {photos} photo{'s' * (photos > 1)}: {kind}, smallest to largest")
    axes.grid(alpha=0.3, which="both")
    if several:
        _draw_counts(axes, by_style, max(row["evaluation"] for row in rows))
        figure.legend(loc="outside lower center", ncols=2)
    else:
        _draw_curves(axes, *curves(rows))
        axes.legend()
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _draw_curves(axes, own, nets, lowest):
    axes.set(yscale="log", xlabel="evaluations of the objective", ylabel="objective")
    for k, (start, by) in enumerate(lowest.items()):
        steps = np.arange(1, by.shape[1] + 1)
        axes.plot(steps, by.mean(axis=0), f"C{k}", label=STARTS[start])
        axes.fill_between(steps, by.min(axis=0), by.max(axis=0), color=f"C{k}", alpha=0.15, linewidth=0)
    net = totals(nets)
    axes.axhline(net.mean(), color="black", label="the net, one pass")
    axes.axhspan(net.min(), net.max(), color="black", alpha=0.1, linewidth=0)
    axes.axhline(totals(own).mean(), color="grey", linestyle="--", label="the photo itself")


def _draw_counts(axes, by_style, most):
    edge = 1.05 * most
    axes.set(xlim=(0, edge), xlabel=f"as good as so many evaluations (at the right edge: over {most})")
    found = [counts(mine) for mine in by_style.values()]
    for k, start in enumerate(found[0]):
        shown = [_middle_and_range(each[start]) for each in found]
        median, low, high = np.minimum(np.transpose(shown), edge)
        places = np.arange(len(found)) + 0.2 * k - 0.1
        axes.hlines(places, low, high, color=f"C{k}", alpha=0.5)
        axes.plot(median, places, "o", color=f"C{k}", label=STARTS[start], clip_on=False)
    axes.set_yticks(range(len(found)), list(by_style))
    axes.invert_yaxis()
