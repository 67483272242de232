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
HINTS = {
    "scaled": "Look for a factor that is missing or there twice: a mean for a sum, a 2, a sign, gamma, std.",
    "transposed": "Look for a missing .T, for axes in another order, or for reshape in place of transpose.",
    "flipped": "Remove or add a [::-1]: backward uses each tap of the kernel where forward used it.",
    "swapped-gradients": "Return the gradients in the order of forward's arguments.",
    "missing-sum": "Each use of the number sends a gradient back: add up over all of them (check axis=).",
    "partial-batch": "Add up over the whole batch: += in a loop over N, or N among the axes of the sum.",
    "overwritten": "Where several gradients meet they add up: += in place of =.",
    "border": "Look at the padding, at the first and last index of a slice, and at what is cropped.",
    "shifted": "Compare each slice's start with forward's: what forward read from, backward writes to.",
    "missing-term": "Write the derivative term by term: each path from the input to y gives one.",
    "wrong-mask": "dy goes back where forward let x through: 0 at exactly 0, one of several equal largest.",
    "running-statistics": "In training the batch's own mean and std count; the running ones are for later.",
    "stale-cache": "Take everything from `cache`, and nothing from an earlier call or a global variable.",
    "changed-input": "Work on a copy: others still need the array (x = x * mask in place of x *= mask).",
    "wrong-shape": "A gradient has its input's shape: sum over broadcast axes, crop what was padded.",
    "not-finite": "Look for a division by 0, log or sqrt of 0, and for np.empty that is not filled.",
    "zero": "Is it computed, and is it what is returned in this place?",
    "noise": "Make new arrays in x's dtype: np.zeros(shape, x.dtype), np.zeros_like(x).",
    "unknown": "Check one small case by hand, for example a single pixel and a single channel.",
}


@dataclass
class Diagnosis:
    """One mistake: `cause` in one word, which `gradient` ("dw"), the `evidence`, a `hint` what to try."""

    cause: str
    gradient: str
    evidence: str
    hint: str = ""

    def __post_init__(self):
        self.hint = self.hint or HINTS[self.cause]


@dataclass
class InputResult:
    """The comparison for the input `name`; its gradient is called "d" + name.

    passed, reason     True, False or None, and why where the numbers alone do not say it
    error              largest |analytic - numeric| relative to the gradient (nan when nothing was compared)
    analytic, numeric  what backward gave and what differences gave, at the flat indices `rows` of the input
    kinks              elements left out because forward has no derivative there
    differs            False where the numbers agree and only a tie or a side effect is wrong
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
    differs: bool = False

    @property
    def size(self):
        return int(np.prod(self.shape))

    @property
    def worst(self):
        """Positions in `analytic`, the largest difference first."""
        return np.argsort(-abs(self.analytic - self.numeric), kind="stable")

    def place(self, position):
        """The index of a compared element as text: "dw[0, 2, 1, 3]"."""
        index = np.unravel_index(self.rows[position], self.shape)
        return f"d{self.name}[{', '.join(map(str, index))}]"

    def gap(self):
        """|analytic - numeric| in the input's shape, nan where it was not compared."""
        gap = np.full(self.size, np.nan)
        gap[self.rows] = abs(self.analytic - self.numeric)
        return gap.reshape(self.shape)

    def lines(self, drawn):
        """The verdict; with `drawn` also where the errors are, and the largest three."""
        head = f"  d{self.name:<8} {VERDICTS[self.passed]:12}"
        if not len(self.rows):
            return [f"{head} {self.reason}"]
        looked = len(self.rows) + self.kinks
        which = f"all {looked}" if looked == self.size else f"a random {looked} of {self.size}"
        kinks = f", {self.kinks} at kinks left out" if self.kinks else ""
        agrees = " at random inputs" if self.passed is False and not self.differs else ""
        lines = [f"{head} error {self.error:.1e}{agrees}   {which} elements{kinks}", *wrapped(self.reason)]
        if drawn and self.differs:
            lines += [f"    {row}" for row in heat_map(self.gap(), axis_names(self.name, self.shape))]
            for k in self.worst[:3]:
                a, n = self.analytic[k], self.numeric[k]
                lines.append(f"    {self.place(k)}   backward {a: .7g}   differences {n: .7g}")
        return lines


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

    def __repr__(self):
        causes = [f"  {d.cause} ({d.gradient}): {d.evidence}" for d in self.diagnoses[:3]]
        short = [textwrap.shorten(text, WIDTH, placeholder=" ...") for text in causes]
        return "\n  ".join([f"{self.title}: {VERDICTS[self.passed]}, error {self.error:.1e}", *short])

    def __str__(self):
        """One screen: each verdict, each cause, and a picture of the gradient that was diagnosed first."""
        verdict = f"{VERDICTS[self.passed]}   (seed {self.seed}, tolerance {self.tolerance:g})"
        lines, shown = [f"{self.title}: {verdict}"], [d.gradient for d in self.diagnoses[:1]]
        for result in self.inputs:
            lines += result.lines(drawn=f"d{result.name}" in shown)
        for d in self.diagnoses[:4]:
            lines += wrapped(f"{d.cause} ({d.gradient}): {d.evidence}", "  ")
            lines += wrapped(d.hint and f"try: {d.hint}")
        return "\n".join([*lines, *(row for note in self.notes for row in wrapped(f"note: {note}", "  "))])

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
        inputs = []
        for r in self.inputs:
            numbers = [(r.place(k), float(r.analytic[k]), float(r.numeric[k])) for k in r.worst[:10]]
            worst = [dict(zip(("place", "backward", "differences"), row, strict=True)) for row in numbers]
            known = {"gradient": f"d{r.name}", "passed": r.passed, "reason": r.reason, "kinks": r.kinks}
            error = float(r.error) if len(r.rows) else None
            inputs.append({**known, "error": error, "checked": len(r.rows), "size": r.size, "worst": worst})
        return {**vars(self), "inputs": inputs, "diagnoses": [vars(d) for d in self.diagnoses]}


def axis_names(name, shape):
    """A letter for each axis of an input: N, H, W, C for images, KH, KW, C, O for kernels."""
    if len(shape) == 4:
        return ("KH", "KW", "C", "O") if name.split(".")[-1] == "w" else ("N", "H", "W", "C")
    known = {1: ("C",), 2: ("N", "C"), 3: ("N", "C", "C'")}
    return known.get(len(shape), tuple(f"axis {k}" for k in range(len(shape))))


def wrapped(text, indent="    "):
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent + "  ")


def table_of(gap, axes):
    """(2-D table, down, across): the largest error over all axes but the two along which it varies most."""
    if gap.ndim < 2:
        gap, axes = gap.reshape(1, -1), ("", *axes)

    def variance(pair):
        mean = np.nan_to_num(gap).mean(tuple(k for k in range(gap.ndim) if k not in pair))
        return np.var(mean) * (1.05 if "W" in axes[pair[1]] else 1)  # in doubt, what looks like a picture

    down, across = max(itertools.combinations(range(gap.ndim), 2), key=variance)
    rest = tuple(k for k in range(gap.ndim) if k not in (down, across))
    return np.fmax.reduce(gap, axis=rest) if rest else gap, axes[down], axes[across]


def heat_map(gap, axes, most=(8, 20)):
    """Lines that draw an array of |errors| (nan: unknown)."""
    if gap.ndim == 0 or not np.any(gap > 0):
        return []
    table, down, across = table_of(gap, axes)
    for axis in (0, 1):
        if table.shape[axis] > most[axis]:  # each cell is then the largest of a block
            edges = np.linspace(0, table.shape[axis], most[axis] + 1).astype(int)[:-1]
            table = np.fmax.reduceat(table, edges, axis=axis)
    top, cells = np.nanmax(table), [2 * shade for shade in SHADES]
    cells[0] = f"{SHADES[0]} "
    lines = [f"largest |error|, {down} down, {across} across   {SHADES[0]} exact  {SHADES[-1]} {top:.2g}"]
    for row in table:
        steps = [-1 if np.isnan(v) else 0 if v <= 1e-6 * top else 1 + min(3, int(4 * v / top)) for v in row]
        lines.append(f"  {''.join(cells[s] if s >= 0 else '  ' for s in steps)}".rstrip())
    return lines


def figure(report):
    """A matplotlib Figure of the gradient diagnosed first: where it is wrong, backward and differences."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(9, 3.4), layout="constrained")
    picture.suptitle(f"{report.title}: {VERDICTS[report.passed]}", fontsize=10)
    first = report.diagnoses[0].gradient if report.diagnoses else None
    drawn = [r for r in report.inputs if len(r.rows)]
    if not drawn:
        return picture
    result = max(drawn, key=lambda r: (f"d{r.name}" == first, r.differs, r.error))
    places, values = picture.subplots(1, 2)
    if result.differs and result.shape:
        table, down, across = table_of(result.gap(), axis_names(result.name, result.shape))
        image = places.imshow(table, cmap="magma", vmin=0, aspect="auto", interpolation="nearest")
        picture.colorbar(image, ax=places)
        places.set(title="|backward - differences|", xlabel=across, ylabel=down)
    else:
        places.text(0.5, 0.5, "backward and differences agree", ha="center", va="center")
        places.axis("off")
    values.plot(result.numeric, result.analytic, ".", color="#b5367a")
    values.axline((0, 0), slope=1, color="grey", linewidth=0.8)
    values.set(title=f"d{result.name}: right on the line", xlabel="differences", ylabel="backward")
    return picture
