"""How good is a style net? Count how many evaluations L-BFGS on the pixels needs to match it, for the same
objective.

The paper's measurement (section 4.1, Fig. 5). For each photo: the objective of the net's output, and that of
L-BFGS after each evaluation, started from noise and from the photo. Pictures are not clipped. The objective
is the one that the net was trained with, as its weights record it; each style of a net of several has its
own. The report also has measures of artefacts that the objective hardly notices: metrics.axis_peaks,
border_lines and saturated.
"""

import csv
import dataclasses
import hashlib
import json
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from .. import device
from ..data import images, styles, weights
from ..data.files import only_run, written_whole
from ..data.styles import layer_weights
from ..errors import UserError
from ..losses import StyleObjective
from ..networks import VGG16
from ..samples import STYLES
from ..settings import Settings, option
from ..training.run import load_painting
from . import metrics
from .optimize import descend, noise
from .stylize import load_style as load_net

TERMS = ("content", "style", "tv", "total")
COLUMNS = ("style_name", "image", "what", "evaluation", "seconds", *TERMS)
EYES = ("axis2", "axis4", "border", "saturated")
EYE_COLUMNS = ("style_name", "image", *EYES, "profile")
STARTS = ("noise", "photo")
MILESTONES = (100, 300, 500)  # evaluations: the paper's table of times


@dataclasses.dataclass(init=False)
class EvaluateStyleSettings(Settings):
    weights: str = option(
        None,
        "the net: a style that ships, weights from training, or one style of a file of many, as FILE.h5:NAME",
        metavar="NAME|FILE.h5",
        required=True,
    )
    images: list[str] = option(
        None, "photos that the net was not trained on", metavar="IMAGE|FOLDER", required=True
    )
    out: str = option(None, "folder of the report", metavar="FOLDER", required=True)
    styles: list[str] | None = option(None, "styles of a net of several (default: all)", metavar="NAME")
    style: list[str] | None = option(
        None,
        "the paintings, found by the file names that the weights record (default: those that ship); the "
        "painting of a net of one style may have any name",
        metavar="IMAGE|FOLDER",
    )
    style_weights: list[float] | None = option(
        None, "instead of the recorded ones: one, or one for each style layer", metavar="W"
    )
    count: int | None = option(None, "only the first N photos", least=1, metavar="N")
    size: int = option(256, "side of the square cut from the middle of each photo, in pixels", least=32)
    evaluations: int = option(100, "of the objective, for each photo and start", least=1, metavar="N")
    starts: list[str] = option(list(STARTS), "where the optimisation starts", choices=STARTS)
    seed: int = option(0, "of the noise", least=0)
    curves: list[str] | None = option(
        None,
        "earlier reports: their L-BFGS results and times are reused where the same run would be repeated, "
        "because they do not depend on the net",
        metavar="FILE.csv|FOLDER",
    )
    resume: bool = option(False, "keep the results of the report in --out, and measure the other photos")
    device: str = option("cpu", "where to compute", choices=("cpu", "cuda"))


def check_folder(path):
    """Return `path` as a Path. Raises UserError if it is a file."""
    if Path(path).exists() and not Path(path).is_dir():
        raise UserError(f"{path} is a file; it should be a folder")
    return Path(path)


def evaluate(s):
    """Measure every style on every photo. The report is rewritten after each photo, so it can be stopped at
    any time."""
    paths = images.find(s.images)[: s.count]
    if len({path.name for path in paths}) < len(paths):
        raise UserError("--images: two photos have the same file name, which identifies them: rename one")
    xp = device.select(s.device)
    goals = find_goals(s.weights, s.styles, s.style, s.style_weights)
    net, path = load_net(s.weights, xp), styles.resolve(s.weights)[0]
    settings = {"weights": path.stem, "styles": {goal.name: goal.settings for goal in goals}}
    settings |= {name: getattr(s, name) for name in ("size", "evaluations", "starts", "seed")}
    earlier, out = _earlier(s.curves, settings), check_folder(s.out)
    rows, eyes = _begin(out, settings, s.resume)
    if s.curves:
        pairs = [(goal.name, path.name) for goal in goals for path in paths]
        same = sum(start in earlier.get(pair, {}) for pair in pairs for start in s.starts)
        print(f"{same} of {len(pairs) * len(s.starts)} curves of L-BFGS are in earlier reports")
    with only_run(out):
        _write(out / "settings.json", json.dumps(settings, indent=1))
        _measure_all(net, goals, paths, s, xp, earlier, rows, eyes)
        title = path.stem if len(goals) > 1 else goals[0].name
        plot(out / "curves.png", rows, f"{title} at {s.size}x{s.size}")
    print(report(rows, eyes, s.evaluations))
    print(f"in {out}: report.md, curves.csv, eyes.csv, curves.png")


def _measure_all(net, goals, paths, s, xp, earlier, rows, eyes):
    """Add what is missing to `rows` and `eyes`, and write the report after each photo."""
    done = {(row["style_name"], row["image"]) for row in rows}
    photos = {path: middle(images.load(path, s.size), s.size) for path in paths}
    net.forward(xp.asarray(photos[paths[0]][None]))  # warm-up: its time does not count
    vgg = VGG16.load(xp=xp)
    left = {goal: [path for path in paths if (goal.name, path.name) not in done] for goal in goals}
    with tqdm(total=sum(map(len, left.values())), desc="photos", disable=None) as bar:
        for goal, todo in left.items():
            objective = goal.objective(vgg, xp) if todo else None
            for path in todo:
                known = earlier.get((goal.name, path.name), {})
                found, seen = _measure(net, goal.name, objective, photos[path], s, xp, known)
                pair = {"style_name": goal.name, "image": path.name}
                rows += [{**pair, **row} for row in found]
                eyes.append({**pair, **seen})
                # eyes.csv first: a photo counts as measured once it is in curves.csv
                _write_rows(Path(s.out) / "eyes.csv", EYE_COLUMNS, eyes)
                _write_rows(Path(s.out) / "curves.csv", COLUMNS, rows)
                _write(Path(s.out) / "report.md", report(rows, eyes, s.evaluations))
                bar.update()


@dataclasses.dataclass(frozen=True, eq=False)
class Goal:
    """A style to measure: its name, its painting, and what the report records of its objective."""

    name: str
    painting: Path
    settings: dict

    def objective(self, vgg, xp):
        s = self.settings
        image = xp.asarray(load_painting(self.painting, s["style_size"])[None])
        return StyleObjective(vgg, image, s["content"], s["style"], s["tv"])


def find_goals(name_or_path, wanted=None, paintings=None, style_weights=None):
    """A Goal for each style of a net, except the identity.

    wanted: names of some of the styles; paintings: images and folders, searched before the paintings that
    ship; style_weights: instead of the recorded ones. Raises UserError if a style, its painting or its
    objective is missing.
    """
    path, mix = styles.resolve(name_or_path)
    if mix and len(mix) > 1:
        raise UserError(f"--weights {name_or_path} is a mixture: name one style, or use --styles")
    about = weights.read_about(path)
    known = {record["name"]: record for record in styles.records(about)}
    meant = list(mix or [name for name in known if name != styles.IDENTITY])
    for name in wanted or ():
        if name not in meant:
            choices = f"choose from {', '.join(meant)}"
            raise UserError(f"--styles: there is no {name!r} to measure in {name_or_path}; {choices}")
    given = images.find(paintings) if paintings else []
    any_name = not styles.names(about) and len(given) == 1
    goals = []
    for record in (known[name] for name in dict.fromkeys(wanted or meant)):
        recorded = styles.objective(record.get("objective"))
        if recorded is None:
            raise UserError(
                f"{path} does not record the objective of {record['name']}: train this style again"
            )
        painting = given[0] if any_name else _painting(record, given)
        goals.append(Goal(record["name"], painting, _objective_settings(painting, recorded, style_weights)))
    return goals


def _painting(record, given):
    """The path of a style's painting: one of the paths `given`, or one that ships."""
    name = str(record.get("painting"))
    for path in [*(path for path in given if path.name == name), STYLES / name]:
        if path.is_file():
            return path
    raise UserError(f"the painting {name} of the style {record['name']} is not there: give it with --style")


def _objective_settings(painting, recorded, style_weights):
    """All that an objective depends on, for JSON: equal settings give equal curves."""
    content = layer_weights(recorded["content_layers"], recorded["content_weights"], "content")
    style = layer_weights(recorded["style_layers"], style_weights or recorded["style_weights"], "style")
    pixels = hashlib.sha256(load_painting(painting, recorded["style_size"]).tobytes()).hexdigest()
    known = {"painting": painting.name, "pixels": pixels, "style_size": recorded["style_size"]}
    return known | {"content": content, "style": style, "tv": recorded["tv_weight"]}


def net_and_objective(name_or_path, xp, painting=None, style_weights=None):
    """(net, objective, settings) of one style: the recorded objective, or with the given painting and style
    weights. Raises UserError if the name stands for several styles."""
    goals = find_goals(name_or_path, None, painting, style_weights)
    if len(goals) > 1:
        names = ", ".join(goal.name for goal in goals)
        raise UserError(
            f"{name_or_path} holds {len(goals)} styles: name one, as {name_or_path}:NAME, of {names}"
        )
    net = load_net(name_or_path, xp)
    if net.styles:
        net.style = net.mixture(goals[0].name)
    return net, goals[0].objective(VGG16.load(xp=xp), xp), goals[0].settings


def _begin(out, settings, resume):
    """The rows of curves.csv and eyes.csv that exist already, for the same measurement."""
    kept = out / "curves.csv"
    if not resume and kept.exists():
        raise UserError(f"{out} holds a report already: continue it with --resume, or choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    if not kept.exists():
        return [], []
    before = json.loads((out / "settings.json").read_text())
    for name, value in settings.items():
        if before.get(name) != value:
            other = f"{name} {before.get(name)}, not {value}"
            if name == "styles":
                other = "other styles, paintings or objectives"
            raise UserError(f"the report in {out} was begun with {other}: choose another --out")
    rows = read_rows(kept)
    done = {(row["style_name"], row["image"]) for row in rows}
    return rows, [row for row in read_eyes(out / "eyes.csv") if (row["style_name"], row["image"]) in done]


def _earlier(places, settings):
    """{(style, image): {what: rows}} of the reports in `places` that L-BFGS would repeat: with the same
    objective, size and seed, and at least as many evaluations. The first report with a pair counts."""
    found = {}
    for place in map(Path, places or ()):
        file = place / "curves.csv" if place.is_dir() else place
        about = file.with_name("settings.json")
        if not (file.is_file() and about.is_file()):
            raise UserError(f"--curves {place}: there is no report, curves.csv with settings.json next to it")
        before = json.loads(about.read_text())
        goals = before.get("styles", {})
        same = {name for name, goal in settings["styles"].items() if _same(goals.get(name), goal)}
        if any(before[name] != settings[name] for name in ("size", "seed")):
            continue
        if before["evaluations"] < settings["evaluations"]:
            continue
        here = {}
        for row in read_rows(file):
            if row["style_name"] in same and row["evaluation"] <= settings["evaluations"]:
                here.setdefault((row["style_name"], row["image"]), {}).setdefault(row["what"], []).append(row)
        found = {**here, **found}
    return found


def _same(one, other):
    """Whether two objectives are equal, whatever the name of the painting's file."""
    return one is not None and {**one, "painting": None} == {**other, "painting": None}


def middle(image, size):
    """The middle square of `image` (H, W, 3), `size` pixels to the side."""
    top, left = ((length - size) // 2 for length in image.shape[:2])
    return image[top : top + size, left : left + size]


def _measure(net, style, objective, photo, s, xp, known):
    """(rows of curves.csv, row of eyes.csv) of one photo (H, W, 3): the objective of the photo, of the net's
    output, and from each start, which may be `known` from an earlier report, {what: rows}."""
    y = xp.asarray(photo[None])
    targets = objective.targets(y)
    own = objective(y, targets)[0]
    painted, seconds = _timed(lambda: net.forward(y, style=style if net.styles else None), xp)
    rows = [_row("itself", 0, 0.0, own), _row("net", 0, seconds, objective(painted, targets)[0])]
    if known and abs(known["itself"][0]["total"] - own["total"]) > 1e-3 * own["total"]:
        known = {}  # another photo with the same name
    for start in s.starts:
        rows += known[start] if start in known else _descent(objective, targets, photo, start, s, xp)
    return rows, _seen(device.to_numpy(painted)[0].clip(0, 255))


def _descent(objective, targets, photo, start, s, xp):
    """The rows of L-BFGS from one start."""
    picture = photo if start == "photo" else noise(*photo.shape[:2], s.seed)
    descent = descend(objective, targets, picture, s.evaluations)
    for k in range(1, s.evaluations + 1):
        (terms, _), seconds = _timed(lambda: next(descent), xp)
        yield _row(start, k, seconds, terms)


def _row(what, evaluation, seconds, terms):
    return {"what": what, "evaluation": evaluation, "seconds": seconds} | {
        name: terms[name] for name in TERMS
    }


def _seen(picture):
    """The measures of artefacts in a picture (H, W, 3), 0..255: a row of eyes.csv."""
    peaks = metrics.axis_peaks(picture)
    lines = metrics.border_lines(picture, min(32, min(picture.shape[:2]) // 4))
    values = peaks[2], peaks[4], float(lines.max()), metrics.saturated(picture)
    return dict(zip(EYES, values, strict=True)) | {"profile": " ".join(f"{line:.4f}" for line in lines)}


def _timed(work, xp):
    """(result of `work()`, seconds until the device finished it)."""
    device.synchronize(xp)
    begin = time.perf_counter()
    result = work()
    device.synchronize(xp)
    return result, time.perf_counter() - begin


# --- the report ---------------------------------------------------------------------------------------------


def read_rows(path):
    """The rows of curves.csv, numbers as numbers."""
    rows = _read(path, COLUMNS[4:])
    for row in rows:
        row["evaluation"] = int(row["evaluation"])
    return rows


def read_eyes(path):
    """The rows of eyes.csv, numbers as numbers; the profile by distance from the border stays a text."""
    return _read(path, EYES)


def _read(path, numbers):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row.update({name: float(row[name]) for name in numbers})
    return rows


def by_style(rows):
    """{style: its rows}, in their order."""
    found = {}
    for row in rows:
        found.setdefault(row["style_name"], []).append(row)
    return found


def curves(rows):
    """For the rows of one style: {start: {image: [lowest total so far, after each evaluation]}}, {image: the
    net's row} and {image: the photo's own}."""
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
    """The number of evaluations after which the curve reaches `total`; None if it does not."""
    reached = np.flatnonzero(np.asarray(curve) <= total)
    return int(reached[0]) + 1 if len(reached) else None


def counts(rows):
    """For the rows of one style: {start: [evaluations that L-BFGS needs to match the net, for each photo]},
    or infinity."""
    lowest, nets, _ = curves(rows)
    return {
        start: [equal_to(by[name], net["total"]) or np.inf for name, net in nets.items()]
        for start, by in lowest.items()
    }


def report(rows, eyes, evaluations):
    """The report as Markdown, from the rows of curves.csv and eyes.csv: a line for each photo, or, for
    several styles, a line for each style; then the times."""
    body = _of_photos if len(by_style(rows)) == 1 else _of_styles
    return f"{body(rows, eyes, evaluations)}\n\n{_times(rows)}\n"


def _of_photos(rows, eyes, evaluations):
    lowest, nets, own = curves(rows)
    equal = counts(rows)
    marks = [k for k in (10, 20, 40, 100, 300, 500) if k <= evaluations] or [evaluations]
    head = ["photo", "itself", "net", "content", "style", "TV"]
    head += [f"{start}, {k}" for start in lowest for k in marks]
    head += [f"equal to, from {start}" for start in lowest]
    lines, table = [], []
    for i, (name, net) in enumerate(nets.items()):
        values = [own[name]["total"], net["total"], net["content"], net["style"], net["tv"]]
        lines.append(values + [lowest[start][name][k - 1] for start in lowest for k in marks])
        reached = [_count(found[i], evaluations) for found in equal.values()]
        table.append([name, *map(_thousands, lines[-1]), *reached])
    means = map(_thousands, np.mean(lines, axis=0))
    medians = (_count(np.median(found), evaluations) for found in equal.values())
    table.append([f"mean of {len(lines)} (last columns: median)", *means, *medians])
    axis2, axis4, border, saturated = _seen_in(eyes)
    return (
        "Objectives in thousands: of the photo itself, of what the net paints (total and its three terms), "
        "and the lowest that L-BFGS has reached after so many evaluations. Equal to: the evaluations after "
        f"which L-BFGS is as good as the net.\n\n{markdown_table(head, table)}\n\n"
        f"What the eye sees in what the net paints: axis peaks {axis2} (period 2) and {axis4} (period 4), "
        f"strongest line along the border {border} (1: nothing), saturated {saturated} % of the pixels."
    )


def _of_styles(rows, eyes, evaluations):
    seen, lines = by_style(eyes), []
    for name, mine in by_style(rows).items():
        _, nets, own = curves(mine)
        line = [name, *(_thousands(np.mean([row["total"] for row in by.values()])) for by in (own, nets))]
        for found in counts(mine).values():
            median, low, high = (_count(of(found), evaluations) for of in (np.median, min, max))
            line.append(f"{median} ({low} to {high})")
        lines.append([*line, *_seen_in(seen[name])])
    head = ["style", "itself", "net", *(f"equal to, from {start}" for start in counts(mine))]
    head += ["axis, 2", "axis, 4", "border", "saturated, %"]
    photos = len({row["image"] for row in rows})
    return (
        f"{len(lines)} styles on {photos} photo{'s' * (photos > 1)}. Objectives in thousands, means: of the "
        "photo itself and of what the net paints. Equal to: the evaluations after which L-BFGS is as good as "
        "the net, median (smallest to largest). What the eye sees in what the net paints, each 1 where there "
        "is nothing: the axis peaks at periods of 2 and 4 pixels (median), the strongest line along "
        f"the border; and the share of saturated pixels (mean).\n\n{markdown_table(head, lines)}"
    )


def _seen_in(eyes):
    """Four cells from one style's rows of eyes.csv: medians of the peaks, maximum of the mean profile, mean
    share."""
    peaks = [np.median([row[name] for row in eyes]) for name in ("axis2", "axis4")]
    border = np.mean([np.array(row["profile"].split(), float) for row in eyes], axis=0).max()
    share = 100 * np.mean([row["saturated"] for row in eyes])
    return [f"{value:.2f}" for value in (*peaks, border, share)]


def _times(rows):
    one_pass = float(np.median([row["seconds"] for row in rows if row["what"] == "net"]))
    one = float(np.median([row["seconds"] for row in rows if row["what"] in STARTS]))
    lines = [["one pass of the net", f"{one_pass:.3f}", "1"]]
    for k in (1, *MILESTONES):
        name = f"{k} evaluation{'s' * (k > 1)} of L-BFGS"
        lines.append([name, f"{one * k:.2f}", f"{one * k / one_pass:.1f}"])
    table = markdown_table(["", "seconds", "times one pass"], lines)
    return f"{table}\n\n(Medians; those of {', '.join(map(str, MILESTONES))} are so many times that of one.)"


def markdown_table(head, lines):
    """A Markdown table of strings; the first column is text, the others are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _thousands(value):
    return f"{value / 1000:,.0f}" if value >= 10000 else f"{value / 1000:.2g}"


def _count(k, evaluations):
    return f"{k:g}" if np.isfinite(k) else f"over {evaluations}"


def plot(path, rows, title):
    """For one style the paper's Fig. 5: the mean and range over the photos, with lines for the net and for
    the photo itself. For several: the number of evaluations that L-BFGS needs to match each."""
    from matplotlib.figure import Figure  # takes half a second to import

    several = len(by_style(rows)) > 1
    figure = Figure(figsize=(8, 1.8 + 0.3 * len(by_style(rows)) if several else 4.8), layout="constrained")
    (_draw_counts if several else _draw_curves)(figure, rows, title)
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _draw_curves(figure, rows, title):
    lowest, nets, own = curves(rows)
    axes = figure.add_subplot(yscale="log", xlabel="evaluations of the objective", ylabel="objective")
    axes.set_title(f"{title}, {len(nets)} photo{'s' * (len(nets) > 1)}: mean, smallest to largest")
    for start, by in lowest.items():
        values = np.array(list(by.values()))
        steps = np.arange(1, values.shape[1] + 1)
        (line,) = axes.plot(steps, values.mean(axis=0), label=_from(start))
        axes.fill_between(
            steps, values.min(axis=0), values.max(axis=0), color=line.get_color(), alpha=0.15, linewidth=0
        )
    totals = [net["total"] for net in nets.values()]
    axes.axhline(np.mean(totals), color="black", label="the net, one pass")
    axes.axhspan(min(totals), max(totals), color="black", alpha=0.1, linewidth=0)
    mean = np.mean([row["total"] for row in own.values()])
    axes.axhline(mean, color="grey", linestyle="--", label="the photo itself")
    axes.grid(alpha=0.3, which="both")
    axes.legend()


def _draw_counts(figure, rows, title):
    most, photos = max(row["evaluation"] for row in rows), len({row["image"] for row in rows})
    edge = 1.05 * most
    axes = figure.add_subplot(
        xlabel=f"as good as so many evaluations (at the right edge: over {most})", xlim=(0, edge)
    )
    axes.set_title(f"{title}, {photos} photo{'s' * (photos > 1)}: median, smallest to largest")
    found = {name: counts(mine) for name, mine in by_style(rows).items()}
    for k, start in enumerate(next(iter(found.values()))):
        low, middle, high = (
            np.minimum([of(by[start]) for by in found.values()], edge) for of in (min, np.median, max)
        )
        places = np.arange(len(found)) + 0.2 * k - 0.1
        axes.hlines(places, low, high, color=f"C{k}", alpha=0.5)
        axes.plot(middle, places, "o", color=f"C{k}", label=_from(start), clip_on=False)
    axes.set_yticks(range(len(found)), list(found))
    axes.invert_yaxis()
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2)


def _from(start):
    return f"L-BFGS from {'noise' if start == 'noise' else 'the photo'}"


def _write_rows(path, columns, rows):
    with written_whole(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def _write(path, text):
    with written_whole(path) as temporary:
        temporary.write_text(text)
