"""Grades what a learner wrote: the forward against the library's, then each gradient, one mistake a time."""

import contextlib
import difflib
import faulthandler
import html
import inspect
import io
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .. import layers, losses, ops, optim
from ..device import asarray, to_numpy
from ..errors import UserError
from . import run
from .cases import IMAGE, LOSSES, OPERATIONS, RESIDUAL, draw, operation_case, residual_pair
from .report import Diagnosis, Report, axis_names, heat_map, wrapped
from .shares import Compared, border, index_text, moved, noise, scaled, shares, wrong_shape, zero

ROWS = {**OPERATIONS, **LOSSES, "Residual": RESIDUAL}
FIRST = ("relu", "scaled_tanh", *list(LOSSES)[:4], "gram_matrix", "style_loss")
NAMES = tuple(dict.fromkeys((*FIRST, *ROWS, "Adam")))  # easiest first
ADAM = {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-3}, {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8}


@dataclass(frozen=True, repr=False)
class Grade:
    """What became of one operation: `passed` True, False, or None while it is not yet written.

    text     for the learner
    report   the gradients' Report, where it came that far and something is wrong
    """

    name: str
    passed: bool | None
    text: str
    report: Report | None = None

    def __repr__(self):
        return self.text

    def _repr_html_(self):
        return self.report._repr_html_() if self.report else f"<pre>{html.escape(self.text)}</pre>"


class Fault(Exception):
    """Something in the learner's result is wrong: the text that says what, and perhaps a Report."""


def check(name, forward, backward=None, seed=0):
    """Grade functions from a notebook: check("relu", my_relu, my_relu_backward). Returns a Grade.

    `name` is an operation of tinynst.ops, a loss of tinynst.losses (which returns value and gradient: no
    backward), or "Residual" or "Adam" with a class. Raises ValueError for another name.
    """
    missing = _missing(name, forward, backward)
    if missing:
        raise ValueError(missing)
    path = getattr(getattr(forward, "__code__", None), "co_filename", ".")
    return _grade(name, forward, backward, seed, np, run.Runner(path))


def _missing(name, forward, backward):
    """What is missing to grade `name`, in words; None where nothing is."""
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, 1) or [f"one of {', '.join(NAMES)}"]
        return f"there is no operation {name!r}; did you mean {near[0]}?"
    if forward is None:
        return f"{name}: {name}_backward is there but no {name}"
    if backward is None and name in OPERATIONS:
        return f"{name}: {name} is there but no {name}_backward"


def _grade(name, forward, backward, seed, xp, runner):
    """The Grade of one name, whatever the code does."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            lines = Grading(name, seed, xp, runner).lines(forward, backward)
            grade = Grade(name, True, "\n".join(lines))
        except Fault as fault:
            grade = Grade(name, False, *fault.args)
        except (Exception, SystemExit, run.TimeUp) as error:
            if error is not runner.error:
                raise
            text, function, line = runner.told()
            text = f"{runner.title}: FAIL: {text}" + (f"\n    in {function}:  {line}" if function else "")
            unwritten = isinstance(error, NotImplementedError)
            passed, text = (None, f"{function or name}: not yet written") if unwritten else (False, text)
            grade = Grade(name, passed, text)
    lines = printed.getvalue().splitlines()
    if lines:
        text = "\n    ".join([f"{runner.path.name} printed {len(lines)} lines; the first:", *lines[:4]])
        grade = replace(grade, text=f"{grade.text}\n{text:.500}")
    return grade


class Grading:
    """Grades one operation, loss or class with a Runner; `library` is what it should compute."""

    def __init__(self, name, seed, xp, runner):
        self.name, self.seed, self.xp, self.run = name, seed, xp, runner
        self.library = getattr(losses if name in LOSSES else ops, name, residual_pair(layers.Residual)[0])
        self.run.title = name

    def lines(self, forward, backward):
        """Lines about what is right. Raises Fault for what is not."""
        if self.name == "Adam":
            return [self.adam(forward, *row) for row in ((ADAM[0], ADAM[0]), (ADAM[1], {}))]
        self.parts = self.name, f"{self.name}_backward"
        if self.name == "Residual":
            self.parts = "Residual.forward", "Residual.backward"
            forward, backward = residual_pair(forward)
        pair = self.bounded(forward, backward)
        cases, lines = [operation_case(self.name, *pair, *row) for row in ROWS[self.name]], []
        for case, row in zip(cases, ROWS[self.name], strict=True):  # every forward comes first
            self.run.title = f"{case.name} ({case.label})"
            self.right_forward(pair[0], *row)
        for case in cases:
            self.run.title = f"{case.name} ({case.label})"
            report = case.check(self.seed, self.xp, seconds=4 * run.PATIENCE / 3)
            if report.passed is not True:
                if self.name == "Residual":
                    self.walked_forward(*pair, report)
                raise Fault(_one_at_a_time(report, len(lines), len(cases)), report)
            lines.append(report.line(self.name, case.label))
        self.stays_float32(*pair, *ROWS[self.name][0])
        return lines

    def bounded(self, forward, backward):
        """The learner's functions, run within bounds, and with what they return checked."""
        forth, back = self.parts
        y_name, kind = ("value", "(value, gradient)") if backward is None else ("y", "(y, cache)")

        def bounded_forward(*arguments, **options):
            result = self.run(forth, forward, *arguments, **options)
            if not isinstance(result, tuple) or len(result) != 2:
                self.fail(f"{forth} must return {kind}, it returns {type(result).__name__}")
            y, cache = self.array(f"{forth}'s {y_name}", result[0]), result[1]
            return y, cache if backward else self.array(f"{forth}'s gradient", cache)

        def bounded_backward(dy, cache):
            found = self.run(back, backward, dy, cache)
            found = enumerate(found if isinstance(found, (tuple, list)) else (found,))
            return tuple(g if g is None else self.array(f"{back}'s result {k}", g) for k, g in found)

        return bounded_forward, backward and bounded_backward

    def array(self, what, value):
        array = value if value is None or hasattr(value, "dtype") else np.asarray(value)
        if array is None or array.dtype.kind not in "fciub":
            self.fail(f"{what} is of type {type(value).__name__}; it should be an array of floats")
        return array

    def fail(self, *lines):
        if lines:
            rest = [text for line in lines[1:] for text in wrapped(line)]
            raise Fault("\n".join([f"{self.run.title}: FAIL: {lines[0]}", *rest]))

    def right_forward(self, forward, shapes, options):
        """Compare y (or the loss) and the running statistics with the library's."""
        start = draw(shapes, np.random.default_rng(self.seed))
        right = {key: array.copy() for key, array in start.items()}
        mine = {key: asarray(array.copy(), self.xp) for key, array in start.items()}
        y, own = np.asarray(self.library(**right, **options)[0]), to_numpy(forward(**mine, **options)[0])
        sizes = dict(zip("NHWC", next(iter(shapes.values())), strict=True))
        what = "value" if self.name in LOSSES else "y"
        self.fail(*explain(what, own, y, self.slips(start, options, y), sizes))
        for key in (key for key in start if key.startswith("running_")):
            unchanged = f"when it stays as it was: `{key} = ...` makes a new array, use `{key}[...] = ...`"
            what = f"{key} after the forward"
            self.fail(*explain(what, to_numpy(mine[key]), right[key], [(unchanged, start[key])]))

    def slips(self, arrays, options, y):
        """(words, y) of the library's function with one thing different, as a mistake might have it."""
        if self.name == "Residual":
            inner = ops.center_crop(arrays["x"], options["crop"])[0]
            return [("without the identity: y = layers(x)", y - inner), ("without the layers: y = x", inner)]
        tries = {}
        for key in {"b", "gamma", "beta"} & arrays.keys():
            tries[f"without {key}"] = {key: np.full(arrays[key].shape, float(key == "gamma"))}
        if "w" in arrays:
            tries["with w flipped along KH and KW"] = {"w": arrays["w"][::-1, ::-1].copy()}
        if "training" in inspect.signature(self.library).parameters:
            tries |= {f"with training={value}": {"training": value} for value in (False, True)}
        copies = ({key: array.copy() for key, array in arrays.items()} for _ in tries)
        calls = zip(tries.items(), copies, strict=True)
        return [(text, self.library(**{**own, **options, **change})[0]) for (text, change), own in calls]

    def stays_float32(self, forward, backward, shapes, options):
        """A net trains in float32: with float32 in, float64 out would stop the library's next operation."""
        own = draw(shapes, np.random.default_rng(self.seed), self.xp)
        y, cache = forward(**{key: a.astype(np.float32) for key, a in own.items()}, **options)
        results = [(f"{self.parts[0]}'s {'y' if backward else 'gradient'}", y if backward else cache)]
        gradients = backward(self.xp.ones_like(y, np.float32), cache) if backward else ()
        results += [(f"{self.parts[1]}'s result {k}", g) for k, g in enumerate(gradients)]
        for what, array in results:
            if array is not None and array.dtype != np.float32:
                what = f"{what} is {array.dtype} where x is float32: a net could not train with it"
                self.fail(what, "make new arrays in x's dtype: np.zeros(shape, x.dtype), np.zeros_like(x)")

    def walked_forward(self, forward, backward, report):
        """Name what only a residual block can do wrong: backward walks the layers in forward order."""

        class Walked(layers.Residual):
            def backward(self, dy):
                self.layers = dict(reversed(self.layers.items()))
                return super().backward(dy)

        x, dy = np.random.default_rng(1).standard_normal((2, *IMAGE))
        pairs = (forward, backward), residual_pair(Walked)
        mine, walked = (b(dy.copy(), f(x.copy(), 1, 0)[1]) for f, b in pairs)
        if not explain("dx", mine[0], walked):
            words = "exactly this comes out when the layers' backward is called in forward order"
            advice = "The last layer's backward comes first: for layer in reversed(self.layers.values())."
            report.diagnoses.insert(0, Diagnosis("transposed", "dx", words, advice))

    def adam(self, kind, settings, given):
        """Five steps of two parameters next to the library's Adam."""
        label = ", ".join(f"{key}={value}" for key, value in given.items()) or "the defaults"
        self.run.title, rng = f"Adam ({label})", np.random.default_rng(self.seed)
        start, *gradients = [draw({"w": (3, 4), "b": (5,)}, rng) for _ in range(6)]
        arrays = {name: asarray(p.copy(), self.xp) for name, p in start.items()}
        right = {name: p.copy() for name, p in start.items()}
        mine, ours = self.run("Adam", kind, dict(arrays), **given), optim.Adam(right, **settings)
        for t, g in enumerate(gradients, 1):
            before = {name: p.copy() for name, p in right.items()}
            own = {name: asarray(array.copy(), self.xp) for name, array in g.items()}
            self.run("Adam.step", mine.step, own)
            ours.step(g)
            for name, array in arrays.items():
                change = to_numpy(array) - before[name]
                if not change.any():
                    advice = f"change the array itself: p -= ..., not p = p - ..., for p of {name}"
                    self.fail(f"step {t} leaves {name} as it was before", advice)
                if not np.array_equal(to_numpy(own[name]), g[name]):
                    self.fail(f"step {t} changes the gradient of {name} in place", "work on a copy")
                self.fail(*explain(f"the change of {name} in step {t}", change, right[name] - before[name]))
        return f"{'Adam':20} {'ok':13}{len(gradients)} steps      {label}"


def _one_at_a_time(report, right, cases):
    """What is right already, then the first mistake alone."""
    so_far = f", and the gradients on {right} of {cases} kinds of inputs" if right else ""
    wrong = [r for r in report.inputs if r.passed is not True]
    first = report.diagnoses[0].gradient if report.diagnoses else ""
    shown = [r for r in wrong if f"d{r.name}" == first] or wrong[:1]
    alone = replace(report, inputs=shown, diagnoses=report.diagnoses[:1])
    rest = [f"d{r.name}" for r in wrong if r not in shown and first != "all"]
    later = f"\nalso wrong, but one at a time: {', '.join(rest)}" if rest else ""
    return f"right: the forward{so_far}\n{alone}{later}"


def explain(what, mine, right, slips=(), sizes=None):
    """What is wrong with a result `mine`, as lines of text; [] where nothing is.

    slips   pairs (words, result of that mistake);   sizes   {"N": 3, ...} to give a factor its name
    """
    axes = axis_names(what, right.shape)
    if mine.shape != right.shape:
        return [wrong_shape(what, mine.shape, right.shape, axes)]
    close = 1e-8 * np.max(abs(right), initial=0)
    wrong = ~(abs(mine - right) <= close)
    if not wrong.any():
        return []
    place = tuple(int(i) for i in np.argwhere(wrong)[0])
    count = f"; {np.count_nonzero(wrong)} of {wrong.size} elements differ" if place else ""
    where = f"{what}{index_text(place) if place else ''}"
    lines = [f"{where} is {mine[place]:.7g}, it should be {right[place] + 0.0:.7g}{count}"]

    def other(f):
        off, odd = mine - right, np.count_nonzero(~np.isfinite(mine))
        if odd:
            return "", f"{odd} of {mine.size} elements are inf or nan: look for log, sqrt or / of 0"
        if place and np.ptp(off) <= close:
            return "", f"every element is {abs(off.mean()):.6g} too {'large' if off.mean() > 0 else 'small'}"
        for words, result in slips:
            if np.shape(result) == mine.shape and np.all(abs(mine - result) <= close):
                return "", f"exactly this comes out {words}"

    def part(f):
        for axis, letter in ((0, "image"), (-1, "channel")) if mine.ndim > 2 else ():
            bad = np.moveaxis(wrong, axis, 0).reshape(wrong.shape[axis], -1).any(axis=1)
            if not bad.all():
                good, bad = (", ".join(map(str, np.flatnonzero(mask))) for mask in (~bad, bad))
                return "", f"right in {letter} {good}, wrong in {letter} {bad}"

    f = Compared(what, mine, np.arange(mine.size), right.ravel(), axes, sizes)
    reason = f.diagnose((other, zero, noise, scaled, moved, part, border, shares))
    lines += [reason[1]] if reason else []
    if right.ndim == 4 and np.isfinite(mine).all():
        lines += heat_map(abs(mine - right).max(axis=(0, 3)), "HW")
    return lines


# --- a file, a folder ---


def load(path):
    """{name: (forward, backward)} of a file, easiest first. Raises UserError when it has none."""
    return run.load(path, NAMES)


def grades(path, seed=0, xp=np, may_exit=False):
    """Yield a Grade for each operation and loss in a learner's file. Raises UserError as `load` does."""
    for name, pair in load(path).items():
        missing, runner = _missing(name, *pair), run.Runner(path, may_exit)
        yield Grade(name, False, missing) if missing else _grade(name, *pair, seed, xp, runner)
        faulthandler.cancel_dump_traceback_later()


def check_folder(folder, seed=0, xp=np):
    """Print a line for each file, easiest first, and where to go on. True when all are solved."""
    files, broken = {}, {}
    for path in sorted(Path(folder).glob("*.py")):
        try:
            files[path] = min(NAMES.index(n) if n in NAMES else len(NAMES) for n in load(path))
        except UserError as error:
            if "has nothing to check" not in str(error):
                broken[path] = str(error)
    if not files and not broken:
        raise UserError(f"{folder} has no Python file with anything to check, such as relu and relu_backward")
    width, unsolved = max(len(path.stem) for path in (*files, *broken)), []
    for path in [*sorted(files, key=files.get), *broken]:
        state = broken.get(path) or _state(list(grades(path, seed, xp, may_exit=True)))
        print(f"{path.stem:{width}}  {state}", flush=True)
        unsolved += [path] if state != "solved" else []
    count = f"{len(files) + len(broken) - len(unsolved)} of {len(files) + len(broken)} solved"
    print(f"{count}; next: tinynst gradcheck {unsolved[0]}" if unsolved else count)
    return not unsolved


def _state(results):
    """The grades of one file in a few words."""
    wrong = next((result for result in results if result.passed is False), None)
    if wrong is None:
        return "not yet written" if any(result.passed is None for result in results) else "solved"
    if wrong.report and wrong.report.diagnoses:
        first = wrong.report.diagnoses[0]
        return f"{wrong.report.title}: {first.cause} ({first.gradient})"
    return wrong.text.splitlines()[0]
