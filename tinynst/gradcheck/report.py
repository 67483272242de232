"""What a check found, and how it is shown: as text, as a figure in a notebook, as JSON."""

import base64
import html
import io
import itertools
import textwrap
from dataclasses import dataclass, field

import numpy as np

WIDTH = 100
SHADES = "·░▒▓█"  # exact, then four steps up to the largest error
VERDICTS = {True: "ok", False: "FAIL", None: "INCONCLUSIVE"}


@dataclass
class Diagnosis:
    """One mistake: `cause` in one word, which `gradient` ("dw"), the `evidence`, a `hint` what to try."""

    cause: str
    gradient: str
    evidence: str
    hint: str = ""


@dataclass
class InputResult:
    """The comparison for the input `name`; its gradient is called "d" + name.

    passed, reason     True, False or None, and why where the numbers alone do not say it
    analytic, numeric  what backward gave and what differences gave, at the flat indices `rows` of the input
    error              largest |analytic - numeric| relative to the gradient (nan when nothing was compared)
    kinks              elements left out because forward has no derivative there
    """

    name: str
    passed: bool | None
    reason: str = ""
    error: float = np.nan
    shape: tuple = ()
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    analytic: np.ndarray = field(default_factory=lambda: np.zeros(0))
    numeric: np.ndarray = field(default_factory=lambda: np.zeros(0))
    kinks: int = 0
    differs: bool = False  # do the compared numbers differ? False where only a tie or a side effect is wrong

    @property
    def size(self):
        return int(np.prod(self.shape))

    @property
    def worst(self):
        """Positions in `analytic`, the largest difference first."""
        return np.argsort(-abs(self.analytic - self.numeric), kind="stable")

    def place(self, position):
        """The index of a compared element as text: "dw[0, 2, 1, 3]"."""
        index = ", ".join(str(int(i)) for i in np.unravel_index(self.rows[position], self.shape))
        return f"d{self.name}[{index}]"

    def gap(self):
        """|analytic - numeric| in the input's shape, nan where it was not compared."""
        gap = np.full(self.size, np.nan)
        gap[self.rows] = abs(self.analytic - self.numeric)
        return gap.reshape(self.shape)


@dataclass(repr=False)
class Report:
    """The result of a check: `passed` is True, False, or None when the check could not tell."""

    title: str
    passed: bool | None
    inputs: list
    diagnoses: list
    seed: int = 0
    tolerance: float = 1e-6
    notes: list = field(default_factory=list)

    @property
    def error(self):
        """The largest error of all inputs (nan when nothing was compared)."""
        return max((r.error for r in self.inputs if len(r.rows)), default=np.nan)

    @property
    def kinks(self):
        return sum(r.kinks for r in self.inputs)

    def __repr__(self):
        causes = [f"  {d.cause} ({d.gradient}): {d.evidence}" for d in self.diagnoses[:3]]
        lines = [textwrap.shorten(text, WIDTH, placeholder=" ...") for text in causes]
        return "\n".join(
            [f"{self.title}: {VERDICTS[self.passed]}, error {self.error:.1e}", *map("  {}".format, lines)]
        )

    def __str__(self):
        return "\n".join(report_lines(self))

    def line(self, name, label):
        """The verdict in one line."""
        count = f"{len(self.inputs)} gradient{'s' if len(self.inputs) > 1 else ''}"
        return f"{name:20} {VERDICTS[self.passed]:13}{count:13}error {self.error:.1e}  {label}"

    def plot(self, path):
        """Draw the gradient that failed first in a file (.png, .pdf, .svg, ...). Raises OSError."""
        from ..data.files import written_whole

        with written_whole(path) as temporary:
            figure(self).savefig(temporary, dpi=110)

    def _repr_html_(self):
        memory = io.BytesIO()
        figure(self).savefig(memory, format="png", dpi=110)
        picture = base64.b64encode(memory.getvalue()).decode()
        return f'<pre>{html.escape(str(self))}</pre><img src="data:image/png;base64,{picture}">'

    def as_json(self):
        """The report as dicts, lists, numbers and words."""
        inputs = [
            {
                "gradient": f"d{r.name}",
                "passed": r.passed,
                "reason": r.reason,
                "error": float(r.error) if len(r.rows) else None,
                "checked": len(r.rows),
                "kinks": r.kinks,
                "size": r.size,
                "worst": [
                    {
                        "place": r.place(k),
                        "backward": float(r.analytic[k]),
                        "differences": float(r.numeric[k]),
                    }
                    for k in r.worst[:10]
                ],
            }
            for r in self.inputs
        ]
        return {**vars(self), "inputs": inputs, "diagnoses": [vars(d) for d in self.diagnoses]}


def axis_names(name, shape):
    """A letter for each axis of an input: N, H, W, C for images, KH, KW, C, O for kernels."""
    if len(shape) == 4:
        return ("KH", "KW", "C", "O") if name.split(".")[-1] == "w" else ("N", "H", "W", "C")
    known = {1: ("C",), 2: ("N", "C"), 3: ("N", "C", "C'")}
    return known.get(len(shape), tuple(f"axis {k}" for k in range(len(shape))))


def wrapped(text, indent="    "):
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent + "  ")


def report_lines(report):
    """One screen: each verdict, each cause, and a picture of the gradient that was diagnosed first."""
    lines = [
        f"{report.title}: {VERDICTS[report.passed]}   (seed {report.seed}, tolerance {report.tolerance:g})"
    ]
    shown = next((d.gradient for d in report.diagnoses), None)
    for result in report.inputs:
        lines.append(_head(result))
        if result.reason and len(result.rows):
            lines += wrapped(result.reason)
        if result.differs and f"d{result.name}" == shown:
            lines += [f"    {text}" for text in heat_map(result.gap(), axis_names(result.name, result.shape))]
            for k in result.worst[:3]:
                a, n = result.analytic[k], result.numeric[k]
                lines.append(f"    {result.place(k)}   backward {a: .7g}   differences {n: .7g}")
    for d in report.diagnoses[:4]:
        lines += wrapped(f"{d.cause} ({d.gradient}): {d.evidence}", "  ")
        lines += wrapped(f"try: {d.hint}") if d.hint else []
    for note in report.notes:
        lines += wrapped(f"note: {note}", "  ")
    return lines


def _head(result):
    head = f"  d{result.name:<8} {VERDICTS[result.passed]:12}"
    if not len(result.rows):
        return f"{head} {result.reason}"
    looked = len(result.rows) + result.kinks
    which = f"all {looked}" if looked == result.size else f"a random {looked} of {result.size}"
    kinks = f", {result.kinks} at kinks left out" if result.kinks else ""
    agrees = "" if result.passed is not False or result.differs else " at random inputs"
    return f"{head} error {result.error:.1e}{agrees}   {which} elements{kinks}"


def heat_map(gap, axes, rows=8, columns=20):
    """Lines that draw an array of |errors| (nan: unknown) over the two axes that explain most of it."""
    if gap.ndim == 0 or not np.any(gap > 0):
        return []
    table, down, across = _most_telling(gap)
    for axis, most in ((0, rows), (1, columns)):
        if table.shape[axis] > most:  # each cell is then the largest of a block
            edges = np.linspace(0, table.shape[axis], most + 1).astype(int)[:-1]
            table = np.fmax.reduceat(table, edges, axis=axis)
    top = np.nanmax(table)
    where = f"{axes[across]} across" if down is None else f"{axes[down]} down, {axes[across]} across"
    lines = [f"largest |error|, {where}   {SHADES[0]} exact  {SHADES[-1]} {top:.2g}"]
    for row in table:
        steps = [0 if v <= 1e-6 * top else 1 + min(3, int(4 * v / top)) for v in np.nan_to_num(row)]
        cells = [
            "  " if np.isnan(v) else 2 * SHADES[s] if s else SHADES[0] + " "
            for v, s in zip(row, steps, strict=True)
        ]
        lines.append(f"  {''.join(cells)}".rstrip())
    return lines


def _most_telling(gap):
    """(table, down, across): the largest error over all but the two axes along which it varies most."""
    axes = [k for k in range(gap.ndim) if gap.shape[k] > 1] or [gap.ndim - 1]

    def largest(keep):
        others = tuple(k for k in range(gap.ndim) if k not in keep)
        return np.fmax.reduce(gap, axis=others) if others else gap

    if len(axes) == 1:
        return largest(axes)[None], None, axes[0]

    def explained(pair):
        """The variance that the mean over the other axes still has; in doubt, what looks like a picture."""
        others = tuple(k for k in range(gap.ndim) if k not in pair)
        mean = np.nansum(gap, axis=others) / np.maximum(np.sum(~np.isnan(gap), axis=others), 1)
        return np.var(mean) + 0.05 * np.nanvar(gap) * (gap.ndim == 4 and pair == (1, 2))

    down, across = max(itertools.combinations(axes, 2), key=explained)
    return largest((down, across)), down, across


def figure(report):
    """A matplotlib Figure of the gradient diagnosed first: where it is wrong, backward and differences."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(9, 3.4), layout="constrained")
    drawn = [r for r in report.inputs if len(r.rows)]
    first = report.diagnoses[0].gradient if report.diagnoses else None
    picture.suptitle(f"{report.title}: {VERDICTS[report.passed]}", fontsize=10)
    if not drawn:
        return picture
    result = next((r for r in drawn if f"d{r.name}" == first), max(drawn, key=lambda r: (r.differs, r.error)))
    places, values = picture.subplots(1, 2)
    if result.differs and result.shape:
        table, down, across = _most_telling(result.gap())
        axes = axis_names(result.name, result.shape)
        image = places.imshow(table, cmap="magma", vmin=0, aspect="auto", interpolation="nearest")
        picture.colorbar(image, ax=places)
        places.set(
            title="|backward - differences|", xlabel=axes[across], ylabel="" if down is None else axes[down]
        )
    else:
        places.text(0.5, 0.5, "backward and differences agree", ha="center", va="center")
        places.axis("off")
    values.plot(result.numeric, result.analytic, ".", color="#b5367a")
    values.axline((0, 0), slope=1, color="grey", linewidth=0.8)
    values.set(title=f"d{result.name}: right on the line", xlabel="differences", ylabel="backward")
    return picture
