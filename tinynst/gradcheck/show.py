"""How a report is shown: text for a terminal, a figure, JSON.

A picture of the error tells what a number hides: a border, a stripe, one channel. So a gradient that failed is shown as a map
of |backward - differences| over the two axes that tell most about it.
"""

import base64
import html as markup
import io
import itertools
import textwrap

import numpy as np

from ..data.files import written_whole

WIDTH = 100
SHADES = "·░▒▓█"  # none, and four steps up to the largest


def verdict(passed):
    """The word for True, False and None."""
    return {True: "ok", False: "FAIL", None: "INCONCLUSIVE"}[passed]


def line(label, report, name):
    """One line: name, verdict, gradients checked, worst error, kinks, which variant."""
    gradients = f"{len(report.inputs)} gradient{'s' if len(report.inputs) > 1 else ''}"
    return f"{name:17}{verdict(report.passed):13}{gradients:13}error {report.error:.1e}  {report.kinks:3} kinks  {label}"


def report_lines(report):
    """The whole report. Of the gradients that failed the one that was diagnosed first gets the picture: one at a time."""
    lines = [
        f"{report.title}: {verdict(report.passed)}   (seed {report.seed}, tolerance {report.tolerance:g})"
    ]
    named = {f"d{result.name}" for result in report.inputs}
    for d in report.diagnoses:
        if d.gradient not in named:
            lines += _said(d, hint=True)
    first = next((d.gradient for d in report.diagnoses if d.gradient in named), None)
    for result in report.inputs:
        lines += [_head(result)]
        if result.reason and result.probed:
            lines += _wrapped(result.reason, "            ")
        for d in [d for d in report.diagnoses if d.gradient == f"d{result.name}"][:1]:
            lines += _said(d, hint=False)
            if result.passed is False:
                lines += _sight(result) if d.gradient == first else []
            lines += _wrapped(f"try: {d.hint}", "    ")
    more = len(report.diagnoses) - sum(lines_.startswith("  ") and "): " in lines_ for lines_ in lines)
    if more > 0:
        others = "; ".join(dict.fromkeys(f"{d.cause} ({d.gradient})" for d in report.diagnoses[-more:]))
        lines += _wrapped(f"also: {others}", "  ")
    for note in report.notes:
        lines += _wrapped(f"note: {note}", "  ")
    return lines


def result_lines(result):
    """One input's line, and when it failed the picture."""
    return [_head(result), *(_sight(result) if result.passed is False else [])]


def _head(result):
    head = f"  d{result.name:<8} {verdict(result.passed):12}"
    if not result.probed:
        return f"{head} {result.reason}"
    of = "all" if result.probed == result.size else "a random sample of"
    head += f" error {result.error:.1e}   {of} {result.probed} of {result.size} elements"
    if result.method != "differences":
        head += f" by {result.method}"
    head += f", {result.kinks} kinks skipped"
    return head + (f", {result.unresolved} too noisy" if result.unresolved else "")


def _said(d, hint):
    lines = _wrapped(f"{d.cause} ({d.gradient}): {d.evidence}", "  ")
    return lines + (_wrapped(f"try: {d.hint}", "    ") if hint else [])


def _wrapped(text, indent):
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent + "  ")


def _sight(result):
    """The map, the worst elements, and the error against the step."""
    lines = [f"    {text}" for text in heat_map(result.gap, result.axes)] if result.gap is not None else []
    for k in result.worst[:3]:
        place = f"d{result.name}[{', '.join(str(i) for i in result.indices[k])}]"
        values = f"backward {result.analytic[k]: .7g}   differences {result.numeric[k]: .7g}"
        lines.append(f"    {place}   {values}   error {result.errors[k]:.1e}")
    return lines + [f"    {text}" for text in _step_lines(result)]


def _step_lines(result):
    steps = result.steps[::2]
    if not steps:
        return []
    off = abs(result.analytic[result.worst[0]] - result.numeric[result.worst[0]])
    return [
        "step          " + " ".join(f"{step:7.0e}" for step, _ in steps),
        "differences   " + " ".join(f"{error:7.0e}" for _, error in steps) + "   off by so much",
        f"backward is off by {off:.1e} at every step: large steps truncate, small ones round, it does neither",
    ]


def heat_map(gap, axes, rows=8, columns=40):
    """Lines of text: the largest of `gap` (an array of |errors|, nan where unknown) over its two most telling axes.

    `axes`: a letter for each axis. [] where there is nothing to draw.
    """
    if gap is None or gap.ndim == 0 or not np.any(gap > 0):
        return []
    table, down, across = _telling(gap)
    table = _shrunk(table, rows, columns // 2)
    top = np.nanmax(table)
    others = [axes[k] for k in range(gap.ndim) if k not in (down, across)]
    where = f"{axes[down]} down, {axes[across]} across" if down is not None else f"{axes[across]} across"
    largest = f", largest of {', '.join(others)}" if others else ""
    lines = [f"|backward - differences|, {where}{largest}   {SHADES[0]} exact  {SHADES[-1]} {top:.2g}"]
    for row in table:
        cells = []
        for value in row:
            if np.isnan(value):
                cells.append("  ")
            elif value <= 1e-6 * top:
                cells.append(SHADES[0] + " ")
            else:
                cells.append(2 * SHADES[1 + min(3, int(4 * value / top))])
        lines.append(f"  {''.join(cells)}".rstrip())
    return lines


def _telling(gap):
    """`gap` reduced to its two most telling axes, (rows, columns), and which they are: those whose indices tell most of an
    error's size. (1, columns), None and the axis where there is but one."""
    long = [k for k in range(gap.ndim) if gap.shape[k] > 1] or [gap.ndim - 1]
    if len(long) == 1:
        return _largest(gap, (long[0],))[None], None, long[0]

    spread = np.nanvar(gap)

    def told(pair):
        """How much of the variance the mean over the other axes has still; in doubt, what looks like a picture."""
        others = tuple(k for k in range(gap.ndim) if k not in pair)
        counts = np.sum(~np.isnan(gap), axis=others)
        mean = np.nansum(gap, axis=others) / np.maximum(counts, 1)
        between = np.sum(counts * (mean - np.nanmean(gap)) ** 2) / max(np.sum(counts), 1)
        return between / max(spread, 1e-300) + 0.05 * (gap.ndim == 4 and pair in ((0, 1), (1, 2)))

    pair = max(itertools.combinations(long, 2), key=told)
    return _largest(gap, pair), *pair


def _largest(gap, keep):
    """The largest over all other axes; nan only where all are."""
    others = tuple(k for k in range(gap.ndim) if k not in keep)
    filled = (
        np.where(np.isnan(gap), -1.0, gap).max(axis=others) if others else np.where(np.isnan(gap), -1.0, gap)
    )
    return np.where(filled < 0, np.nan, filled)


def _shrunk(table, rows, columns):
    """At most so many rows and columns, each the largest of a block."""
    for axis, most in ((0, rows), (1, columns)):
        size = table.shape[axis]
        if size > most:
            edges = np.linspace(0, size, most + 1).astype(int)[:-1]
            filled = np.maximum.reduceat(np.where(np.isnan(table), -1.0, table), edges, axis=axis)
            table = np.where(filled < 0, np.nan, filled)
    return table


# --- a figure --------------------------------------------------------------------------------------------------------


def figure(report):
    """A matplotlib Figure of the first gradient that failed, else the one with the largest error: where it is wrong, backward
    against differences, and what the step does to differences."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(11, 3.6), layout="constrained")
    drawn = [r for r in report.inputs if r.checked]
    if not drawn:
        picture.text(0.02, 0.5, "\n".join(report_lines(report)), family="monospace", fontsize=8, va="center")
        return picture
    first = report.diagnoses[0].gradient if report.diagnoses else None
    result = next((r for r in drawn if f"d{r.name}" == first), None) or max(
        drawn, key=lambda r: (r.passed is False, r.error)
    )
    places, values, curve = picture.subplots(1, 3)
    _draw_places(places, result)
    _draw_values(values, result)
    _draw_steps(curve, result)
    picture.suptitle(_headline(report, result), fontsize=10)
    return picture


def _headline(report, result):
    d = next((d for d in report.diagnoses if d.gradient == f"d{result.name}"), None)
    said = f"{d.cause} ({d.gradient}): {d.evidence}" if d else f"d{result.name}: {verdict(result.passed)}"
    return "\n".join(
        [f"{report.title}: {verdict(report.passed)}   (seed {report.seed})", *textwrap.wrap(said, 120)]
    )


def _draw_places(axes, result):
    axes.set_title("|backward - differences|", fontsize=9)
    if result.gap is None or result.gap.ndim == 0:
        axes.axis("off")
        return
    table, down, across = _telling(result.gap)
    image = axes.imshow(table, cmap="magma", vmin=0, aspect="auto", interpolation="nearest")
    axes.figure.colorbar(image, ax=axes)
    for ticks in (axes.xaxis, axes.yaxis):
        ticks.get_major_locator().set_params(integer=True)
    axes.set_xlabel(result.axes[across])
    axes.set_ylabel(result.axes[down] if down is not None else "")


def _draw_values(axes, result):
    axes.plot(result.numeric, result.analytic, ".", color="#b5367a")
    ends = [float(f(np.concatenate([result.numeric, result.analytic]))) for f in (np.min, np.max)]
    axes.plot(ends, ends, color="grey", linewidth=0.8)
    axes.set_title(f"d{result.name}: on the line where right", fontsize=9)
    axes.set_xlabel("differences")
    axes.set_ylabel("backward")


def _draw_steps(axes, result):
    axes.set_title("error against the step", fontsize=9)
    axes.set_xlabel("step")
    steps = [(h, e) for h, e in result.steps if e > 0]
    if not steps:
        axes.axis("off")
        return
    axes.loglog(*zip(*steps, strict=True), "o-", markersize=3, label="differences")
    worst = result.worst[0]
    off = abs(result.analytic[worst] - result.numeric[worst])
    if off > 0:
        axes.axhline(off, color="#b5367a", label="backward")
    axes.legend(fontsize=8)


def png(report):
    """The figure as the bytes of a PNG."""
    memory = io.BytesIO()
    figure(report).savefig(memory, format="png", dpi=110)
    return memory.getvalue()


def plot(report, path):
    """The figure in a file."""
    with written_whole(path) as temporary:
        figure(report).savefig(temporary, dpi=110)


def html(report):
    """Text and figure, for a notebook."""
    picture = base64.b64encode(png(report)).decode()
    return f'<pre>{markup.escape(str(report))}</pre><img src="data:image/png;base64,{picture}">'


# --- for machines ----------------------------------------------------------------------------------------------------


def as_json(report):
    """The report as dicts, lists, numbers, words and None."""
    return {
        "title": report.title,
        "passed": report.passed,
        "seed": report.seed,
        "tolerance": report.tolerance,
        "diagnoses": [vars(d) for d in report.diagnoses],
        "notes": list(report.notes),
        "inputs": [_result_json(result) for result in report.inputs],
    }


def _result_json(result):
    return {
        "gradient": f"d{result.name}",
        "passed": result.passed,
        "reason": result.reason,
        "error": float(result.error) if result.checked else None,
        "method": result.method,
        "checked": result.checked,
        "kinks": result.kinks,
        "unresolved": result.unresolved,
        "size": result.size,
        "worst": [
            {
                "index": [int(i) for i in result.indices[k]],
                "backward": float(result.analytic[k]),
                "differences": float(result.numeric[k]),
                "error": float(result.errors[k]),
            }
            for k in result.worst[:10]
        ],
    }
